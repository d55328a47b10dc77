package compile

import (
	"net/netip"
	"slices"
	"time"

	"drawbridge/enforcer/policy"
	"drawbridge/enforcer/ruleset"
)

// forever is the lifetime of a rule that does not expire. The kernel refuses an element of its own lifetime inside of another
// one, so that what rules cover is cut up: where several do, the longest lifetime holds.
const forever time.Duration = 0

// longestLifetime is that of an element. What ends later than this is permanent until a compilation nearer to its end: kernels count
// milliseconds and time.Duration nanoseconds, and neither gets as far as a document may say (292 years, RFC 3339 until 9999).
const longestLifetime = 100 * 365 * 24 * time.Hour

// lifetime is how long a rule has to live, in whole seconds, and forever if it does not expire: it never lasts longer than
// it may. Not ok: it has expired.
func (c *compiler) lifetime(r policy.Rule) (left time.Duration, ok bool) {
	if r.Expires.IsZero() {
		return forever, true
	}
	return c.left(r.Expires)
}

// left is how long it is until an end, as lifetime counts it.
func (c *compiler) left(end time.Time) (left time.Duration, ok bool) {
	if left = end.Sub(c.now).Truncate(time.Second); left > longestLifetime {
		return forever, true
	}
	return left, left > 0
}

// opened tells whether a shared database is open for a while.
func (c *compiler) opened(p *policy.Policy) bool {
	return !c.dedicated && slices.ContainsFunc(p.Databases(), func(db policy.Database) bool {
		_, ok := c.left(db.OpenUntil())
		return ok && !db.OpenUntil().IsZero()
	})
}

// longer is the longer one of two lifetimes.
func longer(a, b time.Duration) time.Duration {
	if a == forever || b == forever {
		return forever
	}
	return max(a, b)
}

// piece is an interval that the same rules cover.
type piece struct {
	interval
	rules uint64 // bit i: the database's rule i covers it (policy.MaxRules are fewer than bits)
	left  time.Duration
}

// pieces cuts what a database's custom ranges of one family cover into disjoint intervals, in ascending order. Neighbours
// differ in rules or lifetime. They are there until it is called again.
func (c *compiler) pieces(db policy.Database, f family) []piece {
	covers, cuts, out := c.covers[:0], c.cuts[:0], c.out[:0]
	for i, r := range db.EachRule() {
		left, ok := c.lifetime(r)
		if !ok || r.Range != "" || r.CIDR.Addr().Is4() != f.is4 {
			continue
		}
		cover := piece{interval{r.CIDR.Masked().Addr(), lastAddr(r.CIDR)}, 1 << i, left}
		covers = append(covers, cover)
		cuts = append(cuts, cover.first)
		if behind := cover.last.Next(); behind.IsValid() {
			cuts = append(cuts, behind)
		}
	}
	c.covers, c.cuts = covers, cuts
	slices.SortFunc(covers, func(a, b piece) int { return a.first.Compare(b.first) })
	slices.SortFunc(cuts, netip.Addr.Compare)
	cuts = slices.Compact(cuts)
	for i, first := range cuts {
		for len(covers) > 0 && covers[0].last.Less(first) {
			covers = covers[1:]
		}
		p, ok := covered(first, covers)
		if !ok {
			continue
		}
		if i+1 < len(cuts) {
			p.last = cuts[i+1].Prev()
		}
		if n := len(out); n > 0 && out[n-1].rules == p.rules && out[n-1].left == p.left && out[n-1].last.Next() == p.first {
			out[n-1].last = p.last
			continue
		}
		out = append(out, p)
	}
	c.out = out
	return out
}

// cutting is what pieces makes its result of, and the result. A thousand databases take the same room one after the other.
type cutting struct {
	covers []piece      // what each rule covers
	cuts   []netip.Addr // where a piece may begin
	out    []piece
}

// elements are the elements of a set for pieces, in their order. Their keys are parts of one string.
func elements(pieces []piece) []ruleset.Element {
	if len(pieces) == 0 {
		return nil
	}
	length := pieces[0].first.BitLen() / 8
	b := make([]byte, 0, 2*length*len(pieces))
	for _, p := range pieces {
		b = appendAddr(appendAddr(b, p.first), p.last)
	}
	keys := ruleset.Key(b)
	out := make([]ruleset.Element, len(pieces))
	for i, p := range pieces {
		out[i] = ruleset.Element{Key: keys[:length], End: keys[length : 2*length], Timeout: p.left}
		keys = keys[2*length:]
	}
	return out
}

// covered says which of some covers, by where they begin, covers an address where a piece begins; not ok if none does. The piece reaches to the next cut, and
// where there is none to the last address of the family.
func covered(first netip.Addr, covers []piece) (p piece, ok bool) {
	for _, c := range covers {
		if first.Less(c.first) {
			break
		}
		if c.last.Less(first) {
			continue
		}
		if !ok {
			p, ok = piece{interval{first, c.last}, c.rules, c.left}, true
			continue
		}
		p.rules |= c.rules
		p.left = longer(p.left, c.left)
	}
	return p, ok
}
