package probe

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"

	"drawbridge/topology"
)

// ErrFence says that a canary connection was not served, so that nothing can be concluded from another one's silence.
var ErrFence = errors.New("the canary was not served")

// route is what a fence proves: this vantage, with this source address, through this point, in this family.
type route struct {
	from   string
	source netip.Addr
	point  string
	is4    bool
	reach  reach
}

// reach is how far a fence goes. The zero value is the whole way.
type reach int

const (
	// conversation: TLS, login, one query.
	conversation reach = iota
	// handshake: TCP's alone. It is enough to prove that a SYN is not on its way any more, and costs some 100 µs.
	handshake
	// opening: what a client says up to and with its ClientHello, and the beginning of the server's answer. What a client says can only
	// be overtaken by what another one says.
	opening
)

// fences shares canary connections between probes that wait for one on the same route: a caller gets a fence that
// was begun after it asked, never one that was under way.
type fences struct {
	run func(context.Context, route) error

	mu     sync.Mutex
	queues map[route]*fenceQueue
}

type fenceQueue struct {
	running bool
	next    *fenceRound
}

type fenceRound struct {
	done chan struct{}
	err  error
}

// pass returns a channel that delivers the outcome of a fence begun after the call.
func (f *fences) pass(ctx context.Context, r route) <-chan error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.queues == nil {
		f.queues = map[route]*fenceQueue{}
	}
	q := f.queues[r]
	if q == nil {
		q = &fenceQueue{}
		f.queues[r] = q
	}
	if q.next == nil {
		q.next = &fenceRound{done: make(chan struct{})}
	}
	round := q.next
	if !q.running {
		q.running = true
		go f.drive(ctx, r, q)
	}
	out := make(chan error, 1)
	go func() { <-round.done; out <- round.err }()
	return out
}

// drive runs the rounds of one route one after the other until nobody waits for another.
func (f *fences) drive(ctx context.Context, r route, q *fenceQueue) {
	for {
		f.mu.Lock()
		round := q.next
		q.next = nil
		if round == nil {
			q.running = false
			f.mu.Unlock()
			return
		}
		f.mu.Unlock()
		// A caller that gave up must not spoil the round of the others: only the prober's patience bounds it.
		round.err = f.run(context.WithoutCancel(ctx), r)
		close(round.done)
	}
}

// fence makes one canary connection and waits until both the client and the tap of the point have seen it through.
func (p *Prober) fence(ctx context.Context, r route) error {
	to, ok := p.canaries[canaryKey{r.point, r.is4}]
	if !ok {
		return fmt.Errorf("%w: point %s has none of the family", ErrFence, r.point)
	}
	t, d, err := p.prepare(Spec{From: r.from, Source: r.source, To: to, Mode: TLS})
	if err != nil {
		return fmt.Errorf("%w: %w", ErrFence, err)
	}
	ctx, cancel := context.WithTimeout(ctx, p.patience())
	defer cancel()
	p.reg.add(t)
	defer p.done(t)
	if r.reach != conversation {
		return p.shake(ctx, t, d, r.reach)
	}
	go p.converse(ctx, t, d, nil)
	return p.awaitFence(ctx, t)
}

// shake makes a TCP connection to the canary, says no more than an opening on it, and waits until the tap of the point has seen all
// of it through.
func (p *Prober) shake(ctx context.Context, t *track, d *dialer, r reach) error {
	conn, err := d.dial(ctx)
	if err != nil {
		return fmt.Errorf("%w from %s: %w", ErrFence, t.spec.From, err)
	}
	defer conn.Close()
	said := 0
	if r == opening {
		if said, err = open(ctx, conn); err != nil {
			return fmt.Errorf("%w from %s: opening: %w", ErrFence, t.spec.From, err)
		}
	}
	for {
		if e, _ := t.snapshot(); e.SYNEntered && e.SYNLeft && e.PayloadLeft >= said {
			return nil
		}
		select {
		case <-t.changed:
		case <-ctx.Done():
			return fmt.Errorf("%w from %s: it connected, but the tap did not see it", ErrFence, t.spec.From)
		}
	}
}

func (p *Prober) awaitFence(ctx context.Context, t *track) error {
	journal, stop := p.lab.Journal().Subscribe(t.port)
	defer stop()
	for {
		e := p.look(t)
		switch {
		case e.Answered && e.QueryAnswered && e.SYNEntered && e.SYNLeft:
			return nil
		case e.ClientError != "":
			return fmt.Errorf("%w from %s: %s", ErrFence, t.spec.From, e.ClientError)
		}
		select {
		case <-t.changed:
		case <-journal:
		case <-ctx.Done():
			return fmt.Errorf("%w from %s: %s", ErrFence, t.spec.From, conclude(e, TLS, true).reason)
		}
	}
}

// canaryKey names the canary endpoint of one enforcement point in one family.
type canaryKey struct {
	point string
	is4   bool
}

// canaries finds the endpoints of every point's canary database, the first of each family.
func canaries(w *topology.World) map[canaryKey]topology.Endpoint {
	found := map[canaryKey]topology.Endpoint{}
	for _, d := range w.Databases() {
		if !d.Canary {
			continue
		}
		for _, e := range d.Endpoints() {
			k := canaryKey{e.Point, e.Addr.Addr().Is4()}
			if _, ok := found[k]; !ok {
				found[k] = e
			}
		}
	}
	return found
}
