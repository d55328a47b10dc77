package main

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"drawbridge/sim/netns"
	"drawbridge/sim/netns/netnstest"
)

// The sources of a prober. What is between them is up to the policy.
var (
	alwaysIn  = netip.MustParseAddr("10.10.0.2")
	sometimes = netip.MustParseAddr("10.20.0.2")
	neverIn   = netip.MustParseAddr("10.30.0.2")
	probed    = netip.MustParseAddrPort("10.10.0.1:27017")
)

// round is one SYN from each source, in the order sometimes, never, always. A SYN is handled in the order in which it was sent: when
// the last one is answered, all have been judged.
type round struct {
	sent, judged time.Time // judged: when the answer to the last one came; zero: none came
	open         [3]bool   // which were answered
}

const (
	ofSometimes = iota
	ofNever
	ofAlways
)

// prober sends rounds from a namespace of its own to the host's, a new one as soon as the last one was judged, but not more
// often than once in half a millisecond.
type prober struct {
	client *netns.Handle
	send   int // raw socket that sends whole IPv4 packets
	see    int // raw socket that sees the answers

	mu     sync.Mutex
	rounds []round
	stop   chan struct{}
	ended  chan error
}

// startProber connects the keeper's namespace with one of its own, where the sources are, and begins.
func startProber(t *testing.T, host *netns.Handle) *prober {
	t.Helper()
	p := &prober{client: netnstest.New(t), stop: make(chan struct{}), ended: make(chan error, 1)}
	require.NoError(t, host.Do(func() error {
		veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "reg0"}, PeerName: "eth0", PeerNamespace: netlink.NsFd(p.client.Fd())}
		return errors.Join(netlink.LinkAdd(veth), upWith("reg0", probed.Addr()))
	}))
	require.NoError(t, p.client.Do(func() (err error) {
		err = upWith("eth0", alwaysIn, sometimes, neverIn)
		if p.send, err = join(err, unix.IPPROTO_RAW); err == nil {
			p.see, err = join(nil, unix.IPPROTO_TCP)
		}
		return err
	}))
	listener, err := host.Listen(t.Context(), probed)
	require.NoError(t, err)
	t.Cleanup(func() { _ = errors.Join(listener.Close(), unix.Close(p.send), unix.Close(p.see)) })
	go p.run()
	return p
}

// join opens a raw socket unless there was an error.
func join(err error, protocol int) (int, error) {
	if err != nil {
		return -1, err
	}
	return unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
}

// upWith gives an interface addresses in 10.0.0.0/8.
func upWith(name string, addresses ...netip.Addr) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	errs := []error{netlink.LinkSetUp(link)}
	for _, a := range addresses {
		errs = append(errs, netlink.AddrAdd(link, &netlink.Addr{IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(8, 32)}}))
	}
	return errors.Join(errs...)
}

// Bounds of a prober: how often it begins a round, and how long it waits for the last answer of one.
const (
	roundPace    = 500 * time.Microsecond
	roundPatient = 2 * time.Second
)

func (p *prober) run() {
	runtime.LockOSThread() // one processor handles what one thread sends, in order
	defer runtime.UnlockOSThread()
	var cpus unix.CPUSet
	cpus.Set(0)
	_ = unix.SchedSetaffinity(0, &cpus) // without it rounds may be out of order, which shows as a wrong verdict
	defer func() {
		var all unix.CPUSet
		for i := range runtime.NumCPU() {
			all.Set(i)
		}
		_ = unix.SchedSetaffinity(0, &all)
	}()
	pace := time.NewTicker(roundPace)
	defer pace.Stop()
	for port := uint16(2000); ; port = max(port+1, 2000) {
		select {
		case <-p.stop:
			p.ended <- nil
			return
		case <-pace.C:
		}
		r, err := p.round(port)
		if err != nil {
			p.ended <- err
			return
		}
		p.mu.Lock()
		p.rounds = append(p.rounds, r)
		p.mu.Unlock()
	}
}

func (p *prober) round(port uint16) (round, error) {
	r := round{sent: time.Now()}
	for _, source := range []netip.Addr{sometimes, neverIn, alwaysIn} {
		to := unix.SockaddrInet4{Addr: probed.Addr().As4()}
		if err := unix.Sendto(p.send, synFrom(source, port), 0, &to); err != nil {
			return r, err
		}
	}
	for deadline := r.sent.Add(roundPatient); ; {
		left := unix.NsecToTimeval(max(time.Until(deadline).Nanoseconds(), 1000))
		if err := unix.SetsockoptTimeval(p.see, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &left); err != nil {
			return r, err
		}
		var b [128]byte
		n, _, err := unix.Recvfrom(p.see, b[:], 0)
		if errors.Is(err, unix.EAGAIN) {
			return r, nil
		}
		if err != nil && !errors.Is(err, unix.EINTR) {
			return r, err
		}
		for i, source := range []netip.Addr{sometimes, neverIn, alwaysIn} {
			r.open[i] = r.open[i] || isAnswer(b[:max(n, 0)], source, port)
		}
		if r.open[ofAlways] {
			r.judged = time.Now()
			return r, nil
		}
	}
}

// end stops the prober and returns all rounds.
func (p *prober) end(t *testing.T) []round {
	t.Helper()
	close(p.stop)
	require.NoError(t, <-p.ended)
	return p.rounds
}

// so far returns how many rounds there were.
func (p *prober) soFar() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.rounds)
}

// since waits for some more rounds.
func (p *prober) more(ctx context.Context, n int) error {
	turn := time.NewTicker(roundPace)
	defer turn.Stop()
	for end := p.soFar() + n; p.soFar() < end; {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-turn.C:
		}
	}
	return nil
}

// synFrom is an IPv4 packet with a SYN (RFC 791, RFC 9293). The kernel fills in the IPv4 checksum.
func synFrom(source netip.Addr, port uint16) []byte {
	b := make([]byte, 40)
	b[0], b[8], b[9] = 0x45, 64, unix.IPPROTO_TCP
	binary.BigEndian.PutUint16(b[2:], 40)
	copy(b[12:], source.AsSlice())
	copy(b[16:], probed.Addr().AsSlice())
	tcp := b[20:]
	binary.BigEndian.PutUint16(tcp, port)
	binary.BigEndian.PutUint16(tcp[2:], probed.Port())
	binary.BigEndian.PutUint32(tcp[4:], uint32(port)<<8)
	tcp[12], tcp[13] = 5<<4, 0x02
	binary.BigEndian.PutUint16(tcp[14:], 64240)
	sum := uint32(unix.IPPROTO_TCP) + 20
	for i := 12; i < 40; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(tcp[16:], ^uint16(sum))
	return b
}

// isAnswer tells whether an IPv4 packet is the SYN-ACK for the SYN of a source and port.
func isAnswer(b []byte, source netip.Addr, port uint16) bool {
	if len(b) < 40 || b[0] != 0x45 || netip.AddrFrom4([4]byte(b[16:20])) != source {
		return false
	}
	tcp := b[20:]
	return binary.BigEndian.Uint16(tcp) == probed.Port() && binary.BigEndian.Uint16(tcp[2:]) == port &&
		tcp[13]&0x12 == 0x12 && binary.BigEndian.Uint32(tcp[8:]) == uint32(port)<<8+1
}
