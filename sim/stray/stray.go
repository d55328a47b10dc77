// Package stray keeps listeners that somebody forgot on a gateway: besides the databases' ports, which are translated away, a gateway's addresses
// answer on another TCP port, on UDP, to SCTP and to ICMP echo. Nothing of that may be reachable where an enforcer is in
// force (SPEC X-02), and all of it is where none is. Whatever arrives is recorded.
package stray

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"drawbridge/sim/netns"
	"drawbridge/topology/flow"

	"golang.org/x/sys/unix"
)

// Ports of the listeners.
const (
	TCPPort uint16 = 2222
	UDPPort uint16 = 5353
)

// keep is how many bytes of an arrival are kept.
const keep = 64

// Arrival is something that reached a listener.
type Arrival struct {
	At      time.Time
	Flow    flow.Flow // source first, as the gateway sees it; ICMP has no ports
	Payload []byte    // its first bytes, at most 64, behind the transport header; a new TCP connection arrives without any
}

// Listeners are what listens on one gateway. They are safe for use by several goroutines.
type Listeners struct {
	mu       sync.Mutex
	arrivals []Arrival
	news     chan struct{} // closed, and replaced, at each arrival
	open     map[io.Closer]struct{}
	closed   bool
	running  sync.WaitGroup
}

// Listen opens listeners in the namespace, at each of its given addresses: TCP, echoing, on TCPPort; UDP, echoing, on UDPPort and each of
// the given ports; SCTP, silent; ICMP echo, which the kernel answers.
func Listen(ctx context.Context, h *netns.Handle, addrs []netip.Addr, udpPorts []uint16) (*Listeners, error) {
	l := &Listeners{news: make(chan struct{}), open: make(map[io.Closer]struct{})}
	for _, addr := range addrs {
		err := l.listenTCP(ctx, h, netip.AddrPortFrom(addr, TCPPort))
		for _, port := range udp(udpPorts) {
			err = errors.Join(err, l.listenUDP(ctx, h, netip.AddrPortFrom(addr, port)))
		}
		err = errors.Join(err, l.listenRaw(h, addr, flow.SCTP), l.listenRaw(h, addr, icmpOf(addr)))
		if err != nil {
			return nil, errors.Join(fmt.Errorf("stray listeners: %w", err), l.Close())
		}
	}
	return l, nil
}

// Sockets returns how many Listen opens for these arguments.
func Sockets(addrs []netip.Addr, udpPorts []uint16) int {
	const others = 3 // TCP, SCTP and ICMP
	return len(addrs) * (others + len(udp(udpPorts)))
}

// udp are the ports of the UDP listeners, each once: a database may have UDPPort as well.
func udp(ports []uint16) []uint16 {
	all := append([]uint16{UDPPort}, ports...)
	slices.Sort(all)
	return slices.Compact(all)
}

func icmpOf(a netip.Addr) flow.Protocol {
	if a.Is4() {
		return flow.ICMP
	}
	return flow.ICMPv6
}

// Close ends all listeners and their connections.
func (l *Listeners) Close() error {
	l.mu.Lock()
	l.closed = true
	var errs []error
	for c := range l.open {
		errs = append(errs, c.Close())
	}
	clear(l.open)
	l.mu.Unlock()
	l.running.Wait()
	return errors.Join(errs...)
}

// Arrivals returns everything that arrived so far, in order.
func (l *Listeners) Arrivals() []Arrival {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.arrivals)
}

// Next returns the first arrival, past or to come, that matches. It fails only with the context's error.
func (l *Listeners) Next(ctx context.Context, match func(Arrival) bool) (Arrival, error) {
	for seen := 0; ; {
		l.mu.Lock()
		fresh, news := l.arrivals[seen:], l.news
		l.mu.Unlock()
		if i := slices.IndexFunc(fresh, match); i >= 0 {
			return fresh[i], nil
		}
		seen += len(fresh)
		select {
		case <-news:
		case <-ctx.Done():
			return Arrival{}, ctx.Err()
		}
	}
}

func (l *Listeners) record(f flow.Flow, payload []byte) {
	a := Arrival{At: time.Now(), Flow: f, Payload: slices.Clone(payload[:min(len(payload), keep)])}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.arrivals = append(l.arrivals, a)
	close(l.news)
	l.news = make(chan struct{})
}

// serve runs a loop that ends when c is closed. It closes c instead if the listeners are closed already.
func (l *Listeners) serve(c io.Closer, loop func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		_ = c.Close() // nobody is served any more
		return
	}
	l.open[c] = struct{}{}
	l.running.Go(func() {
		loop()
		l.mu.Lock()
		defer l.mu.Unlock()
		if _, mine := l.open[c]; mine {
			delete(l.open, c)
			_ = c.Close() // the loop has ended on its own: there is nobody to tell
		}
	})
}

func (l *Listeners) listenTCP(ctx context.Context, h *netns.Handle, at netip.AddrPort) error {
	listener, err := h.Listen(ctx, at)
	if err != nil {
		return err
	}
	l.serve(listener, func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			l.serve(c, func() { l.echo(c, at) })
		}
	})
	return nil
}

func (l *Listeners) echo(c net.Conn, at netip.AddrPort) {
	f := flow.Flow{Proto: flow.TCP, Src: c.RemoteAddr().(*net.TCPAddr).AddrPort(), Dst: at}
	l.record(f, nil)
	buf := make([]byte, 2048)
	for {
		n, err := c.Read(buf)
		if err != nil {
			return
		}
		l.record(f, buf[:n])
		if _, err := c.Write(buf[:n]); err != nil {
			return
		}
	}
}

func (l *Listeners) listenUDP(ctx context.Context, h *netns.Handle, at netip.AddrPort) error {
	c, err := h.ListenPacket(ctx, at)
	if err != nil {
		return err
	}
	l.serve(c, func() {
		buf := make([]byte, 2048)
		for {
			n, from, err := c.ReadFromUDPAddrPort(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				continue // an ICMP error about an earlier answer
			}
			l.record(flow.Flow{Proto: flow.UDP, Src: from, Dst: at}, buf[:n])
			_, _ = c.WriteToUDPAddrPort(buf[:n], from) // UDP promises nothing
		}
	})
	return nil
}

// listenRaw records what the kernel hands to a raw socket: every packet of the protocol to that address that got past the
// packet filter (raw(7)).
func (l *Listeners) listenRaw(h *netns.Handle, at netip.Addr, proto flow.Protocol) error {
	domain, sa := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Addr: at.As16()})
	if at.Is4() {
		domain, sa = unix.AF_INET, &unix.SockaddrInet4{Addr: at.As4()}
	}
	fd, err := h.Socket(domain, unix.SOCK_RAW, int(proto))
	if err != nil {
		return fmt.Errorf("%s at %s: %w", proto, at, err)
	}
	file := os.NewFile(uintptr(fd), proto.String())
	if err := unix.Bind(fd, sa); err != nil {
		return errors.Join(fmt.Errorf("%s at %s: %w", proto, at, os.NewSyscallError("bind", err)), file.Close())
	}
	raw, err := file.SyscallConn()
	if err != nil {
		return errors.Join(fmt.Errorf("%s at %s: %w", proto, at, err), file.Close())
	}
	l.serve(file, func() {
		buf := make([]byte, 2048)
		for {
			var n int
			var from unix.Sockaddr
			var failed error
			err := raw.Read(func(fd uintptr) bool {
				n, from, failed = unix.Recvfrom(int(fd), buf, 0)
				return !errors.Is(failed, unix.EAGAIN)
			})
			if err != nil {
				return
			}
			if failed != nil {
				continue // an ICMP error, or an interrupted call
			}
			if f, payload, ok := parseRaw(proto, at, from, buf[:n]); ok {
				l.record(f, payload)
			}
		}
	})
	return nil
}

// parseRaw reads what a raw socket delivers: for IPv4 with the IP header, for IPv6 without. Of ICMP only echo
// requests count.
func parseRaw(proto flow.Protocol, at netip.Addr, from unix.Sockaddr, b []byte) (f flow.Flow, payload []byte, ok bool) {
	var src netip.Addr
	switch from := from.(type) {
	case *unix.SockaddrInet4:
		src = netip.AddrFrom4(from.Addr)
		if len(b) < 20 || len(b) < int(b[0]&0xf)*4 {
			return f, nil, false
		}
		b = b[int(b[0]&0xf)*4:]
	case *unix.SockaddrInet6:
		src = netip.AddrFrom16(from.Addr)
	default:
		return f, nil, false
	}
	f = flow.Flow{Proto: proto, Src: netip.AddrPortFrom(src, 0), Dst: netip.AddrPortFrom(at, 0)}
	if len(b) < 8 {
		return f, nil, false
	}
	switch proto {
	case flow.ICMP:
		return f, b[8:], b[0] == 8
	case flow.ICMPv6:
		return f, b[8:], b[0] == 128
	}
	f.Src = netip.AddrPortFrom(src, uint16(b[0])<<8|uint16(b[1]))
	f.Dst = netip.AddrPortFrom(at, uint16(b[2])<<8|uint16(b[3]))
	return f, b[min(12, len(b)):], true
}
