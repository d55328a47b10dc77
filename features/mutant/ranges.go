package mutant

import (
	"net/netip"
	"slices"

	"drawbridge/features/driver"
)

// ranges are mutants that get networks wrong.
func ranges() []Mutant {
	return slices.Concat(customRanges(), managedRanges())
}

// splitBelow is the shortest prefix out of which single addresses are cut: the pieces are rules, and at most 30 are allowed.
const splitBelow = 16

func customRanges() []Mutant {
	return []Mutant{
		{
			Name: "prefix too wide", Breaks: "rules are one bit too short", Statement: "D-09", Tags: "@D-09",
			change: rewrite(func(p netip.Prefix) []netip.Prefix {
				if p.Bits() == 0 {
					return []netip.Prefix{p}
				}
				return []netip.Prefix{netip.PrefixFrom(p.Addr(), p.Bits()-1).Masked()}
			}),
		},
		{
			Name: "prefix too narrow", Breaks: "rules are one bit too long", Statement: "D-09", Tags: "@D-09",
			change: rewrite(func(p netip.Prefix) []netip.Prefix {
				if p.IsSingleIP() {
					return []netip.Prefix{p}
				}
				return []netip.Prefix{netip.PrefixFrom(p.Addr(), p.Bits()+1)}
			}),
		},
		{
			Name: "first address lost", Breaks: "the network address counts as outside", Statement: "D-09", Tags: "@D-09",
			change: rewrite(func(p netip.Prefix) []netip.Prefix { return without(p, p.Addr()) }),
		},
		{
			Name: "last address lost", Breaks: "the broadcast address counts as outside", Statement: "D-09", Tags: "@D-09",
			change: rewrite(func(p netip.Prefix) []netip.Prefix { return without(p, last(p)) }),
		},
		{
			Name: "address before kept", Breaks: "ranges begin one too early", Statement: "D-09", Tags: "@D-09",
			change: rewrite(func(p netip.Prefix) []netip.Prefix { return with(p, p.Addr().Prev()) }),
		},
		{
			Name: "address behind kept", Breaks: "ranges end one too late", Statement: "D-09", Tags: "@D-09",
			change: rewrite(func(p netip.Prefix) []netip.Prefix { return with(p, last(p).Next()) }),
		},
		{
			Name: "single addresses ignored", Breaks: "a /32 lets nobody in", Statement: "D-09", Tags: "@D-09",
			change: rewrite(func(p netip.Prefix) []netip.Prefix {
				if p.IsSingleIP() {
					return nil
				}
				return []netip.Prefix{p}
			}),
		},
		{
			Name: "one family's all is everybody", Breaks: "0.0.0.0/0 opens IPv6 as well", Statement: "X-01", Tags: "@X-01",
			change: rewrite(func(p netip.Prefix) []netip.Prefix {
				if p.Bits() == 0 {
					return []netip.Prefix{everybody4, everybody6}
				}
				return []netip.Prefix{p}
			}),
		},
		{
			Name: "only the last rule", Breaks: "a rule replaces those before it", Statement: "D-05", Tags: "@D-05",
			change: each(func(_ *driver.Document, d *driver.Database) {
				if n := len(d.FirewallRules); n > 1 && n <= maxRules {
					d.FirewallRules = d.FirewallRules[n-1:]
				}
			}),
		},
		{
			Name: "thirtieth rule lost", Breaks: "29 rules are in force at the most", Statement: "D-12", Tags: "@D-12",
			change: each(func(_ *driver.Document, d *driver.Database) {
				if len(d.FirewallRules) == maxRules {
					d.FirewallRules = d.FirewallRules[:maxRules-1]
				}
			}),
		},
	}
}

func managedRanges() []Mutant {
	return []Mutant{
		{
			Name: "the wrong region's range", Full: true, Breaks: "the managed range of a region is that of another",
			Statement: "D-06", Tags: "@D-06", change: func(doc *driver.Document) error {
				a, b := doc.ManagedRanges["osc-fr1"], doc.ManagedRanges["osc-secnum-fr1"]
				doc.ManagedRanges["osc-fr1"], doc.ManagedRanges["osc-secnum-fr1"] = b, a
				return nil
			},
		},
		{
			Name: "managed ranges of all", Breaks: "every managed range is that of all regions",
			Statement: "D-07", Tags: "@D-07", change: func(doc *driver.Document) error {
				var all []netip.Prefix
				for _, r := range doc.ManagedRanges {
					all = append(all, r...)
				}
				for name := range doc.ManagedRanges {
					doc.ManagedRanges[name] = all
				}
				return nil
			},
		},
		{
			Name: "half a managed range", Breaks: "only the first address of a managed range is let in",
			Statement: "D-06", Tags: "@D-06", change: func(doc *driver.Document) error {
				for name, r := range doc.ManagedRanges {
					doc.ManagedRanges[name] = r[:1]
				}
				return nil
			},
		},
		{
			Name: "managed range is the whole network", Breaks: "a managed range lets in its neighbours, the spare addresses",
			Statement: "D-13", Tags: "@D-13", change: func(doc *driver.Document) error {
				for name, r := range doc.ManagedRanges {
					var wide []netip.Prefix
					for _, p := range r {
						n := netip.PrefixFrom(p.Addr(), p.Bits()-4).Masked()
						if !slices.Contains(wide, n) {
							wide = append(wide, n)
						}
					}
					doc.ManagedRanges[name] = wide
				}
				return nil
			},
		},
		{
			Name: "own region always let in", Breaks: "the managed range of the own region needs no rule",
			Statement: "D-01", Tags: "@D-01", change: each(func(doc *driver.Document, d *driver.Database) {
				if isDedicated(d) {
					addRule(d, driver.Rule{Type: driver.ManagedRange, Name: doc.Region.Name})
				}
			}),
		},
	}
}

// rewrite replaces every custom range by networks, without repeating any.
func rewrite(to func(netip.Prefix) []netip.Prefix) func(*driver.Document) error {
	return each(func(_ *driver.Document, d *driver.Database) {
		rules := d.FirewallRules
		if len(rules) > maxRules {
			return // to be refused as it is
		}
		d.FirewallRules = nil
		for _, r := range rules {
			if r.CIDR == nil {
				addRule(d, r)
				continue
			}
			for _, p := range to(*r.CIDR) {
				addRule(d, custom(p))
			}
		}
	})
}

// last returns the last address of a network.
func last(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b) // as long as an address was
	return a
}

// with adds one address to a network. All addresses of a family have no neighbours.
func with(p netip.Prefix, a netip.Addr) []netip.Prefix {
	if !a.IsValid() {
		return []netip.Prefix{p}
	}
	return []netip.Prefix{p, netip.PrefixFrom(a, a.BitLen())}
}

// without cuts one address out of a network. Single addresses and very large networks stay whole.
func without(p netip.Prefix, a netip.Addr) []netip.Prefix {
	if p.IsSingleIP() || p.Bits() < splitBelow || p.Addr().BitLen()-p.Bits() > maxRules {
		return []netip.Prefix{p}
	}
	var pieces []netip.Prefix
	for !p.IsSingleIP() {
		low := netip.PrefixFrom(p.Addr(), p.Bits()+1)
		high := netip.PrefixFrom(last(low).Next(), low.Bits())
		if low.Contains(a) {
			p, pieces = low, append(pieces, high)
		} else {
			p, pieces = high, append(pieces, low)
		}
	}
	return pieces
}
