package ruleset

import "slices"

// Change turns one state of a table into another. A kernel applies it as one transaction, all or nothing, and in the
// order of the fields below: rules go before the sets and chains they name, a set's old elements before its new ones,
// and new rules come last. Slices are in a fixed order, so that equal inputs give equal changes.
//
// The zero value changes nothing.
type Change struct {
	Family Family
	Table  string
	// CreateTable: the table does not exist yet.
	CreateTable bool
	// FlushChains lists chains that exist and lose all their rules; those of them that stay are refilled by AddRules.
	FlushChains []string
	// DeleteElements take elements out of sets that stay. The elements are those of the old state.
	DeleteElements []SetElements
	// DeleteSets lists sets that go, or whose specification changes.
	DeleteSets []string
	// DeleteChains lists chains that go, or whose hook, priority or policy changes.
	DeleteChains []string
	// AddSets are new sets; their Elements are nil, see AddElements.
	AddSets []Set
	// AddChains are new chains; their Rules are nil, see AddRules.
	AddChains []Chain
	// AddElements put elements into sets, old and new.
	AddElements []SetElements
	// AddRules append rules to chains that are empty by now.
	AddRules []ChainRules
}

// DeletesExpiring reports whether an element is deleted that ends by itself, and may have done so by the time that the kernel
// is asked to delete it.
func (c Change) DeletesExpiring() bool {
	return slices.ContainsFunc(c.DeleteElements, func(s SetElements) bool {
		return slices.ContainsFunc(s.Elements, func(e Element) bool { return e.Timeout > 0 })
	})
}

// SetElements are some elements of one set.
type SetElements struct {
	// Set is the set's specification; its own Elements are nil.
	Set      Set
	Elements []Element
}

// ChainRules are rules to append to one chain, in order.
type ChainRules struct {
	Chain string
	Rules []Rule
}

// IsEmpty reports whether there is nothing to do.
func (c Change) IsEmpty() bool {
	return !c.CreateTable && len(c.FlushChains) == 0 && len(c.DeleteElements) == 0 && len(c.DeleteSets) == 0 &&
		len(c.DeleteChains) == 0 && len(c.AddSets) == 0 && len(c.AddChains) == 0 && len(c.AddElements) == 0 && len(c.AddRules) == 0
}

// Spec returns the set without its elements.
func (s Set) Spec() Set {
	s.Elements = nil
	return s
}

// Spec returns the chain without its rules.
func (c Chain) Spec() Chain {
	c.Rules = nil
	return c
}
