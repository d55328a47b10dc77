package addrset

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestTreesComputeAsLists: what is computed with trees is what a walk along lists of intervals computes, also where an
// Arithmetic has seen the operands, or parts of them, before.
func TestTreesComputeAsLists(t *testing.T) {
	for _, family := range []struct {
		name string
		last number
		room uint64 // of the high half
	}{{"IPv4", last4, 0}, {"IPv6", last6, 1<<64 - 1}} {
		t.Run(family.name, func(t *testing.T) {
			for seed := range uint64(50) {
				random := rand.New(rand.NewPCG(seed, 0))
				a := &Arithmetic{}
				pool := []half{{}, {first: true}}
				lists := []spans{nil, {{number{}, family.last}}}
				for range 60 {
					i, j := random.IntN(len(pool)), random.IntN(len(pool))
					h, l := drawn(random, family.last, family.room)
					switch random.IntN(5) {
					case 0:
						h, l = a.combine(union, pool[i], pool[j]), lists[i].union(lists[j])
					case 1:
						h, l = a.combine(intersect, pool[i], pool[j]), lists[i].intersect(lists[j])
					case 2, 3:
						h, l = a.combine(minus, pool[i], pool[j]), lists[i].minus(lists[j])
					}
					require.True(t, slices.Equal(l, h.spans(nil, family.last)), "seed %d", seed)
					again := halfOf(slices.Clone(l), family.last)
					require.True(t, again.boundaries.equal(h.boundaries), "one tree for one set, seed %d", seed)
					require.Equal(t, slices.Equal(l, lists[i]), h.first == pool[i].first && h.boundaries.equal(pool[i].boundaries))
					pool, lists = append(pool, h), append(lists, l)
				}
			}
		})
	}
}

// drawn is a set of up to some hundred intervals, close together or far apart.
func drawn(random *rand.Rand, last number, room uint64) (half, spans) {
	scale := []uint64{100, 1 << 12, 1 << 32}[random.IntN(3)]
	var list spans
	for range []int{1, 5, 100, 300}[random.IntN(4)] {
		from := number{random.Uint64() & room & (scale << 40), random.Uint64N(scale)}
		to := number{from.hi, min(from.lo+random.Uint64N(scale)>>(4+random.IntN(28)), last4.lo)}
		if random.IntN(1000) == 0 {
			to = last
		}
		list = append(list, span{from, to})
	}
	list = canonical(list)
	return halfOf(list, last), list
}

// TestSharing: what an operation leaves alone it does not copy, and what was asked before is not computed again.
func TestSharing(t *testing.T) {
	var list []span
	for i := range uint64(10_000) {
		list = append(list, span{number{0, 1000 * i}, number{0, 1000*i + 1}})
	}
	all := halfOf(list, last4)
	few := halfOf([]span{{number{0, 5_000_000}, number{0, 5_000_000}}}, last4)
	require.Equal(t, all, (*Arithmetic)(nil).combine(minus, half{first: true}, (*Arithmetic)(nil).combine(minus, half{first: true}, all)))
	per := testing.AllocsPerRun(10, func() { (*Arithmetic)(nil).combine(minus, all, few) })
	require.Less(t, per, 64.0)

	other := (*Arithmetic)(nil).combine(union, all, halfOf([]span{{number{0, 2_000_500}, number{0, 2_000_600}}}, last4))
	a := &Arithmetic{}
	whole := a.combine(intersect, all, other)
	require.Same(t, whole.boundaries, a.combine(intersect, all, other).boundaries)
	one := a.combine(minus, all, few)
	per = testing.AllocsPerRun(10, func() { a.combine(intersect, one, other) })
	require.Less(t, per, 64.0)
}

// TestForgetting: an Arithmetic keeps a bounded number of answers, and those that are asked for again.
func TestForgetting(t *testing.T) {
	a := &Arithmetic{}
	hot, result := question{x: &node{}}, &node{}
	a.remember(hot, result)
	for range 5 * answers / 2 {
		a.remember(question{x: &node{}}, nil)
		_, ok := a.known(hot)
		require.True(t, ok)
	}
	require.LessOrEqual(t, len(a.young)+len(a.old), 2*answers+1)
	known, ok := a.known(hot)
	require.True(t, ok)
	require.Same(t, result, known)
}

// spans are intervals of one family, ascending, with a gap between any two: the arithmetic that was before the trees, kept as
// what they are held against.
type spans []span

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

// prevOr0 is the number before this one, of 0 itself.
func (n number) prevOr0() number {
	if n == (number{}) {
		return n
	}
	return n.prev()
}
