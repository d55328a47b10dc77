package mutant

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"

	"drawbridge/features/driver"
)

// wholesale are mutants that get everything of one kind wrong.
func wholesale() []Mutant {
	return []Mutant{
		{
			Name: "accepts all", Full: true, Breaks: "no policy is ever in force", Statement: "G-01", Tags: "@G-01",
			call: func(d Door, verb string, in []byte) Answer {
				if verb != "apply" {
					return d.Next(verb, in)
				}
				if a := d.Next("reset", nil); a.Status != 0 {
					return a
				}
				return receipt()
			},
		},
		{
			Name: "denies all", Full: true, Breaks: "nobody is let in, the canary's clients included", Tags: "@S-01",
			change: func(doc *driver.Document) error {
				closeAll(doc, func(driver.Database) bool { return true })
				return nil
			},
		},
		{
			Name: "denies all but the canary", Breaks: "nobody else is let in", Statement: "S-01", Tags: "@S-01",
			change: func(doc *driver.Document) error {
				closeAll(doc, func(d driver.Database) bool { return !isCanary(d) })
				return nil
			},
		},
		{
			Name: "ignores reset", Full: true, Breaks: "what was applied stays in force", Statement: "S-06", Tags: "@S-06",
			call: func(d Door, verb string, in []byte) Answer {
				if verb == "reset" {
					return Answer{}
				}
				return d.Next(verb, in)
			},
		},
		{
			Name: "no IPv6: denied", Breaks: "nobody is let in over IPv6", Statement: "X-01", Tags: "@X-01",
			change: func(doc *driver.Document) error {
				only4(doc)
				return nil
			},
		},
	}
}

// closeAll takes away what lets anybody in.
func closeAll(doc *driver.Document, of func(driver.Database) bool) {
	doc.Region.Networks = []netip.Prefix{nobody}
	for i, d := range doc.Databases {
		if of(d) {
			doc.Databases[i].FirewallRules = nil
			doc.Databases[i].InternetAccessibility = nil
			doc.Databases[i].ClusterPorts = nil
		}
	}
}

// only4 takes IPv6 out of everything that lets anybody in, but for the canary.
func only4(doc *driver.Document) {
	is6 := func(p netip.Prefix) bool { return p.Addr().Is6() }
	doc.Region.Networks = slices.DeleteFunc(doc.Region.Networks, is6)
	for name := range doc.ManagedRanges {
		doc.ManagedRanges[name] = slices.DeleteFunc(doc.ManagedRanges[name], is6)
	}
	for i, d := range doc.Databases {
		if isCanary(d) {
			continue
		}
		doc.Databases[i].FirewallRules = slices.DeleteFunc(d.FirewallRules, func(r driver.Rule) bool { return r.CIDR != nil && is6(*r.CIDR) })
		if !isDedicated(&d) {
			doc.Databases[i].Endpoints = slices.DeleteFunc(d.Endpoints, func(e driver.Endpoint) bool { return e.Address.Is6() })
		}
	}
}

// counterFile holds how many receipts the point has had.
const counterFile = "receipts"

// receipt is the answer to an apply that never reached the right enforcer, with a generation of its own.
func receipt() Answer {
	n := 0
	if text, err := os.ReadFile(counterFile); err == nil {
		if n, err = strconv.Atoi(string(text)); err != nil {
			return broken(err)
		}
	}
	if err := os.WriteFile(counterFile, []byte(strconv.Itoa(n+1)), 0o600); err != nil {
		return broken(err)
	}
	return Answer{Stdout: fmt.Appendf(nil, "{\"generation\": \"mutant-%d\"}\n", n+1)}
}
