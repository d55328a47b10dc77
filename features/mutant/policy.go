package mutant

import (
	"net/netip"
	"slices"
	"strings"

	"drawbridge/features/driver"
)

// each returns a change of every database but the canary: without a canary nothing can be judged.
func each(change func(*driver.Document, *driver.Database)) func(*driver.Document) error {
	return func(doc *driver.Document) error {
		for i := range doc.Databases {
			if !isCanary(doc.Databases[i]) {
				change(doc, &doc.Databases[i])
			}
		}
		return nil
	}
}

func isCanary(d driver.Database) bool { return strings.HasPrefix(d.Name, driver.CanaryPrefix) }

func on(t *bool) bool { return t != nil && *t }

func set(to bool) *bool { return &to }

func isDedicated(d *driver.Database) bool { return d.Model == "dedicated" }

func custom(p netip.Prefix) driver.Rule { return driver.Rule{Type: driver.CustomRange, CIDR: &p} }

// unspecified4 and unspecified6 are everybody.
var (
	everybody4 = netip.MustParsePrefix("0.0.0.0/0")
	everybody6 = netip.MustParsePrefix("::/0")
)

// nobody is a network that no node of any lab has: the lower half of RFC 2544's.
var nobody = netip.MustParsePrefix("198.18.0.0/16")

// policies are mutants that misread a part of the policy.
func policies() []Mutant {
	return slices.Concat(settings(), clusters(), []Mutant{
		{
			Name: "opens the neighbour", Breaks: "a setting of one database is one of all at its point",
			Statement: "S-12", Tags: "@S-12", change: shareSettings,
		},
		{
			Name: "rules of all for all", Breaks: "a rule on one database opens the others at its point",
			Statement: "D-15", Tags: "@D-15", change: shareRules,
		},
		{
			Name: "peering endpoint is public", Breaks: "the private endpoint is reachable from every zone",
			Statement: "D-14", Tags: "@D-14", change: each(func(doc *driver.Document, _ *driver.Database) {
				for i := range doc.Interfaces {
					if doc.Interfaces[i].Zone == "internet" {
						doc.Interfaces[i].Zone = "peering"
					}
				}
			}),
		},
		{
			Name: "peering needs no rule", Breaks: "the peered network is let in without a rule",
			Statement: "D-14", Tags: "@D-14", change: each(func(_ *driver.Document, d *driver.Database) {
				peered := func(e driver.Endpoint) bool { return e.Kind == "private-peering-rw" }
				if slices.ContainsFunc(d.Endpoints, peered) {
					addRule(d, custom(netip.MustParsePrefix("172.16.0.0/24")))
				}
			}),
		},
		{
			Name: "unpublished family open", Breaks: "a node's other addresses are not guarded",
			Statement: "G-03", Tags: "@G-03", change: each(func(_ *driver.Document, d *driver.Database) {
				for i := range d.Nodes {
					published := func(a netip.Addr) bool {
						return slices.ContainsFunc(d.Endpoints, func(e driver.Endpoint) bool {
							return e.Address == a || e.DNAT != nil && e.DNAT.Address == a
						})
					}
					if slices.ContainsFunc(d.Nodes[i].Addresses, published) {
						d.Nodes[i].Addresses = slices.DeleteFunc(d.Nodes[i].Addresses, func(a netip.Addr) bool { return !published(a) })
					}
				}
			}),
		},
		{
			Name: "only the first database", Breaks: "every database after the first is left alone",
			Statement: "G-01", Tags: "@G-01", change: func(doc *driver.Document) error {
				first := slices.IndexFunc(doc.Databases, func(d driver.Database) bool { return !isCanary(d) })
				i := -1
				doc.Databases = slices.DeleteFunc(doc.Databases, func(d driver.Database) bool {
					i++
					return i != first && !isCanary(d)
				})
				return nil
			},
		},
	})
}

// settings are mutants that misread a toggle, or its default.
func settings() []Mutant {
	return []Mutant{
		{
			Name: "Force TLS off by default", Breaks: "dedicated databases get the default of shared ones",
			Statement: "D-04", Tags: "@D-04", change: each(func(_ *driver.Document, d *driver.Database) {
				if isDedicated(d) && d.ForceTLS == nil {
					d.ForceTLS = set(false)
				}
			}),
		},
		{
			Name: "Force TLS on by default", Breaks: "shared databases get the default of dedicated ones",
			Statement: "S-05", Tags: "@S-05", change: each(func(_ *driver.Document, d *driver.Database) {
				if !isDedicated(d) && d.ForceTLS == nil {
					d.ForceTLS = set(true)
				}
			}),
		},
		{
			Name: "Force TLS off in the region", Breaks: "Force TLS is forgotten where Internet accessibility is off",
			Statement: "S-06", Tags: "@S-06", change: each(func(_ *driver.Document, d *driver.Database) {
				if !on(d.InternetAccessibility) {
					d.ForceTLS = set(false)
				}
			}),
		},
		{
			Name: "Force TLS yields to 0.0.0.0/0", Breaks: "filtering off turns Force TLS off",
			Statement: "D-11", Tags: "@D-11", change: each(func(_ *driver.Document, d *driver.Database) {
				if slices.ContainsFunc(d.FirewallRules, func(r driver.Rule) bool { return r.CIDR != nil && r.CIDR.Bits() == 0 }) {
					d.ForceTLS = set(false)
				}
			}),
		},
		{
			Name: "Force TLS spares the plain port", Breaks: "the plaintext port of a pair stays open under Force TLS",
			Statement: "S-06", Tags: "@S-06", change: sparePlainPorts(func(netip.Addr) bool { return true }),
		},
		{
			Name: "Force TLS spares the plain port over IPv6", Breaks: "the plaintext port of a pair stays open under Force TLS, over IPv6",
			Statement: "X-01", Tags: "@X-01 && @S-06", change: sparePlainPorts(netip.Addr.Is6),
		},
		{
			Name: "Internet accessibility never", Breaks: "Internet accessibility is accepted and does nothing",
			Statement: "S-08", Tags: "@S-08", change: each(func(_ *driver.Document, d *driver.Database) {
				if on(d.ForceTLS) && on(d.InternetAccessibility) {
					d.InternetAccessibility = nil
				}
			}),
		},
		{
			Name: "regional default missing", Breaks: "the region's network is not let in",
			Statement: "S-01", Tags: "@S-01", change: func(doc *driver.Document) error {
				doc.Region.Networks = []netip.Prefix{nobody}
				return nil
			},
		},
		{
			Name: "the Internet is the region", Breaks: "what arrives from the Internet counts as the region's network",
			Statement: "S-02", Tags: "@S-02", change: func(doc *driver.Document) error {
				doc.Region.Networks = []netip.Prefix{everybody4, everybody6}
				for i := range doc.Interfaces {
					if doc.Interfaces[i].Zone == "internet" && doc.Point.Model == "shared" {
						doc.Interfaces[i].Zone = "regional"
					}
				}
				return nil
			},
		},
		{
			Name: "unknown connections kept", Breaks: "connections whose beginning nobody saw survive Force TLS",
			Statement: "X-05", Tags: "@X-05", change: each(func(_ *driver.Document, d *driver.Database) { d.UnknownConnections = "keep" }),
		},
		{
			Name: "unknown connections cut", Breaks: "they are cut although the policy says to keep them",
			Statement: "X-05", Tags: "@X-05", change: each(func(_ *driver.Document, d *driver.Database) { d.UnknownConnections = "cut" }),
		},
	}
}

// clusters are mutants that misread what nodes may do.
func clusters() []Mutant {
	return []Mutant{
		{
			Name: "cluster ports closed", Breaks: "nodes do not reach each other",
			Statement: "C-03", Tags: "@C-03", change: each(func(_ *driver.Document, d *driver.Database) { d.ClusterPorts = nil }),
		},
		{
			Name: "cluster ports open to the region", Breaks: "clients reach ports that only the cluster uses",
			Statement: "C-04", Tags: "@C-04", change: each(func(_ *driver.Document, d *driver.Database) {
				for _, c := range d.ClusterPorts {
					for _, n := range d.Nodes {
						if c.Shared || !n.Here || isDedicated(d) {
							continue
						}
						for _, a := range n.Addresses {
							d.Endpoints = append(d.Endpoints, driver.Endpoint{Kind: "public-rw", Address: a, Port: c.Port, Family: family(a), TLS: "only"})
						}
					}
				}
			}),
		},
		{
			Name: "cluster by region", Breaks: "nodes are clients: on shared ports they need no TLS while Force TLS is off",
			Statement: "C-03", Tags: "@C-03", change: each(func(doc *driver.Document, d *driver.Database) {
				if isDedicated(d) || len(d.ClusterPorts) == 0 {
					return
				}
				for _, n := range d.Nodes {
					for _, a := range n.Addresses {
						doc.Region.Networks = append(doc.Region.Networks, netip.PrefixFrom(a, a.BitLen()))
					}
				}
				d.ClusterPorts = nil
			}),
		},
	}
}

func family(a netip.Addr) string {
	if a.Is4() {
		return "ipv4"
	}
	return "ipv6"
}

// shareSettings gives every shared database of a point the settings of whichever is open to the Internet.
func shareSettings(doc *driver.Document) error {
	open := func(d driver.Database) bool {
		return !isCanary(d) && on(d.InternetAccessibility) && on(d.ForceTLS)
	}
	i := slices.IndexFunc(doc.Databases, open)
	if i < 0 {
		return nil
	}
	return each(func(_ *driver.Document, d *driver.Database) {
		d.ForceTLS, d.InternetAccessibility = set(true), set(true)
	})(doc)
}

// shareRules gives every dedicated database of a point the rules of all.
func shareRules(doc *driver.Document) error {
	var all []driver.Rule
	for _, d := range doc.Databases {
		if !isCanary(d) {
			all = append(all, d.FirewallRules...)
		}
	}
	return each(func(_ *driver.Document, d *driver.Database) {
		for _, r := range all {
			addRule(d, r)
		}
	})(doc)
}

// maxRules is how many rules a right enforcer accepts (SPEC D-12).
const maxRules = 30

// addRule adds a rule, unless it is there or there is no more room.
func addRule(d *driver.Database, r driver.Rule) {
	if len(d.FirewallRules) < maxRules && !slices.ContainsFunc(d.FirewallRules, sameAs(r)) {
		d.FirewallRules = append(d.FirewallRules, r)
	}
}

func sameAs(r driver.Rule) func(driver.Rule) bool {
	return func(o driver.Rule) bool {
		if r.CIDR == nil || o.CIDR == nil {
			return r.CIDR == nil && o.CIDR == nil && r.Name == o.Name
		}
		return *r.CIDR == *o.CIDR
	}
}

// sparePlainPorts makes the plaintext half of a pair, at some of its addresses, a database of its own without Force TLS.
func sparePlainPorts(at func(netip.Addr) bool) func(*driver.Document) error {
	return func(doc *driver.Document) error {
		var spared []driver.Database
		err := each(func(_ *driver.Document, d *driver.Database) {
			if other, ok := splitPlain(d, at); ok {
				spared = append(spared, other)
			}
		})(doc)
		doc.Databases = append(doc.Databases, spared...)
		return err
	}
}

// splitPlain takes the plaintext endpoints out of a database that is no cluster, and returns them as another one.
func splitPlain(d *driver.Database, at func(netip.Addr) bool) (driver.Database, bool) {
	plain := func(e driver.Endpoint) bool { return e.TLS == "none" && at(e.Address) }
	if !slices.ContainsFunc(d.Endpoints, plain) || len(d.ClusterPorts) > 0 {
		return driver.Database{}, false
	}
	other := *d
	other.Name += "-plain"
	other.ForceTLS, other.InternetAccessibility = set(false), nil
	other.Endpoints = slices.DeleteFunc(slices.Clone(d.Endpoints), func(e driver.Endpoint) bool { return !plain(e) })
	other.Nodes, d.Nodes = splitNodes(d.Nodes, at)
	d.Endpoints = slices.DeleteFunc(slices.Clone(d.Endpoints), plain)
	return other, true
}

// splitNodes divides what nodes listen on in two: the plaintext ports at some addresses, and the rest. A port belongs to all
// addresses of a node, so the rest may be two nodes where there was one.
func splitNodes(all []driver.Node, at func(netip.Addr) bool) (plain, rest []driver.Node) {
	for _, n := range all {
		isPlain := func(p driver.Port) bool { return p.TLS == "none" }
		spared, others, kept := n, n, n
		spared.Addresses = slices.DeleteFunc(slices.Clone(n.Addresses), func(a netip.Addr) bool { return !at(a) })
		spared.Ports = slices.DeleteFunc(slices.Clone(n.Ports), func(p driver.Port) bool { return !isPlain(p) })
		kept.Ports = slices.DeleteFunc(slices.Clone(n.Ports), isPlain)
		others.Name += "-other"
		others.Addresses = slices.DeleteFunc(slices.Clone(n.Addresses), at)
		others.Ports = spared.Ports
		plain, rest = append(plain, spared), append(rest, kept)
		if len(others.Addresses) > 0 {
			rest = append(rest, others)
		}
	}
	return plain, rest
}
