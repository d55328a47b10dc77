package daemon

import (
	"context"
	"errors"
	"slices"
	"sync"

	"drawbridge/enforcer"
	"drawbridge/enforcer/policy"
)

// keeper brings snapshots to disk beside the loop: a disk may take longer than a change may. Where several wait, the latest is
// saved.
type keeper struct {
	to   Snapshots
	log  *audit
	said func(error) // what became of each
	wake chan struct{}

	mu   sync.Mutex
	next kept

	protected []enforcer.Target // as it was written last
}

// kept is what is kept of a policy.
type kept struct {
	document summed
	policy   *policy.Policy
}

func newKeeper(to Snapshots, log *audit, said func(error)) *keeper {
	return &keeper{to: to, log: log, said: said, wake: make(chan struct{}, 1)}
}

// keep hands over a document. It never waits.
func (k *keeper) keep(next kept) {
	k.mu.Lock()
	k.next = next
	k.mu.Unlock()
	k.noted()
}

// noted has the audit log brought to disk. It never waits.
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
	k.next = kept{}
	k.mu.Unlock()
	if err := k.log.sync(); err != nil {
		k.said(err)
	}
	if next.document.text != nil {
		k.said(errors.Join(k.to.secure(next.document), k.saveProtected(next.policy)))
	}
}

// saveProtected keeps what the policy protects, if that has changed.
func (k *keeper) saveProtected(p *policy.Policy) error {
	targets := enforcer.Protected(p)
	if slices.Equal(targets, k.protected) {
		return nil
	}
	if err := k.to.saveProtected(targets); err != nil {
		return err
	}
	k.protected = targets
	return nil
}
