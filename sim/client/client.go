// Package client owns sessions with databases by the engines' real drivers, over connections that somebody else dials.
//
// A session is one TCP connection: no pool, no reconnection, no fall-back between TLS and plaintext. It has served when a
// query was answered with the marker that was in it, not when a port was open.
package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"

	"drawbridge/topology"
)

// Dial opens the session's TCP connection. It is called exactly once.
type Dial func(ctx context.Context) (net.Conn, error)

// Target says whom to talk to, and how.
type Target struct {
	Engine topology.Engine
	// Cluster asks for the cluster service (see package endpoint) instead of the engine's client protocol.
	Cluster bool
	// Addr is what drivers are told: a name for messages, as the connection comes from the Dial.
	Addr netip.AddrPort
	// TLS chooses strict TLS, verified against RootCAs and ServerName. Otherwise not a byte of TLS is sent.
	TLS        bool
	RootCAs    *x509.CertPool // nil trusts nobody
	ServerName string         // the address of Addr if empty
	// Groups are the key exchanges to offer; nil: the library's own, whose post-quantum shares make a ClientHello of two
	// segments.
	Groups []tls.CurveID
	// KeyLog gets the session's keys (tls.Config.KeyLogWriter); nil: nobody does.
	KeyLog io.Writer
}

// Session is an authenticated connection. It is not safe for concurrent use.
type Session interface {
	// Query sends a query that contains the marker literally, and returns nil only if the database's answer contains it too.
	// Errors are *Error with StageQuery. A context that ends before the answer ends the session, too.
	Query(ctx context.Context, marker string) error
	// Close says goodbye where the protocol has a word for it, and closes the connection.
	Close() error
}

// Stage says how far a session came.
type Stage int

// The stages of a session.
const (
	// StageUnknown is the zero value; no error carries it.
	StageUnknown Stage = iota
	// StageDial: there is no TCP connection.
	StageDial
	// StageNegotiate: TCP is connected; TLS, authentication or the driver's set-up failed.
	StageNegotiate
	// StageQuery: the session was open; the query was not answered with its marker.
	StageQuery
)

// String returns the stage's name.
func (s Stage) String() string {
	names := []string{"unknown", "dial", "negotiate", "query"}
	if s < 0 || int(s) >= len(names) {
		return fmt.Sprintf("stage-%d", int(s))
	}
	return names[s]
}

// Conclusions that the database's own words allow; test with errors.Is. An error without one of them, such as a reset,
// says only that the session failed.
var (
	// ErrTLSNotOffered: the server answered the request for TLS, and the answer was no.
	ErrTLSNotOffered = errors.New("the server does not offer TLS")
	// ErrRefusedByDatabase: the database refused plaintext with its protocol's own error.
	ErrRefusedByDatabase = errors.New("the database refused plaintext")
	// ErrMarker: the answer, or the marker given, is not what a marker has to be.
	ErrMarker = errors.New("marker")
	// ErrTarget: the Target describes no session.
	ErrTarget = errors.New("no such session")
	// errDialedTwice: a driver wanted a second connection, which a session does not have.
	errDialedTwice = errors.New("the session's only connection is gone")
)

// Error is the error of a session.
type Error struct {
	Stage  Stage
	Engine topology.Engine
	Err    error
}

// Error returns engine, stage and cause.
func (e *Error) Error() string { return fmt.Sprintf("%s: %s: %v", e.Engine, e.Stage, e.Err) }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Open connects by the one call of dial, negotiates TLS or not, and authenticates. When it returns an error, an *Error, the
// connection is closed. The context bounds Open alone, not the session.
func Open(ctx context.Context, dial Dial, t Target) (Session, error) {
	open, err := opener(t)
	if err != nil {
		return nil, &Error{StageNegotiate, t.Engine, err}
	}
	conn, err := dial(ctx)
	if err != nil {
		return nil, &Error{StageDial, t.Engine, err}
	}
	defer closeWith(ctx, conn)()
	s, err := open(ctx, &only{Conn: conn}, t)
	if err != nil {
		_ = conn.Close() // the driver may have done so already
		return nil, &Error{StageNegotiate, t.Engine, conclude(ctx, err)}
	}
	return &session{driver: s, conn: conn, engine: t.Engine}, nil
}

// closeWith closes the connection with the context, whatever the driver makes of its context, until release is called.
func closeWith(ctx context.Context, conn net.Conn) (release func()) {
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	return func() { stop() }
}

// opener returns the driver of a valid target.
func opener(t Target) (func(context.Context, *only, Target) (driver, error), error) {
	if t.Engine.Negotiation() == topology.NegotiationUnknown {
		return nil, fmt.Errorf("%w: unknown engine %q", ErrTarget, t.Engine)
	}
	if t.Cluster {
		return openHTTP(clusterRequests), nil
	}
	switch t.Engine {
	case topology.PostgreSQL:
		return openPostgres, nil
	case topology.MySQL:
		return openMySQL, nil
	case topology.Redis:
		return openRedis, nil
	case topology.MongoDB:
		return openMongo, nil
	case topology.OpenSearch:
		return openHTTP(openSearchRequests), nil
	default: // Negotiation knows no other
		return openHTTP(influxRequests), nil
	}
}

// driver is what one engine's driver does on an open connection.
type driver interface {
	// query returns the part of the answer that has to be the marker.
	query(ctx context.Context, marker string) (string, error)
	close() error
}

// session adds to a driver what all engines have in common.
type session struct {
	driver driver
	conn   net.Conn
	engine topology.Engine
}

// Query implements Session.
func (s *session) Query(ctx context.Context, marker string) error {
	if err := checkMarker(marker); err != nil {
		return &Error{StageQuery, s.engine, err}
	}
	defer closeWith(ctx, s.conn)()
	answer, err := s.driver.query(ctx, marker)
	if err != nil {
		return &Error{StageQuery, s.engine, conclude(ctx, err)}
	}
	if answer != marker {
		return &Error{StageQuery, s.engine, fmt.Errorf("%w: the answer is %.40q, not %q", ErrMarker, answer, marker)}
	}
	return nil
}

// Close implements Session.
func (s *session) Close() error {
	err := s.driver.close()
	if closed := s.conn.Close(); err == nil && !errors.Is(closed, net.ErrClosed) {
		err = closed
	}
	return err
}

// maxMarker is the longest marker in bytes.
const maxMarker = 128

// checkMarker lets only those markers through that stand in every protocol for themselves.
func checkMarker(marker string) error {
	if marker == "" || len(marker) > maxMarker {
		return fmt.Errorf("%w: %d bytes long, must be 1 to %d", ErrMarker, len(marker), maxMarker)
	}
	for _, r := range marker {
		if !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' || r == '.') {
			return fmt.Errorf("%w: %q holds %q, use letters, digits, '-', '_' and '.'", ErrMarker, marker, r)
		}
	}
	return nil
}

// only is the session's one connection; it is handed out once.
type only struct {
	net.Conn
	taken bool
}

// take gives the connection to a driver that wants to dial.
func (o *only) take() (net.Conn, error) {
	if o.taken {
		return nil, errDialedTwice
	}
	o.taken = true
	return o.Conn, nil
}

func (t Target) tlsConfig() *tls.Config {
	cfg := &tls.Config{RootCAs: t.RootCAs, ServerName: t.ServerName, CurvePreferences: t.Groups, KeyLogWriter: t.KeyLog}
	if cfg.RootCAs == nil {
		cfg.RootCAs = x509.NewCertPool() // nil would mean the machine's own
	}
	if cfg.ServerName == "" {
		cfg.ServerName = t.Addr.Addr().String()
	}
	return cfg
}

// secure makes the connection what the target wants, for engines that speak TLS from the first byte.
func (o *only) secure(ctx context.Context, t Target) error {
	if !t.TLS {
		return nil
	}
	conn := tls.Client(o.Conn, t.tlsConfig())
	if err := conn.HandshakeContext(ctx); err != nil {
		return err
	}
	o.Conn = conn
	return nil
}
