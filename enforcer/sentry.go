package enforcer

import (
	"cmp"
	"context"
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

// slowSets is from how many sets on a table takes the kernel longer to make than a gap may last, some 10 ms: it looks each of them up
// by its name in a list, again and again.
const slowSets = 64

// Sentry puts a session's table back the moment that somebody has deleted it, with what was written beforehand: the table itself, or if
// that takes the kernel too long, a denial of everything that is protected. Between the kernel's word of a deletion and the answer to it
// lies as little as there can be: a program that ends after "flush ruleset" closes its socket some 60 µs later, and from then on the kernel
// lets nobody write before it has freed what was deleted, which takes it 10 to 20 ms (net/netfilter/nf_tables_api.c: nft_rcv_nl_event). So
// a Sentry has a socket of its own, and may be used while the session is at work.
//
// It stands by, and puts nothing back, from the session's first attempt to bring another policy into force until Session.Prepare; a denial
// it keeps ready until the other policy is in force.
type Sentry struct {
	wrote *generations
	clock func() time.Time

	mu      sync.Mutex
	conn    *nft.Conn // nil: nobody was to stand guard yet
	of      *policy.Policy
	ready   *nft.Prepared // nil: it stands by
	makes   Restored      // what becomes of ready
	pending Restored      // what was put back last, and no Repair has looked at since; the zero value: nothing
	fresh   bool          // among that was a table, whose sets remember nothing
	untold  []Restored    // what nobody has taken
	deleted *uint16       // the last bits of the generation in which somebody deleted of the table last; nil: nobody did
}

// Restored is what a Sentry put back.
type Restored struct {
	// Generation of the ruleset that the deletion made.
	Generation uint32
	// Missed is the one in which the table was found missing: the same, unless somebody else wrote right behind it.
	Missed uint32
	// Heard is since when it was known, and At from when on what was put back was in force.
	Heard, At time.Time
	// Whole: it is the table, of these parts. Otherwise it is a denial of everything that is protected.
	Whole   bool
	Changed Changed
}

// maxUntold bounds what is kept for who does not ask.
const maxUntold = 64

// maxRestores bounds how often others may write in between.
const maxRestores = 8

// Restore puts the table back if there is none. It changes nothing where the Sentry stands by or somebody else's table of that name is
// there. Session.Repair has to follow: it proves what is in force, and ends connections. An error means that the table is still
// missing, as far as is known.
func (w *Sentry) Restore(ctx context.Context) (done bool, err error) {
	heard := w.clock()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ready == nil {
		return false, nil
	}
	var since uint32 // the generation in which it was missing first
	for range maxRestores {
		generation, missing, err := w.conn.Missed(ctx)
		if err != nil || !missing {
			return false, err
		}
		since = cmp.Or(since, generation)
		err = w.conn.Create(ctx, w.ready, generation)
		switch {
		case err == nil:
			w.wrote.add(generation + 1)
			w.note(since, heard)
			return true, nil
		case errors.Is(err, nft.ErrExists):
			return false, nil
		case !errors.Is(err, nft.ErrGeneration):
			return false, err
		}
	}
	return false, reconcile.ErrContended
}

// note remembers what was put back.
func (w *Sentry) note(generation uint32, heard time.Time) {
	put := w.makes
	put.Generation, put.Missed, put.Heard, put.At = generation, generation, heard, w.clock()
	if g, ok := w.culprit(put.Missed); ok {
		put.Generation = g
	}
	w.pending, w.fresh = put, w.fresh || put.Whole
	if len(w.untold) == maxUntold {
		w.untold = w.untold[1:]
	}
	w.untold = append(w.untold, put)
}

// Deleted tells the Sentry of the last bits of a generation, which deleted of the table (nft.Deletion).
func (w *Sentry) Deleted(generation uint16) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.deleted = &generation
	if n := len(w.untold); n > 0 { // it was put back before this was told
		if g, ok := w.culprit(w.untold[n-1].Missed); ok {
			w.untold[n-1].Generation = g
		}
	}
}

// longAgo is how many generations back a deletion has nothing to do with what is missing now.
const longAgo = 1 << 15

// culprit is the generation of the last deletion, if that is why the table was missing and not the session's own.
func (w *Sentry) culprit(missed uint32) (generation uint32, ok bool) {
	if w.deleted == nil {
		return 0, false
	}
	back := uint16(missed) - *w.deleted
	generation = missed - uint32(back)
	return generation, back < longAgo && !w.wrote.has(generation)
}

// Deletion is the generation in which somebody deleted of the table last, not after this one.
func (w *Sentry) Deletion(until uint32) (generation uint32, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.culprit(until)
}

// Take returns, once, what was put back after the deletion that made this generation of the ruleset.
func (w *Sentry) Take(generation uint32) (put Restored, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	i := slices.IndexFunc(w.untold, func(r Restored) bool { return r.Generation == generation })
	if i < 0 {
		return Restored{}, false
	}
	put = w.untold[i]
	w.untold = slices.Delete(w.untold, i, i+1)
	return put, true
}

// HasUntold tells whether something was put back that nobody has taken.
func (w *Sentry) HasUntold() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.untold) > 0
}

// TakeAll returns, once, all that was put back and not taken, in its order.
func (w *Sentry) TakeAll() []Restored {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := w.untold
	w.untold = nil
	return all
}

// arm has the Sentry put this back from now on. It opens its socket in the network namespace of the calling thread.
func (w *Sentry) arm(of *policy.Policy, want ruleset.Table, whole bool) (err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.conn == nil {
		if w.conn, err = nft.Open(compile.TableName); err != nil {
			return err
		}
	}
	ready, err := w.conn.Prepare(want)
	if err != nil {
		return err
	}
	w.of, w.ready, w.makes = of, ready, Restored{Whole: whole, Changed: count(ruleset.Diff(ruleset.Table{}, want))}
	return nil
}

// disarm has it stand by.
func (w *Sentry) disarm() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.of, w.ready = nil, nil
}

// beforeChange has it stand by where what it has ready would let in what another policy may not.
func (w *Sentry) beforeChange() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.makes.Whole {
		w.of, w.ready = nil, nil
	}
}

// guards tells whether it has ready what belongs to a policy.
func (w *Sentry) guards(p *policy.Policy) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.of == p
}

// last is what was put back last that is not proven yet; fresh: the sets of the table remember nothing since.
func (w *Sentry) last() (put Restored, fresh bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.pending, w.fresh
}

// proven says that a Repair has seen to all that was put back up to this.
func (w *Sentry) proven(put Restored) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.pending == put {
		w.pending, w.fresh = Restored{}, false
	}
}

func (w *Sentry) close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.of, w.ready = nil, nil
	if w.conn == nil {
		return nil
	}
	c := w.conn
	w.conn = nil
	return c.Close()
}

// Sentry is the session's. It is of no use after the session's Close.
func (s *Session) Sentry() *Sentry { return s.sentry }

// Prepare gets the Sentry ready for the table's being deleted by somebody. It takes some milliseconds once after each change, and nothing
// at other times; call it when nothing else is to be done, in the network namespace of the session.
func (s *Session) Prepare() error {
	switch {
	case s.policy == nil || s.Owns() || s.sentry.guards(s.policy):
		return nil
	case s.isSlow():
		return s.sentry.arm(s.policy, denial(Protected(s.policy)), false)
	case !s.blind && s.want.Name != "" && s.expires.IsZero(): // what expires is another table each second
		return s.sentry.arm(s.policy, s.want, true)
	}
	return nil
}

// isSlow tells whether the kernel takes long to make the table.
func (s *Session) isSlow() bool { return len(s.want.Sets) >= slowSets }

// stopGap sees to it that nothing passes where the table is gone altogether: it is put back if the Sentry can, or else, where to make it
// anew takes long, everything that is protected is denied until it is back. Packets of connections that are allowed are lost meanwhile,
// and sent again. It returns since when that is so. Whatever it fails at, repair tries too.
func (s *Session) stopGap(ctx context.Context) (denied time.Time, err error) {
	if _, err := s.sentry.Restore(ctx); err != nil || !s.isSlow() {
		return time.Time{}, err
	}
	if _, missing, err := s.main.Missed(ctx); err != nil || !missing {
		return time.Time{}, err
	}
	done, err := reconcile.Reconciler{Kernel: s.main, Clock: s.options.Clock}.Apply(ctx, denial(Protected(s.policy)))
	return done.InForceAt, err
}
