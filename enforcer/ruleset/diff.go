package ruleset

import (
	"bytes"
	"cmp"
	"slices"
	"time"
)

// Diff returns the least change that turns have into want. The zero Table as have means that there is no table yet.
//
// Where only elements differ, only elements change: no set, chain or rule is touched. Where a chain's rules differ,
// or name a set or chain that must be replaced, that chain is flushed and refilled. Elements of dynamic sets belong to
// the kernel and are neither added nor deleted.
//
// Comments of rules and chains make no difference. That of an element does where one is wanted. The kernel keeps it as long as the element, and
// a look-up that is under way while an element is exchanged may find neither the old one nor the new one. So a set of which an element has another
// comment is replaced as a whole, with the rules that name it: those are exchanged in one go.
func Diff(have, want Table) Change {
	d := differ{
		have: index(have), want: index(want),
		replacedSets: map[string]bool{}, replacedChains: map[string]bool{},
	}
	d.change = Change{Family: want.Family, Table: want.Name, CreateTable: have.Name == ""}
	d.sets()
	d.chains()
	d.elements()
	d.rules(have, want)
	return d.change
}

type tableIndex struct {
	table  Table
	sets   map[string]Set
	chains map[string]Chain
}

func index(t Table) tableIndex {
	i := tableIndex{table: t, sets: make(map[string]Set, len(t.Sets)), chains: make(map[string]Chain, len(t.Chains))}
	for _, s := range t.Sets {
		i.sets[s.Name] = s
	}
	for _, c := range t.Chains {
		i.chains[c.Name] = c
	}
	return i
}

type differ struct {
	have, want tableIndex
	// replacedSets and replacedChains name what exists and goes, whether or not something of that name comes back.
	replacedSets, replacedChains map[string]bool
	change                       Change
}

func (d *differ) sets() {
	for _, h := range d.have.table.Sets {
		if w, ok := d.want.sets[h.Name]; !ok || !equalSetSpec(h, w) || relabelled(h, w) {
			d.replacedSets[h.Name] = true
			d.change.DeleteSets = append(d.change.DeleteSets, h.Name)
		}
	}
	for _, w := range d.want.table.Sets {
		if _, ok := d.have.sets[w.Name]; !ok || d.replacedSets[w.Name] {
			d.change.AddSets = append(d.change.AddSets, w.Spec())
		}
	}
}

func (d *differ) chains() {
	for _, h := range d.have.table.Chains {
		if w, ok := d.want.chains[h.Name]; !ok || !equalChainSpec(h, w) {
			d.replacedChains[h.Name] = true
			d.change.DeleteChains = append(d.change.DeleteChains, h.Name)
		}
	}
	for _, w := range d.want.table.Chains {
		if _, ok := d.have.chains[w.Name]; !ok || d.replacedChains[w.Name] {
			d.change.AddChains = append(d.change.AddChains, w.Spec())
		}
	}
}

func (d *differ) elements() {
	for _, h := range d.have.table.Sets {
		if h.Dynamic {
			continue
		}
		if d.same(h) {
			continue
		}
		// A set that goes needs no deletions, except that a verdict map holds on to the chains it names.
		var keep map[Key]Element
		if !d.replacedSets[h.Name] {
			keep = d.want.sets[h.Name].ByKey()
		} else if !h.Verdicts {
			continue
		}
		gone := elementsWhere(h, func(e Element) bool {
			k, ok := keep[e.Key]
			return !ok || !equalElement(e, k) || d.replacedChains[e.Verdict.Chain]
		})
		if len(gone) > 0 {
			d.change.DeleteElements = append(d.change.DeleteElements, SetElements{Set: h.Spec(), Elements: gone})
		}
	}
	for _, w := range d.want.table.Sets {
		if w.Dynamic {
			continue
		}
		var there map[Key]Element
		if h, ok := d.have.sets[w.Name]; ok && !d.replacedSets[w.Name] {
			if d.same(h) {
				continue
			}
			there = h.ByKey()
		}
		fresh := elementsWhere(w, func(e Element) bool {
			t, ok := there[e.Key]
			return !ok || !equalElement(t, e) || d.replacedChains[e.Verdict.Chain]
		})
		if len(fresh) > 0 {
			d.change.AddElements = append(d.change.AddElements, SetElements{Set: w.Spec(), Elements: fresh})
		}
	}
}

// same tells whether a set stays and has the wanted elements in the wanted order, which is that of most sets, and takes no map to
// see.
func (d *differ) same(h Set) bool {
	return len(d.replacedChains) == 0 && !d.replacedSets[h.Name] && slices.EqualFunc(h.Elements, d.want.sets[h.Name].Elements, equalElement)
}

// rules compares chain by chain. A chain that is deleted is flushed first, because its rules may name others that go.
func (d *differ) rules(have, want Table) {
	refill := map[string]bool{}
	for _, h := range have.Chains {
		w, ok := d.want.chains[h.Name]
		stays := ok && !d.replacedChains[h.Name]
		if stays && equalRules(h.Rules, w.Rules) && !d.namesReplaced(h.Rules) {
			continue
		}
		refill[h.Name] = true
		if len(h.Rules) > 0 {
			d.change.FlushChains = append(d.change.FlushChains, h.Name)
		}
	}
	for _, w := range want.Chains {
		if _, ok := d.have.chains[w.Name]; (!ok || refill[w.Name]) && len(w.Rules) > 0 {
			d.change.AddRules = append(d.change.AddRules, ChainRules{Chain: w.Name, Rules: w.Rules})
		}
	}
}

// namesReplaced reports whether a rule names a set or chain that goes.
func (d *differ) namesReplaced(rules []Rule) bool {
	maps := func(fields ...Field) bool {
		return slices.ContainsFunc(fields, func(f Field) bool { return d.replacedSets[f.Map] })
	}
	return slices.ContainsFunc(rules, func(r Rule) bool {
		return slices.ContainsFunc(r.Statements, func(s Statement) bool {
			switch s := s.(type) {
			case InSet:
				return d.replacedSets[s.Set] || maps(s.Key...)
			case VerdictMap:
				return d.replacedSets[s.Map] || maps(s.Key...)
			case Dynset:
				return d.replacedSets[s.Set] || maps(s.Data) || maps(s.Key...)
			case SetTCPAckSeq:
				return maps(s.From)
			case Verdict:
				return d.replacedChains[s.Chain]
			}
			return false
		})
	})
}

// ByKey are the set's elements by their keys.
func (s Set) ByKey() map[Key]Element {
	m := make(map[Key]Element, len(s.Elements))
	for _, e := range s.Elements {
		m[e.Key] = e
	}
	return m
}

// elementsWhere returns the chosen elements, sorted by key: two changes with the same content are the same. Where that is what the
// set has, as when all of it is new, it is not copied.
func elementsWhere(s Set, chosen func(Element) bool) []Element {
	byKey := func(a, b Element) int { return cmp.Compare(a.Key, b.Key) }
	out := slices.Clip(s.Elements)
	if slices.ContainsFunc(out, func(e Element) bool { return !chosen(e) }) {
		out = nil
		for _, e := range s.Elements {
			if chosen(e) {
				out = append(out, e)
			}
		}
	}
	if !slices.IsSortedFunc(out, byKey) {
		return slices.SortedFunc(slices.Values(out), byKey)
	}
	return out
}

// TimeoutTolerance is by how much the lifetimes of two elements may differ that are the same: what is left of one is whole
// seconds on both sides, and reading takes its time.
const TimeoutTolerance = 2 * time.Second

// equalElement tells whether an element that stands is the one that is wanted.
func equalElement(have, want Element) bool {
	if have.Timeout > 0 && want.Timeout > 0 && (have.Timeout-want.Timeout).Abs() <= TimeoutTolerance {
		have.Timeout = want.Timeout
	}
	if want.Comment == "" {
		have.Comment = ""
	}
	return have == want
}

// relabelled tells whether an element that stays has another comment than it must have.
func relabelled(have, want Set) bool {
	if want.Dynamic || !slices.ContainsFunc(want.Elements, func(e Element) bool { return e.Comment != "" }) {
		return false
	}
	there := have.ByKey()
	return slices.ContainsFunc(want.Elements, func(w Element) bool {
		h, ok := there[w.Key]
		return ok && w.Comment != "" && h.Comment != w.Comment
	})
}

func equalSetSpec(a, b Set) bool {
	return a.Name == b.Name && slices.Equal(a.Key, b.Key) && a.Verdicts == b.Verdicts && a.Data == b.Data && a.Interval == b.Interval &&
		a.Dynamic == b.Dynamic && a.Timeout == b.Timeout && a.HasTimeout == b.HasTimeout && a.Size == b.Size && a.Counter == b.Counter
}

func equalChainSpec(a, b Chain) bool {
	if a.Hook == HookNone && b.Hook == HookNone {
		return a.Name == b.Name
	}
	return a.Name == b.Name && a.Hook == b.Hook && a.Priority == b.Priority && a.Policy == b.Policy
}

func equalRules(have, want []Rule) bool { return slices.EqualFunc(have, want, equalRule) }

// equalStatement compares the kinds that hold slices by content; the others are comparable as they are.
func equalStatement(a, b Statement) bool {
	switch x := a.(type) {
	case Match:
		y, ok := b.(Match)
		return ok && x.Field == y.Field && x.Op == y.Op && bytes.Equal(x.Mask, y.Mask) && bytes.Equal(x.Value, y.Value)
	case InSet:
		y, ok := b.(InSet)
		return ok && x.Set == y.Set && x.Negate == y.Negate && slices.Equal(x.Key, y.Key)
	case InAnonymous:
		y, ok := b.(InAnonymous)
		return ok && x.Field == y.Field && x.Negate == y.Negate && bytes.Equal(x.Mask, y.Mask) && equalValues(x.Values, y.Values)
	case VerdictMap:
		y, ok := b.(VerdictMap)
		return ok && x.Map == y.Map && slices.Equal(x.Key, y.Key)
	case Dynset:
		y, ok := b.(Dynset)
		return ok && x.Op == y.Op && x.Set == y.Set && x.Timeout == y.Timeout && x.Data == y.Data && x.Over == y.Over && slices.Equal(x.Key, y.Key)
	}
	return a == b // of different types: false; a's own type is comparable
}

// equalValues compares anonymous sets, which the kernel may give back in another order.
func equalValues(a, b [][]byte) bool {
	return slices.EqualFunc(sortedValues(a), sortedValues(b), bytes.Equal)
}

func sortedValues(v [][]byte) [][]byte { return slices.SortedFunc(slices.Values(v), bytes.Compare) }
