package daemon

import (
	"context"
	"errors"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"drawbridge/enforcer"
	"drawbridge/enforcer/nft"
)

// written is what somebody wrote to the ruleset.
type written struct {
	nft.Event
	at time.Time // when the kernel told of it
}

// watchKernel begins to hear of others' commits, and mends what they have done before that. As soon as anybody on the machine hears of
// commits, the kernel writes a message about each element, which would make the first installation a fifth slower.
func (d *daemon) watchKernel(ctx context.Context) (err error) {
	if d.kernel, err = nft.Watch(); err != nil {
		return err
	}
	if !d.session.Owns() {
		if d.deletions, err = nft.WatchDeletions(); err != nil {
			return err
		}
	}
	d.prepare()
	return d.lookAtTables(ctx, false)
}

// closeWatches ends those who listen to the kernel.
func (d *daemon) closeWatches() error {
	var errs []error
	if d.kernel != nil {
		errs = append(errs, d.kernel.Close())
	}
	if d.deletions != nil {
		errs = append(errs, d.deletions.Close())
	}
	return errors.Join(errs...)
}

// prepare gets ready for the tables' being deleted. It takes nothing where the tables are the daemon's own.
func (d *daemon) prepare() {
	if err := d.session.Prepare(); err != nil {
		d.Log.Warn("should the tables be deleted, mending them will take longer", "error", err)
	}
}

// lookAtTables mends what was done to the tables without word of it. Where words come, only what is found twice is without: of the rest the
// word, which says who it was, is on its way.
func (d *daemon) lookAtTables(ctx context.Context, wordsCome bool) error {
	untouched, err := d.session.Untouched(ctx)
	if err != nil {
		return err
	}
	suspect := !untouched
	if suspect && (d.suspect || !wordsCome) {
		d.mend(ctx, written{at: time.Now()})
		suspect = false
	}
	d.suspect = suspect
	return nil
}

// listen passes on what others write to the ruleset.
func (d *daemon) listen(ctx context.Context, foreign chan<- written) error {
	for {
		events, err := d.kernel.Next()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			return err
		}
		at := time.Now()
		for _, e := range events {
			select {
			case foreign <- written{e, at}:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
}

// standGuard puts back what somebody deletes, at once; mend then does the rest. It closes ready when nothing escapes it any more.
func (d *daemon) standGuard(ctx context.Context, ready chan<- struct{}) error {
	if d.deletions == nil {
		close(ready)
		return nil
	}
	runtime.LockOSThread() // for good: a thread of this priority is of no use to others
	if err := firstInLine(); err != nil {
		d.Log.Debug("a deletion of the tables may take some 20 ms to be mended", "reason", err)
	}
	close(ready)
	for {
		err := d.deletions.Next()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			return err
		}
		if d.deaf {
			continue
		}
		if _, err := d.session.Sentry().Restore(ctx); err != nil {
			d.Log.Warn("the tables could not be put back at once", "error", err)
		}
	}
}

// firstInLine gives the calling thread the least of the real-time priorities (sched(7)): who has something to answer to the kernel that
// cannot wait has to be woken before the process that it answers goes on. It takes CAP_SYS_NICE, or RLIMIT_RTPRIO of 1.
func firstInLine() error {
	return os.NewSyscallError("sched_setattr", unix.SchedSetAttr(0, &unix.SchedAttr{
		Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 1, Flags: unix.SCHED_FLAG_RESET_ON_FORK,
	}, 0))
}

// mend repairs what somebody else's commit did to the tables, unless they belong to this process. Generations that the
// session itself made are no news.
func (d *daemon) mend(ctx context.Context, e written) {
	if d.session.Owns() || e.Generation != 0 && d.session.Wrote(e.Generation) {
		return
	}
	receipt, err := d.session.Repair(ctx)
	answered, isAnswered := d.session.Sentry().Answered(e.Generation)
	if isAnswered {
		e.at = answered
	}
	if err != nil {
		d.Log.Error("could not look after the tables", "error", err)
		if receipt.Generation == "" {
			return
		}
	}
	if receipt.Changed == (enforcer.Changed{}) && receipt.Repaired == "" && !isAnswered {
		return
	}
	took := receipt.InForceAt.Sub(e.at)
	closed := took
	if !receipt.DeniedAt.IsZero() {
		closed = receipt.DeniedAt.Sub(e.at)
	}
	d.state.tampered(receipt, Tampering{At: e.at, ProcessID: e.ProcessID, Program: e.ProcessName, Took: took, Closed: closed})
	d.Log.Error("somebody changed the tables; mended", "pid", e.ProcessID, "program", e.ProcessName, "closed", closed, "took", took,
		"what", receipt.Repaired)
	d.note(entry{What: "tampered", Why: receipt.Repaired, ProcessID: e.ProcessID, Program: e.ProcessName, Receipt: &receipt})
	d.prepare() // who did it once may do it again
}
