package ruleset

import "slices"

// OnlyElements tells whether a change touches nothing but elements of sets.
func (c Change) OnlyElements() bool {
	c.AddElements, c.DeleteElements = nil, nil
	return c.IsEmpty()
}

// Touches tells whether a change adds elements to this set or deletes some.
func (c Change) Touches(set string) bool {
	is := func(e SetElements) bool { return e.Set.Name == set }
	return slices.ContainsFunc(c.AddElements, is) || slices.ContainsFunc(c.DeleteElements, is)
}

// Patched returns the sets that a change of elements touches as they are after it, in the order of the table. ok is false if the
// change does not fit the table: it touches more than elements, or deletes what is not there, or adds what is there.
func (t Table) Patched(c Change) (sets []Set, ok bool) {
	if !c.OnlyElements() {
		return nil, false
	}
	known := 0
	for _, s := range t.Sets {
		if !c.Touches(s.Name) {
			continue
		}
		known += parts(c.DeleteElements, s) + parts(c.AddElements, s)
		if s.Elements, ok = patched(s, c); !ok {
			return nil, false
		}
		sets = append(sets, s)
	}
	return sets, known == len(c.AddElements)+len(c.DeleteElements)
}

// parts counts the parts of a change that are for this set, specification and all.
func parts(changes []SetElements, s Set) (n int) {
	for _, e := range changes {
		if equalSetSpec(e.Set, s) {
			n++
		}
	}
	return n
}

func patched(s Set, c Change) ([]Element, bool) {
	elements := s.ByKey()
	for _, gone := range c.DeleteElements {
		if gone.Set.Name != s.Name {
			continue
		}
		for _, e := range gone.Elements {
			if old, there := elements[e.Key]; !there || !equalElement(old, e) {
				return nil, false
			}
			delete(elements, e.Key)
		}
	}
	for _, fresh := range c.AddElements {
		if fresh.Set.Name != s.Name {
			continue
		}
		for _, e := range fresh.Elements {
			if _, there := elements[e.Key]; there {
				return nil, false
			}
			elements[e.Key] = e
		}
	}
	out := make([]Element, 0, len(elements))
	for _, e := range elements {
		out = append(out, e)
	}
	return out, true
}

// SameSets tells whether the sets of two lists have the same specifications and elements, whatever their order, and where b wants one, the same comments.
func SameSets(a, b []Set) bool {
	return len(a) == len(b) && Diff(Table{Name: "-", Sets: a}, Table{Name: "-", Sets: b}).IsEmpty()
}
