// Package addrset is exact arithmetic on sets of IP addresses. A Set is kept as the addresses at which its intervals begin and
// end, so that two sets are equal exactly if these are. IPv4 and IPv6 addresses are different addresses, and one Set may hold
// both.
package addrset

import (
	"net/netip"
	"strings"
)

// Interval is a closed range of addresses of one family: First is not after Last.
type Interval struct{ First, Last netip.Addr }

// Set is a set of addresses; the zero value is empty. It is immutable.
type Set struct{ v4, v6 half }

// All is every address of a family.
func All(is4 bool) Set { return Set{v4: half{first: is4}, v6: half{first: !is4}} }

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
	var v4, v6 []span
	for _, i := range intervals {
		if !i.First.IsValid() || i.First.Is4() != i.Last.Is4() || i.Last.Less(i.First) {
			continue
		}
		if i.First.Is4() {
			v4 = append(v4, span{numberOf(i.First), numberOf(i.Last)})
		} else {
			v6 = append(v6, span{numberOf(i.First), numberOf(i.Last)})
		}
	}
	return Set{halfOf(canonical(v4), last4), halfOf(canonical(v6), last6)}
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
func (s Set) IsEmpty() bool { return s == Set{} }

// Intervals returns the fewest intervals in ascending order, IPv4 first.
func (s Set) Intervals() []Interval {
	v4, v6 := s.v4.spans(nil, last4), s.v6.spans(nil, last6)
	out := make([]Interval, 0, len(v4)+len(v6))
	for _, i := range v4 {
		out = append(out, Interval{i.first.addr4(), i.last.addr4()})
	}
	for _, i := range v6 {
		out = append(out, Interval{i.first.addr6(), i.last.addr6()})
	}
	return out
}

// One returns the address of a set that holds just one.
func (s Set) One() (a netip.Addr, ok bool) {
	if s.v4.boundaries.count()+s.v6.boundaries.count() > 2 { // more than an interval has
		return netip.Addr{}, false
	}
	if all := s.Intervals(); len(all) == 1 && all[0].First == all[0].Last {
		return all[0].First, true
	}
	return netip.Addr{}, false
}

// Equal tells whether both sets hold the same addresses.
func (s Set) Equal(t Set) bool {
	return s.v4.first == t.v4.first && s.v6.first == t.v6.first && s.v4.boundaries.equal(t.v4.boundaries) && s.v6.boundaries.equal(t.v6.boundaries)
}

// Same tells whether both are the same value, without looking at what they hold: false says nothing.
func (s Set) Same(t Set) bool { return s == t }

// Contains tells whether an address is in the set.
func (s Set) Contains(a netip.Addr) bool {
	if a.Is4() {
		return s.v4.contains(numberOf(a))
	}
	return a.IsValid() && s.v6.contains(numberOf(a))
}

// Union is what is in either set.
func (s Set) Union(t Set) Set { return (*Arithmetic)(nil).Union(s, t) }

// Intersect is what is in both sets.
func (s Set) Intersect(t Set) Set { return (*Arithmetic)(nil).Intersect(s, t) }

// Minus is what is in s and not in t.
func (s Set) Minus(t Set) Set { return (*Arithmetic)(nil).Minus(s, t) }

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
