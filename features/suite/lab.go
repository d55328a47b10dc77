// Package suite runs the specification against an enforcer: godog scenarios in an emulated Internet, every expectation
// checked against the oracle, every verdict taken from both ends.
package suite

import (
	"context"
	"net/netip"
	"time"

	"drawbridge/features/driver"
	"drawbridge/features/oracle"
	"drawbridge/topology"
	"drawbridge/topology/flow"
)

// Enforcer is what is judged (driver.Exec).
type Enforcer interface {
	Describe(ctx context.Context, point string) (driver.Description, error)
	Apply(ctx context.Context, doc driver.Document) (driver.Receipt, error)
	// Submit hands over a text as it is, which may be no policy at all (SPEC X-11).
	Submit(ctx context.Context, point string, text []byte) (driver.Receipt, error)
	// Crash kills what runs at a point for as long as it lives, and starts it again; false: nothing does (SPEC X-07).
	Crash(ctx context.Context, point string) (bool, error)
	// Interrupt is Apply by a process that is killed after some time, unless it has answered before (SPEC X-07).
	Interrupt(ctx context.Context, doc driver.Document, after time.Duration) (r driver.Receipt, killed bool, err error)
	Reset(ctx context.Context, point string) error
}

// Lab is what scenarios need of the emulated Internet. It never learns what is expected of it.
type Lab interface {
	// Baseline checks, with no enforcer in force, that everything reaches everything and that no observer is blind.
	Baseline(ctx context.Context) error
	// TakeStock remembers what there is in the lab, once, for Sound. Baseline does so too.
	TakeStock() error
	// Connect makes connections, many at a time, and says what became of each. An error means that one cannot be made.
	Connect(ctx context.Context, attempts []oracle.Connection) ([]Outcome, error)
	// Hold makes a connection and keeps it. The Session is nil unless the outcome is Served.
	Hold(ctx context.Context, c oracle.Connection) (Session, Outcome, error)
	// Replicate sends a marker from a node to another: to plain without TLS if that is served, and to tls over TLS.
	Replicate(ctx context.Context, from topology.Vantage, plain, tls topology.Endpoint) (Replication, error)
	// Send sends single packets of any protocol and says what became of each.
	Send(ctx context.Context, packets []Packet) ([]Outcome, error)
	// Evade plays evasions of Force TLS by their names, from an Internet host; those that make no sense at the endpoint are left out.
	Evade(ctx context.Context, from topology.Vantage, to topology.Endpoint, names []string) ([]Evasion, error)
	// Endure makes handshakes of an Internet host's client with endpoints over a wire that loses, repeats and swaps packets;
	// those in which a SYN or its answer suffers, which takes TCP a second to notice, only if slow.
	Endure(ctx context.Context, from topology.Vantage, to []topology.Endpoint, slow bool) ([]Endured, error)
	// Stream tries connections all the time, over IPv4, each at least once in a millisecond if the machine can.
	Stream(ctx context.Context, trials []Trial) (Stream, error)
	// Forge sends packets over IPv4 that claim an address which is not the vantage's (SPEC X-03).
	Forge(ctx context.Context, from topology.Vantage, name netip.Addr, to topology.Endpoint) (Forgery, error)
	// Flood sends connection attempts over IPv4, each from another address or port of the vantage, as fast as they are taken in (SPEC X-10).
	Flood(ctx context.Context, from topology.Vantage, to topology.Endpoint, syns int) (Flooded, error)
	// Tamper changes the rules at a point as another program would (SPEC X-09), by nft(8).
	Tamper(ctx context.Context, point string, how Tampering) error
	// Loopback connects to a database from its own host and says in words what became of it.
	Loopback(ctx context.Context, database string) (string, error)
	// Outlast waits until the clients that were denied a connection at some points have tried again, and returns in words those that
	// got through.
	Outlast(ctx context.Context, points []string) ([]string, error)
	// Settle ends the denied connections at some points that are still watched, and returns in words those that got through late.
	Settle(points []string) []string
	// Failover makes the fabric send a database's endpoints to another of its nodes.
	Failover(ctx context.Context, database, node string) error
	// MoveEgress makes a region's traffic that leaves from one egress address leave from another.
	MoveEgress(ctx context.Context, region string, from, to netip.Addr) error
	// RequireTLS makes a database's own servers refuse to go on without TLS with clients for whom the policy holds; nil: nobody.
	RequireTLS(database string, policy func(client netip.Addr) bool) error
	// Err returns an error once the lab lost sight of packets.
	Err() error
	// Sound returns an error if something is missing in the lab that was there at the first Baseline: a listener, a route.
	Sound() error
}

// Session is a connection held open (SPEC ).
type Session interface {
	// Exchange tries one more query.
	Exchange(ctx context.Context) Exchange
	Close() error
}

// Exchange is what both ends saw of one more query on a held connection. The zero value is neither a cut connection nor one that goes on.
type Exchange struct {
	Answered       bool
	BytesThrough   int // bytes of the client that got past the enforcement point
	Told           bool
	DatabaseClosed bool
	Detail         string
}

// Finding is what became of an attempt. The zero value is Inconclusive, which is neither of the others.
type Finding int

// Findings.
const (
	Inconclusive Finding = iota
	Denied
	Served
	// Leaked: not served, but something of it reached the database.
	Leaked
)

// String returns the finding's name.
func (f Finding) String() string {
	switch f {
	case Denied:
		return "denied"
	case Served:
		return "served"
	case Leaked:
		return "leaked"
	}
	return "inconclusive"
}

// Outcome is what became of one attempt, concluded from both ends.
type Outcome struct {
	Finding Finding
	// Verdict is the finding's finer name: dropped, rejected, tls-refused and so on.
	Verdict string
	// Way is how the verdict was taken: by the database's answer, by fence, by patience.
	Way    string
	Detail string
	// Arrived: it was seen at the entrance of the enforcement point.
	Arrived bool
	// Passed: its first packet got past the enforcement point.
	Passed bool
	// SeenFrom is the client's address and port as the database saw it, and Node the node that answered; if Served.
	SeenFrom netip.AddrPort
	Node     string
	// Local is the client's own end.
	Local netip.AddrPort
	Took  time.Duration
	// Evidence is what was seen at both ends, for reports.
	Evidence any
}

// Replication is node-to-node traffic with a marker in it, as seen on the wire between the nodes.
type Replication struct {
	Plain, TLS Outcome
	Packets    int
	MarkerSeen bool
}

// Packet is a single packet, sent to see whether anything at all gets past the enforcement point (SPEC X-02).
type Packet struct {
	From  topology.Vantage
	To    topology.Endpoint // its address and point; the port is Port
	Proto flow.Protocol     // ICMP and ICMPv6: an echo request
	Port  uint16            // 0 for an echo request
}
