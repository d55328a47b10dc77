package probe

import (
	"net/netip"
	"sync"
	"sync/atomic"

	"drawbridge/sim/capture"
	"drawbridge/topology"
)

// track gathers what is seen of one connection while it lives. The client's source port, nobody else's meanwhile (sim/ports), tells
// its packets from all others at every place, since no NAT of the fabric changes it.
type track struct {
	spec   Spec
	port   uint16
	marker string
	point  *watchpoint

	told  atomic.Bool // the network ended the connection at the client's end
	given atomic.Bool // up: nobody watches it any more
	over  sync.Once   // done

	mu       sync.Mutex
	evidence Evidence
	isn      uint32 // the client's initial sequence number, from its SYN at the entrance
	haveISN  bool
	said     uint32 // how far beyond isn the client's sequence numbers have come at the entrance
	greeted  bool   // the database's host answered the SYN with its own
	begun    bool   // the segment with the client's first byte was seen at the entrance
	progress int    // counts what was seen, on the wire and at the client; a fence counts only if nothing came meanwhile

	// changed has room for one token: something was seen since the last look.
	changed chan struct{}
}

func newTrack(spec Spec, port uint16, marker string, point *watchpoint) *track {
	return &track{spec: spec, port: port, marker: marker, point: point, changed: make(chan struct{}, 1)}
}

// update records something new from the client's end, and wakes whoever waits for it. A fence that is under way says nothing
// any more: what the client reacted to may be behind it in the tap's queue.
func (t *track) update(change func(e *Evidence)) {
	t.mu.Lock()
	change(&t.evidence)
	t.progress++
	t.evidence.Fenced = false
	t.mu.Unlock()
	t.wake()
}

func (t *track) wake() {
	select {
	case t.changed <- struct{}{}:
	default: // a token is there already
	}
}

func (t *track) snapshot() (Evidence, int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.evidence, t.progress
}

// fenced records the outcome of a fence that was begun when progress stood at mark. One that something overtook says nothing.
func (t *track) fenced(mark int, err error) {
	t.mu.Lock()
	switch {
	case err != nil:
		t.evidence.FenceError = err.Error()
	case t.progress == mark:
		t.evidence.Fenced, t.evidence.FenceError = true, ""
	}
	t.mu.Unlock()
	t.wake()
}

// lost takes one packet that a wire of the lab has dropped.
func (t *track) lost(p capture.Packet) {
	t.mu.Lock()
	t.evidence.Lost++
	if p.Flow.Dst.Port() == t.port && p.Flags.Has(capture.SYN|capture.ACK) {
		t.evidence.AnswersLost++
	}
	t.mu.Unlock()
	t.wake()
}

// see takes one packet that the tap of the enforcement point's namespace showed. The tap is one queue, so what a fence shows
// comes after whatever was on the way before it.
func (t *track) see(p capture.Packet) {
	fromClient := p.Flow.Src.Port() == t.port
	t.mu.Lock()
	before := t.evidence
	switch {
	case fromClient && !p.Outgoing:
		t.entered(p)
	case fromClient:
		t.left(p)
	default:
		t.answered(p)
	}
	changed := t.evidence != before
	if changed {
		t.progress++
		t.evidence.Fenced = false
	}
	t.mu.Unlock()
	if changed {
		t.wake()
	}
}

// slack is how far beyond what the client was seen to say a number may be that is this connection's: more than a client has under way.
const slack = 1 << 16

// owns tells a sequence number of the connection's client from one of whoever had its port before. An end of such a connection may still repeat
// what it has to say, a minute and more after it was cut: a database, the end of its half. So the port alone says too little where thousands
// of connections are made in a minute, and a denial would pass for a leak. Initial sequence numbers are random (RFC 6528): one such packet in
// some 65,000 is taken for the connection's own.
func (t *track) owns(seq uint32) bool { return t.haveISN && seq-t.isn <= t.said+slack }

func (t *track) entered(p capture.Packet) {
	if p.Flags.Has(capture.SYN) && !p.Flags.Has(capture.ACK) {
		t.evidence.SYNEntered = true
		t.evidence.SYNs++
		t.isn, t.haveISN = p.Seq, true
	}
	if !t.owns(p.Seq) {
		return
	}
	t.said = max(t.said, p.Seq-t.isn+uint32(len(p.Payload)))
	if p.Flags.Has(capture.ACK) && !p.Flags.Has(capture.SYN) && !p.Flags.Has(capture.RST) {
		t.evidence.Connected = true // only a client that got the SYN-ACK goes on like this
	}
	t.evidence.PayloadEntered += len(p.Payload)
	switch {
	case len(p.Payload) == 0 || !t.haveISN:
	case p.Seq == t.isn+1:
		t.begun, t.evidence.Headless = true, false
	case !t.begun:
		t.evidence.Headless = true
	}
}

// left: a gateway forwarded it.
func (t *track) left(p capture.Packet) {
	if p.Flags.Has(capture.RST) {
		return // ends the database's half of the connection, and says nothing
	}
	if !p.Flags.Has(capture.SYN) && !t.owns(p.Seq) {
		return // a SYN is a leak whatever number somebody has given it on the way
	}
	t.evidence.SYNLeft = true
	t.evidence.PayloadLeft += len(p.Payload)
}

// answered: a packet towards the client. Only the database's own host can acknowledge what the client sent; a reset may be the
// enforcer's.
func (t *track) answered(p capture.Packet) {
	if !p.Flags.Has(capture.ACK) || !t.point.fromDatabase(p) {
		return
	}
	if p.Flags.Has(capture.RST) {
		t.refused(p)
		return
	}
	acked := p.Ack - t.isn - 1 // modulo 2^32; the SYN takes one
	if !t.owns(p.Ack) || p.Ack == t.isn {
		return
	}
	t.greeted = t.greeted || p.Flags.Has(capture.SYN)
	t.evidence.SYNLeft = true
	t.evidence.PayloadLeft = max(t.evidence.PayloadLeft, int(acked))
}

// refused: a reset from where the database's host answers. It is the answer to the SYN if it acknowledges that alone, and no other came before.
func (t *track) refused(p capture.Packet) {
	switch {
	case t.greeted || !t.haveISN || p.Ack != t.isn+1:
	case t.point.Model == topology.Dedicated:
		t.evidence.HostRefused, t.evidence.SYNLeft = true, true
	default:
		t.evidence.Reset = true
	}
}

// watchpoint is an enforcement point under observation.
type watchpoint struct {
	topology.Point
	vpc map[string]bool // the interfaces behind which the databases are; empty for a host
}

func newWatchpoint(p topology.Point) *watchpoint {
	w := &watchpoint{Point: p, vpc: map[string]bool{}}
	for _, i := range p.Interfaces {
		if i.Zone == topology.ZoneCluster {
			w.vpc[i.Name] = true
		}
	}
	return w
}

// fromDatabase reports whether a packet towards a client was sent by the database: at a gateway, it came in from a node; at a
// host, the host's own TCP sent it.
func (w *watchpoint) fromDatabase(p capture.Packet) bool {
	if w.Model == topology.Dedicated {
		return !p.Outgoing && w.vpc[p.Iface]
	}
	return p.Outgoing
}

// registry finds the track of a packet by the client's port.
type registry struct {
	mu     sync.RWMutex
	tracks map[uint16]*track
}

func (r *registry) add(t *track) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tracks[t.port] = t
}

func (r *registry) remove(t *track) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.tracks[t.port] == t {
		delete(r.tracks, t.port)
	}
}

// of returns the track that a packet belongs to, by either of its ports.
func (r *registry) of(src, dst netip.AddrPort) *track {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if t, ok := r.tracks[src.Port()]; ok {
		return t
	}
	return r.tracks[dst.Port()]
}
