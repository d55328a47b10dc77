package addrset

import (
	"cmp"
	"math/bits"
	"net/netip"
)

// Gap is how far an address is from an interval. The zero value: it is in it.
type Gap struct{ hi, lo uint64 }

// Less tells whether a gap is smaller.
func (g Gap) Less(h Gap) bool { return cmp.Or(cmp.Compare(g.hi, h.hi), cmp.Compare(g.lo, h.lo)) < 0 }

// Gap is how far an address of the same family is from the interval.
func (i Interval) Gap(a netip.Addr) Gap {
	n, first, last := numberOf(a), numberOf(i.First), numberOf(i.Last)
	switch {
	case n.less(first):
		return between(n, first)
	case last.less(n):
		return between(last, n)
	}
	return Gap{}
}

func between(a, b number) Gap {
	lo, borrow := bits.Sub64(b.lo, a.lo, 0)
	hi, _ := bits.Sub64(b.hi, a.hi, borrow)
	return Gap{hi, lo}
}
