package daemon

import (
	"bytes"
	"context"
	"errors"
	"sync"

	"drawbridge/enforcer"
	"drawbridge/enforcer/policy"
)

// keeper brings snapshots to disk beside the loop: a disk may take longer than a change may. Where several wait, the latest is
// saved.
type keeper struct {
	to   Snapshots // of what is protected
	docs *slots
	log  *audit
	said func(err error, again bool) // what became of each
	wake chan struct{}

	mu    sync.Mutex
	next  *policy.Policy // of the document that was written last; nil: it is on disk
	again bool           // it was to be brought there before

	protected *policy.Policy // of which it was written last what it protects; nil: none yet
}

func newKeeper(to Snapshots, docs *slots, log *audit, said func(err error, again bool)) *keeper {
	return &keeper{to: to, docs: docs, log: log, said: said, wake: make(chan struct{}, 1)}
}

// keep says that a document was written (slots.write), and what its policy is. What is noted next has it brought to disk. It never waits.
// again: that was tried before.
func (k *keeper) keep(next *policy.Policy, again bool) {
	k.mu.Lock()
	k.next, k.again = next, again
	k.mu.Unlock()
}

// noted has everything brought to disk, once for a change and its line in the audit log: each time others wait for the journal of the file
// system. It never waits.
func (k *keeper) noted() {
	select {
	case k.wake <- struct{}{}:
	default: // it will be seen
	}
}

// run saves until ctx ends, and then what is left.
func (k *keeper) run(ctx context.Context) {
	for ctx.Err() == nil {
		select {
		case <-k.wake:
			k.flush()
		case <-ctx.Done():
		}
	}
	k.flush()
}

func (k *keeper) flush() {
	k.mu.Lock()
	next, again := k.next, k.again
	k.next, k.again = nil, false
	k.mu.Unlock()
	var err error
	if next != nil {
		err = errors.Join(k.docs.secure(), k.saveProtected(next))
	}
	if err = errors.Join(err, k.log.sync()); next != nil || err != nil {
		k.said(err, again)
	}
}

// saveProtected keeps what the policy protects, if that has changed.
func (k *keeper) saveProtected(p *policy.Policy) error {
	if k.protected == nil || !p.SameClaims(k.protected) {
		if err := k.to.saveProtected(enforcer.Protected(p)); err != nil {
			return err
		}
	}
	k.protected = p
	return nil
}

// keep keeps a document that is in force for the next start. again: it was tried before.
func (d *daemon) keep(document summed, again bool) {
	err := d.slots.write(document)
	d.kept(stepWrite, err, again)
	if err != nil {
		if !again { // what was read last may be read over
			document.text = bytes.Clone(document.text)
		}
		d.unkept = &document
		return
	}
	d.unkept = nil
	d.keeper.keep(d.session.Policy(), again)
}

// keepAgain tries again to keep what is in force, if that went wrong: a disk that was full may not be any more.
func (d *daemon) keepAgain() {
	if d.state.now().Snapshot == "" {
		return
	}
	if d.unkept != nil {
		d.keep(*d.unkept, true)
	} else if p := d.session.Policy(); p != nil {
		d.keeper.keep(p, true)
	}
	d.keeper.noted()
}

// kept says what became of a snapshot.
func (d *daemon) kept(at step, err error, again bool) {
	changed := d.state.snapshot(at, err, again)
	switch {
	case err != nil && (changed || !again):
		d.Log.Error("the policy could not be kept for the next start; it is tried again", "every", tick, "error", err)
	case err == nil && changed:
		d.Log.Info("the policy is kept for the next start after all")
	}
}
