// Package realserver owns the distribution's own database servers, PostgreSQL, MariaDB and Redis, as processes inside the
// namespaces of a lab's nodes, and what their logs say of every connection.
//
// A Server does for a journal what an embedded one (package endpoint) does, but every event is the server's own word:
//
//	PostgreSQL  its log, at level debug2: every connection with the client's address and port, completed TLS handshakes,
//	            every statement before it is carried out, and the end of the process that served the connection
//	MariaDB     its general query log and its error log, which name a connection by the thread that serves it; the thread's
//	            number and the client's port stand side by side in the greeting that the server sends, which a capture
//	            at its own node shows
//	Redis       (6.2 and later) its log, MONITOR, and CLIENT LIST, which tells by the server's own port whether a client came by TLS
//
// # What a server saw
//
// Logs arrive a little after the fact. Server.Seen first has the server log a barrier, waits until that has arrived, and
// then returns every event of the connections from one client address:
//
//	events, err := server.Seen(ctx, netip.MustParseAddrPort("198.51.100.9:40001"))
//	for _, e := range events {
//		// e.Kind: Accepted, TLS, Query, Refused, Bytes, Closed; e.TLS: the handshake was complete by then
//	}
//
// Plaintext(events) picks those by which a client's plaintext reached the application: a login, statement or command without
// TLS, a refusal by the server before TLS, and bytes that it complained of (Kind Bytes with a Reason: "invalid length of
// startup packet", "Got packets out of order", unread bytes of an unfinished command). Server.Taken counts the bytes that
// the server has taken off a socket that is still open. Three things the servers do not tell: which bytes of an unfinished
// startup packet or login PostgreSQL and MariaDB hold; which arguments a command had that Redis rejected because its client
// had not logged in; and which port an address stands for at Redis if its client was gone, by a reset, before CLIENT LIST
// could be asked: it is then taken for the plaintext port. PostgreSQL asks clients without TLS for no password, so that each
// complete startup packet in plaintext is at once an authorised connection in its log and does not wait, unlogged, for an
// answer that never comes.
//
// # Identity
//
// No server runs as root: each process gets a PID namespace, and a user namespace in which it is nobody, mapped to whoever
// runs the lab. PostgreSQL insists on that, and all of it works without root. Killing the process kills whatever it started.
package realserver

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"drawbridge/sim/endpoint"
	"drawbridge/sim/netns"
	"drawbridge/topology"
)

// ErrEngine is the error of a Config whose engine has no real server here.
var ErrEngine = errors.New("no real server for this engine")

// ErrQuiet is returned where a server that was told to log nothing is asked what it saw.
var ErrQuiet = errors.New("the server was started quiet, and has logged nothing")

// Plays reports whether an engine's client ports can be served by a real server.
func Plays(e topology.Engine) bool {
	return e == topology.PostgreSQL || e == topology.MySQL || e == topology.Redis
}

// Config describes one server process.
type Config struct {
	Engine topology.Engine
	// Node is the namespace in which the server listens, on every address of both families.
	Node *netns.Handle
	// Port serves clients; PlainPort too, without TLS, for Redis alone.
	Port, PlainPort uint16
	Certificate     tls.Certificate
	Database, Name  string // names for the journal; Name is the node's, and names the data directory
	Journal         *endpoint.Journal
	Now             func() time.Time // time.Now if nil
	// Standby makes a PostgreSQL server the copy of another. Nil: a server of its own.
	Standby *Primary
}

// Server is a running server. It is safe for concurrent use.
type Server struct {
	cfg     Config
	program string
	quiet   bool
	process *process
	ledger  *ledger
	engine  engine
	closing sync.Once
}

// engine is what differs between the servers once they run.
type engine interface {
	// barrier has the server log a text.
	barrier(ctx context.Context, text string) error
	// reconcile resolves what the log alone left open about connections.
	reconcile(ctx context.Context) error
	// close lets go of the connections to the server, after its process has ended.
	close() error
}

// Program returns what the server calls itself: "PostgreSQL 15.18 (Debian 15.18-0+deb12u1)".
func (s *Server) Program() string { return s.program }

// Node returns the name of the server's node.
func (s *Server) Node() string { return s.cfg.Name }

// syncLimit bounds how long a barrier may take to come back: a second of a machine that is busy with something else, several
// times.
const syncLimit = 10 * time.Second

// Sync returns once everything that the server had logged before the call is in the journal.
func (s *Server) Sync(ctx context.Context) error {
	if s.quiet {
		return s.because("barrier", ErrQuiet)
	}
	ctx, cancel := context.WithTimeout(ctx, syncLimit)
	defer cancel()
	text, seen := s.ledger.expect()
	defer s.ledger.forget(text)
	if err := s.engine.barrier(ctx, text); err != nil {
		return s.because("barrier", err)
	}
	select {
	case <-seen:
	case <-s.process.ended:
		return s.because("barrier", s.process.failure())
	case <-ctx.Done():
		return s.because("barrier", ctx.Err())
	}
	if err := s.engine.reconcile(ctx); err != nil {
		return s.because("reconcile", err)
	}
	return nil
}

// Seen returns what the server has seen of the connections from a client, after Sync. With port 0 it is all the client's
// address did. The address is what the server saw: behind address translation, the translated one.
func (s *Server) Seen(ctx context.Context, remote netip.AddrPort) ([]endpoint.Event, error) {
	if err := s.Sync(ctx); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(s.cfg.Journal.All(), func(e endpoint.Event) bool {
		return e.Node != s.cfg.Name || e.Remote.Addr() != remote.Addr() || remote.Port() != 0 && e.Remote.Port() != remote.Port()
	}), nil
}

// Plaintext returns the events by which plaintext of the client reached the application: whatever a client said, or was
// told, without TLS. That a connection was accepted or ended without a word is none of them.
func Plaintext(events []endpoint.Event) []endpoint.Event {
	var out []endpoint.Event
	for _, e := range events {
		said := e.Kind == endpoint.Query || e.Kind == endpoint.Refused || e.Kind == endpoint.Bytes
		if said && !e.TLS {
			out = append(out, e)
		}
	}
	return out
}

// Close ends the server, as a power failure would, and waits until it is gone. Its error says if the server had ended by
// itself before. Closing twice does nothing.
func (s *Server) Close() (err error) {
	s.closing.Do(func() {
		if err = s.process.kill(); err != nil {
			err = s.because("run", err)
		}
		err = errors.Join(err, s.engine.close())
	})
	return err
}

func (s *Server) because(what string, err error) error {
	return fmt.Errorf("%s of node %s: %s: %w", s.cfg.Engine, s.cfg.Name, what, err)
}

// Start starts a server and returns once it answers. Errors name the server and quote the end of its log.
func (i *Installation) Start(ctx context.Context, cfg Config) (*Server, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	var start func(context.Context, *Server) error
	switch cfg.Engine {
	case topology.PostgreSQL:
		start = i.startPostgres
	case topology.MySQL:
		start = i.startMariaDB
	case topology.Redis:
		start = i.startRedis
	default:
		return nil, fmt.Errorf("%w: %q", ErrEngine, cfg.Engine)
	}
	s := &Server{cfg: cfg, quiet: i.Quiet, ledger: newLedger(cfg)}
	if err := start(ctx, s); err != nil {
		err = s.because("start", err)
		if s.process != nil {
			_ = s.process.kill() // the first error is the one to tell
		}
		if s.engine != nil {
			_ = s.engine.close()
		}
		return nil, err
	}
	return s, nil
}
