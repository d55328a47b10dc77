package probe

import (
	"context"
	"fmt"
	"slices"
	"time"

	"drawbridge/sim/client"
	"drawbridge/sim/endpoint"
)

// Times that bound what is tried on a held connection.
const (
	// tellWithin: how long a held connection's client may wait for an answer or for the word that there is none.
	tellWithin = 2 * time.Second
	// lossyTimes is how many times as long that is where packets get lost: room for three repetitions of the query, after 0.2, 0.4 and 0.8 s and
	// more where the round trip is long (RFC 6298 section 5.5), and of the word that it is in vain.
	lossyTimes = 4
	// closeWithin: how long the database's half of a cut connection may take to end.
	closeWithin = 2 * time.Second
)

// Held is a session that was served and stays open across changes of policy (SPEC ).
type Held struct {
	p       *Prober
	track   *track
	session client.Session
	stop    context.CancelFunc
}

// Exchange is what became of one more query on a held session.
type Exchange struct {
	Answered bool `json:"answered"` // the database's journal holds the query, and so it was carried out
	// BytesThrough is how many bytes of the client were seen between the enforcement point and the database, or
	// acknowledged by the database's host, since the query began. At a cut connection it is 0.
	BytesThrough int `json:"bytes_through"`
	// Told: the client learnt by a reset, an ICMP error or the end of the stream that its connection is gone.
	Told bool `json:"told"`
	// DatabaseClosed: the database's half of the connection has ended. Only looked for when there was no answer.
	DatabaseClosed bool          `json:"database_closed"`
	Error          string        `json:"error,omitempty"`
	Took           time.Duration `json:"took"` // until the client knew
}

// Hold makes a connection like Probe and keeps the session if it was served; otherwise Held is nil and the observation says
// why. The caller closes it.
func (p *Prober) Hold(ctx context.Context, spec Spec) (*Held, Observation, error) {
	sessions := make(chan client.Session, 1)
	t, stop, o, err := p.try(ctx, spec, func(s client.Session) { sessions <- s })
	if err != nil || o.Verdict != Served {
		return nil, o, err
	}
	return &Held{p: p, track: t, session: <-sessions, stop: stop}, o, nil
}

// Spec returns how the session was opened.
func (h *Held) Spec() Spec { return h.track.spec }

// Query sends one more query and reports what both ends saw of it.
func (h *Held) Query(ctx context.Context) Exchange {
	marker := h.p.mark()
	before, _ := h.track.snapshot()
	began := time.Now()
	within := tellWithin
	if h.p.lab.Lossy() {
		within *= lossyTimes
	}
	queryCtx, cancel := context.WithTimeout(ctx, within)
	err := h.session.Query(queryCtx, marker)
	cancel()
	x := Exchange{Took: time.Since(began)}
	if err != nil {
		x.DatabaseClosed = h.p.closedSoon(ctx, h.track.port)
	}
	if err := h.p.lab.SyncJournal(ctx, h.track.spec.To.Database); err != nil {
		return Exchange{Took: x.Took, Error: "what the database saw is unknown: " + err.Error()}
	}
	if err == nil {
		x.Answered = h.p.journalled(h.track.port, marker)
		if !x.Answered {
			x.Error = "an answer came, but not from this database"
		}
		return x
	}
	x.Error, x.Told = err.Error(), told(err) || h.track.told.Load()
	if h.p.journalled(h.track.port, marker) { // whatever the client was told, the database has done what it asked for
		x.Answered = true
		return x
	}
	after, _ := h.track.snapshot()
	x.BytesThrough = after.PayloadLeft - before.PayloadLeft
	return x
}

// DatabaseClosed reports whether the database's half of the connection ends within a bounded time.
func (h *Held) DatabaseClosed(ctx context.Context) bool { return h.p.closedSoon(ctx, h.track.port) }

// Close ends the session.
func (h *Held) Close() error {
	defer h.p.done(h.track)
	err := h.session.Close()
	h.stop()
	if err != nil {
		return fmt.Errorf("close %s: %w", h.track.spec, err)
	}
	return nil
}

// journalled reports whether a database's journal holds a query with the marker from this client port.
func (p *Prober) journalled(port uint16, marker string) bool {
	return slices.ContainsFunc(p.lab.Journal().Events(port), func(e endpoint.Event) bool {
		return e.Kind == endpoint.Query && containsMarker(e.Query, marker)
	})
}

// closedSoon waits for the database's half of a connection to end, for closeWithin at the most.
func (p *Prober) closedSoon(ctx context.Context, port uint16) bool {
	ctx, cancel := context.WithTimeout(ctx, closeWithin)
	defer cancel()
	events, stop := p.lab.Journal().Subscribe(port)
	defer stop()
	closed := func(e endpoint.Event) bool { return e.Kind == endpoint.Closed }
	for {
		if slices.ContainsFunc(p.lab.Journal().Events(port), closed) {
			return true
		}
		select {
		case <-events:
		case <-ctx.Done():
			return false
		}
	}
}
