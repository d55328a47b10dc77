// Package reconcile brings the kernel's table to what is wanted and proves that it is there: read, compare, one write on
// condition of the generation that was read, read back.
package reconcile

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"drawbridge/enforcer/nft"
	"drawbridge/enforcer/ruleset"
)

// Kernel is what holds the table; nft.Conn is the real one.
type Kernel interface {
	// Read returns the table together with the generation at which it stood like that.
	Read(ctx context.Context) (nft.State, error)
	// ReadAfter is Read after a successful commit of this change on this state; it may leave out what cannot have changed. With
	// the zero State all is read from the kernel.
	ReadAfter(ctx context.Context, before nft.State, change ruleset.Change) (nft.State, error)
	// Commit applies a change, all or nothing, unless the generation has passed.
	Commit(ctx context.Context, change ruleset.Change, generation uint32) error
	// Replace puts a table in the place of one that could not be decoded.
	Replace(ctx context.Context, want ruleset.Table, exists bool, generation uint32) error
	// Delete removes the table.
	Delete(ctx context.Context, generation uint32) error
}

// maxAttempts bounds how often somebody else's commits may come in between. Each takes the other side longer than it
// takes us to try again.
const maxAttempts = 32

// maxReadings bounds how often a table is read that seems to be other than what was written. While the kernel resizes a hash
// table, which it does some time after elements came in, a dump of several parts may leave elements out: each part counts
// anew from the beginning how many to skip (net/netfilter/nft_set_hash.c: nft_rhash_walk).
const maxReadings = 8

var (
	// ErrContended: others kept changing the ruleset. Nothing of the change is in force.
	ErrContended = errors.New("the ruleset changed at every attempt")
	// ErrNotInForce: the kernel took the change, but holds something else now.
	ErrNotInForce = errors.New("what was read back is not what was written")
)

// Receipt tells what a change was and when it came into force. The zero value says that nothing is in force.
type Receipt struct {
	// Generation of the kernel's ruleset at which the table was read back.
	Generation uint32
	// Before is the table as it was; the zero value if there was none or it could not be decoded.
	Before ruleset.Table
	// Change is what was written; empty if the table stood as wanted already.
	Change ruleset.Change
	// Repaired says what was wrong with a table that had to be replaced as a whole; nil if none had to.
	Repaired error
	// InForceAt is when the write had been answered: from then on every packet met the new rules. Zero if nothing had
	// to be written.
	InForceAt time.Time
	// ReadAt is when the table had been read back.
	ReadAt time.Time
	// Attempts counts writes, those included that somebody else's change came before.
	Attempts int

	written uint32 // the generation that the last successful write made; 0: none succeeded
}

// Reconciler brings a table into force. Clock is for receipts only; nil is time.Now.
type Reconciler struct {
	Kernel Kernel
	Clock  func() time.Time
}

func (r Reconciler) now() time.Time {
	if r.Clock == nil {
		return time.Now()
	}
	return r.Clock()
}

// Apply brings the table into force and reads it back. On an error other than ErrNotInForce, what was in force before
// still is, as far as the kernel could be asked; but where a receipt with a change comes with it, that one was written, and not read back.
func (r Reconciler) Apply(ctx context.Context, want ruleset.Table) (Receipt, error) {
	var receipt Receipt
	readings := 0 // since the last write
	state, err := r.Kernel.Read(ctx)
	for {
		if err != nil {
			if receipt.written == 0 {
				receipt = Receipt{}
			}
			return receipt, fmt.Errorf("read the table: %w", err)
		}
		if state.Foreign == nil && state.Exists && ruleset.Diff(state.Table, want).IsEmpty() {
			receipt.Generation, receipt.ReadAt = state.Generation, r.now()
			return receipt, nil
		}
		if receipt.written != 0 && state.Generation == receipt.written {
			if readings++; readings < maxReadings {
				state, err = r.Kernel.ReadAfter(ctx, nft.State{}, receipt.Change)
				continue
			}
			return Receipt{}, fmt.Errorf("%w: generation %d", ErrNotInForce, state.Generation)
		}
		if receipt.Attempts == maxAttempts {
			return Receipt{}, fmt.Errorf("%w, %d times", ErrContended, maxAttempts)
		}
		if err := r.write(ctx, state, want, &receipt); err != nil {
			return Receipt{}, err
		}
		readings = 0
		if receipt.written != 0 {
			state, err = r.Kernel.ReadAfter(ctx, state, receipt.Change)
		} else { // a generation more may be anybody's
			state, err = r.Kernel.Read(ctx)
		}
	}
}

// write sends the change that leads from the state to what is wanted. That another commit came first, or that the
// outcome is not known, is no error: reading again tells.
func (r Reconciler) write(ctx context.Context, state nft.State, want ruleset.Table, receipt *Receipt) error {
	*receipt = Receipt{
		Attempts: receipt.Attempts + 1,
		Before:   state.Table, Repaired: state.Foreign,
		Change: ruleset.Diff(state.Table, want),
	}
	var err error
	if state.Foreign != nil {
		err = r.Kernel.Replace(ctx, want, state.Exists, state.Generation)
	} else {
		err = r.Kernel.Commit(ctx, receipt.Change, state.Generation)
	}
	receipt.InForceAt = r.now()
	switch {
	case err == nil:
		receipt.written = state.Generation + 1
	case errors.Is(err, nft.ErrGeneration), errors.Is(err, nft.ErrUnknownOutcome):
		return ctx.Err()
	case errors.Is(err, unix.ENOENT) && receipt.Change.DeletesExpiring():
		return ctx.Err() // it ended by itself while it was being deleted
	}
	return err
}

// ErrOutdated: the state that a change was computed from has passed. Nothing of the change is in force.
var ErrOutdated = errors.New("the ruleset has changed since it was read")

// Patch writes one change of elements to a state that is known, and reads back what it touched. An error other than ErrOutdated
// leaves open what is in force: Apply tells.
func (r Reconciler) Patch(ctx context.Context, state nft.State, change ruleset.Change) (Receipt, error) {
	if change.IsEmpty() {
		return Receipt{Generation: state.Generation, ReadAt: r.now()}, nil
	}
	want, ok := state.Table.Patched(change)
	if !ok {
		return Receipt{}, fmt.Errorf("%w: the change does not fit it", ErrOutdated)
	}
	receipt := Receipt{Attempts: 1, Before: state.Table, Change: change}
	err := r.Kernel.Commit(ctx, change, state.Generation)
	receipt.InForceAt = r.now()
	if errors.Is(err, nft.ErrGeneration) {
		return Receipt{}, fmt.Errorf("%w: %w", ErrOutdated, err)
	}
	if err != nil {
		return Receipt{}, err
	}
	after, err := r.Kernel.ReadAfter(ctx, state, change)
	if err != nil {
		return Receipt{}, err
	}
	var have []ruleset.Set
	for _, s := range after.Table.Sets {
		if change.Touches(s.Name) {
			have = append(have, s)
		}
	}
	if after.Foreign != nil || !ruleset.SameSets(have, want) {
		return Receipt{}, fmt.Errorf("%w: generation %d", ErrNotInForce, after.Generation)
	}
	receipt.Generation, receipt.ReadAt = after.Generation, r.now()
	return receipt, nil
}

// Remove takes the table out of the kernel. It is no error if there is none.
func (r Reconciler) Remove(ctx context.Context) error {
	for range maxAttempts {
		state, err := r.Kernel.Read(ctx)
		if err != nil {
			return fmt.Errorf("read the table: %w", err)
		}
		if !state.Exists {
			return nil
		}
		err = r.Kernel.Delete(ctx, state.Generation)
		if err != nil && !errors.Is(err, nft.ErrGeneration) && !errors.Is(err, nft.ErrUnknownOutcome) {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return fmt.Errorf("%w, %d times", ErrContended, maxAttempts)
}
