package daemon

import (
	"context"
	"sync"
)

// keeper brings snapshots to disk beside the loop: a disk may take longer than a change may. Where several wait, the latest is
// saved.
type keeper struct {
	save func([]byte) error
	said func(error) // what became of each
	wake chan struct{}

	mu   sync.Mutex
	next []byte
}

func newKeeper(save func([]byte) error, said func(error)) *keeper {
	return &keeper{save: save, said: said, wake: make(chan struct{}, 1)}
}

// keep hands over a document. It never waits.
func (k *keeper) keep(document []byte) {
	k.mu.Lock()
	k.next = document
	k.mu.Unlock()
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
	document := k.next
	k.next = nil
	k.mu.Unlock()
	if document != nil {
		k.said(k.save(document))
	}
}
