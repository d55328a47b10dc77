package enforcer

import (
	"context"
	"errors"
	"time"

	"drawbridge/enforcer/nft"
	"drawbridge/enforcer/policy"
	"drawbridge/enforcer/reconcile"
)

// slowSets is from how many sets on a table takes the kernel longer to make than a gap may last, some 10 ms: it looks each of them up
// by its name in a list, again and again.
const slowSets = 64

// spare is what Repair sends first where the table is gone, written beforehand: the table itself, or if that takes the kernel too
// long, a denial of everything that is protected.
type spare struct {
	of            *policy.Policy // that it was written for
	whole, denial *nft.Prepared
}

// wholeOf returns the table of a policy; nil if there is none at hand.
func (s spare) wholeOf(p *policy.Policy) *nft.Prepared {
	if s.of != p {
		return nil
	}
	return s.whole
}

// denialOf is wholeOf for the denial.
func (s spare) denialOf(p *policy.Policy) *nft.Prepared {
	if s.of != p {
		return nil
	}
	return s.denial
}

// Prepare gets ready for the table's being deleted by somebody: a Repair afterwards closes the gap in half the time. It takes some
// milliseconds once after each change, and nothing at other times; call it when nothing else is to be done.
func (s *Session) Prepare() error {
	if s.policy == nil || s.Owns() || s.spare.of == s.policy {
		return nil
	}
	next := spare{of: s.policy}
	var err error
	if s.isSlow() {
		next.denial, err = s.main.Prepare(denial(Protected(s.policy)))
	} else if s.want.Name != "" && s.expires.IsZero() { // what expires is another table each second
		next.whole, err = s.main.Prepare(s.want)
	}
	if err != nil {
		return err
	}
	s.spare = next
	return nil
}

// isSlow tells whether the kernel takes long to make the table.
func (s *Session) isSlow() bool { return len(s.want.Sets) >= slowSets }

// denyMeanwhile denies everything that is protected where a large table is gone altogether, which takes milliseconds, until it is back,
// which may take a second. Packets of connections that are allowed are lost meanwhile, and sent again. It returns since when that is in
// force; the zero value: it was not needed.
func (s *Session) denyMeanwhile(ctx context.Context) (since time.Time, err error) {
	if !s.isSlow() {
		return time.Time{}, nil
	}
	state, err := s.main.Read(ctx)
	if err != nil || state.Exists {
		return time.Time{}, err
	}
	if ready := s.spare.denialOf(s.policy); ready != nil {
		err := s.main.create(ctx, ready, state.Generation)
		if !errors.Is(err, nft.ErrGeneration) && !errors.Is(err, nft.ErrExists) {
			return s.options.Clock(), err
		}
	}
	done, err := reconcile.Reconciler{Kernel: s.main, Clock: s.options.Clock}.Apply(ctx, denial(Protected(s.policy)))
	return done.InForceAt, err
}
