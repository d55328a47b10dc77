package addrset

import (
	"cmp"
	"encoding/binary"
	"math/bits"
	"net/netip"
	"slices"
)

// number is an address as a number.
type number struct{ hi, lo uint64 }

// The last numbers of the families.
var (
	last4 = number{0, 1<<32 - 1}
	last6 = number{1<<64 - 1, 1<<64 - 1}
)

func numberOf(a netip.Addr) number {
	if a.Is4() {
		b := a.As4()
		return number{0, uint64(binary.BigEndian.Uint32(b[:]))}
	}
	b := a.As16()
	return number{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])}
}

func (n number) addr4() netip.Addr {
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, uint32(n.lo))))
}

func (n number) addr6() netip.Addr {
	return netip.AddrFrom16([16]byte(binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, n.hi), n.lo)))
}

func (n number) compare(m number) int {
	return cmp.Or(cmp.Compare(n.hi, m.hi), cmp.Compare(n.lo, m.lo))
}

func (n number) less(m number) bool { return n.hi < m.hi || n.hi == m.hi && n.lo < m.lo }

// next is the number after this one; of the greatest, 0.
func (n number) next() number {
	if n.lo++; n.lo == 0 {
		n.hi++
	}
	return n
}

// prev is the number before this one, which is not 0.
func (n number) prev() number {
	if n.lo == 0 {
		n.hi--
	}
	n.lo--
	return n
}

// numberBits is how many bits a number has. Bit 0 is the highest.
const numberBits = 128

// common is how many of the highest bits two numbers share.
func (n number) common(m number) int {
	if d := n.hi ^ m.hi; d != 0 {
		return bits.LeadingZeros64(d)
	}
	return 64 + bits.LeadingZeros64(n.lo^m.lo)
}

// bit tells whether a bit is set.
func (n number) bit(i int) bool {
	if i < 64 {
		return n.hi>>(63-i)&1 != 0
	}
	return n.lo>>(127-i)&1 != 0
}

// span is a closed interval.
type span struct{ first, last number }

// canonical sorts intervals and joins what overlaps or touches, in place.
func canonical(s []span) []span {
	byFirst := func(a, b span) int { return a.first.compare(b.first) }
	if !slices.IsSortedFunc(s, byFirst) {
		slices.SortFunc(s, byFirst)
	}
	out := s[:0]
	for _, next := range s {
		switch n := len(out); {
		case n == 0 || out[n-1].last.less(next.first) && out[n-1].last.next() != next.first:
			out = append(out, next)
		case out[n-1].last.less(next.last):
			out[n-1].last = next.last
		}
	}
	return out
}
