package daemon

import (
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
	said func(error) // what became of each
	wake chan struct{}

	mu   sync.Mutex
	next *policy.Policy // of the document that was written last; nil: it is on disk

	protected *policy.Policy // of which it was written last what it protects; nil: none yet
}

func newKeeper(to Snapshots, docs *slots, log *audit, said func(error)) *keeper {
	return &keeper{to: to, docs: docs, log: log, said: said, wake: make(chan struct{}, 1)}
}

// keep says that a document was written (slots.write), and what its policy is. What is noted next has it brought to disk. It never waits.
func (k *keeper) keep(next *policy.Policy) {
	k.mu.Lock()
	k.next = next
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
	next := k.next
	k.next = nil
	k.mu.Unlock()
	var err error
	if next != nil {
		err = errors.Join(k.docs.secure(), k.saveProtected(next))
	}
	if err = errors.Join(err, k.log.sync()); next != nil || err != nil {
		k.said(err)
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
