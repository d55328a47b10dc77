package compile

import (
	"testing"

	"github.com/stretchr/testify/require"

	"drawbridge/enforcer/ruleset"
)

func TestClassesThatSurviveForceTLS(t *testing.T) {
	survive := map[Class]bool{
		ClassBegun: true, ClassRequested: true, ClassHello: true, ClassAcknowledged: true, ClassAnswered: true, ClassGSS: true, ClassTLS: true,
		ClassHello | ungated: true, ClassAcknowledged | ungated: true,
	}
	for c := range classBits + 1 {
		require.Equal(t, survive[c], c.Survives(), "class %d", c)
	}
	require.False(t, Class(16).Survives())
}

func TestOnlyElementsThatLetInOpen(t *testing.T) {
	added := func(sets ...string) ruleset.Change {
		var c ruleset.Change
		for _, s := range sets {
			c.AddElements = append(c.AddElements, ruleset.SetElements{Set: ruleset.Set{Name: s}, Elements: []ruleset.Element{{Key: "x"}}})
		}
		return c
	}
	for _, set := range []string{"region4", "region6", "cluster4", "keep4", "range4_osc-fr1", "users6_osc-fr1", "custom4_orders"} {
		require.True(t, OnlyOpens(added(set)), set)
	}
	for _, set := range []string{"force4", "force_pair6", "protected4", "inbound4", "outbound6", "speakers4", "ours4", "pg4", "watched4", "zone_nodes", "rules4", "region", "custom5_x"} {
		require.False(t, OnlyOpens(added(set)), set)
		require.False(t, OnlyOpens(added("region4", set)), set)
	}
	require.False(t, OnlyOpens(ruleset.Change{}), "nothing was changed: an earlier change may have been left half done")
	closing := added("region4")
	closing.DeleteElements = closing.AddElements
	require.False(t, OnlyOpens(closing))
	fresh := added("region4")
	fresh.CreateTable = true
	require.False(t, OnlyOpens(fresh))
}

// TestOpeningToEverybodyOpens: on a shared host that is an element whose verdict changes.
func TestOpeningToEverybodyOpens(t *testing.T) {
	element := func(set string, v ruleset.Verdict) []ruleset.SetElements {
		return []ruleset.SetElements{{Set: ruleset.Set{Name: set}, Elements: []ruleset.Element{{Key: "x", Verdict: v}}}}
	}
	region, witness := goTo("from_region4"), goTo("witness4")
	for _, tt := range []struct {
		set      string
		was, now ruleset.Verdict
		want     bool
	}{
		{"inbound4", region, accept, true},
		{"inbound4", accept, region, false},
		{"inbound4", drop, goTo("from4_orders"), false},
		{"outbound4", goTo("to_region4"), witness, true},
		{"outbound4", goTo("to_region4"), accept, true}, // there is no witness
		{"outbound4", witness, goTo("to_region4"), false},
		{"outbound6", goTo("to_region6"), witness, false},
		{"speakers4", drop, accept, false},
	} {
		change := ruleset.Change{DeleteElements: element(tt.set, tt.was), AddElements: element(tt.set, tt.now)}
		require.Equal(t, tt.want, OnlyOpens(change), "%s: %v to %v", tt.set, tt.was, tt.now)
		change.DeleteElements[0].Elements[0].Key = "another"
		require.False(t, OnlyOpens(change), "what goes is not replaced")
	}
}
