// Package reconciletest is a kernel in memory for tests: it keeps one table, checks references the way nf_tables does,
// counts generations, and can be disturbed.
package reconciletest

import (
	"context"
	"fmt"
	"slices"

	"drawbridge/enforcer/nft"
	"drawbridge/enforcer/ruleset"
)

// Kernel is an in-memory reconcile.Kernel. The zero value is empty, at generation 0. It is for one goroutine.
type Kernel struct {
	State nft.State
	// Disturb, if set, runs before each commit is looked at: somebody else is faster. It may change State.
	Disturb func(*Kernel)
	// Lose makes each commit, after it was applied or not, return this error instead of its own.
	Lose error
	// LoseBefore makes a commit that is lost not be applied.
	LoseBefore bool
	// Ignore makes commits succeed without effect, but for the generation.
	Ignore bool
	// Short makes this many readings after a commit leave the elements of all sets out, as a dump may.
	Short int
	// FailAfter is the error of readings after a commit; nil: they succeed.
	FailAfter error
	// Commits counts the commits that were applied.
	Commits int
}

// Read returns the state.
func (k *Kernel) Read(ctx context.Context) (nft.State, error) { return k.State, ctx.Err() }

// ReadAfter returns the state.
func (k *Kernel) ReadAfter(ctx context.Context, _ nft.State, _ ruleset.Change) (nft.State, error) {
	if k.FailAfter != nil {
		return nft.State{}, k.FailAfter
	}
	if k.Short == 0 {
		return k.Read(ctx)
	}
	k.Short--
	short := k.State
	short.Table.Sets = slices.Clone(short.Table.Sets)
	for i := range short.Table.Sets {
		short.Table.Sets[i].Elements = nil
	}
	return short, ctx.Err()
}

// Commit applies a change.
func (k *Kernel) Commit(ctx context.Context, change ruleset.Change, generation uint32) error {
	return k.transaction(ctx, generation, func(t ruleset.Table) (ruleset.Table, error) { return apply(t, change) })
}

// Replace puts a table in the place of another.
func (k *Kernel) Replace(ctx context.Context, want ruleset.Table, _ bool, generation uint32) error {
	return k.transaction(ctx, generation, func(ruleset.Table) (ruleset.Table, error) { return want, nil })
}

// Delete removes the table.
func (k *Kernel) Delete(ctx context.Context, generation uint32) error {
	return k.transaction(ctx, generation, func(ruleset.Table) (ruleset.Table, error) { return ruleset.Table{}, nil })
}

// Bump is a commit of somebody else to something else.
func (k *Kernel) Bump() { k.State.Generation++ }

func (k *Kernel) transaction(ctx context.Context, generation uint32, do func(ruleset.Table) (ruleset.Table, error)) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if k.Disturb != nil {
		k.Disturb(k)
	}
	if k.Lose != nil && k.LoseBefore {
		return k.Lose
	}
	if generation != k.State.Generation {
		return nft.ErrGeneration
	}
	after, err := do(k.State.Table)
	if err != nil {
		return fmt.Errorf("%w: %w", nft.ErrRejected, err)
	}
	k.State.Generation++
	k.Commits++
	if !k.Ignore {
		k.State.Table, k.State.Exists, k.State.Foreign = after, after.Name != "", nil
	}
	return k.Lose
}

// apply is what a transaction does to a table.
func apply(t ruleset.Table, c ruleset.Change) (ruleset.Table, error) {
	t.Sets, t.Chains = slices.Clone(t.Sets), slices.Clone(t.Chains)
	if t.Name == "" {
		if !c.CreateTable {
			return t, fmt.Errorf("no table %q", c.Table)
		}
		t.Family, t.Name = c.Family, c.Table
	}
	for _, step := range []func(*ruleset.Table, ruleset.Change) error{remove, add, checkReferences} {
		if err := step(&t, c); err != nil {
			return t, err
		}
	}
	return t, nil
}

func remove(t *ruleset.Table, c ruleset.Change) error {
	for _, name := range c.FlushChains {
		i := chain(*t, name)
		if i < 0 {
			return fmt.Errorf("flush chain %q: not there", name)
		}
		t.Chains[i].Rules = nil
	}
	for _, d := range c.DeleteElements {
		i := set(*t, d.Set.Name)
		if i < 0 {
			return fmt.Errorf("delete from set %q: not there", d.Set.Name)
		}
		for _, e := range d.Elements {
			at := slices.IndexFunc(t.Sets[i].Elements, func(o ruleset.Element) bool { return o.Key == e.Key && o.End == e.End })
			if at < 0 {
				return fmt.Errorf("delete from set %q: element % x not there", d.Set.Name, string(e.Key))
			}
			t.Sets[i].Elements = slices.Delete(slices.Clone(t.Sets[i].Elements), at, at+1)
		}
	}
	for _, name := range c.DeleteSets {
		i := set(*t, name)
		if i < 0 {
			return fmt.Errorf("delete set %q: not there", name)
		}
		t.Sets = slices.Delete(t.Sets, i, i+1)
	}
	for _, name := range c.DeleteChains {
		i := chain(*t, name)
		if i < 0 || len(t.Chains[i].Rules) > 0 {
			return fmt.Errorf("delete chain %q: not there, or not empty", name)
		}
		t.Chains = slices.Delete(t.Chains, i, i+1)
	}
	return checkReferences(t, c)
}

func add(t *ruleset.Table, c ruleset.Change) error {
	for _, s := range c.AddSets {
		if set(*t, s.Name) >= 0 {
			return fmt.Errorf("add set %q: there already", s.Name)
		}
		t.Sets = append(t.Sets, s)
	}
	for _, n := range c.AddChains {
		if chain(*t, n.Name) >= 0 {
			return fmt.Errorf("add chain %q: there already", n.Name)
		}
		t.Chains = append(t.Chains, n)
	}
	for _, a := range c.AddElements {
		i := set(*t, a.Set.Name)
		if i < 0 {
			return fmt.Errorf("add to set %q: not there", a.Set.Name)
		}
		for _, e := range a.Elements {
			if slices.ContainsFunc(t.Sets[i].Elements, func(o ruleset.Element) bool { return overlaps(t.Sets[i], o, e) }) {
				return fmt.Errorf("add to set %q: element % x there already", a.Set.Name, string(e.Key))
			}
			t.Sets[i].Elements = append(slices.Clone(t.Sets[i].Elements), e)
		}
	}
	for _, r := range c.AddRules {
		i := chain(*t, r.Chain)
		if i < 0 {
			return fmt.Errorf("add rules to chain %q: not there", r.Chain)
		}
		t.Chains[i].Rules = append(slices.Clone(t.Chains[i].Rules), r.Rules...)
	}
	return nil
}

func overlaps(s ruleset.Set, a, b ruleset.Element) bool {
	if !s.Interval {
		return a.Key == b.Key
	}
	return a.Key <= b.End && b.Key <= a.End
}

// checkReferences makes sure that every set and chain that something names is there.
func checkReferences(t *ruleset.Table, _ ruleset.Change) error {
	for _, s := range t.Sets {
		for _, e := range s.Elements {
			if e.Verdict.Chain != "" && chain(*t, e.Verdict.Chain) < 0 {
				return fmt.Errorf("map %q names chain %q, which is not there", s.Name, e.Verdict.Chain)
			}
		}
	}
	for _, c := range t.Chains {
		for _, r := range c.Rules {
			for _, s := range r.Statements {
				if err := checkStatement(*t, s); err != nil {
					return fmt.Errorf("chain %q: %w", c.Name, err)
				}
			}
		}
	}
	return nil
}

func checkStatement(t ruleset.Table, s ruleset.Statement) error {
	name, isChain := "", false
	switch s := s.(type) {
	case ruleset.InSet:
		name = s.Set
	case ruleset.VerdictMap:
		name = s.Map
	case ruleset.Dynset:
		name = s.Set
	case ruleset.Verdict:
		name, isChain = s.Chain, true
	}
	switch {
	case name == "":
	case isChain && chain(t, name) < 0, !isChain && set(t, name) < 0:
		return fmt.Errorf("%q is not there", name)
	}
	return nil
}

func set(t ruleset.Table, name string) int {
	return slices.IndexFunc(t.Sets, func(s ruleset.Set) bool { return s.Name == name })
}

func chain(t ruleset.Table, name string) int {
	return slices.IndexFunc(t.Chains, func(c ruleset.Chain) bool { return c.Name == name })
}
