package enforcer

import (
	"context"
	"errors"
	"time"

	"drawbridge/enforcer/nft"
	"drawbridge/enforcer/reconcile"
)

// answer is what the posts of a Sentry do about one deletion: first comes the denial, and in its place the table. In the kernel they stand in
// line with the program that deleted and now ends, and which lets nobody write for some time when it is its turn. So whoever is first sends
// the denial, and another one the table at once, which the kernel refuses until the denial is there. A post that is refused so has been in the
// kernel before the denial, and sends that as well: the first one may have to be woken up.
type answer struct {
	told     bool   // which deletion it is
	counted  bool   // among those that a Repair waits for
	deletion uint32 // its generation
	missing  uint32 // the last one in which the table was missing, as far as is known
	needless bool   // a table stands: rules were deleted of it, or somebody made another at once, which Session.Repair mends
	giving   int    // how many posts are at it
	put      Restored
}

// maxAttempts bounds how often one post writes for one answer, where others write in between.
const maxAttempts = 64

// join takes part in the answer to what was heard; first: nobody else does yet. It is nil where the answer was given. The caller leaves it.
func (w *Sentry) join(heard nft.Deletion, at time.Time) (a *answer, first bool) {
	w.told.Lock()
	defer w.told.Unlock()
	if !heard.Ours { // most are of no deletion
		return &answer{giving: 1, put: Restored{Heard: at}}, true
	}
	deletion := w.wrote.near(heard.Generation)
	switch a = w.answer; {
	case a == nil || int32(deletion-a.deletion) > 0 || int32(deletion-a.deletion) < -longAgo: // which no word of an older one is
		a = &answer{told: true, deletion: deletion, missing: deletion, put: Restored{Heard: at, Missed: deletion}}
		w.answer = a
	case a.deletion != deletion || a.needless || a.put.Whole || a.giving == 0 && !a.put.DeniedAt.IsZero(): // of a large one the kernel tells again and again
		return nil, false
	}
	w.count(a)
	a.giving++
	return a, a.giving == 1
}

// count has Repairs wait for an answer, until all posts have left it. The caller holds told.
func (w *Sentry) count(a *answer) {
	if !a.counted {
		a.counted = true
		w.giving++
	}
}

// leave ends a post's part, and tells whether something was put back. The last one to leave remembers that.
func (w *Sentry) leave(a *answer) bool {
	w.told.Lock()
	defer w.told.Unlock()
	if a.giving--; a.giving == 0 {
		if !a.put.DeniedAt.IsZero() {
			w.note(a.put)
		}
		if a.counted {
			a.counted = false
			w.giving--
		}
	}
	w.given.Broadcast()
	return !a.put.DeniedAt.IsZero()
}

// stands tells in which generation the table was missing, and whether a post has denied since.
func (w *Sentry) stands(a *answer) (missed uint32, denied bool) {
	w.told.Lock()
	defer w.told.Unlock()
	return a.missing, !a.put.DeniedAt.IsZero()
}

// give writes the denial and the table in turn, until the table is there, or somebody else is at it.
func (w *Sentry) give(ctx context.Context, p *sentryPost, a *answer, first bool) error {
	if !a.told {
		if missing, err := w.missed(ctx, p, a); err != nil || !missing {
			return err
		}
	}
	for i := range maxAttempts {
		if denying := first == (i%2 == 0); denying {
			if over, err := w.deny(ctx, p, a, first); err != nil || over {
				w.dismiss(a, over)
				return err
			}
		} else if w.restore(ctx, p, a) {
			return nil
		}
	}
	if !first {
		return nil // the first one is at it
	}
	return reconcile.ErrContended
}

// dismiss has nobody else come to an answer that is not needed: each attempt that the kernel refuses takes it some 20 ms, in which Session.Repair
// cannot write.
func (w *Sentry) dismiss(a *answer, needless bool) {
	w.told.Lock()
	defer w.told.Unlock()
	a.needless = a.needless || needless
}

// missed asks whether the table is missing, and since when as far as is known.
func (w *Sentry) missed(ctx context.Context, p *sentryPost, a *answer) (bool, error) {
	generation, missing, err := p.conn.Missed(ctx)
	if err != nil || !missing {
		return false, err
	}
	w.told.Lock()
	defer w.told.Unlock()
	a.missing = generation
	w.wrote.saw(generation)
	w.count(a)
	switch {
	case a.told: // its last bits were right, whatever else was not known of it
		a.deletion = generation - uint32(uint16(generation)-uint16(a.deletion))
		a.put.Missed = a.deletion
	case a.put.Missed == 0:
		a.put.Missed = generation
	}
	return true, nil
}

// deny writes the denial, unless another post has. over: there is nothing to deny. Where somebody else has written meanwhile, the first post
// asks whether the table is still missing.
func (w *Sentry) deny(ctx context.Context, p *sentryPost, a *answer, first bool) (over bool, err error) {
	missed, denied := w.stands(a)
	if denied {
		return false, nil
	}
	switch err = p.conn.Create(ctx, p.denial, missed); {
	case err == nil:
		w.wrote.add(missed + 1)
		w.told.Lock()
		defer w.told.Unlock()
		if !a.put.Whole { // else another post has put the table in its place before this one came back
			a.put.DeniedAt = w.clock()
			a.put.At, a.put.missing = a.put.DeniedAt, missed
		}
		return false, nil
	case errors.Is(err, nft.ErrExists):
		return true, nil
	case !errors.Is(err, nft.ErrGeneration):
		return false, err
	}
	if _, denied = w.stands(a); denied || !first {
		return false, nil
	}
	missing, err := w.missed(ctx, p, a)
	return !missing, err
}

// restore writes the table in the denial's place, if it is kept ready. over: it is there, or somebody else has written something since the denial,
// and Session.Repair has to see to it.
func (w *Sentry) restore(ctx context.Context, p *sentryPost, a *answer) (over bool) {
	missed, denied := w.stands(a)
	if p.table == nil {
		return denied
	}
	if err := p.conn.Create(ctx, p.table, missed+1); err != nil {
		return denied || !errors.Is(err, nft.ErrGeneration)
	}
	w.wrote.add(missed + 2)
	w.told.Lock()
	defer w.told.Unlock()
	a.put.Whole, a.put.Changed, a.put.At, a.put.missing = true, w.makes, w.clock(), missed
	if a.put.DeniedAt.IsZero() { // who denied has not come back yet
		a.put.DeniedAt = a.put.At
	}
	return true
}
