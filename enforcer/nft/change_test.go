package nft

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"drawbridge/enforcer/ruleset"
)

// set finds a set of a table by name.
func set(t *ruleset.Table, name string) *ruleset.Set {
	for i := range t.Sets {
		if t.Sets[i].Name == name {
			return &t.Sets[i]
		}
	}
	panic("no set " + name)
}

// unnamed is a table whose counters have no names: a named one outlives its rule, and is nobody's then.
func unnamed(t ruleset.Table) ruleset.Table {
	for _, c := range t.Chains {
		for _, r := range c.Rules {
			for i, s := range r.Statements {
				if _, ok := s.(ruleset.Counter); ok {
					r.Statements[i] = ruleset.Counter{}
				}
			}
		}
	}
	return t
}

// TestEveryChangeArrives takes one table in the kernel through a series of changes, each committed as the difference
// to what was read.
func TestEveryChangeArrives(t *testing.T) {
	changes := []struct {
		name   string
		change func(*ruleset.Table)
	}{
		{"a range more", func(t *ruleset.Table) {
			s := set(t, "src_orders")
			s.Elements = append(s.Elements, ranged("192.0.2.0", "192.0.2.255"))
		}},
		{"a range grows onto its neighbour", func(t *ruleset.Table) { set(t, "src_orders").Elements[1].End = ruleset.Key(addr("10.0.0.255")) }},
		{"a range is split", func(t *ruleset.Table) {
			s := set(t, "src_orders")
			s.Elements[4] = ranged("255.255.255.0", "255.255.255.127")
			s.Elements = append(s.Elements, ranged("255.255.255.129", "255.255.255.255"))
		}},
		{"a range turns timed", func(t *ruleset.Table) { set(t, "src_orders").Elements[1].Timeout = time.Hour }},
		{"everything opens", func(t *ruleset.Table) {
			set(t, "src_orders").Elements = []ruleset.Element{ranged("0.0.0.0", "255.255.255.255")}
		}},
		{"everything closes", func(t *ruleset.Table) { set(t, "src_orders").Elements = nil }},
		{"an endpoint goes elsewhere", func(t *ruleset.Table) {
			set(t, "databases").Elements[0].Verdict = ruleset.Verdict{Kind: ruleset.Goto, Chain: "refuse"}
		}},
		{"a database goes", func(t *ruleset.Table) {
			set(t, "databases").Elements = set(t, "databases").Elements[1:3]
			t.Chains = append(t.Chains[:6:6], t.Chains[7])
			for i, s := range t.Sets {
				if s.Name == "src6_orders" {
					t.Sets = append(t.Sets[:i:i], t.Sets[i+1:]...)
					break
				}
			}
		}},
		{"a set changes its type", func(t *ruleset.Table) {
			s := set(t, "open")
			s.Counter = true
		}},
		{"a chain moves", func(t *ruleset.Table) { t.Chains[0].Priority = -299 }},
		{"rules change", func(t *ruleset.Table) { t.Chains[1].Rules = t.Chains[1].Rules[3:] }},
		{"nothing is left", func(t *ruleset.Table) { t.Chains, t.Sets = nil, nil }},
		{"everything comes back", func(t *ruleset.Table) { *t = unnamed(sampleTable()) }},
	}
	c, _ := open(t)
	have := install(t, c, unnamed(sampleTable()))
	want := unnamed(sampleTable())
	for _, step := range changes {
		t.Run(step.name, func(t *testing.T) {
			step.change(&want)
			change := ruleset.Diff(have.Table, want)
			require.NoError(t, c.Commit(t.Context(), change, have.Generation))
			after, err := c.ReadAfter(t.Context(), have, change)
			require.NoError(t, err)
			have = read(t, c)
			require.Equal(t, have, after)
			require.NoError(t, have.Foreign)
			require.True(t, ruleset.Diff(have.Table, want).IsEmpty(), "%+v", ruleset.Diff(have.Table, want))
			require.Len(t, have.Table.Chains, len(want.Chains))
		})
	}
}

// A short reading must not miss what somebody else did after the change, nor what they did before it was read.
func TestReadAfterSeesOthers(t *testing.T) {
	c, ns := open(t)
	before := install(t, c, sampleTable())
	want := sampleTable()
	set(&want, "open").Elements = nil
	change := ruleset.Diff(before.Table, want)
	require.True(t, change.OnlyElements())
	require.NoError(t, c.Commit(t.Context(), change, before.Generation))
	nft(t, ns, "flush chain inet drawbridge admission")
	after, err := c.ReadAfter(t.Context(), before, change)
	require.NoError(t, err)
	require.Equal(t, read(t, c), after)
	require.False(t, ruleset.Diff(after.Table, want).IsEmpty())
}
