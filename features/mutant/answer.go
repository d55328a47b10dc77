package mutant

import (
	"fmt"
	"os"
	"slices"
	"time"

	"drawbridge/features/driver"
)

const refused = 2

// answers are mutants that answer wrongly, or too early.
func answers() []Mutant {
	return slices.Concat(refusals(), receipts(), transitions())
}

// refusals are mutants that accept what must be refused, or do it the wrong way.
func refusals() []Mutant {
	return []Mutant{
		{
			Name: "accessibility without Force TLS", Breaks: "Internet accessibility is accepted without Force TLS, and ignored",
			Statement: "S-09", Tags: "@S-09", change: each(func(_ *driver.Document, d *driver.Database) {
				if !isDedicated(d) && !on(d.ForceTLS) {
					d.InternetAccessibility = nil
				}
			}),
		},
		{
			Name: "accessibility turns Force TLS on", Breaks: "Internet accessibility is accepted without Force TLS, and turns it on",
			Statement: "S-09", Tags: "@S-09", change: each(func(_ *driver.Document, d *driver.Database) {
				if !isDedicated(d) && on(d.InternetAccessibility) {
					d.ForceTLS = set(true)
				}
			}),
		},
		{
			Name: "rules on shared databases", Breaks: "a rule on a shared database is accepted, and ignored",
			Statement: "S-10", Tags: "@S-10", change: each(func(_ *driver.Document, d *driver.Database) {
				if !isDedicated(d) {
					d.FirewallRules = nil
				}
			}),
		},
		{
			Name: "accessibility of dedicated databases", Breaks: "Internet accessibility of a dedicated database is accepted, and ignored",
			Statement: "S-10", Tags: "@S-10", change: each(func(_ *driver.Document, d *driver.Database) {
				if isDedicated(d) {
					d.InternetAccessibility = nil
				}
			}),
		},
		{
			Name: "thirty-first rule", Breaks: "the 31st rule is accepted, and ignored", Statement: "D-12", Tags: "@D-12",
			change: each(func(_ *driver.Document, d *driver.Database) {
				d.FirewallRules = d.FirewallRules[:min(len(d.FirewallRules), maxRules)]
			}),
		},
		{
			Name: "refusal opens", Breaks: "a refused policy leaves nothing in force", Statement: "S-09", Tags: "@S-09",
			also: func(d Door, _ *driver.Document, a Answer) error {
				if a.Status == refused {
					d.Next("reset", nil)
				}
				return nil
			},
		},
		{
			Name: "refusal closes", Breaks: "a refused policy closes the databases", Statement: "D-12", Tags: "@D-12",
			also: func(d Door, doc *driver.Document, a Answer) error {
				if a.Status != refused {
					return nil
				}
				closeAll(doc, func(d driver.Database) bool { return !isCanary(d) })
				body, err := doc.Encode()
				if err == nil {
					d.Next("apply", body)
				}
				return err
			},
		},
		{
			Name: "refuses managed ranges", Breaks: "managed ranges are refused", Statement: "D-06", Tags: "@D-06",
			change: each(func(_ *driver.Document, d *driver.Database) {
				for i, r := range d.FirewallRules {
					if r.Type == driver.ManagedRange {
						d.FirewallRules[i].Name = "nowhere"
					}
				}
			}),
		},
	}
}

func receipts() []Mutant {
	return []Mutant{
		{
			Name: "constant generation", Breaks: "every receipt is the same", Statement: "D-16", Tags: "@D-16",
			answer: func(_ *driver.Document, a Answer) Answer {
				if a.Status == 0 {
					a.Stdout = []byte("{\"generation\": 1}\n")
				}
				return a
			},
		},
		{
			Name: "warns nobody", Breaks: "a rule for everybody warns nobody", Statement: "D-11", Tags: "@D-11",
			answer: func(_ *driver.Document, a Answer) Answer {
				a.Stderr = nil
				return a
			},
		},
		{
			Name: "warns everybody", Breaks: "every rule warns", Statement: "D-11", Tags: "@D-11",
			answer: func(doc *driver.Document, a Answer) Answer {
				for _, d := range doc.Databases {
					a.Stderr = fmt.Appendf(a.Stderr, "warning: %s: open to everybody\n", d.Name)
				}
				return a
			},
		},
		{
			Name: "warns without a name", Breaks: "the warning does not say whose rule it is", Statement: "D-11", Tags: "@D-11",
			answer: func(_ *driver.Document, a Answer) Answer {
				a.Stderr = []byte("warning: a rule lets in everybody\n")
				return a
			},
		},
		{
			Name: "in force half a second later", Breaks: "apply answers before anything is in force",
			Statement: "D-05", Tags: "@D-05", call: applyLater,
		},
		{
			Name: "slow", Breaks: "a change takes longer than a second", Statement: "D-16", Tags: "@D-16",
			call: func(d Door, verb string, in []byte) Answer {
				if verb == "apply" {
					<-time.After(slowness)
				}
				return d.Next(verb, in)
			},
		},
	}
}

const (
	lateness = 500 * time.Millisecond
	slowness = 1100 * time.Millisecond // SPEC D-16 as features/dedicated_resources.feature measures it: one second
)

// laterFile holds the policy that a process of a mutant's own brings into force.
const laterFile = "later"

// applyLater answers at once. What was in force before goes, so that the first policy is late as well.
func applyLater(d Door, verb string, in []byte) Answer {
	switch verb {
	case "apply":
		if err := os.WriteFile(laterFile, in, 0o600); err != nil {
			return broken(err)
		}
		if err := d.Later(); err != nil {
			return broken(err)
		}
		return receipt()
	case Later:
		<-time.After(lateness)
		policy, err := os.ReadFile(laterFile)
		if err != nil {
			return broken(err)
		}
		return d.Next("apply", policy)
	}
	return d.Next(verb, in)
}
