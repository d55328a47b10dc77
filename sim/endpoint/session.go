package endpoint

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// unitLimit bounds what a client may send within one unit of its protocol (a message, a command, a handshake), in
	// bytes on the wire: the servers answer queries of literals, so anything longer is not a client of theirs.
	unitLimit = 64 << 10
	// lingerLimit is how long a refused client may take to read its refusal and close.
	lingerLimit = 5 * time.Second
	// tlsHandshakeRecord is the content type that every TLS connection begins with (RFC 8446, section 5.1).
	tlsHandshakeRecord = 0x16
)

var (
	errTooMuch       = errors.New("the client sent more than any request holds")
	errRefused       = errors.New("refused")
	errNotConforming = errors.New("not the engine's protocol")
)

// plaintextRefuser is a protocol without negotiation of its own that can tell a client, in its own words, to come back over
// TLS. The protocols of InBand ports do that while they negotiate.
type plaintextRefuser interface {
	refusePlaintext(s *session) error
}

// nonTLSAnswerer is a protocol that answers plaintext at a TLS port before it closes.
type nonTLSAnswerer interface {
	answerNonTLS(s *session, handshake error)
}

// session is one accepted connection.
type session struct {
	server *Server
	id     uint64
	remote netip.AddrPort
	local  netip.AddrPort
	wire   *wire
	conn   net.Conn // the wire, or the TLS connection on top of it
	tls    bool
}

func newSession(s *Server, c net.Conn) *session {
	ses := &session{
		server: s, id: s.cfg.Journal.conns.Add(1),
		remote: addrPort(c.RemoteAddr()), local: addrPort(c.LocalAddr()),
	}
	total := s.cfg.Journal.counter(ses.remote.Port())
	ses.wire = &wire{Conn: c, total: total, allowance: unitLimit, grown: func() { ses.record(Event{Kind: Bytes}) }}
	ses.wire.buffered = bufio.NewReader(rawReader{ses.wire})
	ses.conn = ses.wire
	return ses
}

// run holds the whole conversation.
func (s *session) run() error {
	if err := s.wire.SetReadDeadline(s.server.cfg.Now().Add(authenticationLimit)); err != nil {
		return err
	}
	if s.server.cfg.Transport == InBand {
		return s.server.protocol.serve(s)
	}
	if err := s.decideTLS(); err != nil {
		return err
	}
	if !s.refusesPlaintext() {
		return s.server.protocol.serve(s)
	}
	if p, ok := s.server.protocol.(plaintextRefuser); ok {
		return p.refusePlaintext(s)
	}
	s.refuse("plaintext")
	return errRefused
}

// refusesPlaintext tells whether the database itself insists on TLS for a connection that has none.
func (s *session) refusesPlaintext() bool {
	return !s.tls && s.server.requiresTLS(s.remote.Addr())
}

// decideTLS settles TLS for the transports that decide before the first byte of the engine's own protocol.
func (s *session) decideTLS() error {
	switch s.server.cfg.Transport {
	case TLSOnly:
		return s.startTLS(s.server.cfg.TLS)
	case Either:
		hello, err := s.beginsWithTLS()
		if err != nil {
			return err
		}
		if hello && s.server.cfg.TLS != nil {
			return s.startTLS(s.server.cfg.TLS)
		}
	}
	return nil
}

// startTLS is the server's side of a TLS handshake on the wire.
func (s *session) startTLS(cfg *tls.Config) error {
	conn := tls.Server(s.wire, cfg)
	if err := conn.HandshakeContext(context.Background()); err != nil { // the wire's deadline bounds it
		s.refuse("TLS handshake: " + err.Error())
		if p, ok := s.server.protocol.(nonTLSAnswerer); ok {
			p.answerNonTLS(s, err)
		}
		return fmt.Errorf("TLS handshake: %w", err)
	}
	s.conn = conn
	s.tlsEstablished()
	return nil
}

// beginsWithTLS waits for the first byte of a connection without TLS and tells whether it is a ClientHello's. With TLS it
// must not look at the wire: what the client sent may be in the TLS connection's buffer already.
func (s *session) beginsWithTLS() (bool, error) {
	if s.tls {
		return false, nil
	}
	first, err := s.wire.buffered.Peek(1)
	return err == nil && first[0] == tlsHandshakeRecord, err
}

// tlsEstablished records a completed TLS handshake.
func (s *session) tlsEstablished() {
	s.tls = true
	s.unit()
	s.record(Event{Kind: TLS})
}

// unit tells that a unit of the protocol is complete: the client may send another one.
func (s *session) unit() { s.wire.replenish() }

// authenticated lifts the limit on the time to authenticate.
func (s *session) authenticated() error { return s.wire.SetReadDeadline(time.Time{}) }

func (s *session) query(q string) { s.record(Event{Kind: Query, Query: q[:min(len(q), QueryBytes)]}) }

// refuse records that the server turned its client down. Of a connection that had ended before that is not so: the client went, or somebody on the way
// ended it, a firewall for instance, whose refusal would be taken for the database's.
func (s *session) refuse(why string) {
	if err := s.wire.end(); err != nil && !errors.Is(err, errTooMuch) {
		return
	}
	s.record(Event{Kind: Refused, Reason: why})
}

// linger lets a refused client read its refusal: closing with unread bytes in the receive buffer would make the kernel
// send a reset, which can overtake the answer. What the client still sends is discarded.
func (s *session) linger() {
	_ = s.wire.SetReadDeadline(s.server.cfg.Now().Add(lingerLimit))
	if c, ok := s.conn.(interface{ CloseWrite() error }); ok {
		_ = c.CloseWrite()
	}
	s.unit()
	_, _ = io.Copy(io.Discard, s.conn)
}

func (s *session) record(e Event) {
	e.At = s.server.cfg.Now()
	e.Conn, e.Remote, e.Local = s.id, s.remote, s.local
	e.Database, e.Node = s.server.cfg.Database, s.server.cfg.Node
	e.First, e.Received = s.wire.state()
	e.TLS = s.tls
	s.server.cfg.Journal.record(e)
}

// wire is the connection below TLS. It keeps what arrived first, counts, and bounds what a client may send.
type wire struct {
	net.Conn
	buffered *bufio.Reader
	total    *atomic.Uint64 // bytes of the source port
	grown    func()         // called after the recorded prefix grew

	mu        sync.Mutex
	first     []byte
	received  uint64
	allowance int
	failed    error // what ended reading, once something did
}

// Read reads through the buffer.
func (w *wire) Read(p []byte) (int, error) { return w.buffered.Read(p) }

// CloseWrite half-closes the connection where it can be.
func (w *wire) CloseWrite() error {
	if c, ok := w.Conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return nil
}

func (w *wire) replenish() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.allowance = unitLimit
}

func (w *wire) state() ([]byte, uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.first), w.received
}

// take accounts for arrived bytes and tells whether the recorded prefix grew.
func (w *wire) take(p []byte) (grew bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.received += uint64(len(p))
	w.total.Add(uint64(len(p)))
	w.allowance -= len(p)
	n := min(len(p), FirstBytes-len(w.first))
	w.first = append(w.first, p[:n]...)
	return n > 0
}

func (w *wire) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.failed = err
}

// end returns what ended reading.
func (w *wire) end() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.failed
}

// left returns how many bytes the client may still send within this unit.
func (w *wire) left() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.allowance
}

// rawReader reads from the network below the wire's buffer.
type rawReader struct{ *wire }

func (r rawReader) Read(p []byte) (int, error) {
	left := r.left()
	if left <= 0 {
		r.fail(errTooMuch)
		return 0, errTooMuch
	}
	n, err := r.Conn.Read(p[:min(len(p), left)])
	if n > 0 && r.take(p[:n]) {
		r.grown()
	}
	if err != nil {
		r.fail(err)
	}
	return n, err
}

// addrPort returns an address without the mapping of IPv4 into IPv6; the zero value for anything but TCP.
func addrPort(a net.Addr) netip.AddrPort {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := tcp.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
