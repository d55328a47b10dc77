package ruleset

import (
	"cmp"
	"fmt"
	"slices"
)

// Difference is one object in which two tables differ, in words.
type Difference struct {
	// Object is what it is and where, for example `element of set custom4_orders` or `rule of chain admission4`.
	Object string `json:"object"`
	// What is wrong with it: "missing", "not wanted", or what is where something else belongs.
	What string `json:"what"`
}

// Compare names every object in which have differs from want. There is none exactly if Diff of the two is empty.
func Compare(have, want Table) []Difference {
	if have.Name == "" {
		return []Difference{{want.Title(), "missing"}}
	}
	var c comparison
	h, w := index(have), index(want)
	for _, s := range want.Sets {
		if _, ok := h.sets[s.Name]; !ok {
			c.add("set "+s.Name, "missing")
		}
	}
	for _, s := range have.Sets {
		if wanted, ok := w.sets[s.Name]; ok {
			c.set(s, wanted)
		} else {
			c.add("set "+s.Name, "not wanted")
		}
	}
	for _, chain := range want.Chains {
		if _, ok := h.chains[chain.Name]; !ok {
			c.add("chain "+chain.Name, "missing")
		}
	}
	for _, chain := range have.Chains {
		if wanted, ok := w.chains[chain.Name]; ok {
			c.chain(chain, wanted)
		} else {
			c.add("chain "+chain.Name, "not wanted")
		}
	}
	return c.found
}

type comparison struct{ found []Difference }

func (c *comparison) add(object, format string, args ...any) {
	c.found = append(c.found, Difference{Object: object, What: fmt.Sprintf(format, args...)})
}

func (c *comparison) set(have, want Set) {
	if !equalSetSpec(have, want) {
		c.add("set "+have.Name, "is %s, and must be %s", printSpec(have), printSpec(want))
	}
	if have.Dynamic || want.Dynamic {
		return
	}
	h, w := have.ByKey(), want.ByKey()
	for _, e := range sortedElements(have) {
		wanted, ok := w[e.Key]
		switch {
		case !ok:
			c.add("element of set "+have.Name, "%s is not wanted", PrintElement(have, e))
		case !equalElement(e, wanted):
			c.add("element of set "+have.Name, "%s must be %s", PrintElement(have, e), PrintElement(want, wanted))
		}
	}
	for _, e := range sortedElements(want) {
		if _, ok := h[e.Key]; !ok {
			c.add("element of set "+have.Name, "%s is missing", PrintElement(want, e))
		}
	}
}

func sortedElements(s Set) []Element {
	return slices.SortedFunc(slices.Values(s.Elements), func(a, b Element) int { return cmp.Compare(a.Key, b.Key) })
}

func printSpec(s Set) string {
	out := fmt.Sprintf("%v", s.Key)
	if s.Verdicts {
		out += " : verdict"
	}
	if s.Data != TypeInvalid {
		out += " : " + s.Data.String()
	}
	return out + fmt.Sprintf(" flags %v size %d timeout %s counter %v", setFlags(s), s.Size, printDuration(s.Timeout), s.Counter)
}

func (c *comparison) chain(have, want Chain) {
	if !equalChainSpec(have, want) {
		c.add("chain "+have.Name, "hook %s priority %d policy %s, and must be hook %s priority %d policy %s",
			have.Hook, have.Priority, have.Policy, want.Hook, want.Priority, want.Policy)
	}
	h, w := have.Rules, want.Rules
	for len(h) > 0 && len(w) > 0 && equalRule(h[0], w[0]) {
		h, w = h[1:], w[1:]
	}
	at := len(have.Rules) - len(h)
	for len(h) > 0 && len(w) > 0 && equalRule(h[len(h)-1], w[len(w)-1]) {
		h, w = h[:len(h)-1], w[:len(w)-1]
	}
	c.rules("rule of chain "+have.Name, at, h, w)
}

// rules names the rules in which the middles of two chains differ; at is where the middle begins.
func (c *comparison) rules(object string, at int, have, want []Rule) {
	extra := without(have, want, equalRule)
	missing := without(want, have, func(w, h Rule) bool { return equalRule(h, w) })
	for _, r := range extra {
		c.add(object, "%s is not wanted", PrintRule(r))
	}
	for _, r := range missing {
		c.add(object, "%s is missing", PrintRule(r))
	}
	if len(extra)+len(missing) == 0 && len(have) > 0 {
		c.add(object, "%s is out of order: it is number %d, where %s belongs", PrintRule(have[0]), at+1, PrintRule(want[0]))
	}
}

// without returns the rules that are in a more often than in b.
func without(a, b []Rule, equal func(a, b Rule) bool) (rest []Rule) {
	left := slices.Clone(b)
	for _, r := range a {
		if i := slices.IndexFunc(left, func(x Rule) bool { return equal(r, x) }); i >= 0 {
			left = slices.Delete(left, i, i+1)
			continue
		}
		rest = append(rest, r)
	}
	return rest
}
