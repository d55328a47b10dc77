package compile

import (
	"maps"
	"slices"
	"strings"

	"drawbridge/enforcer/policy"
	"drawbridge/enforcer/ruleset"
)

// Skeleton returns the table that Compile makes where it protects what a table, read back from a kernel, protects: all sets and chains,
// with the elements that stand there. What users decide are elements alone, so that whatever else differs from it was changed by
// somebody else. The options are those with which the table was compiled.
func (o Options) Skeleton(have ruleset.Table) (ruleset.Table, error) {
	c, err := o.compiler(&policy.Policy{})
	if err != nil {
		return ruleset.Table{}, err
	}
	s := standing{sets: map[string]ruleset.Set{}}
	for _, set := range have.Sets {
		s.sets[set.Name] = set
	}
	c.builder = newBuilder()
	c.dedicated, c.zones, c.ranges = s.has(setRules), s.there(setZoneRegional), s.ranges()
	c.families = slices.DeleteFunc(slices.Clone(families[:]), func(f family) bool { return !s.there(setProtected + f.suffix) })
	c.glass, c.clustered = !c.dedicated && s.has(setOpened), s.has(setForcePair) && (s.filled(setForcePair) || asks(have, setForcePair))
	c.declareSets(&policy.Policy{})
	c.admission()
	for _, f := range families {
		for _, name := range s.behind(setCustom(f, "")) {
			c.declare(customSet(f, name))
			c.databaseChain(f, name)
		}
	}
	c.behindAdmission()
	t := c.table()
	for i := range t.Sets {
		if !t.Sets[i].Dynamic {
			t.Sets[i].Elements = s.sets[t.Sets[i].Name].Elements
		}
	}
	return t, nil
}

// standing are the sets of a table that stands.
type standing struct{ sets map[string]ruleset.Set }

func (s standing) there(name string) bool {
	_, ok := s.sets[name]
	return ok
}

// has tells whether a set is there for a family.
func (s standing) has(name string) bool {
	return slices.ContainsFunc(families[:], func(f family) bool { return s.there(name + f.suffix) })
}

// filled tells whether a set of some family has elements.
func (s standing) filled(name string) bool {
	return slices.ContainsFunc(families[:], func(f family) bool { return len(s.sets[name+f.suffix].Elements) > 0 })
}

// behind are what names of sets that begin so go on with, sorted.
func (s standing) behind(prefix string) (rest []string) {
	for _, name := range slices.Sorted(maps.Keys(s.sets)) {
		if part, ok := strings.CutPrefix(name, prefix); ok {
			rest = append(rest, part)
		}
	}
	return rest
}

// ranges are the managed ranges that have sets, without their networks.
func (s standing) ranges() (all []policy.ManagedRange) {
	var names []string
	for _, f := range families {
		names = append(names, s.behind(setRange(f, ""))...)
	}
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		all = append(all, policy.ManagedRange{Name: name})
	}
	return all
}

// asks tells whether a rule looks something up in the set of this name of some family.
func asks(t ruleset.Table, set string) bool {
	return slices.ContainsFunc(t.Chains, func(c ruleset.Chain) bool {
		return slices.ContainsFunc(c.Rules, func(r ruleset.Rule) bool {
			return slices.ContainsFunc(r.Statements, func(s ruleset.Statement) bool {
				in, ok := s.(ruleset.InSet)
				return ok && strings.TrimRight(in.Set, "46") == set
			})
		})
	})
}
