package enforcer

import (
	"context"
	"errors"
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
// It stands by, and puts nothing back, from the session's first attempt to change the table until Session.Prepare.
type Sentry struct {
	wrote *generations
	clock func() time.Time

	mu    sync.Mutex
	conn  *nft.Conn // nil: nobody was to stand guard yet
	of    *policy.Policy
	ready *nft.Prepared // nil: it stands by
	makes restored      // what becomes of ready
	put   restored      // what was put back that the session has not been told of; the zero value: nothing

	answered map[uint32]time.Time // generations in which the table was missing, and since when it was known
}

// restored is what a Sentry put back.
type restored struct {
	at      time.Time // from when on it was in force
	whole   bool      // it is the table, not a denial
	changed Changed
}

// maxRestores bounds how often others may write in between.
const maxRestores = 8

// Restore puts the table back if there is none. It changes nothing where the Sentry stands by or somebody else's table of that name is
// there. Session.Repair has to follow: it proves what is in force, and ends connections. An error means that the table is still
// missing, as far as is known.
func (w *Sentry) Restore(ctx context.Context) (done bool, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ready == nil {
		return false, nil
	}
	heard := w.clock()
	for range maxRestores {
		generation, missing, err := w.conn.Missed(ctx)
		if err != nil || !missing {
			return false, err
		}
		err = w.conn.Create(ctx, w.ready, generation)
		switch {
		case err == nil:
			w.wrote.add(generation + 1)
			w.answer(generation, heard)
			w.put = w.makes
			w.put.at = w.clock()
			return true, nil
		case errors.Is(err, nft.ErrExists):
			return false, nil
		case !errors.Is(err, nft.ErrGeneration):
			return false, err
		}
	}
	return false, reconcile.ErrContended
}

func (w *Sentry) answer(generation uint32, heard time.Time) {
	if w.answered == nil || len(w.answered) >= maxGenerations {
		w.answered = map[uint32]time.Time{}
	}
	w.answered[generation] = heard
}

// Answered tells whether the table was missing in a generation of the ruleset and the Sentry has put it back, and since when it knew.
func (w *Sentry) Answered(generation uint32) (since time.Time, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	since, ok = w.answered[generation]
	return since, ok
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
	w.of, w.ready, w.makes = of, ready, restored{whole: whole, changed: count(ruleset.Diff(ruleset.Table{}, want))}
	return nil
}

// disarm has it stand by: what it has ready may be outdated any moment.
func (w *Sentry) disarm() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.of, w.ready = nil, nil
}

// guards tells whether it has ready what belongs to a policy.
func (w *Sentry) guards(p *policy.Policy) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.of == p
}

// collect returns what was put back, once.
func (w *Sentry) collect() restored {
	w.mu.Lock()
	defer w.mu.Unlock()
	put := w.put
	w.put = restored{}
	return put
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
func (s *Session) Sentry() *Sentry { return s.main.sentry }

// Prepare gets the Sentry ready for the table's being deleted by somebody. It takes some milliseconds once after each change, and nothing
// at other times; call it when nothing else is to be done.
func (s *Session) Prepare() error {
	switch {
	case s.policy == nil || s.Owns() || s.Sentry().guards(s.policy):
		return nil
	case s.isSlow():
		return s.Sentry().arm(s.policy, denial(Protected(s.policy)), false)
	case !s.blind && s.want.Name != "" && s.expires.IsZero(): // what expires is another table each second
		return s.Sentry().arm(s.policy, s.want, true)
	}
	return nil
}

// isSlow tells whether the kernel takes long to make the table.
func (s *Session) isSlow() bool { return len(s.want.Sets) >= slowSets }

// stopGap sees to it that nothing passes where the table is gone altogether: it is put back if the Sentry can, or else, where to make it
// anew takes long, everything that is protected is denied until it is back. Packets of connections that are allowed are lost meanwhile,
// and sent again.
func (s *Session) stopGap(ctx context.Context) (put restored, err error) {
	if _, err := s.Sentry().Restore(ctx); err != nil {
		return restored{}, err
	}
	if put = s.Sentry().collect(); !put.at.IsZero() || !s.isSlow() {
		return put, nil
	}
	state, err := s.main.Read(ctx)
	if err != nil || state.Exists {
		return restored{}, err
	}
	done, err := reconcile.Reconciler{Kernel: s.main, Clock: s.options.Clock}.Apply(ctx, denial(Protected(s.policy)))
	return restored{at: done.InForceAt}, err
}
