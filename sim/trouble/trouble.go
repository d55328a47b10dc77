// Package trouble puts a bad wire between an ordinary client and a lab: packets get lost, come twice or change places, and
// everything takes its time. It shows what a TLS handshake costs there (SPEC X-08: at most a retransmission).
//
// The client is a real one: a kernel's TCP in a namespace of its own, with an address of an Internet host of the lab. The wire
// is made of two packet sockets, one at the client's end of a cable and one at the host's link, and this process in between. On
// the host a socket that takes nothing keeps the kernel from answering for the client's ports.
package trouble

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"drawbridge/sim"
	"drawbridge/sim/client"
	"drawbridge/sim/evade"
	"drawbridge/sim/link"
	"drawbridge/sim/netns"
	"drawbridge/topology"

	"github.com/vishvananda/netlink"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// Way is a direction on the wire. The zero value is none.
type Way int

// The directions.
const (
	Up   Way = iota + 1 // from the client
	Down                // to the client
)

// Accident is what happens to one packet. The zero value is nothing.
type Accident int

// The accidents.
const (
	Lost     Accident = iota + 1
	Repeated          // it comes twice
	Swapped           // the next one overtakes it; where none comes, it is late by lateBy
)

var accidents = map[Accident]string{Lost: "lost", Repeated: "repeated", Swapped: "swapped with the next"}

// String says it in words.
func (a Accident) String() string { return accidents[a] }

// lateBy is how long a packet waits for one that overtakes it: less than the least retransmission time-out (RFC 6298, Linux:
// 200 ms), or being late would be being lost.
const lateBy = 30 * time.Millisecond

// distance is how long every packet takes each way. A client that measured less would take each moment in which this
// process does not get to run for a loss (RFC 8985 section 7.2: a probe after twice the round trip).
const distance = 5 * time.Millisecond

// Case is one connection and what happens to it. The zero value of every field is ordinary.
type Case struct {
	To       topology.Endpoint
	Way      Way
	Packet   int // which packet of the direction, from 1
	Accident Accident
	Delay    time.Duration // each way, in addition to the wire's own
	MSS      int           // the client's; 0: what the link carries
	Piece    int           // the ClientHello is written in pieces of so many bytes, each at once a segment; 0: in one
	Idle     time.Duration // before the client's first byte
	Groups   []tls.CurveID // key exchange; nil: Go's own, post-quantum first
}

// String names the case.
func (c Case) String() string {
	s := fmt.Sprintf("%s at %s", c.To.Database, c.To.Addr)
	if c.Accident != 0 {
		s += fmt.Sprintf(", packet %d %s %s", c.Packet, map[Way]string{Up: "from the client", Down: "to the client"}[c.Way], c.Accident)
	}
	for _, part := range []struct {
		is   bool
		text string
	}{
		{c.Delay > 0, fmt.Sprintf("delay %s", c.Delay)}, {c.MSS > 0, fmt.Sprintf("MSS %d", c.MSS)},
		{c.Piece > 0, fmt.Sprintf("pieces of %d bytes", c.Piece)}, {c.Idle > 0, fmt.Sprintf("idle for %s", c.Idle)},
		{len(c.Groups) > 0, "small ClientHello"},
	} {
		if part.is {
			s += ", " + part.text
		}
	}
	return s
}

// Result is what became of a connection. The zero value is not served.
type Result struct {
	Case            Case
	Served          bool
	Error           string // why it was not
	Retransmissions int    // of the client's TCP (TCP_INFO, tcpi_total_retrans)
	Happened        bool   // the accident did
	Took            time.Duration
}

// Wire is a client's namespace with its cable to a lab. It is safe for concurrent use.
type Wire struct {
	lab    *sim.Lab
	client *netns.Handle
	host   *netns.Handle
	addrs  []netip.Addr
	near   *os.File // the client's end
	far    *os.File // the host's link
	nearTo []byte   // Ethernet header towards the client, without the type
	farTo  []byte
	wg     sync.WaitGroup

	mu    sync.Mutex
	flows map[uint16]*conversation // by the client's port
}

// ErrWire says that a wire cannot be laid as asked.
var ErrWire = errors.New("no such wire")

// Names and numbers at the client's end.
const (
	nearName, farName   = "eth0", "wire0"
	nearIndex, farIndex = 2, 3
)

var nearMAC, farMAC = net.HardwareAddr{2, 0xdb, 0xfe, 0, 0, 0}, net.HardwareAddr{2, 0xdb, 0xfe, 0, 0, 1}

// Lay lays a wire to an Internet host of a lab, whose own addresses the client uses. Close takes it up again.
func Lay(ctx context.Context, lab *sim.Lab, host string) (*Wire, error) {
	w := &Wire{lab: lab, flows: map[uint16]*conversation{}}
	for _, v := range lab.World().Vantages() {
		if v.Name == host && v.Kind == topology.VantageInternet {
			w.addrs = v.Addresses
		}
	}
	var ok bool
	if w.host, ok = lab.Node(host); !ok || len(w.addrs) == 0 {
		return nil, fmt.Errorf("%w: %q is no Internet host", ErrWire, host)
	}
	if err := w.lay(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("lay a wire to %s: %w", host, err), w.Close())
	}
	w.wg.Go(func() { w.carry(w.near, Up) })
	w.wg.Go(func() { w.carry(w.far, Down) })
	return w, nil
}

func (w *Wire) lay(ctx context.Context) error {
	// Both ends of the cable are in the client's namespace's neighbour: a namespace for the far end alone.
	var ends [2]*netns.Handle
	handles, err := netns.Spawn(ctx, 2, func(int, *netns.Handle) error { return nil })
	if err != nil {
		return err
	}
	copy(ends[:], handles)
	w.client = ends[0]
	relay := ends[1]
	defer relay.Close() // its socket keeps it
	if err := w.cable(ctx, relay); err != nil {
		return err
	}
	if w.near, err = listenTo(relay, farIndex); err != nil {
		return err
	}
	index, mac, gateway, err := evade.Uplink(w.host)
	if err != nil {
		return err
	}
	w.nearTo, w.farTo = append(append([]byte(nil), nearMAC...), farMAC...), append(append([]byte(nil), gateway...), mac...)
	w.far, err = listenTo(w.host, index)
	return err
}

func (w *Wire) cable(ctx context.Context, relay *netns.Handle) error {
	var here, there link.Batch
	here.Veth(link.Device{Namespace: w.client.Fd(), Name: nearName, Index: nearIndex, MAC: nearMAC},
		link.Device{Namespace: relay.Fd(), Name: farName, Index: farIndex, MAC: farMAC})
	here.Up(nearIndex)
	here.Neighbours(nearIndex, farMAC)
	for _, a := range w.addrs {
		here.Address(nearIndex, a)
		here.Route(netip.PrefixFrom(unspecified(a), 0), nearIndex)
	}
	there.Up(farIndex)
	for _, b := range []struct {
		ns    *netns.Handle
		batch *link.Batch
	}{{w.client, &here}, {relay, &there}} {
		err := b.ns.Do(func() error {
			conn, err := link.OpenHere()
			if err != nil {
				return err
			}
			return errors.Join(conn.Run(b.batch), conn.Close())
		})
		if err != nil {
			return err
		}
	}
	return w.carrier(ctx)
}

// carrier waits until the client's kernel has noticed that both ends are up: until then it throws away what it is to send.
func (w *Wire) carrier(ctx context.Context) error {
	updates, done := make(chan netlink.LinkUpdate), make(chan struct{})
	defer close(done)
	err := w.client.Do(func() error { // the subscription stays in the namespace it was made in
		return netlink.LinkSubscribeWithOptions(updates, done, netlink.LinkSubscribeOptions{ListExisting: true})
	})
	if err != nil {
		return fmt.Errorf("watch the client's link: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		select {
		case u, ok := <-updates:
			if !ok {
				return fmt.Errorf("watch the client's link: %w", os.ErrClosed)
			}
			if a := u.Attrs(); a.Index == nearIndex && a.OperState == netlink.OperUp {
				return nil
			}
		case <-ctx.Done():
			return fmt.Errorf("the client's link does not come up: %w", context.Cause(ctx))
		}
	}
}

func unspecified(a netip.Addr) netip.Addr {
	if a.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

// Close takes the wire up and waits for its goroutines.
func (w *Wire) Close() error {
	var errs []error
	for _, f := range []*os.File{w.near, w.far} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	w.wg.Wait()
	if w.client != nil {
		errs = append(errs, w.client.Close())
	}
	return errors.Join(errs...)
}

// limit bounds one connection: a lost SYN costs a second, and a few retransmissions in a row are no reason to give up.
const limit = 15 * time.Second

// parallel is how many connections are made at once.
const parallel = 32

// RunAll makes connections side by side. The error says that one could not be tried.
func (w *Wire) RunAll(ctx context.Context, cases []Case) ([]Result, error) {
	out := make([]Result, len(cases))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	for i, c := range cases {
		group.Go(func() (err error) {
			out[i], err = w.Run(ctx, c)
			return err
		})
	}
	return out, group.Wait()
}

// Run makes one connection over TLS, asks a query, and says what it took.
func (w *Wire) Run(ctx context.Context, c Case) (Result, error) {
	local, err := w.local(c.To.Addr.Addr())
	if err != nil {
		return Result{}, err
	}
	defer w.lab.Ports().Troubles.Give(local.Port())
	quiet, err := evade.Silence(w.host, local)
	if err != nil {
		return Result{}, err
	}
	defer quiet.Close()
	f := &conversation{c: c}
	w.mu.Lock()
	w.flows[local.Port()] = f
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		delete(w.flows, local.Port())
		w.mu.Unlock()
		f.end()
	}()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	r := Result{Case: c}
	var tcp *net.TCPConn
	dial := func(ctx context.Context) (net.Conn, error) {
		conn, err := w.dial(ctx, c, local)
		if err != nil {
			return nil, err
		}
		tcp, _ = conn.(*net.TCPConn)
		return &hesitant{Conn: conn, ctx: ctx, piece: c.Piece, idle: c.Idle}, nil
	}
	began := time.Now()
	session, err := client.Open(ctx, dial, client.Target{
		Engine: c.To.Engine, Addr: c.To.Addr, TLS: true, RootCAs: w.lab.CA(), ServerName: c.To.Addr.Addr().String(), Groups: c.Groups,
	})
	if err == nil {
		err = session.Query(ctx, "trouble")
	}
	r.Took, r.Served, r.Happened = time.Since(began), err == nil, f.happened()
	if err != nil {
		r.Error = err.Error()
	}
	if tcp != nil {
		r.Retransmissions = retransmissions(tcp)
	}
	if session != nil {
		_ = session.Close() // what became of it is known
	}
	return r, nil
}

// local is an address and port for a client, who gives the port back.
func (w *Wire) local(to netip.Addr) (netip.AddrPort, error) {
	for _, a := range w.addrs {
		if a.Is4() == to.Is4() {
			port, err := w.lab.Ports().Troubles.Take()
			return netip.AddrPortFrom(a, port), err
		}
	}
	return netip.AddrPort{}, fmt.Errorf("%w: the client has no address of the family of %s", ErrWire, to)
}

func (w *Wire) dial(ctx context.Context, c Case, local netip.AddrPort) (net.Conn, error) {
	if c.MSS == 0 {
		return w.client.Dial(ctx, local, c.To.Addr)
	}
	dialer := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(local), Control: maxSegment(c.MSS)}
	var conn net.Conn
	err := w.client.Do(func() (err error) { // the socket is made on this thread
		conn, err = dialer.DialContext(ctx, "tcp", c.To.Addr.String())
		return err
	})
	return conn, err
}

func retransmissions(c *net.TCPConn) int {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0
	}
	n := 0
	_ = raw.Control(func(fd uintptr) { // an error is a connection that is closed
		if info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			n = int(info.Total_retrans)
		}
	})
	return n
}
