package daemon

import (
	"context"
	"time"

	"drawbridge/enforcer"
)

const (
	// jumped is from when on a difference between the wall clock and the monotonic one is taken for a jump: lifetimes are whole seconds,
	// and a comparison of tables allows for two. A clock that is slewed gets there as well, later.
	jumped = time.Second
	// never is how far away the end of nothing is.
	never = 24 * time.Hour
)

// wallClock notices that the wall clock was set, or that the machine was suspended: lifetimes in the kernel count neither.
type wallClock struct {
	now    func() time.Time
	began  time.Time     // with a monotonic reading
	offset time.Duration // of the wall clock to the monotonic one
}

func newWallClock(now func() time.Time) *wallClock {
	c := &wallClock{now: now, began: time.Now()}
	c.offset = c.apart()
	return c
}

// apart is how far the wall clock has gone further than the monotonic one.
func (c *wallClock) apart() time.Duration {
	return c.now().Round(0).Sub(c.began.Round(0)) - time.Since(c.began)
}

// jump tells by how much the wall clock went further than time did since the last jump; 0 if it is none.
func (c *wallClock) jump() time.Duration {
	apart := c.apart()
	by := apart - c.offset
	if by.Abs() < jumped {
		return 0
	}
	c.offset = apart
	return by
}

// until is how long it takes until a time of the wall clock.
func (c *wallClock) until(at time.Time) time.Duration {
	if at.IsZero() {
		return never
	}
	return max(at.Sub(c.now()), 0)
}

// rearm sets the timers after a change: to the next end of a rule, and to when to get ready for what it brought into force.
func (d *daemon) rearm() {
	d.expiry.Reset(d.clock.until(d.session.NextExpiry()))
	d.unready.Reset(idle)
}

// expire acts when the timer says that a rule has ended. The kernel has ended it already; what it let in is told now, at both ends.
func (d *daemon) expire(ctx context.Context) {
	at := d.session.NextExpiry()
	if at.IsZero() || d.clock.until(at) > 0 { // a policy without, or a clock that is slewed
		d.rearm()
		return
	}
	d.lookAtGlass(ctx)
	d.catchUp(ctx, "expired", "a rule ended at "+at.UTC().Format(time.RFC3339))
}

// lookAtClock acts when the wall clock was set: what is left of each lifetime is counted anew.
func (d *daemon) lookAtClock(ctx context.Context) {
	by := d.clock.jump()
	if by == 0 {
		return
	}
	d.shortenGlass(ctx)
	d.catchUp(ctx, "clock", "the clock jumped by "+by.Round(time.Millisecond).String())
}

// catchUp brings what is in force to what the policy says now.
func (d *daemon) catchUp(ctx context.Context, what, why string) {
	defer d.rearm()
	if d.session.Policy() == nil {
		return
	}
	receipt, err := d.session.Repair(ctx)
	e := entry{What: what, Why: why}
	if err != nil {
		e.Error = err.Error()
		d.Log.Error(why, "error", err)
	}
	if receipt.Generation != "" {
		e.Receipt = &receipt
		d.state.caughtUp(receipt)
	}
	d.Log.Info(why, "elements_added", receipt.Changed.ElementsAdded, "elements_deleted", receipt.Changed.ElementsDeleted, "connections_cut", receipt.Cut.Cut())
	d.note(e)
}

// clockOf is the clock that the enforcer counts lifetimes by.
func clockOf(o enforcer.Options) func() time.Time {
	if o.Clock != nil {
		return o.Clock
	}
	return time.Now
}
