package suite

import (
	"cmp"
	"errors"
	"fmt"
	"sync"
	"time"

	"drawbridge/features/driver"
)

// books are what is known of the enforcer, for all conductors together.
type books struct {
	mu        sync.Mutex // guards all of it
	receipts  map[string]driver.Receipt
	asked     map[string]driver.Document // by point: what apply was called with last
	inForce   map[string]driver.Document // by point: what it accepted last; nothing after a reset
	durations []time.Duration            // of every successful apply
	left      bool                       // a reset was seen to leave something in force
	calls     int                        // of the driver
	spent     time.Duration              // by it, in all calls together
	patience  time.Duration              // a call may take on average; 0: slowCall
	lost      error                      // set once the defaults could not be brought back: nothing can be judged any more
}

// lose notes why nothing can be judged any more; the first reason stays.
func (b *books) lose(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.lost == nil {
		b.lost = err
	}
}

func (b *books) whyLost() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.lost
}

func (b *books) receipt(point string) driver.Receipt {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.receipts[point]
}

// The time that a driver's calls may take in all: a few slow ones are judged by the statements, but no run may last for hours.
const (
	slowStart = time.Minute
	slowCall  = time.Second
)

// errSlow ends a run whose driver takes too long.
var errSlow = errors.New("the driver is too slow to be judged")

// called notes that a call of the driver took some time.
func (b *books) called(took time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.calls++
	b.spent += took
	each := cmp.Or(b.patience, slowCall)
	if limit := slowStart + time.Duration(b.calls)*each; b.spent > limit && b.lost == nil {
		b.lost = fmt.Errorf("%w: %d calls took %s together; at most %s and %s for each are allowed", errSlow, b.calls,
			b.spent.Round(time.Millisecond), slowStart, each)
	}
}

// leftBehind notes, if seen is true, that a reset left something in force, and returns whether one ever did.
func (b *books) leftBehind(seen bool) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.left = b.left || seen
	return b.left
}
