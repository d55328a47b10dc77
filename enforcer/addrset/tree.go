package addrset

// half is a set of addresses of one family, as numbers. It says of the first address whether it is in the set, and of which
// addresses that changes: each such address is a boundary. The zero value is empty.
//
// The complement of a set has the same boundaries, and what is done to a few addresses of a set leaves almost all of its
// boundaries as they are. They are the leaves of a tree that is never changed, so that a result shares with its operands
// what did not change, and what they share need not be looked at: a set is cut at one address in the time that it takes to
// go down to it, however large it is.
type half struct {
	boundaries *node
	first      bool // the first address is in the set
}

// node is a tree of boundaries, not empty: a Patricia trie (D. R. Morrison, PATRICIA, J. ACM 15 (1968)). Its shape depends on
// nothing but which boundaries there are, so that the trees of two sets line up wherever the sets do. It is immutable.
type node struct {
	// key is a leaf's boundary, and any boundary below a branch: they have the bits in front of bit in common.
	key number
	// Below left are those whose bit is not set, below right those where it is. Leaves have neither.
	left, right *node
	size        int32 // boundaries
	bit         uint8 // numberBits for a leaf
}

// odd: behind the tree it is the other way round than in front of it.
func (t *node) odd() bool { return t != nil && t.size&1 != 0 }

func (t *node) count() int32 {
	if t == nil {
		return 0
	}
	return t.size
}

// halfOf is the set of canonical intervals of a family with this last number.
func halfOf(spans []span, last number) half {
	var h half
	boundaries := make([]number, 0, 2*len(spans))
	for _, s := range spans {
		if s.first == (number{}) {
			h.first = true
		} else {
			boundaries = append(boundaries, s.first)
		}
		if s.last != last {
			boundaries = append(boundaries, s.last.next())
		}
	}
	if len(boundaries) > 0 {
		room := make([]node, 0, 2*len(boundaries)-1)
		h.boundaries = treeOf(boundaries, &room)
	}
	return h
}

// treeOf is the tree of some boundaries, ascending, in room that is large enough.
func treeOf(boundaries []number, room *[]node) *node {
	n := node{key: boundaries[0], bit: numberBits, size: int32(len(boundaries))}
	if len(boundaries) > 1 {
		bit := boundaries[0].common(boundaries[len(boundaries)-1])
		from, to := 0, len(boundaries)-1 // at from the bit is not set, and at to it is
		for to-from > 1 {
			if middle := (from + to) / 2; boundaries[middle].bit(bit) {
				to = middle
			} else {
				from = middle
			}
		}
		n.bit, n.left, n.right = uint8(bit), treeOf(boundaries[:to], room), treeOf(boundaries[to:], room)
	}
	*room = append(*room, n)
	return &(*room)[len(*room)-1]
}

// spans appends the intervals in ascending order.
func (h half) spans(out []span, last number) []span {
	in, from := h.first, number{}
	h.boundaries.each(func(n number) {
		if in {
			out = append(out, span{from, n.prev()})
		}
		in, from = !in, n
	})
	if in {
		out = append(out, span{from, last})
	}
	return out
}

func (t *node) each(do func(number)) {
	switch {
	case t == nil:
	case t.left == nil:
		do(t.key)
	default:
		t.left.each(do)
		t.right.each(do)
	}
}

// contains goes down to the last boundary that is not behind the number.
func (h half) contains(n number) bool {
	in, t := h.first, h.boundaries
	for t != nil && n.common(t.key) >= int(t.bit) && t.left != nil {
		if n.bit(int(t.bit)) {
			in = in != t.left.odd()
			t = t.right
		} else {
			t = t.left
		}
	}
	return in != (t.odd() && !n.less(t.key))
}

func (t *node) equal(u *node) bool {
	if t == u || t == nil || u == nil {
		return t == u
	}
	if t.size != u.size || t.bit != u.bit {
		return false
	}
	if t.left == nil {
		return t.key == u.key
	}
	return t.left.equal(u.left) && t.right.equal(u.right)
}

// branch is a tree of what two trees hold that differ in a bit, left not having it set. It is one of the given trees, if
// that holds the same.
func branch(bit uint8, left, right *node, same ...*node) *node {
	switch {
	case left == nil:
		return right
	case right == nil:
		return left
	}
	for _, t := range same {
		if t.left == left && t.right == right {
			return t
		}
	}
	return &node{key: left.key, left: left, right: right, size: left.size + right.size, bit: bit}
}

// operation is what is done to two sets: bit 2x+y tells whether an address is in the result that is in the first (x) and in
// the second (y) of them.
type operation uint8

const (
	union     operation = 0b1110
	intersect operation = 0b1000
	minus     operation = 0b0100
)

func (o operation) of(x, y bool) bool { return o>>(2*number1(x)+number1(y))&1 != 0 }

func number1(b bool) uint8 {
	if b {
		return 1
	}
	return 0
}

// from is the operation for what is behind boundaries: those that turned x or y round.
func (o operation) from(x, y bool) operation {
	if x {
		o = o>>2 | o&3<<2
	}
	if y {
		o = o>>1&5 | o&5<<1
	}
	return o
}

// combine computes with two sets.
func (a *Arithmetic) combine(o operation, x, y half) half {
	return half{a.boundaries(o.from(x.first, y.first), x.boundaries, y.boundaries), o.of(x.first, y.first)}
}

// boundaries are those of the result of an operation on two sets that do not hold the address in front of the trees.
func (a *Arithmetic) boundaries(o operation, x, y *node) *node {
	switch {
	case x == nil && y == nil:
		return nil
	case x == nil:
		return y.where(o.of(false, false) != o.of(false, true))
	case y == nil:
		return x.where(o.of(false, false) != o.of(true, false))
	case x == y: // at each boundary both turn round
		return x.where(o.of(false, false) != o.of(true, true))
	case a == nil || x.size+y.size < large:
		return a.meet(o, x, y)
	}
	question := question{o, x, y}
	if known, ok := a.known(question); ok {
		return known
	}
	out := a.meet(o, x, y)
	a.remember(question, out)
	return out
}

// where is the tree, or nothing.
func (t *node) where(there bool) *node {
	if there {
		return t
	}
	return nil
}

// meet lines two trees up, neither of them empty, and computes with what lies next to each other.
func (a *Arithmetic) meet(o operation, x, y *node) *node {
	common := uint8(x.key.common(y.key))
	switch {
	case common < x.bit && common < y.bit: // one is in front of the other
		if y.key.bit(int(common)) {
			return branch(common, a.boundaries(o, x, nil), a.boundaries(o.from(x.odd(), false), nil, y))
		}
		return branch(common, a.boundaries(o, nil, y), a.boundaries(o.from(false, y.odd()), x, nil))
	case x.bit < y.bit: // y is on one side of x
		if y.key.bit(int(x.bit)) {
			return branch(x.bit, a.boundaries(o, x.left, nil), a.boundaries(o.from(x.left.odd(), false), x.right, y), x)
		}
		return branch(x.bit, a.boundaries(o, x.left, y), a.boundaries(o.from(x.left.odd(), y.odd()), x.right, nil), x)
	case y.bit < x.bit:
		if x.key.bit(int(y.bit)) {
			return branch(y.bit, a.boundaries(o, nil, y.left), a.boundaries(o.from(false, y.left.odd()), x, y.right), y)
		}
		return branch(y.bit, a.boundaries(o, x, y.left), a.boundaries(o.from(x.odd(), y.left.odd()), nil, y.right), y)
	case x.left == nil: // the same boundary
		return x.where(o.of(false, false) != o.of(true, true))
	}
	return branch(x.bit, a.boundaries(o, x.left, y.left), a.boundaries(o.from(x.left.odd(), y.left.odd()), x.right, y.right), x, y)
}
