package probe

import (
	"context"
	"fmt"
	"time"
)

// LeastPatience is what patience has to be longer than: a client's TCP repeats its SYN then (RFC 6298 section 2.1).
const LeastPatience = repetition

// JudgeByPatience makes the prober conclude denials by waiting: what a client that waits for d and the database's journal know, and
// nothing of what the taps show in between. That is all there is for an enforcer outside the lab's sight, and it tells whether the
// taps and fences are right. d is longer than LeastPatience. Call it before the first probe.
func (p *Prober) JudgeByPatience(d time.Duration) error {
	if d <= LeastPatience {
		return fmt.Errorf("%w: patience of %s: must be more than %s", ErrSpec, d, LeastPatience)
	}
	p.waits, p.unfenced = d, false // its controls count
	p.least = max(p.least, 2*d)
	return nil
}

// JudgeUnfencedByPatience makes the prober conclude a denial by waiting where it has no fence: where an enforcer denies all of which its policy says nothing,
// the canary among it. A connection that arrived, of which nothing left, and that the client has repeated is then denied after the
// prober's patience, and the observation says in which way that was found. It is for people who look into a lab; a judge has canaries in
// its policies. Call it before the first probe.
func (p *Prober) JudgeUnfencedByPatience() { p.unfenced = true }

// judgeUnfenced is the verdict on what arrived and did not leave, without a fence to prove the path. not ok: that does not tell.
func (p *Prober) judgeUnfenced(e Evidence, mode Mode) (c conclusion, ok bool) {
	if !p.unfenced || e.Fenced || !e.SYNEntered || e.reached() || e.SYNs < 2 && !e.Told {
		return c, false
	}
	if c = concludePatiently(e, mode, p.patience(), true); e.FenceError != "" {
		c.reason += "; that the way was open then is not proven: " + e.FenceError
	}
	return c, c.verdict != Inconclusive
}

// awaitPatiently follows a track until it is served or has had its time.
func (p *Prober) awaitPatiently(ctx context.Context, t *track) conclusion {
	journal, stop := p.lab.Journal().Subscribe(t.port)
	defer stop()
	over := time.NewTimer(p.waits)
	defer over.Stop()
	for {
		if c := concludePatiently(p.look(t), t.spec.Mode, p.waits, false); c.final {
			return c
		}
		select {
		case <-t.changed:
		case <-journal:
		case <-over.C:
			return concludePatiently(p.look(t), t.spec.Mode, p.waits, true)
		case <-ctx.Done():
			return interrupted
		}
	}
}

// concludePatiently says what follows from the two ends alone, once there is nothing more to wait for.
func concludePatiently(e Evidence, mode Mode, waited time.Duration, over bool) conclusion {
	if c := conclude(e, mode, over); c.verdict == Served || c.by == ByDatabase || e.NotOffered || e.Answered || c.final && e.HostRefused {
		return c
	}
	if !over {
		return conclusion{Inconclusive, ByNobody, "its time is not over", false}
	}
	after := fmt.Sprintf(" within %s", waited)
	switch {
	case e.BytesRead > 0:
		return conclusion{Leaked, ByNobody, fmt.Sprintf("%d bytes of the client reached the database", e.BytesRead), true}
	case e.Accepted && !e.Connected:
		return conclusion{Leaked, ByNobody, "the SYN reached the database, but no answer came back" + after, true}
	case e.Connected && e.Accepted:
		return conclusion{TLSRefused, ByEnforcer, "it connected, and the database heard nothing" + after, true}
	case e.Connected:
		return conclusion{TLSRefused, ByEnforcer, "something answered the handshake in the database's place, which heard nothing" + after, true}
	case e.Told:
		return conclusion{Rejected, ByEnforcer, "the client was told no (" + e.ClientError + "), and the database saw nothing" + after, true}
	}
	return conclusion{Dropped, ByEnforcer, "neither the client nor the database heard anything" + after, true}
}

// outlastPatiently waits once more and looks again at what was denied.
func (p *Prober) outlastPatiently(ctx context.Context, watched []*watch) ([]Late, error) {
	over := time.NewTimer(p.waits)
	defer over.Stop()
	select {
	case <-over.C:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	var late []Late
	for _, w := range watched {
		if e := p.look(w.track); w.gotFurther(e) {
			late = append(late, Late{Observation: w.observation, Evidence: e})
		}
	}
	return late, nil
}
