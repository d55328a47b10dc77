package mutant

import (
	"time"
)

// leakTime is how long the slower of the leaking mutants leaves everything open.
const leakTime = 5 * time.Millisecond

// transitions are mutants that end up right, but not on the way there.
func transitions() []Mutant {
	opens := func(wait time.Duration) func(d Door, verb string, in []byte) Answer {
		return func(d Door, verb string, in []byte) Answer {
			if verb != "apply" {
				return d.Next(verb, in)
			}
			if _, err := decode(in); err != nil { // a mistake is refused as ever
				return d.Next(verb, in)
			}
			if a := d.Next("reset", nil); a.Status != 0 {
				return a
			}
			if wait > 0 {
				<-time.After(wait)
			}
			return d.Next("apply", in)
		}
	}
	return []Mutant{
		{
			Name: "replaces in two steps", Breaks: "the old table is gone before the new one is there",
			Statement: "X-06", Tags: "@X-06", call: opens(0),
		},
		{
			Name: "leaks during changes", Breaks: "nothing is in force for some milliseconds of a change",
			Statement: "X-06", Tags: "@X-06", call: opens(leakTime),
		},
		{
			Name: "closes during changes", Breaks: "nobody is let in for a moment of a change",
			Statement: "X-06", Tags: "@X-06", call: closesFirst,
		},
	}
}

// closesFirst lets nobody in but to the canary before it brings a policy into force.
func closesFirst(d Door, verb string, in []byte) Answer {
	doc, err := decode(in)
	if verb != "apply" || err != nil {
		return d.Next(verb, in)
	}
	for i, db := range doc.Databases { // closed must be acceptable
		if !isCanary(db) && !isDedicated(&doc.Databases[i]) {
			doc.Databases[i].InternetAccessibility = nil
		}
		if !isCanary(db) && isDedicated(&doc.Databases[i]) {
			doc.Databases[i].FirewallRules = nil
		}
	}
	body, err := doc.Encode()
	if err != nil {
		return broken(err)
	}
	if a := d.Next("apply", body); a.Status != 0 {
		return d.Next("apply", in) // what is refused is refused
	}
	return d.Next("apply", in)
}
