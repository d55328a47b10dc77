package probe

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"syscall"
)

// dialAndTell is the client's way into the network: it records that the handshake was completed, and what the network
// said to the client afterwards.
func (p *Prober) dialAndTell(t *track, d *dialer) func(context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) {
		conn, err := d.dial(ctx)
		if err != nil {
			return nil, err
		}
		t.update(func(e *Evidence) { e.Connected = true })
		return &toldConn{Conn: conn, told: &t.told, given: &t.given}, nil
	}
}

// toldConn remembers whether the network ended the connection: drivers put other errors in the place of the kernel's.
type toldConn struct {
	net.Conn
	told  *atomic.Bool
	given *atomic.Bool
}

// Close closes the connection; one that was given up, by a reset: the kernel would repeat for minutes what was not acknowledged, into
// the evidence of whoever has the port next.
func (c *toldConn) Close() error {
	if tcp, ok := c.Conn.(*net.TCPConn); ok && c.given.Load() {
		_ = tcp.SetLinger(0) // of a connection that has ended already
	}
	return c.Conn.Close()
}

// Read reads from the connection.
func (c *toldConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if told(err) {
		c.told.Store(true)
	}
	return n, err
}

// Write writes to the connection.
func (c *toldConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	if told(err) {
		c.told.Store(true)
	}
	return n, err
}

// told reports whether an error means that the network said no: a TCP reset, an ICMP error, or the end of the stream.
func told(err error) bool {
	for _, e := range []error{
		syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.EPIPE, syscall.ECONNABORTED,
		syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.EACCES, syscall.EPERM, syscall.EPROTO, syscall.ENOPROTOOPT,
		io.EOF, io.ErrUnexpectedEOF,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// containsMarker reports whether a journalled query is the one with the marker.
func containsMarker(query, marker string) bool { return strings.Contains(query, marker) }
