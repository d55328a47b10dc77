package addrset

// Arithmetic computes with sets, and remembers what became of large ones, part by part: asked about sets that share most of
// their parts with those of earlier questions, it looks at the rest only. The results are the same as those of Set's methods.
// It keeps a bounded number of answers. The zero value is ready, and nil remembers nothing. Use it from one goroutine at a time.
type Arithmetic struct{ young, old map[question]*node }

// question is an operation on two trees.
type question struct {
	operation operation
	x, y      *node
}

const (
	// large is how many boundaries two trees have together that are worth being remembered: with fewer, to compute anew costs
	// about as much as to look up.
	large = 48
	// answers is how many are kept before those that were not asked for again are forgotten.
	answers = 1 << 14
)

func (a *Arithmetic) known(q question) (*node, bool) {
	if t, ok := a.young[q]; ok {
		return t, true
	}
	t, ok := a.old[q]
	if ok {
		a.remember(q, t)
	}
	return t, ok
}

func (a *Arithmetic) remember(q question, t *node) {
	if a.young == nil || len(a.young) >= answers {
		a.young, a.old = map[question]*node{}, a.young
	}
	a.young[q] = t
}

func (a *Arithmetic) sets(o operation, s, t Set) Set {
	return Set{a.combine(o, s.v4, t.v4), a.combine(o, s.v6, t.v6)}
}

// Union is what is in either set.
func (a *Arithmetic) Union(s, t Set) Set { return a.sets(union, s, t) }

// Intersect is what is in both sets.
func (a *Arithmetic) Intersect(s, t Set) Set { return a.sets(intersect, s, t) }

// Minus is what is in s and not in t.
func (a *Arithmetic) Minus(s, t Set) Set { return a.sets(minus, s, t) }
