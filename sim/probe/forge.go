package probe

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"github.com/gopacket/gopacket/layers"

	"drawbridge/sim/capture"
	"drawbridge/topology"
)

// ForgeSpec is a client that claims an address which is not its own (SPEC X-03), over IPv4.
type ForgeSpec struct {
	From   string     // name of the vantage
	Claims netip.Addr // somebody else's
	To     topology.Endpoint
}

// Forged is what became of everything that such a client sent. The zero value got nowhere.
type Forged struct {
	Sent int
	// Passed is how many of its connections had a packet that was seen to leave the enforcement point towards the database, or that the
	// database answered.
	Passed int
	// Accepted: the database's application took one of them for a connection.
	Accepted bool
	// Bytes is how many of its bytes the database acknowledged, or its application read.
	Bytes int
}

// optionFastOpen asks for TCP Fast Open (RFC 7413 section 4.1.1). The lab's servers take data in a SYN without a cookie.
const optionFastOpen = 34

// blindGuess is what somebody acknowledges who never saw the server's sequence number.
const blindGuess = 0x5eed5eed

// forgeries are what somebody can send who sees no answer: a SYN, a SYN with data in it, and what would come after a handshake. Each is a
// connection of its own.
var forgeries = [][]layers.TCP{
	{{SYN: true}, {ACK: true, Ack: blindGuess}, {ACK: true, PSH: true, Ack: blindGuess, BaseLayer: layers.BaseLayer{Payload: startup}}},
	{{SYN: true, Options: []layers.TCPOption{{OptionType: optionFastOpen, OptionLength: 2}}, BaseLayer: layers.BaseLayer{Payload: startup}}},
}

// Forge sends packets with a source that is not the vantage's own. The lab must let such through (sim.Lab.AllowForged). What is not seen to
// pass has been stopped: a fence from the vantage itself came through afterwards. The error is ErrSpec, or ErrFence where nothing can be
// concluded.
//
// A client of which a wire of the lab dropped a packet has not tried everything, so that another one takes its place; what the first one got
// through counts all the same.
func (p *Prober) Forge(ctx context.Context, spec ForgeSpec) (all Forged, err error) {
	for range mostVoid {
		f, whole, err := p.forgeOnce(ctx, spec)
		if err != nil {
			return Forged{}, err
		}
		all = Forged{f.Sent, max(all.Passed, f.Passed), all.Accepted || f.Accepted, max(all.Bytes, f.Bytes)}
		if whole {
			return all, nil
		}
	}
	return Forged{}, fmt.Errorf("%w: of %d forged clients at %s the wires dropped a packet", ErrFence, mostVoid, spec.To.Point)
}

// mostVoid bounds how many clients by hand in a row may suffer from a wire: with one packet in fifty lost, one in five does.
const mostVoid = 20

// forgeOnce sends everything once. whole: no wire dropped anything of it.
func (p *Prober) forgeOnce(ctx context.Context, spec ForgeSpec) (_ Forged, whole bool, err error) {
	f, err := p.forge(spec)
	if err != nil {
		return Forged{}, false, err
	}
	defer p.release(f.ports...)
	defer f.stop()
	defer func() { _ = f.sender.close() }() // nothing can be lost with it
	ctx, cancel := context.WithTimeout(ctx, p.patience())
	defer cancel()
	if err := f.send(); err != nil {
		return Forged{}, false, err
	}
	for !f.arrived() {
		select {
		case <-f.changed:
		case <-ctx.Done():
			return Forged{}, false, fmt.Errorf("%w: of %d packets from %s in the name of %s %d arrived at %s",
				ErrFence, f.sent, spec.From, spec.Claims, f.entered, spec.To.Point)
		}
	}
	// From its own address: whatever answers a forged one goes to whom it belongs.
	if err := <-p.fences.pass(ctx, route{from: spec.From, point: spec.To.Point, is4: true}); err != nil {
		return Forged{}, false, err
	}
	out := f.conclude()
	return out, !f.suffered(), nil
}

// forgery is one client under way.
type forgery struct {
	p       *Prober
	spec    ForgeSpec
	point   *watchpoint
	sender  *synSender
	ports   []uint16 // by forgery
	sent    int
	stop    func()
	changed chan struct{} // room for one token: a packet came

	mu      sync.Mutex
	entered int
	lost    int
	passed  map[uint16]bool
	acked   int
}

// forgedISN is the sequence number of every forged SYN.
const forgedISN = 0x0f0f0f01

func (p *Prober) forge(spec ForgeSpec) (*forgery, error) {
	v, ok := p.vantages[spec.From]
	point, at := p.points[spec.To.Point]
	if !ok || !at || !spec.Claims.Is4() || !spec.To.Addr.Addr().Is4() {
		return nil, fmt.Errorf("%w: %s in the name of %s to %s at %q", ErrSpec, spec.From, spec.Claims, spec.To.Addr, spec.To.Point)
	}
	ns, ok := p.lab.Node(v.Namespace)
	if !ok {
		return nil, fmt.Errorf("%w: namespace %q", ErrSpec, v.Namespace)
	}
	sender, err := newSYNSender(ns, spec.Claims)
	if err != nil {
		return nil, err
	}
	f := &forgery{p: p, spec: spec, point: point, sender: sender, changed: make(chan struct{}, 1), passed: map[uint16]bool{}}
	for range forgeries {
		port, err := p.port()
		if err != nil {
			p.release(f.ports...)
			return nil, errors.Join(err, sender.close())
		}
		f.ports = append(f.ports, port)
	}
	_, stop := p.tapOf[spec.To.Point].Subscribe(func(c capture.Packet) bool { f.see(c); return false })
	unwatch := p.lab.WatchLosses(f.lose)
	f.stop = func() { stop(); unwatch() }
	return f, nil
}

// lose takes a packet that a wire dropped.
func (f *forgery) lose(c capture.Packet) {
	if !slices.Contains(f.ports, c.Flow.Src.Port()) || c.Flow.Src.Addr() != f.spec.Claims {
		return
	}
	f.mu.Lock()
	f.lost++
	f.mu.Unlock()
	f.wake()
}

func (f *forgery) suffered() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.lost > 0
}

func (f *forgery) wake() {
	select {
	case f.changed <- struct{}{}:
	default: // a token is there already
	}
}

func (f *forgery) send() error {
	for i, segments := range forgeries {
		seq := uint32(forgedISN)
		for _, segment := range segments {
			segment.SrcPort, segment.Seq = layers.TCPPort(f.ports[i]), seq
			if err := f.sender.write(f.spec.Claims, &segment, f.spec.To.Addr); err != nil {
				return err
			}
			f.sent++
			seq = forgedISN + 1
		}
	}
	return nil
}

// see takes a packet of the enforcement point's tap, in the kernel's order.
func (f *forgery) see(c capture.Packet) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, port := range f.ports {
		switch {
		case c.Flow.Src.Port() == port && c.Flow.Src.Addr() == f.spec.Claims && !c.Outgoing:
			f.entered++
		case c.Flow.Src.Port() == port && c.Outgoing && !c.Flags.Has(capture.RST):
			f.passed[port] = true
		case c.Flow.Dst.Port() == port && c.Flags.Has(capture.ACK) && !c.Flags.Has(capture.RST) && f.point.fromDatabase(c):
			f.passed[port] = true
			f.acked = max(f.acked, int(int32(c.Ack-forgedISN-1))) // modulo 2^32; the SYN takes one
		default:
			continue
		}
		f.wake()
	}
}

// arrived reports whether nothing is on its way any more.
func (f *forgery) arrived() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.entered+f.lost >= f.sent
}

func (f *forgery) conclude() Forged {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := Forged{Sent: f.sent, Passed: len(f.passed), Bytes: f.acked}
	for _, port := range f.ports {
		events := f.p.lab.Journal().Events(port)
		out.Accepted = out.Accepted || len(events) > 0
		out.Bytes = max(out.Bytes, int(f.p.lab.Journal().Received(port)))
	}
	return out
}
