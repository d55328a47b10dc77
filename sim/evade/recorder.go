package evade

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"os"
	"sync"

	"drawbridge/sim"
	"drawbridge/sim/endpoint"
	"drawbridge/sim/netns"
	"drawbridge/sim/realserver"
	"drawbridge/topology"

	"golang.org/x/sys/unix"
)

// Embedded is the Recorder of the lab's embedded servers.
func Embedded(j *endpoint.Journal) Recorder { return journal{j} }

type journal struct{ *endpoint.Journal }

func (j journal) Read(port uint16) [][]byte {
	var order []uint64
	streams := map[uint64][]byte{}
	for _, e := range j.Events(port) {
		if _, known := streams[e.Conn]; !known {
			order = append(order, e.Conn)
		}
		streams[e.Conn] = e.First
	}
	var out [][]byte
	for _, id := range order {
		out = append(out, streams[id])
	}
	return out
}

func (j journal) Wait(ctx context.Context, port uint16, done func() bool) error {
	if done() {
		return nil
	}
	_, err := j.Journal.Wait(ctx, port, func(endpoint.Event) bool { return done() })
	return err
}

// Logged is the Recorder of a lab whose servers are real: what their own logs say, which is what was asked and not which bytes
// were read. A connection in whose plaintext something was said has the words of the log as its stream.
func Logged(j *endpoint.Journal) Recorder { return logged{journal{j}} }

type logged struct{ journal }

func (l logged) Read(port uint16) [][]byte {
	var order []uint64
	streams := map[uint64][]byte{}
	for _, e := range realserver.Plaintext(l.Events(port)) {
		if _, known := streams[e.Conn]; !known {
			order = append(order, e.Conn)
		}
		streams[e.Conn] = fmt.Appendf(streams[e.Conn], "%s %s%s;", e.Kind, e.Query, e.Reason)
	}
	var out [][]byte
	for _, id := range order {
		out = append(out, streams[id])
	}
	return out
}

// Received is more than any client sends: a log does not count bytes, so that nobody waits for them.
func (l logged) Received(uint16) uint64 { return math.MaxInt32 }

// Bare are servers that know no TLS and read whatever they get, a single byte included: the worst that Force TLS can stand in
// front of. They say what their engines say first, and answer everything else in plaintext.
type Bare struct {
	mu        sync.Mutex
	changed   chan struct{} // closed and replaced with everything that is read
	streams   map[uint16][]*stream
	open      map[net.Conn]bool
	listeners []net.Listener
	closed    bool
	wg        sync.WaitGroup
}

type stream struct{ data []byte }

// Listen starts a bare server at every port of every database node of a lab without servers of its own.
func Listen(ctx context.Context, lab *sim.Lab) (*Bare, error) {
	return listen(lab, func(ns *netns.Handle, at netip.AddrPort) (net.Listener, error) { return ns.Listen(ctx, at) })
}

// ListenMultipath is Listen for servers that speak Multipath TCP (RFC 8684) with whoever asks for it.
func ListenMultipath(lab *sim.Lab) (*Bare, error) { return listen(lab, multipathListener) }

func multipathListener(ns *netns.Handle, at netip.AddrPort) (net.Listener, error) {
	fd, err := ns.Socket(unix.AF_INET6, unix.SOCK_STREAM, unix.IPPROTO_MPTCP)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "multipath")
	defer f.Close() // net.FileListener works on a duplicate
	if err := unix.Bind(fd, &unix.SockaddrInet6{Port: int(at.Port())}); err != nil {
		return nil, os.NewSyscallError("bind", err)
	}
	if err := unix.Listen(fd, unix.SOMAXCONN); err != nil {
		return nil, os.NewSyscallError("listen", err)
	}
	return net.FileListener(f)
}

func listen(lab *sim.Lab, open func(*netns.Handle, netip.AddrPort) (net.Listener, error)) (*Bare, error) {
	b := &Bare{changed: make(chan struct{}), streams: map[uint16][]*stream{}, open: map[net.Conn]bool{}}
	for _, d := range lab.World().Databases() {
		for _, n := range d.Nodes {
			ns, ok := lab.Node(n.Listener())
			if !ok {
				return nil, errors.Join(fmt.Errorf("%w: node %s", ErrField, n.Name), b.Close())
			}
			for _, port := range d.Listeners(n) {
				l, err := open(ns, netip.AddrPortFrom(netip.IPv6Unspecified(), port.Port))
				if err != nil {
					return nil, errors.Join(fmt.Errorf("bare server of %s: %w", n.Name, err), b.Close())
				}
				b.listeners = append(b.listeners, l)
				b.wg.Go(func() { b.accept(l, d.Engine) })
			}
		}
	}
	return b, nil
}

// Close ends all servers and waits for them.
func (b *Bare) Close() error {
	b.mu.Lock()
	b.closed = true
	var errs []error
	for _, l := range b.listeners {
		errs = append(errs, l.Close())
	}
	for c := range b.open {
		_ = c.Close() // it may have ended by itself
	}
	b.mu.Unlock()
	b.wg.Wait()
	return errors.Join(errs...)
}

func (b *Bare) accept(l net.Listener, e topology.Engine) {
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // the client was gone before it was accepted
		}
		b.mu.Lock()
		if b.closed {
			b.mu.Unlock()
			_ = c.Close()
			return
		}
		b.open[c] = true
		b.mu.Unlock()
		b.wg.Go(func() { b.serve(c, e) })
	}
}

func (b *Bare) serve(c net.Conn, e topology.Engine) {
	defer func() {
		_ = c.Close()
		b.mu.Lock()
		delete(b.open, c)
		b.mu.Unlock()
	}()
	s := &stream{}
	b.note(func() { b.streams[portOf(c)] = append(b.streams[portOf(c)], s) })
	w := wireOf(e)
	if _, err := c.Write(w.greeting); err != nil {
		return
	}
	buf := make([]byte, 4096)
	for {
		n, err := c.Read(buf)
		if err != nil {
			return
		}
		b.note(func() { s.data = append(s.data, buf[:n]...) })
		if _, err := c.Write(w.noTLS(buf[:n])); err != nil {
			return
		}
	}
}

func portOf(c net.Conn) uint16 {
	if a, ok := c.RemoteAddr().(*net.TCPAddr); ok {
		return a.AddrPort().Port()
	}
	return 0
}

func (b *Bare) note(what func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	what()
	close(b.changed)
	b.changed = make(chan struct{})
}

// Read implements Recorder; it keeps everything.
func (b *Bare) Read(port uint16) [][]byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out [][]byte
	for _, s := range b.streams[port] {
		out = append(out, bytes.Clone(s.data))
	}
	return out
}

// Received implements Recorder.
func (b *Bare) Received(port uint16) uint64 {
	n := 0
	for _, s := range b.Read(port) {
		n += len(s)
	}
	return uint64(n)
}

// Wait implements Recorder.
func (b *Bare) Wait(ctx context.Context, port uint16, done func() bool) error {
	for {
		b.mu.Lock()
		changed := b.changed
		b.mu.Unlock()
		if done() {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("waiting for a bare server: %w", context.Cause(ctx))
		}
	}
}

// Forget implements Recorder.
func (b *Bare) Forget(port uint16) { b.note(func() { delete(b.streams, port) }) }
