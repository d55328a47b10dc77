package ruleset_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"drawbridge/enforcer/ruleset"
)

var (
	accept = ruleset.Verdict{Kind: ruleset.Accept}
	drop   = ruleset.Verdict{}
)

func endpoints(name string, keys ...string) ruleset.Set {
	s := ruleset.Set{Name: name, Key: []ruleset.DataType{ruleset.TypeInetService}}
	for _, k := range keys {
		s.Elements = append(s.Elements, ruleset.Element{Key: ruleset.Key(k)})
	}
	return s
}

func in(set string) ruleset.Rule {
	return ruleset.Rule{Statements: []ruleset.Statement{ruleset.InSet{Key: []ruleset.Field{ruleset.F(ruleset.THDport)}, Set: set}, accept}}
}

func table(sets []ruleset.Set, chains ...ruleset.Chain) ruleset.Table {
	return ruleset.Table{Family: ruleset.FamilyINET, Name: "t", Sets: sets, Chains: chains}
}

func TestDiff(t *testing.T) {
	base := ruleset.Chain{Name: "base", Hook: ruleset.HookPrerouting, Priority: -300, Policy: accept, Rules: []ruleset.Rule{in("s")}}
	other := ruleset.Chain{Name: "other", Rules: []ruleset.Rule{{Statements: []ruleset.Statement{drop}}}}
	have := table([]ruleset.Set{endpoints("s", "aa", "bb")}, base, other)
	empty := ruleset.Change{Family: ruleset.FamilyINET, Table: "t"}

	t.Run("nothing", func(t *testing.T) {
		require.Equal(t, empty, ruleset.Diff(have, have))
		require.True(t, ruleset.Diff(have, have).IsEmpty())
	})
	t.Run("comments", func(t *testing.T) {
		want := table([]ruleset.Set{endpoints("s", "bb", "aa")}, base, other)
		want.Chains[1].Rules = []ruleset.Rule{{Statements: other.Rules[0].Statements, Comment: "new"}}
		labelled := table([]ruleset.Set{endpoints("s", "aa", "bb")}, base, other)
		labelled.Sets[0].Elements[0].Comment = "old"
		require.True(t, ruleset.Diff(have, want).IsEmpty())
		require.True(t, ruleset.Diff(labelled, want).IsEmpty(), "none is wanted")
		want.Sets[0].Elements[1].Comment = "new"
		for _, have := range []ruleset.Table{have, labelled} {
			change := ruleset.Diff(have, want)
			require.Equal(t, []string{"s"}, change.DeleteSets, "no look-up finds neither the old element nor the new one")
			require.Equal(t, []ruleset.Set{endpoints("s")}, change.AddSets)
			require.Empty(t, change.DeleteElements)
			require.Len(t, change.AddElements[0].Elements, 2)
			require.Equal(t, []string{"base"}, change.FlushChains)
			require.Equal(t, []ruleset.ChainRules{{Chain: "base", Rules: base.Rules}}, change.AddRules)
			require.NotEmpty(t, ruleset.Compare(have, want))
			require.False(t, ruleset.SameSets(have.Sets, want.Sets))
		}
		require.True(t, ruleset.Diff(want, want).IsEmpty())
		more := table([]ruleset.Set{endpoints("s", "aa", "bb", "cc")}, base, other)
		more.Sets[0].Elements[2].Comment = "new"
		require.True(t, ruleset.Diff(have, more).OnlyElements(), "what is new takes nothing's place")
	})
	t.Run("one element each way", func(t *testing.T) {
		change := ruleset.Diff(have, table([]ruleset.Set{endpoints("s", "bb", "cc")}, base, other))
		want := empty
		want.DeleteElements = []ruleset.SetElements{{Set: endpoints("s"), Elements: []ruleset.Element{{Key: "aa"}}}}
		want.AddElements = []ruleset.SetElements{{Set: endpoints("s"), Elements: []ruleset.Element{{Key: "cc"}}}}
		require.Equal(t, want, change)
	})
	t.Run("a table that is not there", func(t *testing.T) {
		change := ruleset.Diff(ruleset.Table{}, have)
		require.True(t, change.CreateTable)
		require.Equal(t, []ruleset.Chain{base.Spec(), other.Spec()}, change.AddChains)
		require.Equal(t, []ruleset.ChainRules{{Chain: "base", Rules: base.Rules}, {Chain: "other", Rules: other.Rules}}, change.AddRules)
		require.Empty(t, change.FlushChains)
	})
	t.Run("a rule", func(t *testing.T) {
		changed := other
		changed.Rules = []ruleset.Rule{{Statements: []ruleset.Statement{accept}}}
		want := empty
		want.FlushChains = []string{"other"}
		want.AddRules = []ruleset.ChainRules{{Chain: "other", Rules: changed.Rules}}
		require.Equal(t, want, ruleset.Diff(have, table(have.Sets, base, changed)))
	})
	t.Run("a set of another kind takes the chains that name it along", func(t *testing.T) {
		replaced := endpoints("s", "aa")
		replaced.Counter = true
		change := ruleset.Diff(have, table([]ruleset.Set{replaced}, base, other))
		require.Equal(t, []string{"base"}, change.FlushChains)
		require.Equal(t, []string{"s"}, change.DeleteSets)
		require.Empty(t, change.DeleteElements)
		require.Equal(t, []ruleset.Set{replaced.Spec()}, change.AddSets)
		require.Equal(t, []ruleset.ChainRules{{Chain: "base", Rules: base.Rules}}, change.AddRules)
	})
	t.Run("a base chain at another priority", func(t *testing.T) {
		moved := base
		moved.Priority = -310
		change := ruleset.Diff(have, table(have.Sets, moved, other))
		require.Equal(t, []string{"base"}, change.DeleteChains)
		require.Equal(t, []ruleset.Chain{moved.Spec()}, change.AddChains)
		require.Equal(t, []ruleset.ChainRules{{Chain: "base", Rules: base.Rules}}, change.AddRules)
	})
	t.Run("a chain goes after the map's element that names it", func(t *testing.T) {
		m := ruleset.Set{Name: "m", Key: []ruleset.DataType{ruleset.TypeInetService}, Verdicts: true,
			Elements: []ruleset.Element{{Key: "aa", Verdict: ruleset.Verdict{Kind: ruleset.Jump, Chain: "other"}}}}
		change := ruleset.Diff(table([]ruleset.Set{m}, other), table([]ruleset.Set{m.Spec()}))
		require.Equal(t, []ruleset.SetElements{{Set: m.Spec(), Elements: m.Elements}}, change.DeleteElements)
		require.Equal(t, []string{"other"}, change.DeleteChains)
		require.Equal(t, []string{"other"}, change.FlushChains)
	})
	t.Run("dynamic elements belong to the kernel", func(t *testing.T) {
		d := endpoints("s", "aa")
		d.Dynamic = true
		full := endpoints("s", "xx", "yy")
		full.Dynamic = true
		require.True(t, ruleset.Diff(table([]ruleset.Set{full}), table([]ruleset.Set{d})).IsEmpty())
	})
}

// kernel applies a change step by step, in the order that Change documents, and refuses what a kernel would refuse.
type kernel struct {
	t      require.TestingT
	sets   map[string]ruleset.Set
	chains map[string]ruleset.Chain
}

func load(t require.TestingT, table ruleset.Table) *kernel {
	k := &kernel{t: t, sets: map[string]ruleset.Set{}, chains: map[string]ruleset.Chain{}}
	for _, s := range table.Sets {
		s.Elements = slices.Clone(s.Elements)
		k.sets[s.Name] = s
	}
	for _, c := range table.Chains {
		k.chains[c.Name] = c
	}
	return k
}

func (k *kernel) apply(c ruleset.Change) {
	for _, name := range c.FlushChains {
		chain, ok := k.chains[name]
		require.True(k.t, ok, "flush of a chain that is not there")
		chain.Rules = nil
		k.chains[name] = chain
	}
	for _, e := range c.DeleteElements {
		k.deleteElements(e)
	}
	for _, name := range c.DeleteSets {
		require.False(k.t, k.named(name), "set %s is in use", name)
		delete(k.sets, name)
	}
	for _, name := range c.DeleteChains {
		require.False(k.t, k.named(name), "chain %s is in use", name)
		require.Empty(k.t, k.chains[name].Rules)
		delete(k.chains, name)
	}
	for _, s := range c.AddSets {
		require.NotContains(k.t, k.sets, s.Name)
		k.sets[s.Name] = s
	}
	for _, ch := range c.AddChains {
		require.NotContains(k.t, k.chains, ch.Name)
		k.chains[ch.Name] = ch
	}
	for _, e := range c.AddElements {
		k.addElements(e)
	}
	for _, r := range c.AddRules {
		chain := k.chains[r.Chain]
		require.Empty(k.t, chain.Rules)
		chain.Rules = r.Rules
		k.chains[r.Chain] = chain
	}
}

func (k *kernel) deleteElements(e ruleset.SetElements) {
	s := k.sets[e.Set.Name]
	for _, gone := range e.Elements {
		i := slices.Index(s.Elements, gone)
		require.GreaterOrEqual(k.t, i, 0, "deletion of an element that is not there")
		s.Elements = slices.Delete(s.Elements, i, i+1)
	}
	k.sets[s.Name] = s
}

func (k *kernel) addElements(e ruleset.SetElements) {
	s, ok := k.sets[e.Set.Name]
	require.True(k.t, ok)
	for _, fresh := range e.Elements {
		require.False(k.t, slices.ContainsFunc(s.Elements, func(o ruleset.Element) bool { return o.Key == fresh.Key }), "key is there already")
		if fresh.Verdict.Chain != "" {
			require.Contains(k.t, k.chains, fresh.Verdict.Chain)
		}
		s.Elements = append(s.Elements, fresh)
	}
	k.sets[s.Name] = s
}

// named reports whether a rule or an element still uses a set or chain.
func (k *kernel) named(name string) bool {
	for _, c := range k.chains {
		for _, r := range c.Rules {
			for _, s := range r.Statements {
				switch s := s.(type) {
				case ruleset.InSet:
					if s.Set == name {
						return true
					}
				case ruleset.VerdictMap:
					if s.Map == name {
						return true
					}
				case ruleset.Verdict:
					if s.Chain == name {
						return true
					}
				}
			}
		}
	}
	for _, s := range k.sets {
		if slices.ContainsFunc(s.Elements, func(e ruleset.Element) bool { return e.Verdict.Chain == name }) {
			return true
		}
	}
	return false
}

// TestDiffLeadsThere: for any two tables the change turns one into the other, in an order that a kernel accepts.
func TestDiffLeadsThere(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		have, want := anyTable(t, "have"), anyTable(t, "want")
		k := load(t, have)
		k.apply(ruleset.Diff(have, want))
		got := table(nil)
		for _, s := range k.sets {
			got.Sets = append(got.Sets, s)
		}
		for _, c := range k.chains {
			got.Chains = append(got.Chains, c)
		}
		require.True(t, ruleset.Diff(got, want).IsEmpty())
		require.Len(t, got.Sets, len(want.Sets))
		require.Len(t, got.Chains, len(want.Chains))
	})
}

// anyTable draws from few names, so that two of them have much in common. Chains only go to leaves.
func anyTable(t *rapid.T, label string) ruleset.Table {
	out := table(nil)
	leaves := rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"l1", "l2", "l3"}), 1, 3, rapid.ID).Draw(t, label+" leaves")
	for _, name := range leaves {
		verdict := rapid.SampledFrom([]ruleset.Verdict{accept, drop}).Draw(t, label+name)
		out.Chains = append(out.Chains, ruleset.Chain{Name: name, Rules: []ruleset.Rule{{Statements: []ruleset.Statement{verdict}}}})
	}
	to := func(l string) ruleset.Verdict {
		return ruleset.Verdict{Kind: ruleset.Jump, Chain: rapid.SampledFrom(leaves).Draw(t, label+l)}
	}
	for i, name := range []string{"s1", "s2", "m1"} {
		if !rapid.Bool().Draw(t, label+name) {
			continue
		}
		s := ruleset.Set{Name: name, Key: []ruleset.DataType{ruleset.TypeInetService}, Verdicts: i == 2, Counter: rapid.Bool().Draw(t, label+"counter")}
		for _, k := range rapid.SliceOfNDistinct(rapid.SampledFrom([]ruleset.Key{"aa", "bb", "cc"}), 0, 3, rapid.ID).Draw(t, label+"keys") {
			e := ruleset.Element{Key: k}
			if s.Verdicts {
				e.Verdict = to(fmt.Sprint(name, k))
			}
			s.Elements = append(s.Elements, e)
		}
		out.Sets = append(out.Sets, s)
	}
	base := ruleset.Chain{Name: "base", Hook: ruleset.HookPrerouting, Priority: rapid.SampledFrom([]int32{-300, -310}).Draw(t, label+"priority"), Policy: accept}
	for _, s := range out.Sets {
		if s.Verdicts {
			base.Rules = append(base.Rules, ruleset.Rule{Statements: []ruleset.Statement{ruleset.VerdictMap{Key: []ruleset.Field{ruleset.F(ruleset.THDport)}, Map: s.Name}}})
		} else if rapid.Bool().Draw(t, label+"uses") {
			base.Rules = append(base.Rules, in(s.Name))
		}
	}
	base.Rules = append(base.Rules, ruleset.Rule{Statements: []ruleset.Statement{to("base")}})
	out.Chains = append(out.Chains, base)
	return out
}

// TestWhatNFTPutsInFront: a test for a protocol that a field behind it needs makes no difference where it stands, and one
// that is wanted and missing does.
func TestWhatNFTPutsInFront(t *testing.T) {
	match := func(k ruleset.FieldKind, v ...byte) ruleset.Match {
		return ruleset.Match{Field: ruleset.F(k), Op: ruleset.Eq, Value: v}
	}
	table := func(s ...ruleset.Statement) ruleset.Table {
		return ruleset.Table{Family: ruleset.FamilyINET, Name: "t", Chains: []ruleset.Chain{{Name: "c", Rules: []ruleset.Rule{{Statements: s}}}}}
	}
	flags := match(ruleset.TCPFlags, 2)
	for _, tt := range []struct {
		name       string
		have, want ruleset.Table
		same       bool
	}{
		{"TCP", table(match(ruleset.MetaL4Proto, 6), flags), table(flags), true},
		{"IPv4", table(match(ruleset.MetaNFProto, 2), match(ruleset.IPSaddr, 1, 2, 3, 4)), table(match(ruleset.IPSaddr, 1, 2, 3, 4)), true},
		{"a reset", table(match(ruleset.MetaL4Proto, 6), ruleset.Reject{TCPReset: true}), table(ruleset.Reject{TCPReset: true}), true},
		{"both", table(match(ruleset.MetaNFProto, 10), match(ruleset.MetaL4Proto, 6), ruleset.InSet{Set: "s", Key: []ruleset.Field{ruleset.F(ruleset.IP6Saddr), ruleset.F(ruleset.TCPSeq)}}),
			table(ruleset.InSet{Set: "s", Key: []ruleset.Field{ruleset.F(ruleset.IP6Saddr), ruleset.F(ruleset.TCPSeq)}}), true},
		{"missing", table(flags), table(match(ruleset.MetaL4Proto, 6), flags), false},
		{"another protocol", table(match(ruleset.MetaL4Proto, 17), flags), table(flags), false},
		{"the other family", table(match(ruleset.MetaNFProto, 10), match(ruleset.IPSaddr, 1, 2, 3, 4)), table(match(ruleset.IPSaddr, 1, 2, 3, 4)), false},
		{"behind the field", table(flags, match(ruleset.MetaL4Proto, 6)), table(flags), false},
		{"any port", table(match(ruleset.MetaL4Proto, 6), match(ruleset.THDport, 1, 2)), table(match(ruleset.THDport, 1, 2)), false},
		{"not", table(ruleset.Match{Field: ruleset.F(ruleset.MetaL4Proto), Op: ruleset.Neq, Value: []byte{6}}, flags), table(flags), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			require.Equal(t, tt.same, ruleset.Diff(tt.have, tt.want).IsEmpty())
			require.Equal(t, tt.same, len(ruleset.Compare(tt.have, tt.want)) == 0)
		})
	}
}

// TestWhatADynsetDoes: its limit and its value are part of it, and a map that is replaced takes the rules along that look
// fields up in it.
func TestWhatADynsetDoes(t *testing.T) {
	table := func(size uint32, s ruleset.Statement) ruleset.Table {
		return ruleset.Table{Family: ruleset.FamilyINET, Name: "t",
			Sets:   []ruleset.Set{{Name: "m", Key: []ruleset.DataType{ruleset.TypeMark}, Data: ruleset.TypeMark, Dynamic: true, Size: size}},
			Chains: []ruleset.Chain{{Name: "c", Rules: []ruleset.Rule{{Statements: []ruleset.Statement{s}}}}}}
	}
	update := func(data ruleset.FieldKind, rate uint64) ruleset.Statement {
		return ruleset.Dynset{Op: ruleset.UpdateElement, Set: "m", Key: []ruleset.Field{ruleset.F(ruleset.CTID)}, Data: ruleset.F(data), Over: ruleset.Limit{Rate: rate}}
	}
	have := table(1, update(ruleset.TCPSeq, 5))
	require.True(t, ruleset.Diff(have, table(1, update(ruleset.TCPSeq, 5))).IsEmpty())
	for _, want := range []ruleset.Table{table(1, update(ruleset.TCPSeq, 6)), table(1, update(ruleset.TCPAckSeq, 5))} {
		require.Equal(t, []string{"c"}, ruleset.Diff(have, want).FlushChains)
		require.Len(t, ruleset.Compare(have, want), 2)
	}
	mapped := ruleset.SetTCPAckSeq{From: ruleset.Field{Kind: ruleset.CTID, Map: "m"}}
	require.Equal(t, []string{"c"}, ruleset.Diff(table(1, mapped), table(2, mapped)).FlushChains)
}
