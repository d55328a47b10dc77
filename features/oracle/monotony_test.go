package oracle_test

import (
	"slices"
	"testing"

	"drawbridge/features/oracle"
	"drawbridge/features/platform"
	"drawbridge/topology"

	"pgregory.net/rapid"
)

// TestRemovingARuleOpensNothing: whatever the settings, no connection is served after a rule's removal that was denied before.
func TestRemovingARuleOpensNothing(t *testing.T) {
	w := topology.Default()
	vantages := w.Vantages()
	endpoints := append(w.Endpoints(), w.Bypasses()...)
	rapid.Check(t, func(t *rapid.T) {
		c := oracle.Connection{
			From: rapid.SampledFrom(vantages).Draw(t, "from"), To: rapid.SampledFrom(endpoints).Draw(t, "to"), TLS: rapid.Bool().Draw(t, "tls"),
		}
		state := platform.Start(w)
		set := platform.Settings{
			ForceTLS: platform.Toggle(rapid.IntRange(0, 2).Draw(t, "force")),
			Rules:    rapid.SliceOfN(anyRule(vantages), 1, 4).Draw(t, "rules"),
		}
		state.Set(c.To.Database, set)
		before, err := oracle.Expect(state, c)
		if err != nil {
			t.Skip("the families do not meet")
		}
		i := rapid.IntRange(0, len(set.Rules)-1).Draw(t, "removed")
		set.Rules = slices.Delete(slices.Clone(set.Rules), i, i+1)
		state.Set(c.To.Database, set)
		after, err := oracle.Expect(state, c)
		if err != nil || before.Class == oracle.Denied && after.Class != oracle.Denied {
			t.Fatalf("%s to %s: %s, then %s (%v)", c.From.Name, c.To.Addr, before, after, err)
		}
	})
}

func anyRule(vantages []topology.Vantage) *rapid.Generator[platform.Rule] {
	return rapid.Custom(func(t *rapid.T) platform.Rule {
		if rapid.Bool().Draw(t, "managed") {
			return platform.Managed(rapid.SampledFrom([]string{"osc-fr1", "osc-secnum-fr1"}).Draw(t, "region"))
		}
		a := rapid.SampledFrom(rapid.SampledFrom(vantages).Draw(t, "near").Addresses).Draw(t, "address")
		n, err := a.Prefix(rapid.IntRange(0, a.BitLen()).Draw(t, "bits"))
		if err != nil {
			t.Fatal(err)
		}
		return platform.Rule{CIDR: n}
	})
}
