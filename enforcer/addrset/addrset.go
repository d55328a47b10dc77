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
type Set struct{ intervals []Interval }

// First and last addresses of the families.
var (
	all4 = Interval{First: netip.IPv4Unspecified(), Last: netip.AddrFrom4([4]byte{255, 255, 255, 255})}
	all6 = Interval{First: netip.IPv6Unspecified(), Last: LastOf(netip.PrefixFrom(netip.IPv6Unspecified(), 0))}
)

// All is every address of a family.
func All(is4 bool) Set {
	if is4 {
		return Set{[]Interval{all4}}
	}
	return Set{[]Interval{all6}}
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
	sorted := slices.DeleteFunc(slices.Clone(intervals), func(i Interval) bool {
		return !i.First.IsValid() || i.First.Is4() != i.Last.Is4() || i.Last.Less(i.First)
	})
	slices.SortFunc(sorted, func(a, b Interval) int { return a.First.Compare(b.First) })
	return Set{merged(sorted)}
}

// merged joins what overlaps or touches, in a list that is sorted by first address.
func merged(sorted []Interval) []Interval {
	var out []Interval
	for _, next := range sorted {
		if n := len(out); n > 0 && touches(out[n-1], next) {
			if out[n-1].Last.Less(next.Last) {
				out[n-1].Last = next.Last
			}
			continue
		}
		out = append(out, next)
	}
	return out
}

// touches tells whether next, which does not begin before i, overlaps i or follows it without a gap.
func touches(i, next Interval) bool {
	if i.First.Is4() != next.First.Is4() {
		return false
	}
	after := i.Last.Next() // not valid behind the last address of the family
	return !after.IsValid() || next.First.Compare(after) <= 0
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
func (s Set) IsEmpty() bool { return len(s.intervals) == 0 }

// Intervals returns the intervals in ascending order.
func (s Set) Intervals() []Interval { return slices.Clone(s.intervals) }

// Len is the number of intervals.
func (s Set) Len() int { return len(s.intervals) }

// Equal tells whether both sets hold the same addresses.
func (s Set) Equal(t Set) bool { return slices.Equal(s.intervals, t.intervals) }

// Contains tells whether an address is in the set.
func (s Set) Contains(a netip.Addr) bool {
	i, found := slices.BinarySearchFunc(s.intervals, a, func(i Interval, a netip.Addr) int { return i.First.Compare(a) })
	return found || i > 0 && !s.intervals[i-1].Last.Less(a) && s.intervals[i-1].First.Is4() == a.Is4()
}

// Union is what is in either set.
func (s Set) Union(t Set) Set {
	switch {
	case len(s.intervals) == 0:
		return t
	case len(t.intervals) == 0 || s.same(t):
		return s
	}
	both := make([]Interval, 0, len(s.intervals)+len(t.intervals))
	a, b := s.intervals, t.intervals
	for len(a) > 0 && len(b) > 0 {
		if b[0].First.Less(a[0].First) {
			a, b = b, a
		}
		both, a = append(both, a[0]), a[1:]
	}
	return Set{merged(append(append(both, a...), b...))}
}

// same tells whether both are one list, without looking at it.
func (s Set) same(t Set) bool {
	return len(s.intervals) == len(t.intervals) && len(s.intervals) > 0 && &s.intervals[0] == &t.intervals[0]
}

// Intersect is what is in both sets.
func (s Set) Intersect(t Set) Set {
	if s.same(t) {
		return s
	}
	var out []Interval
	a, b := s.intervals, t.intervals
	for len(a) > 0 && len(b) > 0 {
		first, last := a[0].First, a[0].Last
		if first.Less(b[0].First) {
			first = b[0].First
		}
		if b[0].Last.Less(last) {
			last = b[0].Last
		}
		if !last.Less(first) {
			out = append(out, Interval{first, last})
		}
		if a[0].Last.Less(b[0].Last) {
			a = a[1:]
		} else {
			b = b[1:]
		}
	}
	return Set{out}
}

// Minus is what is in s and not in t.
func (s Set) Minus(t Set) Set {
	if len(t.intervals) == 0 || len(s.intervals) == 0 {
		return s
	}
	if s.same(t) {
		return Set{}
	}
	var out []Interval
	gone := t.intervals
	for _, i := range s.intervals {
		for len(gone) > 0 && gone[0].Last.Less(i.First) {
			gone = gone[1:]
		}
		rest := i
		for _, g := range gone {
			if rest.Last.Less(g.First) {
				break
			}
			if rest.First.Less(g.First) {
				out = append(out, Interval{rest.First, g.First.Prev()})
			}
			next := g.Last.Next()
			if !next.IsValid() || rest.Last.Less(next) || next.Is4() != rest.Last.Is4() {
				rest = Interval{}
				break
			}
			rest.First = next
		}
		if rest.First.IsValid() {
			out = append(out, rest)
		}
	}
	return Set{out}
}

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

// String lists the intervals; "none" for the empty set.
func (s Set) String() string {
	if s.IsEmpty() {
		return "none"
	}
	words := make([]string, len(s.intervals))
	for n, i := range s.intervals {
		words[n] = i.String()
	}
	return strings.Join(words, ", ")
}

// MarshalText writes an interval as String does.
func (i Interval) MarshalText() ([]byte, error) { return []byte(i.String()), nil }
