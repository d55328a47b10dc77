package evade

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"

	"drawbridge/sim/capture"
	"drawbridge/topology"
)

// client is a TCP client made by hand: it does what the script says and nothing else. It belongs to one goroutine. After an
// error it does nothing any more.
type client struct {
	ctx    context.Context
	field  *Field
	to     topology.Endpoint
	local  netip.AddrPort
	inside map[string]bool // interfaces from the enforcement point to the database; empty on a shared host
	err    error

	isn    uint32 // its SYN's
	ack    uint32 // what it acknowledges
	window uint16
	clock  uint32 // its timestamps, in ms
	echo   uint32 // the server's

	fence   atomic.Uint32 // the port of the fence under way
	silence *os.File
	stop    []func()
	wg      sync.WaitGroup

	mu      sync.Mutex
	changed chan struct{} // closed and replaced with every packet
	heard   []capture.Packet
	next    int // how many of heard the script has looked at
	seen    sightings
}

// sightings are what the enforcement point's capture showed.
type sightings struct {
	entered     int     // packets of the client
	left        []chunk // payload that went on towards the database
	first       uint32  // the number of the connection's first byte
	taken       int     // how many bytes the server has acknowledged
	takenBefore int     // in connections before
	connections int
	// The fence that the captures at the enforcement point and at the client's node showed last, by its port.
	fenceSeen, fenceHeard uint32
}

type chunk struct {
	seq  uint32
	data []byte
}

// firstISN is the first sequence number of clients that do not ask for another.
const firstISN = 0x10000000

// dial makes a client with a source port of its own; nothing is sent yet.
func (f *Field) dial(ctx context.Context, to topology.Endpoint) (*client, error) {
	source, err := f.address(to.Addr.Addr())
	if err != nil {
		return nil, err
	}
	tap, inside, err := f.resolve(to)
	if err != nil {
		return nil, err
	}
	port, err := f.port()
	if err != nil {
		return nil, err
	}
	c := &client{ctx: ctx, field: f, to: to, local: netip.AddrPortFrom(source, port), inside: inside,
		isn: firstISN, window: 65535, clock: 1_000_000, changed: make(chan struct{})}
	if c.silence, err = Silence(f.ns, c.local); err != nil {
		return nil, err
	}
	here, err := f.tap(f.from.Namespace)
	if err != nil {
		return nil, errors.Join(err, c.silence.Close())
	}
	c.follow(here, c.hear)
	c.follow(tap, c.see)
	return c, nil
}

// follow hands over the packets of a capture that are this client's or its fence's.
func (c *client) follow(t *capture.Tap, take func(capture.Packet)) {
	packets, stop := t.Subscribe(func(p capture.Packet) bool {
		return c.mine(p.Flow.Src.Port()) || c.mine(p.Flow.Dst.Port())
	})
	c.stop = append(c.stop, stop)
	c.wg.Go(func() {
		for p := range packets {
			c.mu.Lock()
			take(p)
			close(c.changed)
			c.changed = make(chan struct{})
			c.mu.Unlock()
		}
	})
}

func (c *client) mine(port uint16) bool {
	return port == c.local.Port() || port != 0 && uint32(port) == c.fence.Load()
}

// hear takes what arrived at the client's node. The lock is held.
func (c *client) hear(p capture.Packet) {
	switch {
	case p.Outgoing:
	case p.Flow.Dst == c.local:
		c.heard = append(c.heard, p)
	case p.Flags.Has(capture.SYN | capture.ACK):
		c.seen.fenceHeard = uint32(p.Flow.Dst.Port())
	}
}

// see takes what passed at the enforcement point. The lock is held.
func (c *client) see(p capture.Packet) {
	fromClient := p.Flow.Src.Port() == c.local.Port()
	switch {
	case p.Flow.Dst.Port() == uint16(c.fence.Load()) && p.Outgoing && p.Flags.Has(capture.SYN|capture.ACK):
		c.seen.fenceSeen = c.fence.Load()
	case fromClient && !p.Outgoing:
		c.seen.entered++
	case fromClient && c.inside[p.Iface] && len(p.Payload) > 0:
		c.seen.left = append(c.seen.left, chunk{p.Seq, p.Payload})
	case !fromClient && p.Flags.Has(capture.ACK) && !p.Flags.Has(capture.RST) && c.byServer(p):
		// Sequence numbers are modulo 2^32. What is far from the connection's beginning is another connection's.
		if d := int(int32(p.Ack - c.seen.first)); d > c.seen.taken && d < farAway {
			c.seen.taken = d
		}
	}
}

// farAway is longer than any client's stream here, and shorter than what lies between two connections' numbers.
const farAway = 1 << 17

// byServer reports whether a packet towards the client comes from the database's own kernel.
func (c *client) byServer(p capture.Packet) bool {
	if len(c.inside) > 0 {
		return !p.Outgoing && c.inside[p.Iface]
	}
	return p.Outgoing
}

func (c *client) fail(err error) {
	if c.err == nil && err != nil {
		c.err = err
	}
}

// send puts a segment on the wire.
func (c *client) send(s Segment) {
	if c.err != nil {
		return
	}
	c.clock++
	datagrams, err := s.encode(header{local: c.local, remote: c.to.Addr, seq: c.isn + 1 + uint32(s.At), ack: c.ack,
		clock: c.clock, echo: c.echo, window: c.window, stamps: true, id: identification.Add(1)})
	c.fail(err)
	for _, d := range datagrams {
		if c.err == nil {
			c.fail(c.field.radio.send(d))
		}
	}
}

// data sends bytes of the stream.
func (c *client) data(at int, data []byte) {
	c.send(Segment{At: at, Flags: capture.ACK | capture.PSH, Data: data})
}

// connect completes a TCP handshake, unless nobody answers.
func (c *client) connect() bool {
	c.ask(Segment{})
	return c.complete()
}

// ask sends the SYN; s has its peculiarities.
func (c *client) ask(s Segment) {
	c.mu.Lock()
	c.seen.takenBefore += c.seen.taken
	c.seen.connections++
	c.seen.taken, c.seen.first = 0, c.isn+1
	c.next = len(c.heard) // what was said before is about another connection
	c.mu.Unlock()
	c.ack = 0
	s.At, s.Flags = -1, s.Flags|capture.SYN
	c.send(s)
}

// complete answers the SYN-ACK. Where the server speaks first, its greeting is waited for.
func (c *client) complete() bool {
	p, ok := c.await(func(p capture.Packet) bool {
		return p.Flags.Has(capture.SYN|capture.ACK) && p.Ack-c.isn-1 < farAway // more than 0: it took data of the SYN
	})
	if !ok {
		return false
	}
	c.ack = p.Seq + 1
	c.send(Segment{Flags: capture.ACK})
	if c.to.Engine == topology.MySQL {
		_, ok = c.answer()
		c.send(Segment{Flags: capture.ACK}) // or it comes again
	}
	return ok
}

// answer waits for data of the server and acknowledges it in all that follows.
func (c *client) answer() ([]byte, bool) {
	p, ok := c.await(func(p capture.Packet) bool { return len(p.Payload) > 0 && !p.Flags.Has(capture.RST) && p.Seq == c.ack })
	if ok {
		c.ack = p.Seq + uint32(len(p.Payload))
	}
	return p.Payload, ok
}

// acknowledged waits until the server has acknowledged n bytes of the stream.
func (c *client) acknowledged(n int) bool {
	_, ok := c.await(func(p capture.Packet) bool {
		return p.Flags.Has(capture.ACK) && !p.Flags.Has(capture.SYN) && !p.Flags.Has(capture.RST) && int(int32(p.Ack-c.isn-1)) >= n
	})
	return ok
}

// await waits for a packet to the client. It gives up when the client is reset, when a fence shows that nothing is on its
// way any more and that the server knows of nothing to answer, and in any case at the end of the patience.
func (c *client) await(fits func(capture.Packet) bool) (capture.Packet, bool) {
	ctx, cancel := context.WithTimeout(c.ctx, answerPatience)
	defer cancel()
	settled := false
	for c.err == nil {
		p, changed, found, reset := c.look(fits)
		switch {
		case found:
			return p, true
		case reset:
			return p, false
		case !settled:
			c.settle()
			settled = true
			continue
		case !c.delivered():
			return p, false
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return p, false
		}
	}
	return capture.Packet{}, false
}

// look goes through what was heard and not looked at before.
func (c *client) look(fits func(capture.Packet) bool) (p capture.Packet, changed <-chan struct{}, found, reset bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.next < len(c.heard) {
		p = c.heard[c.next]
		c.next++
		c.noteEcho(p)
		if fits(p) {
			return p, nil, true, false
		}
		if p.Flags.Has(capture.RST) {
			reset = true
		}
	}
	return p, c.changed, false, reset
}

// noteEcho keeps the server's timestamp, which the next segment echoes.
func (c *client) noteEcho(p capture.Packet) {
	options := p.Raw[:len(p.Raw)-len(p.Payload)]
	if i := len(options) - 10; i > 0 && options[i] == 8 && options[i+1] == 10 { // the last, as the lab's kernels write it
		c.echo = binary.BigEndian.Uint32(options[i+2:])
	}
}

// delivered reports whether the server knows of the connection that is being asked for, or of any of its bytes.
func (c *client) delivered() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.seen.taken > 0 || len(c.seen.left) > 0 || c.to.Engine == topology.MySQL && c.ack != 0
}

// settle waits until what was sent is where it gets: a connection that was begun afterwards has come through by the same
// way to the canary of the same enforcement point.
func (c *client) settle() {
	if c.err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(c.ctx, patience)
	defer cancel()
	free := c.field.lab.Ports().Evasions
	port, err := free.Take()
	if err != nil {
		c.fail(err)
		return
	}
	defer free.Give(port)
	c.fence.Store(uint32(port))
	to, ok := c.field.canary[canaryKey{c.to.Point, c.to.Addr.Addr().Is4()}]
	if !ok {
		c.fail(fmt.Errorf("%w: enforcement point %s has no canary", ErrField, c.to.Point))
		return
	}
	conn, err := c.field.ns.Dial(ctx, netip.AddrPortFrom(c.local.Addr(), port), to)
	if err != nil {
		c.fail(fmt.Errorf("the fence was not served: %w", err))
		return
	}
	defer conn.Close()
	if tcp, ok := conn.(*net.TCPConn); ok {
		c.fail(tcp.SetLinger(0)) // by a reset: its port is free at once
	}
	c.fail(c.until(ctx, func() bool {
		return c.seen.fenceSeen == uint32(port) && c.seen.fenceHeard == uint32(port)
	}))
}

// until waits for a sighting.
func (c *client) until(ctx context.Context, happened func() bool) error {
	for {
		c.mu.Lock()
		ok, changed := happened(), c.changed
		c.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("waiting for the enforcement point's capture: %w", context.Cause(ctx))
		}
	}
}

// close ends the server's half and forgets the client.
func (c *client) close() error {
	if c.err == nil && c.ack != 0 {
		c.mu.Lock()
		taken := c.seen.taken
		c.mu.Unlock()
		c.send(Segment{At: taken, Flags: capture.RST | capture.ACK})
	}
	for _, stop := range c.stop {
		stop()
	}
	c.wg.Wait()
	return c.silence.Close()
}
