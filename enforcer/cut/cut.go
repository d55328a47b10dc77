package cut

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"drawbridge/enforcer/nlsocket"
)

// DefaultLimit is how long a cut may wait for servers behind this host, from the first challenge on: six times, should
// one of the others get lost.
const DefaultLimit = 300 * time.Millisecond

// halfLimit is how long a cut waits for the servers of connections whose clients have been reset already: most of these are gone
// as well and say nothing, and one that is not answers within a round trip.
const halfLimit = 20 * time.Millisecond

// Options say where to look and for how long. With the zero value connections are found on this host only, and nothing
// is waited for.
type Options struct {
	// Behind: protected servers are behind this host, which forwards to them. Their connections are found in the
	// connection tracking table. Otherwise they are found among this host's sockets.
	Behind bool
	// Limit bounds the wait for servers behind this host; see DefaultLimit.
	Limit time.Duration
}

// Report says what became of the connections that the judge protects.
type Report struct {
	// Protected is how many there were.
	Protected int `json:"protected"`
	// Destroyed were ended by destroying the server's socket on this host.
	Destroyed int `json:"destroyed"`
	// Reset were ended by resets to both ends.
	Reset int `json:"reset"`
	// Forgotten had no open end left, only a tracking entry.
	Forgotten int `json:"forgotten"`
	// Unanswered could not be ended: their servers did not answer in time. The ruleset keeps their packets out.
	Unanswered int `json:"unanswered"`
	// Took is how long all of it took.
	Took time.Duration `json:"took_ns"`
}

// Cut is how many connections were to end.
func (r Report) Cut() int { return r.Destroyed + r.Reset + r.Forgotten + r.Unanswered }

// Cutter ends connections, over sockets that last: whoever closes a netfilter socket waits until the kernel has freed what was deleted from
// its tables (net/netfilter/nf_tables_api.c: nft_rcv_nl_event), which takes it tens of milliseconds, and a cut follows a deletion.
// Use it from one goroutine at a time.
type Cutter struct {
	conntrack, diag *nlsocket.Socket
}

// netlinkBuffer holds the answers to one request; dumps come in portions.
const netlinkBuffer = 1 << 20

// Open opens a cutter in the network namespace of the calling thread, in which it is used. The caller closes it.
func Open() (*Cutter, error) {
	conntrack, err := nlsocket.Open(unix.NETLINK_NETFILTER, netlinkBuffer)
	if err != nil {
		return nil, fmt.Errorf("open a conntrack socket: %w", err)
	}
	diag, err := nlsocket.Open(unix.NETLINK_SOCK_DIAG, netlinkBuffer)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open a sock_diag socket: %w", err), conntrack.Close())
	}
	return &Cutter{conntrack: conntrack, diag: diag}, nil
}

// Close closes the sockets.
func (c *Cutter) Close() error { return errors.Join(c.conntrack.Close(), c.diag.Close()) }

// Run ends every protected connection that the judge does not allow, in the network namespace of the calling thread,
// and returns once they have ended or the limit has passed. It starts no goroutine. On error, what could be ended has
// been, and the report counts it.
func (c *Cutter) Run(ctx context.Context, judge Judge, options Options) (report Report, err error) {
	start := time.Now()
	defer func() { report.Took = time.Since(start) }()
	entries, err := c.find(ctx, judge.Protects, options.Behind)
	if err != nil {
		return report, err
	}
	report.Protected = len(entries)
	doomed := slices.DeleteFunc(entries, func(e *entry) bool { return judge.Allows(e.Connection) })
	err = c.end(ctx, doomed, options.Limit, &report)
	return report, err
}

// List returns the protected connections that stand now, in the network namespace of the calling thread. behind is as in
// Options. It ends nothing.
func List(ctx context.Context, protects func(Connection) bool, behind bool) (out []Connection, err error) {
	c, err := Open()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	entries, err := c.find(ctx, protects, behind)
	for _, e := range entries {
		if e.socket != nil || e.tracking.stands() {
			out = append(out, e.Connection)
		}
	}
	return out, err
}

// find lists the protected connections.
func (c *Cutter) find(ctx context.Context, protects func(Connection) bool, behind bool) ([]*entry, error) {
	sockets, err := dumpSockets(ctx, c.diag)
	if err != nil {
		return nil, err
	}
	entries := fromSockets(sockets)
	if behind {
		tracked, err := c.tracked(ctx)
		if err != nil {
			return nil, err
		}
		fromTracking(entries, tracked)
	}
	protected := make([]*entry, 0, len(entries))
	for at, e := range entries {
		if !protects(e.Connection) {
			continue
		}
		if !behind {
			t, err := lookupConntrack(ctx, c.conntrack, reverse(at))
			if err != nil {
				return nil, err
			}
			e.track(t)
		}
		protected = append(protected, e)
	}
	return protected, nil
}

func (c *Cutter) tracked(ctx context.Context) ([]tracking, error) {
	if noConntrack() {
		return nil, nil
	}
	return dumpConntrack(ctx, c.conntrack)
}

// end ends connections, each the way it takes, and forgets them.
func (c *Cutter) end(ctx context.Context, doomed []*entry, limit time.Duration, report *Report) error {
	var behind []*entry
	var errs []error
	for _, e := range doomed {
		switch {
		case e.socket != nil:
			if err := destroySocket(ctx, c.diag, *e.socket); err != nil {
				errs = append(errs, err)
				continue
			}
			report.Destroyed++
		case e.tracking.open():
			behind = append(behind, e)
		default:
			report.Forgotten++
		}
	}
	errs = append(errs, c.endBehind(ctx, behind, limit, report))
	for _, e := range doomed {
		if e.tracking != nil {
			errs = append(errs, deleteConntrack(ctx, c.conntrack, *e.tracking))
		}
	}
	return errors.Join(errs...)
}

// endBehind ends connections whose servers are behind this host. The limit begins with the first challenge: looking for the
// connections takes as long as the tracking table is large, and must not eat it up.
func (c *Cutter) endBehind(ctx context.Context, behind []*entry, limit time.Duration, report *Report) (err error) {
	if len(behind) == 0 {
		return nil
	}
	w, err := openWire()
	if err != nil {
		report.Unanswered += len(behind)
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	reachable := make([]*entry, 0, len(behind))
	for _, e := range behind {
		switch _, err := w.hopTo(e.Server.Addr()); {
		case err == nil:
			reachable = append(reachable, e)
		case errors.Is(err, errHere):
			report.Forgotten++
		default:
			report.Unanswered++
		}
	}
	closed := func(e *entry) bool { return e.tracking.state == stateClose }
	halves := slices.DeleteFunc(slices.Clone(reachable), func(e *entry) bool { return !closed(e) })
	whole, err := resetAll(ctx, w, slices.DeleteFunc(reachable, closed), time.Now().Add(limit))
	rest, restErr := resetAll(ctx, w, halves, time.Now().Add(min(limit, halfLimit)))
	report.Reset += answered(whole) + answered(rest)
	report.Unanswered += len(whole) - answered(whole)
	report.Forgotten += len(rest) - answered(rest)
	return errors.Join(err, restErr)
}

// answered counts the connections whose servers said where they stood, and were reset.
func answered(all []*reset) (n int) {
	for _, r := range all {
		if r.done {
			n++
		}
	}
	return n
}
