package enforcer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"drawbridge/enforcer/compile"
	"drawbridge/enforcer/nft"
	"drawbridge/enforcer/ruleset"
)

// stray is an element of the kernel's memory of connections that no rule can have put there.
type stray struct {
	set ruleset.Set
	key ruleset.Key
	why string
	// ends is when the kernel forgets it; 0: never.
	ends time.Duration
}

// words say what it is, until when, and how to get rid of it before. No change of the policy does that: what the kernel remembers belongs to
// connections, and is left alone.
func (s stray) words(in ruleset.Table) string {
	element, ends := ruleset.PrintElement(s.set, ruleset.Element{Key: s.key}), "never ends by itself"
	if s.ends > 0 {
		ends = fmt.Sprintf("ends by itself in %v", s.ends.Round(time.Second))
	}
	return fmt.Sprintf("%s %s; it %s, and now by: nft 'delete element %s %s %s { %s }'", element, s.why, ends, in.Family, in.Name, s.set.Name, element)
}

// strays are known by set and key.
type strays map[[2]string]stray

// locks looks whether the locks that stand are some that the rules would have made: a planted one could have the gate test
// another byte of a connection than its first. The sets are read one after the other, so that what does not fit is looked at
// again.
func (v *Verification) locks(ctx context.Context, kernel *nft.Conn, t ruleset.Table) error {
	found, err := strayLocks(ctx, kernel, t)
	if err != nil || len(found) == 0 {
		return err
	}
	again, err := strayLocks(ctx, kernel, t)
	if err != nil {
		return err
	}
	maps.DeleteFunc(again, func(k [2]string, _ stray) bool { _, ok := found[k]; return !ok })
	for _, s := range slices.SortedFunc(maps.Values(again), func(a, b stray) int { return cmp.Or(cmp.Compare(a.set.Name, b.set.Name), cmp.Compare(a.key, b.key)) }) {
		v.Objects = append(v.Objects, ruleset.Difference{
			Object: fmt.Sprintf("element of set %s of %s", s.set.Name, t.Title()),
			What:   s.words(t),
		})
	}
	return nil
}

func strayLocks(ctx context.Context, kernel *nft.Conn, t ruleset.Table) (strays, error) {
	var read [3][]nft.Counted
	found := strays{}
	var sets [3]ruleset.Set
	for i, name := range compile.LockSets() {
		at := slices.IndexFunc(t.Sets, func(s ruleset.Set) bool { return s.Name == name })
		if at < 0 {
			return nil, nil // there is no gate
		}
		var err error
		sets[i] = t.Sets[at]
		if read[i], err = kernel.ReadCounted(ctx, sets[i]); errors.Is(err, nft.ErrForeign) {
			return nil, nil // said already: the set is another one
		} else if err != nil {
			return nil, err
		}
		found.lifetimes(t, sets[i], read[i])
	}
	requests, latest := map[ruleset.Key]bool{}, map[ruleset.Key]string{}
	for _, e := range read[1] {
		requests[e.Key] = true
	}
	for _, e := range read[2] {
		latest[e.Key] = string(e.Value)
	}
	for _, e := range read[0] {
		if !compile.IsLock(e.Key, requests, latest) {
			found.add(sets[0], e, "is no lock that the rules would have made")
		}
	}
	return found, nil
}

func (f strays) add(s ruleset.Set, e nft.Counted, why string) {
	f[[2]string{s.Name, string(e.Key)}] = stray{set: s, key: e.Key, why: why, ends: e.Expires}
}

// lifetimes looks whether elements live as long as a rule of the table says, or as their set does.
func (f strays) lifetimes(t ruleset.Table, s ruleset.Set, read []nft.Counted) {
	given := map[time.Duration]bool{s.Timeout: true}
	for _, c := range t.Chains {
		for _, r := range c.Rules {
			for _, statement := range r.Statements {
				if d, ok := statement.(ruleset.Dynset); ok && d.Set == s.Name {
					given[cmp.Or(d.Timeout, s.Timeout)] = true
				}
			}
		}
	}
	for _, e := range read {
		if life := e.Timeout.Round(time.Second); e.Expires == 0 && e.Timeout == 0 || life != 0 && !given[life] {
			f.add(s, e, "has a lifetime that no rule gives it")
		}
	}
}
