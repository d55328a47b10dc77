package mutant

import (
	"net/netip"
	"slices"

	"drawbridge/features/driver"
)

// swaps are mutants that take one thing for another.
func swaps() []Mutant {
	return []Mutant{
		{
			Name: "verdict flipped", Breaks: "who has rules lets nobody in, and who has none everybody", Statement: "D-01", Tags: "@D-01",
			change: each(func(_ *driver.Document, d *driver.Database) {
				switch {
				case !isDedicated(d):
				case len(d.FirewallRules) > 0:
					d.FirewallRules = nil
				default:
					d.FirewallRules = []driver.Rule{custom(everybody4), custom(everybody6)}
				}
			}),
		},
		{
			Name: "families swapped", Breaks: "a rule of one family is written into the set of the other", Statement: "D-09", Tags: "@D-09",
			change: rewrite(func(p netip.Prefix) []netip.Prefix {
				if p.Bits() == 0 {
					return []netip.Prefix{p}
				}
				return []netip.Prefix{otherFamily(p)}
			}),
		},
		{
			Name: "wrong port", Breaks: "endpoints are looked for one port further up", Statement: "D-05", Tags: "@D-05",
			change: each(func(_ *driver.Document, d *driver.Database) {
				if !isDedicated(d) {
					return
				}
				d.Endpoints = slices.Clone(d.Endpoints)
				for i := range d.Endpoints {
					d.Endpoints[i].Port++
				}
			}),
		},
	}
}

// otherFamily keeps an address's first bytes: all four in IPv6, and of IPv6 the first four.
func otherFamily(p netip.Prefix) netip.Prefix {
	if p.Addr().Is4() {
		a4 := p.Addr().As4()
		var a [16]byte
		copy(a[:], a4[:])
		return netip.PrefixFrom(netip.AddrFrom16(a), p.Bits())
	}
	a16 := p.Addr().As16()
	return netip.PrefixFrom(netip.AddrFrom4([4]byte(a16[:4])), min(p.Bits(), 32)).Masked()
}
