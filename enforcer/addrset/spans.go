package addrset

import (
	"cmp"
	"encoding/binary"
	"net/netip"
	"slices"
)

// number is an address as a number. It holds no pointer: sets of thousands of intervals are copied a lot.
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

// prevOr0 is the number before this one, of 0 itself.
func (n number) prevOr0() number {
	if n == (number{}) {
		return n
	}
	return n.prev()
}

type span struct{ first, last number }

// spans are intervals of one family, ascending, with a gap between any two.
type spans []span

// canonical sorts intervals and joins what overlaps or touches.
func (s spans) canonical() spans {
	slices.SortFunc(s, func(a, b span) int { return a.first.compare(b.first) })
	var out spans
	for _, next := range s {
		out = out.with(next)
	}
	return out
}

// with appends an interval that begins no earlier than the last one.
func (s spans) with(next span) spans {
	n := len(s)
	if n == 0 || s[n-1].last.less(next.first) && s[n-1].last.next() != next.first {
		return append(s, next)
	}
	if s[n-1].last.less(next.last) {
		s[n-1].last = next.last
	}
	return s
}

func (s spans) same(t spans) bool {
	return len(s) == len(t) && (len(s) == 0 || &s[0] == &t[0])
}

// from is the index of the first interval that ends at the number or behind it.
func (s spans) from(n number) int {
	i, _ := slices.BinarySearchFunc(s, n, func(x span, n number) int { return x.last.compare(n) })
	return i
}

// after is from, for a list that is walked or searched.
func (s spans) after(n number, walk bool) int {
	if !walk {
		return s.from(n)
	}
	i := 0
	for i < len(s) && s[i].last.less(n) {
		i++
	}
	return i
}

func (s spans) contains(n number) bool {
	i := s.from(n)
	return i < len(s) && !n.less(s[i].first)
}

func (s spans) union(t spans) spans {
	if len(s) < len(t) {
		s, t = t, s
	}
	if len(t) == 0 || s.same(t) {
		return s
	}
	if len(t) == 1 && !s[0].first.less(t[0].first) && !t[0].last.less(s[len(s)-1].last) {
		return t // all of it
	}
	out := make(spans, 0, len(s)+len(t))
	if len(s) < few*len(t) {
		return out.merge(s, t)
	}
	for _, next := range t {
		// What begins before it goes first.
		i, _ := slices.BinarySearchFunc(s, next.first, func(x span, n number) int { return x.first.compare(n) })
		if i > 0 {
			out = out.withAll(s[:i])
			s = s[i:]
		}
		out = out.with(next)
	}
	return out.withAll(s)
}

// few: up to so many times longer, a list is walked, and beyond that searched.
const few = 8

// merge appends two lists, side by side.
func (s spans) merge(a, b spans) spans {
	for len(a) > 0 && len(b) > 0 {
		if b[0].first.less(a[0].first) {
			a, b = b, a
		}
		s, a = s.with(a[0]), a[1:]
	}
	return s.withAll(a).withAll(b)
}

// withAll appends intervals that begin no earlier than the last one.
func (s spans) withAll(more spans) spans {
	for len(more) > 0 && len(s) > 0 && !s[len(s)-1].last.less(more[0].first.prevOr0()) {
		s, more = s.with(more[0]), more[1:]
	}
	return append(s, more...)
}

func (s spans) intersect(t spans) spans {
	if len(s) > len(t) {
		s, t = t, s
	}
	switch {
	case len(s) == 0:
		return nil
	case s.same(t):
		return s
	case len(s) == 1 && !t[0].first.less(s[0].first) && !s[0].last.less(t[len(t)-1].last):
		return t // all of it
	}
	var out spans
	for _, a := range s {
		t = t[t.after(a.first, len(t) < few*len(s)):]
		for i := 0; i < len(t) && !a.last.less(t[i].first); i++ {
			b := t[i]
			if b.first.less(a.first) {
				b.first = a.first
			}
			if a.last.less(b.last) {
				b.last = a.last
			}
			out = append(out, b)
		}
	}
	return out
}

func (s spans) minus(t spans) spans {
	if len(s) == 0 || len(t) == 0 {
		return s
	}
	if s.same(t) {
		return nil
	}
	if len(s) < len(t) {
		return s.minusMany(t)
	}
	out := make(spans, 0, len(s)+len(t))
	var head span // what is left of the interval before s, if cut
	cut := false
	for _, gone := range t {
		if cut && head.last.less(gone.first) {
			out, cut = append(out, head), false
		}
		if !cut {
			i := s.from(gone.first)
			out, s = append(out, s[:i]...), s[i:]
		}
		for cut || len(s) > 0 {
			if !cut {
				head, s = s[0], s[1:]
			}
			cut = true
			if gone.last.less(head.first) {
				break
			}
			if head.first.less(gone.first) {
				out = append(out, span{head.first, gone.first.prev()})
			}
			if gone.last.less(head.last) {
				head.first = gone.last.next()
				break
			}
			cut = false
		}
	}
	if cut {
		out = append(out, head)
	}
	return append(out, s...)
}

// minusMany is minus for a list that is shorter than what goes.
func (s spans) minusMany(t spans) (out spans) {
	for _, a := range s {
		t = t[t.after(a.first, len(t) < few*len(s)):]
		i := 0
		for ; i < len(t) && !a.last.less(t[i].first); i++ {
			if a.first.less(t[i].first) {
				out = append(out, span{a.first, t[i].first.prev()})
			}
			if !t[i].last.less(a.last) {
				break
			}
			a.first = t[i].last.next()
		}
		if i == len(t) || a.last.less(t[i].first) {
			out = append(out, a)
		}
	}
	return out
}
