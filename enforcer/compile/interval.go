package compile

import (
	"net/netip"
	"slices"

	"drawbridge/enforcer/ruleset"
)

// interval is a closed range of addresses of one family.
type interval struct{ first, last netip.Addr }

// union returns the fewest disjoint, non-adjacent intervals that cover what the prefixes cover, in ascending order.
// The kernel refuses overlapping elements, and D-10 asks for it: what another rule still covers stays covered.
func union(prefixes []netip.Prefix) []interval {
	all := make([]interval, len(prefixes))
	for i, p := range prefixes {
		all[i] = interval{first: p.Masked().Addr(), last: lastAddr(p)}
	}
	slices.SortFunc(all, func(a, b interval) int { return a.first.Compare(b.first) })
	var out []interval
	for _, next := range all {
		if n := len(out); n > 0 && out[n-1].touches(next) {
			if out[n-1].last.Less(next.last) {
				out[n-1].last = next.last
			}
			continue
		}
		out = append(out, next)
	}
	return out
}

// touches reports whether next, which does not begin before i, overlaps i or follows it without a gap.
func (i interval) touches(next interval) bool {
	after := i.last.Next() // not valid behind the last address of the family
	return !after.IsValid() || next.first.Compare(after) <= 0
}

func lastAddr(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for bit := p.Bits(); bit < len(b)*8; bit++ {
		b[bit/8] |= 0x80 >> (bit % 8)
	}
	last, _ := netip.AddrFromSlice(b) // as long as it was
	return last
}

func (i interval) element() ruleset.Element {
	return ruleset.Element{Key: addrKey(i.first), End: addrKey(i.last)}
}
