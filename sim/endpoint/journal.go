package endpoint

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Kind says what happened to a connection.
type Kind int

// The kinds of events, in the order in which one connection can produce them.
const (
	// KindUnknown is the zero value; no server records it.
	KindUnknown Kind = iota
	// Accepted: the TCP handshake was completed and the server took the connection.
	Accepted
	// Bytes: the recorded prefix of what the client sent grew; Event.First holds the whole prefix so far.
	Bytes
	// TLS: the TLS handshake is complete. Everything after it is encrypted.
	TLS
	// Query: the client asked for something; Event.Query holds it, Event.TLS tells how it travelled.
	Query
	// Refused: the server turned the client down; Event.Reason says why.
	Refused
	// Closed: the server is done with the connection; Event.Reason says why.
	Closed
)

// String returns the kind in lower case.
func (k Kind) String() string {
	names := []string{"unknown", "accepted", "bytes", "tls", "query", "refused", "closed"}
	if k < 0 || int(k) >= len(names) {
		return fmt.Sprintf("kind-%d", int(k))
	}
	return names[k]
}

// Event is one thing that a server saw of one connection.
type Event struct {
	At   time.Time // by the server's clock
	Kind Kind
	// Conn tells the connections of one journal apart: it counts them from 1.
	Conn uint64
	// Database and Node name the server, as in its Config.
	Database, Node string
	// Remote and Local are the connection's ends as the server sees them: behind address translation, the translated
	// ones. IPv4 addresses of a dual-stack socket are plain IPv4.
	Remote, Local netip.AddrPort
	// First is what the client sent first, at most FirstBytes of it, as it was on the wire: before any decryption.
	First []byte
	// Received counts the bytes that had arrived on the wire by then.
	Received uint64
	// TLS tells whether the TLS handshake was complete by then.
	TLS bool
	// Query is the client's request, at most QueryBytes of it, only with Kind Query.
	Query string
	// Reason says why, with Kind Refused and Closed. With Kind Bytes it is what a server whose bytes nobody can count
	// complained of (package realserver).
	Reason string
}

// FirstBytes is how much of a connection's beginning the journal keeps: enough for a PostgreSQL SSLRequest (8 bytes) or a
// MySQL SSLRequest (36 bytes) and the TLS record behind it.
const FirstBytes = 64

// QueryBytes is how much of a request the journal keeps.
const QueryBytes = 1024

// Journal records the events of any number of servers in the order in which they happened. It loses nothing: it grows
// until Forget. All methods may be called concurrently. The zero value is empty and ready.
type Journal struct {
	conns atomic.Uint64
	mu    sync.Mutex
	ports map[uint16]*portLog
}

// portLog is what one source port did.
type portLog struct {
	events    []Event
	forgotten int           // how many events were dropped from the front
	before    uint64        // connections up to this one are those of whoever had the port before
	changed   chan struct{} // closed and replaced with every event
	received  *atomic.Uint64
}

// NewJournal returns an empty journal.
func NewJournal() *Journal { return &Journal{} }

// Events returns what was recorded of the connections from one source port, which in a lab belongs to one probe only.
func (j *Journal) Events(remotePort uint16) []Event {
	events, _, _ := j.since(remotePort, 0)
	return events
}

// Received returns how many bytes have arrived from one source port until now, on the wire and in all its connections, also
// those that completed no query and are in no event yet.
func (j *Journal) Received(remotePort uint16) uint64 { return j.counter(remotePort).Load() }

// All returns every event, sorted by time and connection.
func (j *Journal) All() []Event {
	j.mu.Lock()
	defer j.mu.Unlock()
	var all []Event
	for _, log := range j.ports {
		all = append(all, cloneEvents(log.events)...)
	}
	slices.SortStableFunc(all, func(a, b Event) int {
		return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.Conn, b.Conn))
	})
	return all
}

// Forget drops what was recorded of one source port, so that somebody else can use it. Whatever the connections still do that were
// made before is not recorded any more: one that hangs is given up by its server a minute later, and must not pass for the new
// owner's. Subscriptions go on.
func (j *Journal) Forget(remotePort uint16) {
	j.mu.Lock()
	defer j.mu.Unlock()
	log := j.log(remotePort)
	log.forgotten += len(log.events)
	log.events = nil
	log.before = j.conns.Load()
	log.received = new(atomic.Uint64) // the old connections go on counting in theirs
}

// Subscribe delivers the events of one source port, those already recorded first. No event is lost, however slow the
// reader is. The channel is closed after cancel, which must be called, and may be called more than once.
func (j *Journal) Subscribe(remotePort uint16) (events <-chan Event, cancel func()) {
	out, done := make(chan Event), make(chan struct{})
	go j.pump(remotePort, out, done)
	return out, sync.OnceFunc(func() { close(done) })
}

// Wait returns the first event of a source port, recorded or still to come, that matches. Its error is the context's.
func (j *Journal) Wait(ctx context.Context, remotePort uint16, match func(Event) bool) (Event, error) {
	next := 0
	for {
		events, after, changed := j.since(remotePort, next)
		if i := slices.IndexFunc(events, match); i >= 0 {
			return events[i], nil
		}
		next = after
		select {
		case <-changed:
		case <-ctx.Done():
			return Event{}, fmt.Errorf("waiting for an event of source port %d: %w", remotePort, context.Cause(ctx))
		}
	}
}

func (j *Journal) pump(remotePort uint16, out chan<- Event, done <-chan struct{}) {
	defer close(out)
	next := 0
	for {
		events, after, changed := j.since(remotePort, next)
		for _, e := range events {
			select {
			case out <- e:
			case <-done:
				return
			}
		}
		next = after
		select {
		case <-changed:
		case <-done:
			return
		}
	}
}

// since returns the events from number next on, the number after the last of them, and a channel that is closed with the
// next event. Forgotten events keep their numbers.
func (j *Journal) since(remotePort uint16, next int) (events []Event, after int, changed <-chan struct{}) {
	j.mu.Lock()
	defer j.mu.Unlock()
	log := j.log(remotePort)
	from := max(next-log.forgotten, 0)
	return cloneEvents(log.events[from:]), log.forgotten + len(log.events), log.changed
}

// log returns the log of one port; the caller holds the lock.
func (j *Journal) log(remotePort uint16) *portLog {
	log, ok := j.ports[remotePort]
	if !ok {
		if j.ports == nil {
			j.ports = make(map[uint16]*portLog)
		}
		log = &portLog{changed: make(chan struct{}), received: new(atomic.Uint64)}
		j.ports[remotePort] = log
	}
	return log
}

func (j *Journal) counter(remotePort uint16) *atomic.Uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.log(remotePort).received
}

// Record adds an event that a server of another make than this package's told (package realserver).
func (j *Journal) Record(e Event) { j.record(e) }

// NextConn returns the number of the next connection for such a server's events.
func (j *Journal) NextConn() uint64 { return j.conns.Add(1) }

func (j *Journal) record(e Event) {
	j.mu.Lock()
	defer j.mu.Unlock()
	log := j.log(e.Remote.Port())
	if e.Conn != 0 && e.Conn <= log.before { // what is of no known connection is kept: it may be a leak
		return
	}
	log.events = append(log.events, e)
	close(log.changed)
	log.changed = make(chan struct{})
}

func cloneEvents(events []Event) []Event {
	out := slices.Clone(events)
	for i := range out {
		out[i].First = slices.Clone(out[i].First)
	}
	return out
}
