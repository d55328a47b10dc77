// Package switchboard lets the servers of thousands of addresses share one listening socket: whoever is connected to an address is
// handed to the one that serves it.
package switchboard

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
)

// ErrTaken says that an address is served already.
var ErrTaken = errors.New("the address has a listener already")

// Board hands out the connections of one listener. It is safe for use by several goroutines.
type Board struct {
	socket net.Listener
	ended  sync.WaitGroup

	mu     sync.Mutex
	at     map[netip.Addr]*listener
	failed error // what ended the socket
}

// New takes over a listener on all addresses. Connections to an address that nobody serves are reset.
func New(socket net.Listener) *Board {
	b := &Board{socket: socket, at: map[netip.Addr]*listener{}}
	b.ended.Go(b.accept)
	return b
}

// Close ends the socket and every listener of the board.
func (b *Board) Close() error {
	err := b.socket.Close()
	b.ended.Wait()
	return err
}

// Listen returns the listener of some addresses. Closing it leaves the others as they are.
func (b *Board) Listen(addrs ...netip.Addr) (net.Listener, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.failed != nil {
		return nil, b.failed
	}
	for _, a := range addrs {
		if b.at[a] != nil {
			return nil, fmt.Errorf("%s: %w", a, ErrTaken)
		}
	}
	l := &listener{board: b, addrs: slices.Clone(addrs), conns: make(chan net.Conn), done: make(chan struct{})}
	for _, a := range addrs {
		b.at[a] = l
	}
	return l, nil
}

func (b *Board) accept() {
	for {
		c, err := b.socket.Accept()
		switch {
		case err == nil:
			b.hand(c)
		case errors.Is(err, syscall.ECONNABORTED): // the client was gone before it was accepted
		default:
			b.end(err)
			return
		}
	}
}

// hand gives a connection to the listener of its address. Each has a server that only waits for the next.
func (b *Board) hand(c net.Conn) {
	b.mu.Lock()
	var l *listener
	if local, ok := c.LocalAddr().(*net.TCPAddr); ok {
		l = b.at[local.AddrPort().Addr().Unmap()]
	}
	b.mu.Unlock()
	if l == nil {
		reset(c)
		return
	}
	select {
	case l.conns <- c:
	case <-l.done:
		reset(c)
	}
}

// reset ends a connection that nobody takes, as a port does at which nobody listens.
func reset(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // or it is ended politely
	}
	_ = c.Close() // there is nobody to tell
}

func (b *Board) end(why error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.failed = why
	for _, l := range b.at {
		l.end(why)
	}
	clear(b.at)
}

// listener is the part of a board that some addresses make.
type listener struct {
	board *Board
	addrs []netip.Addr
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
	why   error // set before done is closed
}

// Accept waits for the next connection to one of the addresses.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, l.why
	}
}

// Close ends the listener. The addresses can be listened on again.
func (l *listener) Close() error {
	l.end(net.ErrClosed)
	l.board.mu.Lock()
	defer l.board.mu.Unlock()
	for _, a := range l.addrs {
		if l.board.at[a] == l {
			delete(l.board.at, a)
		}
	}
	return nil
}

// Addr returns the first address with the socket's port.
func (l *listener) Addr() net.Addr {
	at, ok := l.board.socket.Addr().(*net.TCPAddr)
	if !ok || len(l.addrs) == 0 {
		return l.board.socket.Addr()
	}
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(l.addrs[0], at.AddrPort().Port()))
}

func (l *listener) end(why error) {
	l.once.Do(func() {
		l.why = why
		close(l.done)
	})
}
