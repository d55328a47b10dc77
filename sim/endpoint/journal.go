package endpoint

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
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
	// Query is the client's request, only with Kind Query.
	Query string
	// Reason says why, only with Kind Refused and Closed.
	Reason string
}

// FirstBytes is how much of a connection's beginning the journal keeps: enough for a PostgreSQL SSLRequest (8 bytes) or a
// MySQL SSLRequest (36 bytes) and the TLS record behind it.
const FirstBytes = 64

// Journal records the events of any number of servers in the order in which they happened. It loses nothing: it grows
// until Forget. All methods may be called concurrently.
type Journal struct {
	mu      sync.Mutex
	conns   uint64
	events  map[uint16][]Event
	changed chan struct{} // closed and replaced with every event
}

// NewJournal returns an empty journal.
func NewJournal() *Journal {
	return &Journal{events: make(map[uint16][]Event), changed: make(chan struct{})}
}

// Events returns what was recorded of the connections from one source port, which in a lab belongs to one probe only.
func (j *Journal) Events(remotePort uint16) []Event {
	j.mu.Lock()
	defer j.mu.Unlock()
	return cloneEvents(j.events[remotePort])
}

// All returns every event, sorted by time and connection.
func (j *Journal) All() []Event {
	j.mu.Lock()
	defer j.mu.Unlock()
	var all []Event
	for _, events := range j.events {
		all = append(all, cloneEvents(events)...)
	}
	slices.SortStableFunc(all, func(a, b Event) int {
		if c := a.At.Compare(b.At); c != 0 {
			return c
		}
		return int(a.Conn) - int(b.Conn)
	})
	return all
}

// Forget drops what was recorded of one source port, so that the port can be used again. Events of a connection that is
// still open are recorded afterwards as well.
func (j *Journal) Forget(remotePort uint16) {
	j.mu.Lock()
	defer j.mu.Unlock()
	delete(j.events, remotePort)
}

// Subscribe delivers the events of one source port, those already recorded first. No event is lost, however slow the
// reader is. The channel is closed after cancel, which may be called more than once.
func (j *Journal) Subscribe(remotePort uint16) (<-chan Event, func()) {
	out, done := make(chan Event), make(chan struct{})
	go j.pump(remotePort, out, done)
	return out, sync.OnceFunc(func() { close(done) })
}

// Wait returns the first event of a source port, recorded or still to come, that matches. Its error is the context's.
func (j *Journal) Wait(ctx context.Context, remotePort uint16, match func(Event) bool) (Event, error) {
	next := 0
	for {
		events, changed := j.since(remotePort, next)
		if i := slices.IndexFunc(events, match); i >= 0 {
			return events[i], nil
		}
		next += len(events)
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
		events, changed := j.since(remotePort, next)
		for _, e := range events {
			select {
			case out <- e:
			case <-done:
				return
			}
		}
		next += len(events)
		select {
		case <-changed:
		case <-done:
			return
		}
	}
}

// since returns the events from index next on, and a channel that is closed with the next event of any port.
func (j *Journal) since(remotePort uint16, next int) ([]Event, <-chan struct{}) {
	j.mu.Lock()
	defer j.mu.Unlock()
	events := j.events[remotePort]
	if next > len(events) { // forgotten in between
		next = len(events)
	}
	return cloneEvents(events[next:]), j.changed
}

func (j *Journal) nextConn() uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.conns++
	return j.conns
}

func (j *Journal) record(e Event) {
	j.mu.Lock()
	defer j.mu.Unlock()
	port := e.Remote.Port()
	j.events[port] = append(j.events[port], e)
	close(j.changed)
	j.changed = make(chan struct{})
}

func cloneEvents(events []Event) []Event {
	out := slices.Clone(events)
	for i := range out {
		out[i].First = slices.Clone(out[i].First)
	}
	return out
}
