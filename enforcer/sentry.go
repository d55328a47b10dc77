package enforcer

import (
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"sync"
	"time"

	"drawbridge/enforcer/compile"
	"drawbridge/enforcer/nft"
	"drawbridge/enforcer/policy"
	"drawbridge/enforcer/reconcile"
	"drawbridge/enforcer/ruleset"
)

// slowSets is from how many sets on a table takes the kernel some 10 ms and more to make: it looks each of them up by its name in a list,
// again and again. Nor is it kept ready, which after each change would take long as well.
const slowSets = 64

// Sentry closes what somebody opens who deletes a session's table, the moment that he does, with what was written beforehand: at once comes
// a denial of everything that is protected, which the kernel makes in less than a millisecond, and then, if that does not take it long, the
// table itself. Packets of connections that are allowed are lost meanwhile, and sent again.
//
// Between the kernel's word of a deletion and the answer to it lies as little as there can be: a program that ends after "flush ruleset" closes
// its socket some 60 µs later, and from then on the kernel lets nobody write before it has freed what was deleted, which takes it 10 to 20 ms
// (net/netfilter/nf_tables_api.c: nft_rcv_nl_event). So a Sentry has sockets of its own, and may be used while the session is at work; and where
// several threads answer the same deletion, from posts of their own, one denies, and another has the table wait in line before that program is.
//
// It stands by from when another policy is in force until Session.Prepare; from the first attempt to bring one into force on it puts no table back.
type Sentry struct {
	wrote *generations
	clock func() time.Time

	// mu is held for reading by who puts something back, so that nobody does who began before a change and writes behind it.
	mu    sync.RWMutex
	posts []*sentryPost
	of    *policy.Policy // whose table is ready; nil: nobody's, or a denial that is older
	makes Changed        // what the table is made of that is ready

	told    sync.Mutex      // guards what was told and heard
	ours    map[uint32]bool // netlink ports of the session: what it deletes itself is no news
	answer  *answer         // to the latest deletion that was heard of
	giving  int             // how many posts are at an answer, this one or another
	given   *sync.Cond      // one of them was
	pending Restored        // what was put back last, and no Repair has looked at since; the zero value: nothing
	fresh   bool            // among that was a table, whose sets remember nothing
	untold  []Restored      // what nobody has taken
	settled uint32          // the generation in which what was put back last was missing, or of the deletion that was told last
	before  uint32          // the same, before that
	deleted *uint16         // the last bits of the generation in which somebody deleted of the table last; nil: nobody did
}

// sentryPost is used by one at a time.
type sentryPost struct {
	mu     sync.Mutex
	conn   *nft.Conn     // nil: nobody was to stand guard yet
	denial *nft.Prepared // of everything that is protected; nil: it stands by
	table  *nft.Prepared // in the denial's place; nil: it is not put back
}

func newSentry(wrote *generations, clock func() time.Time) *Sentry {
	w := &Sentry{wrote: wrote, clock: clock, ours: map[uint32]bool{}}
	w.given = sync.NewCond(&w.told)
	return w
}

// Restored is what a Sentry put back.
type Restored struct {
	// Generation of the ruleset that the deletion made.
	Generation uint32
	// Missed is the one in which the table was found missing: the same, unless somebody else wrote right behind it.
	Missed uint32
	// Heard is since when it was known. DeniedAt is from when on everything that is protected was denied, and At from when on what was put
	// back last was in force.
	Heard, DeniedAt, At time.Time
	// Whole: it is the table, of these parts. Otherwise it is the denial.
	Whole   bool
	Changed Changed

	missing uint32 // the last generation in which nothing stood there, right before the denial
}

// sameAs tells whether two answers were to one deletion. One may not have been told of which, and takes a later commit for it; but if the other
// has put the table in the place of its denial, both know when nothing stood there last.
func (r Restored) sameAs(other Restored) bool {
	return r.Generation == other.Generation || r.missing == other.missing
}

// with is what was put back in both of two answers to one deletion.
func (r Restored) with(other Restored) Restored {
	if other.Whole && !r.Whole {
		r, other = other, r
	}
	if other.DeniedAt.Before(r.DeniedAt) {
		r.DeniedAt = other.DeniedAt
	}
	if other.Heard.Before(r.Heard) {
		r.Heard = other.Heard
	}
	return r
}

// maxUntold bounds what is kept for who does not ask.
const maxUntold = 64

// SetPosts says at how many posts the table may be put back at the same time, at least one. It must be called before Session.Prepare; otherwise
// there is one.
func (w *Sentry) SetPosts(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.posts) < n {
		w.posts = append(w.posts, &sentryPost{})
	}
}

// Restore puts the table back if there is none, from one of the posts, which are numbered from 0, and because of what was heard. It changes
// nothing where the Sentry stands by or somebody else's table of that name is there. Session.Repair has to follow: it proves what is in
// force, and ends connections. An error means that the table is still missing, as far as is known.
func (w *Sentry) Restore(ctx context.Context, post int, heard nft.Deletion) (done bool, err error) {
	at := w.clock()
	if !w.hears(heard) {
		return false, nil
	}
	w.mu.RLock()
	defer w.mu.RUnlock()
	if post >= len(w.posts) {
		return false, nil
	}
	p := w.posts[post]
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.denial == nil {
		return false, nil
	}
	a, first := w.join(heard, at)
	if a == nil {
		return false, nil
	}
	err = w.give(ctx, p, a, first)
	return w.leave(a), err
}

// note remembers what was put back. The caller holds told.
func (w *Sentry) note(put Restored) {
	put.Generation = put.Missed
	if g, ok := w.culprit(put.Missed, w.settled); ok {
		put.Generation = g
	}
	if n := len(w.untold); n > 0 && w.untold[n-1].sameAs(put) { // one post has denied without having been told why, and another was
		put = put.with(w.untold[n-1])
		w.untold = w.untold[:n-1]
	} else {
		w.before, w.settled = w.settled, put.Missed
	}
	w.pending, w.fresh = put, true
	if len(w.untold) == maxUntold {
		w.untold = w.untold[1:]
	}
	w.untold = append(w.untold, put)
}

// hears notes what was heard, unless it is the session's own doing.
func (w *Sentry) hears(heard nft.Deletion) bool {
	w.told.Lock()
	defer w.told.Unlock()
	if w.ours[heard.Writer] {
		return false
	}
	if !heard.Ours {
		return true
	}
	if w.deleted != nil && int16(heard.Generation-*w.deleted) < 0 {
		return true // a post that lags behind
	}
	w.deleted = &heard.Generation
	if n := len(w.untold); n > 0 { // it was put back before this was told
		if g, ok := w.culprit(w.untold[n-1].Missed, w.before); ok {
			w.untold[n-1].Generation = g
		}
	}
	return true
}

// own says whose deletions are the session's own.
func (w *Sentry) own(c *nft.Conn) {
	w.told.Lock()
	defer w.told.Unlock()
	w.ours[c.Port()] = true
}

// longAgo is how many generations back a deletion has nothing to do with what is missing now.
const longAgo = 1 << 15

// culprit is the generation of the last deletion, if that is why the table was missing: after another generation, and not the session's own.
func (w *Sentry) culprit(missed, after uint32) (generation uint32, ok bool) {
	if w.deleted == nil {
		return 0, false
	}
	back := uint16(missed) - *w.deleted
	generation = missed - uint32(back)
	return generation, back < longAgo && int32(generation-after) > 0 && !w.wrote.has(generation)
}

// Deletion is the generation in which somebody deleted of the table last, not after this one and not before what was put back last. It is told
// once.
func (w *Sentry) Deletion(until uint32) (generation uint32, ok bool) {
	w.told.Lock()
	defer w.told.Unlock()
	if generation, ok = w.culprit(until, w.settled); ok {
		w.before, w.settled = w.settled, generation
	}
	return generation, ok
}

// Deleted is what Deletion returns, and leaves it to be told.
func (w *Sentry) Deleted(until uint32) (generation uint32, ok bool) {
	w.told.Lock()
	defer w.told.Unlock()
	return w.culprit(until, w.settled)
}

// Take returns, once, what was put back after the deletion that made this generation of the ruleset.
func (w *Sentry) Take(generation uint32) (put Restored, ok bool) {
	w.told.Lock()
	defer w.told.Unlock()
	i := slices.IndexFunc(w.untold, func(r Restored) bool { return r.Generation == generation })
	if i < 0 {
		return Restored{}, false
	}
	put = w.untold[i]
	w.untold = slices.Delete(w.untold, i, i+1)
	return put, true
}

// TakeUntil returns, once, what was put back and not taken after deletions up to this generation, in its order.
func (w *Sentry) TakeUntil(generation uint32) (some []Restored) {
	w.told.Lock()
	defer w.told.Unlock()
	w.untold = slices.DeleteFunc(w.untold, func(r Restored) bool {
		over := int32(r.Generation-generation) <= 0
		if over {
			some = append(some, r)
		}
		return over
	})
	return some
}

// HasUntold tells whether something was put back that nobody has taken.
func (w *Sentry) HasUntold() bool {
	w.told.Lock()
	defer w.told.Unlock()
	return len(w.untold) > 0
}

// TakeAll returns, once, all that was put back and not taken, in its order.
func (w *Sentry) TakeAll() []Restored {
	w.told.Lock()
	defer w.told.Unlock()
	all := w.untold
	w.untold = nil
	return all
}

// arm has the Sentry put this back from now on: the denial, and the table if it has a name. It opens its sockets in the network namespace of the
// calling thread.
func (w *Sentry) arm(of *policy.Policy, denial, table ruleset.Table) error {
	w.SetPosts(1)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.standBy()
	// By it the table is put in the place of this denial and no other table, which somebody else may have made meanwhile.
	proof := ruleset.Set{Name: setDenialProof + rand.Text(), Key: []ruleset.DataType{ruleset.TypeMark}}
	denial.Sets = append(slices.Clone(denial.Sets), proof)
	for _, p := range w.posts {
		if err := p.prepare(denial, table, proof.Name); err != nil {
			w.standBy()
			return err
		}
		w.own(p.conn)
	}
	w.of, w.makes = of, count(ruleset.Diff(ruleset.Table{}, table))
	return nil
}

func (p *sentryPost) prepare(denial, table ruleset.Table, proof string) (err error) {
	if p.conn == nil {
		if p.conn, err = nft.Open(compile.TableName); err != nil {
			return err
		}
	}
	if p.denial, err = p.conn.Prepare(denial); err != nil || table.Name == "" {
		return err
	}
	p.table, err = p.conn.PrepareOver(table, proof)
	return err
}

// standBy has nothing ready. The caller holds mu.
func (w *Sentry) standBy() {
	w.of = nil
	for _, p := range w.posts {
		p.denial, p.table = nil, nil
	}
}

// disarm has it stand by.
func (w *Sentry) disarm() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.standBy()
}

// beforeChange has it put no table back any more, which would let in what another policy may not.
func (w *Sentry) beforeChange() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.of = nil
	for _, p := range w.posts {
		p.table = nil
	}
}

// guards tells whether it has ready what belongs to a policy, with its table or without.
func (w *Sentry) guards(p *policy.Policy, withTable bool) bool {
	w.mu.RLock()
	defer w.mu.RUnlock()
	return w.of == p && withTable == (w.posts[0].table != nil)
}

// last is what was put back last that is not proven yet, when all who are at it now have left, or the context ends; fresh: the sets of the
// table remember nothing since.
func (w *Sentry) last(ctx context.Context) (put Restored, fresh bool) {
	defer context.AfterFunc(ctx, w.wake)()
	w.told.Lock()
	defer w.told.Unlock()
	for w.giving > 0 && ctx.Err() == nil {
		w.given.Wait()
	}
	return w.pending, w.fresh
}

// wake has who waits look again.
func (w *Sentry) wake() {
	w.told.Lock()
	defer w.told.Unlock()
	w.given.Broadcast()
}

// IsPending tells whether something was put back that no Repair has proven.
func (w *Sentry) IsPending() bool {
	w.told.Lock()
	defer w.told.Unlock()
	return w.pending != Restored{}
}

// proven says that a Repair has seen to all that was put back up to this.
func (w *Sentry) proven(put Restored) {
	w.told.Lock()
	defer w.told.Unlock()
	if w.pending == put {
		w.pending, w.fresh = Restored{}, false
	}
}

func (w *Sentry) close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.standBy()
	var errs []error
	for _, p := range w.posts {
		if p.conn != nil {
			errs = append(errs, p.conn.Close())
			p.conn = nil
		}
	}
	return errors.Join(errs...)
}

// Sentry is the session's. It is of no use after the session's Close.
func (s *Session) Sentry() *Sentry { return s.sentry }

// Prepare gets the Sentry ready for the table's being deleted by somebody. It takes some milliseconds once after each change, and nothing
// at other times; call it when nothing else is to be done, in the network namespace of the session.
func (s *Session) Prepare() error {
	if s.policy == nil || s.Owns() {
		return nil
	}
	var table ruleset.Table
	if !s.isSlow() && !s.blind && s.expires.IsZero() { // what expires is another table each second
		table = s.want
	}
	if s.sentry.guards(s.policy, table.Name != "") {
		return nil
	}
	return s.sentry.arm(s.policy, denial(Protected(s.policy)), table)
}

// isSlow tells whether the kernel takes long to make the table.
func (s *Session) isSlow() bool { return len(s.want.Sets) >= slowSets }

// stopGap sees to it that nothing passes where the table is gone altogether: it is put back if the Sentry can, or else, where to make it
// anew takes long, everything that is protected is denied until it is back. Packets of connections that are allowed are lost meanwhile,
// and sent again. It returns since when that is so. Whatever it fails at, repair tries too.
func (s *Session) stopGap(ctx context.Context) (denied time.Time, err error) {
	if _, err := s.sentry.Restore(ctx, 0, nft.Deletion{}); err != nil || !s.isSlow() {
		return time.Time{}, err
	}
	if _, missing, err := s.main.Missed(ctx); err != nil || !missing {
		return time.Time{}, err
	}
	done, err := reconcile.Reconciler{Kernel: s.main, Clock: s.options.Clock}.Apply(ctx, denial(Protected(s.policy)))
	return done.InForceAt, err
}
