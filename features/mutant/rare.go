package mutant

import "drawbridge/features/driver"

// every is how many databases there are to one at which a rare mutant is wrong: about one in a hundred, in step with nothing.
const every = 97

// Rare lists mutants that are wrong at few of many databases. The scenarios' world has not got so many: conform sample must find
// them, with the probability that it states.
func Rare() []Mutant {
	return []Mutant{
		{
			Name: "forgets the settings of one in 97", Breaks: "every 97th database of a point is as nobody ever touched it",
			change: atFew(func(d, _ *driver.Database) { d.FirewallRules, d.ForceTLS, d.InternetAccessibility = nil, nil, nil }),
		},
		{
			Name: "mixes up one in 97", Breaks: "every 97th database of a point has the settings of the one before",
			change: atFew(func(d, before *driver.Database) {
				d.FirewallRules, d.ForceTLS, d.InternetAccessibility = before.FirewallRules, before.ForceTLS, before.InternetAccessibility
			}),
		},
		{
			Name: "opens one in 97", Breaks: "every 97th dedicated database lets in everybody",
			change: atFew(func(d, _ *driver.Database) {
				if isDedicated(d) {
					d.FirewallRules = []driver.Rule{custom(everybody4), custom(everybody6)}
				}
			}),
		},
	}
}

// atFew changes the databases in question, each with the one before it at hand.
func atFew(change func(d, before *driver.Database)) func(*driver.Document) error {
	return func(doc *driver.Document) error {
		for i := every - 1; i < len(doc.Databases); i += every {
			if !isCanary(doc.Databases[i]) {
				change(&doc.Databases[i], &doc.Databases[i-1])
			}
		}
		return nil
	}
}
