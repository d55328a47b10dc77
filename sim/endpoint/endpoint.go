// Package endpoint owns the embedded database servers: one listener, one engine's wire protocol, and a journal of everything
// that arrived.
//
// The servers are protocol-true as far as a client can tell while it connects: TLS is negotiated by each protocol's own
// rules, clients authenticate, and a query of literals is answered. They store nothing. Ordinary clients work against
// them: psql, the mariadb client, redis-cli, curl.
//
//	PostgreSQL   SSLRequest, direct TLS, GSSENCRequest, CancelRequest, SCRAM-SHA-256, simple and extended query
//	MySQL        handshake v10, SSLRequest, mysql_native_password, COM_QUERY, prepared statements, COM_PING
//	Redis        RESP2 and RESP3, HELLO, AUTH, PING, ECHO, CLIENT, SELECT, INFO
//	MongoDB      OP_QUERY isMaster, OP_MSG hello, ping, buildInfo, aggregate with $documents
//	OpenSearch   HTTP(S): GET /, echoes X-Opaque-Id
//	InfluxDB     HTTP(S): GET /ping and /query, echo X-Request-Id
//	cluster      HTTP(S): GET /cluster, echoes X-Request-Id; engine-independent, for ports that only nodes use
package endpoint

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"drawbridge/topology"
)

// The account that every embedded server knows, and that a real server in its place has to know.
const (
	User     = "drawbridge"
	Password = "draw-the-bridge"
	// Schema is the database that clients name when they connect; the servers accept any.
	Schema = "drawbridge"
)

// Transport says how a port arrives at TLS; the words of the driver protocol are in-band, either, only and none. The
// zero value is none of them, and Serve refuses it.
type Transport int

// The transports.
const (
	// InBand ports negotiate TLS inside the protocol (PostgreSQL, MySQL).
	InBand Transport = iota + 1
	// Either ports take TLS or plaintext and tell them apart by the first byte (MongoDB).
	Either
	// TLSOnly ports speak TLS from the first byte.
	TLSOnly
	// PlainOnly ports never speak TLS.
	PlainOnly
)

// String returns the transport in the words of the driver protocol.
func (t Transport) String() string {
	switch t {
	case InBand:
		return "in-band"
	case Either:
		return "either"
	case TLSOnly:
		return "only"
	case PlainOnly:
		return "none"
	}
	return fmt.Sprintf("transport-%d", int(t))
}

// ErrConfig is the error of a Config that describes no server.
var ErrConfig = errors.New("no such database server")

// authenticationLimit is how long a client may take to authenticate: PostgreSQL's default authentication_timeout.
const authenticationLimit = time.Minute

// Config describes one server.
type Config struct {
	Engine topology.Engine
	// Cluster serves the engine-independent cluster service instead of the engine's client protocol: the port on
	// which only the nodes of a database talk to each other. TLSOnly or PlainOnly.
	Cluster   bool
	Transport Transport
	// TLS holds the certificate. Required for TLSOnly, unused for PlainOnly. InBand and Either servers without it do
	// not offer TLS.
	TLS            *tls.Config
	Database, Node string // names for the journal
	Journal        *Journal
	Now            func() time.Time // time.Now if nil
}

// Server serves one port until Close.
type Server struct {
	cfg      Config
	listener net.Listener
	protocol protocol
	policy   atomic.Pointer[func(netip.Addr) bool]

	mu     sync.Mutex
	conns  map[net.Conn]struct{}
	closed bool
	failed error

	wg sync.WaitGroup
}

// protocol is one engine's side of the connections.
type protocol interface {
	// serve talks to a client until the conversation is over; its error becomes the reason of the Closed event. For
	// every transport but InBand, TLS is already decided.
	serve(s *session) error
	// close ends what the protocol keeps between connections, after all of them are closed.
	close()
}

// Serve starts a server on a listener, which it owns from then on, also when it returns an error. Errors wrap ErrConfig.
func Serve(l net.Listener, cfg Config) (*Server, error) {
	p, err := newProtocol(cfg)
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Journal == nil {
		cfg.Journal = NewJournal()
	}
	s := &Server{cfg: cfg, listener: l, protocol: p, conns: make(map[net.Conn]struct{})}
	s.wg.Add(1)
	go s.accept()
	return s, nil
}

// Addr returns the address on which the server listens.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// Journal returns the journal in which the server records.
func (s *Server) Journal() *Journal { return s.cfg.Journal }

// RequireTLS makes the database itself insist on TLS ("left to the database"): plaintext from addresses for which the
// policy is true is refused with the protocol's own error. It concerns connections that are accepted afterwards. The
// policy may be called concurrently; nil, the state at start, means never.
func (s *Server) RequireTLS(policy func(remote netip.Addr) bool) {
	if policy == nil {
		s.policy.Store(nil)
		return
	}
	s.policy.Store(&policy)
}

// Close ends the listener and every connection, and waits for the server's goroutines. Its error is the one that ended
// the listener before, if any did.
func (s *Server) Close() error {
	s.mu.Lock()
	s.closed = true
	_ = s.listener.Close()
	for c := range s.conns {
		_ = c.Close()
	}
	s.mu.Unlock()
	s.wg.Wait()
	s.protocol.close()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed
}

func (s *Server) accept() {
	defer s.wg.Done()
	for {
		c, err := s.listener.Accept()
		switch {
		case err == nil:
			s.start(c)
		case errors.Is(err, syscall.ECONNABORTED): // the client was gone before it was accepted
		default:
			s.mu.Lock()
			if !s.closed {
				s.failed = fmt.Errorf("%s: accept: %w", s.cfg.Node, err)
			}
			s.mu.Unlock()
			return
		}
	}
}

func (s *Server) start(c net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		_ = c.Close()
		return
	}
	s.conns[c] = struct{}{}
	s.wg.Add(1)
	go s.handle(c)
}

func (s *Server) handle(c net.Conn) {
	defer s.wg.Done()
	ses := newSession(s, c)
	ses.record(Event{Kind: Accepted})
	err := ses.run()
	_ = c.Close()
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
	ses.record(Event{Kind: Closed, Reason: reason(err)})
}

func (s *Server) requiresTLS(remote netip.Addr) bool {
	policy := s.policy.Load()
	return policy != nil && (*policy)(remote)
}

func reason(err error) string {
	if err == nil {
		return "end of session"
	}
	return err.Error()
}
