// Package addrset is exact arithmetic on sets of IP addresses. A Set is kept as the fewest closed intervals, so that two
// sets are equal exactly if their intervals are. IPv4 and IPv6 addresses are different addresses, and one Set may hold both.
package addrset

import (
	"net/netip"
	"slices"
	"strings"
)

// Interval is a closed range of addresses of one family: First is not after Last.
type Interval struct{ First, Last netip.Addr }

// Set is a set of addresses; the zero value is empty. It is immutable.
type Set struct{ v4, v6 spans }

var all4, all6 = Set{v4: spans{{number{}, last4}}}, Set{v6: spans{{number{}, last6}}}

// All is every address of a family.
func All(is4 bool) Set {
	if is4 {
		return all4
	}
	return all6
}

// LastOf is the last address of a network.
func LastOf(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for bit := p.Bits(); bit < len(b)*8; bit++ {
		b[bit/8] |= 0x80 >> (bit % 8)
	}
	last, _ := netip.AddrFromSlice(b) // as long as it was
	return last
}

// Of is the union of intervals, in any order. One that is not an interval counts for nothing.
func Of(intervals ...Interval) Set {
	var s Set
	for _, i := range intervals {
		if !i.First.IsValid() || i.First.Is4() != i.Last.Is4() || i.Last.Less(i.First) {
			continue
		}
		if i.First.Is4() {
			s.v4 = append(s.v4, span{numberOf(i.First), numberOf(i.Last)})
		} else {
			s.v6 = append(s.v6, span{numberOf(i.First), numberOf(i.Last)})
		}
	}
	return Set{s.v4.canonical(), s.v6.canonical()}
}

// Prefixes is the union of networks.
func Prefixes(networks ...netip.Prefix) Set {
	intervals := make([]Interval, 0, len(networks))
	for _, p := range networks {
		intervals = append(intervals, Interval{p.Masked().Addr(), LastOf(p)})
	}
	return Of(intervals...)
}

// Addrs is the set of single addresses.
func Addrs(addresses ...netip.Addr) Set {
	intervals := make([]Interval, 0, len(addresses))
	for _, a := range addresses {
		intervals = append(intervals, Interval{a, a})
	}
	return Of(intervals...)
}

// IsEmpty tells whether nothing is in the set.
func (s Set) IsEmpty() bool { return len(s.v4)+len(s.v6) == 0 }

// Intervals returns the intervals in ascending order, IPv4 first.
func (s Set) Intervals() []Interval {
	out := make([]Interval, 0, len(s.v4)+len(s.v6))
	for _, i := range s.v4 {
		out = append(out, Interval{i.first.addr4(), i.last.addr4()})
	}
	for _, i := range s.v6 {
		out = append(out, Interval{i.first.addr6(), i.last.addr6()})
	}
	return out
}

// One returns the address of a set that holds just one.
func (s Set) One() (a netip.Addr, ok bool) {
	switch {
	case len(s.v4) == 1 && len(s.v6) == 0 && s.v4[0].first == s.v4[0].last:
		return s.v4[0].first.addr4(), true
	case len(s.v6) == 1 && len(s.v4) == 0 && s.v6[0].first == s.v6[0].last:
		return s.v6[0].first.addr6(), true
	}
	return netip.Addr{}, false
}

// Equal tells whether both sets hold the same addresses.
func (s Set) Equal(t Set) bool { return slices.Equal(s.v4, t.v4) && slices.Equal(s.v6, t.v6) }

// Same tells whether both are the same value, without looking at what they hold: false says nothing.
func (s Set) Same(t Set) bool { return s.v4.same(t.v4) && s.v6.same(t.v6) }

// Contains tells whether an address is in the set.
func (s Set) Contains(a netip.Addr) bool {
	if a.Is4() {
		return s.v4.contains(numberOf(a))
	}
	return a.IsValid() && s.v6.contains(numberOf(a))
}

// Union is what is in either set.
func (s Set) Union(t Set) Set { return Set{s.v4.union(t.v4), s.v6.union(t.v6)} }

// Intersect is what is in both sets.
func (s Set) Intersect(t Set) Set { return Set{s.v4.intersect(t.v4), s.v6.intersect(t.v6)} }

// Minus is what is in s and not in t.
func (s Set) Minus(t Set) Set { return Set{s.v4.minus(t.v4), s.v6.minus(t.v6)} }

// String writes an interval as an address, as the network that it is, or as first-last.
func (i Interval) String() string {
	if i.First == i.Last {
		return i.First.String()
	}
	for bits := range i.First.BitLen() {
		if p := netip.PrefixFrom(i.First, bits); p.Masked().Addr() == i.First && LastOf(p) == i.Last {
			return p.String()
		}
	}
	return i.First.String() + "-" + i.Last.String()
}

// MarshalText writes an interval as String does.
func (i Interval) MarshalText() ([]byte, error) { return []byte(i.String()), nil }

// String lists the intervals; "none" for the empty set.
func (s Set) String() string {
	if s.IsEmpty() {
		return "none"
	}
	var words []string
	for _, i := range s.Intervals() {
		words = append(words, i.String())
	}
	return strings.Join(words, ", ")
}
