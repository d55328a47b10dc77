package probe

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"drawbridge/sim/capture"
	"drawbridge/topology"
	"drawbridge/topology/flow"
)

// PacketSpec is a packet to an address of an enforcement point where no database's client has any business (SPEC X-02).
type PacketSpec struct {
	From   string     // name of the vantage
	Source netip.Addr // zero: the vantage's own address of the target's family
	Point  string     // name of the gateway
	To     netip.Addr // an address of the gateway
	Proto  flow.Protocol
	Port   uint16 // destination port; not for ICMP and ICMPv6 echo requests
}

// String prints the spec, as in "office to 203.0.113.129, udp port 53".
func (s PacketSpec) String() string {
	if s.Proto == flow.ICMP || s.Proto == flow.ICMPv6 {
		return fmt.Sprintf("%s to %s, %s echo request", s.From, s.To, s.Proto)
	}
	return fmt.Sprintf("%s to %s, %s port %d", s.From, s.To, s.Proto, s.Port)
}

// Delivery is what became of a packet. The zero value is DeliveryInconclusive.
type Delivery int

// What can become of a packet.
const (
	DeliveryInconclusive Delivery = iota
	// Delivered: the gateway's own listener got it, or the gateway answered the echo request.
	Delivered
	// Stopped: it arrived at the gateway, a fence sent after it got through, and no listener got it.
	Stopped
)

// String returns the delivery in lower case.
func (d Delivery) String() string {
	switch d {
	case Delivered:
		return "delivered"
	case Stopped:
		return "stopped"
	}
	return "inconclusive"
}

// PacketObservation is what was seen of one packet.
type PacketObservation struct {
	Spec     PacketSpec
	Delivery Delivery
	Reason   string
	Took     time.Duration
}

// Send opens a listener at the gateway's address, sends one packet (for TCP: opens a connection) to it, and concludes whether it
// was delivered. So that a denial means something, the same packet must be delivered when no enforcer is in force:
// Baseline checks that.
func (p *Prober) Send(ctx context.Context, spec PacketSpec) (PacketObservation, error) {
	began := time.Now()
	s, err := p.shot(ctx, spec)
	if err != nil {
		return PacketObservation{}, err
	}
	defer s.close()
	ctx, cancel := context.WithTimeout(ctx, p.patience())
	defer cancel()
	if err := s.send(ctx); err != nil {
		return PacketObservation{}, fmt.Errorf("send %s: %w", spec, err)
	}
	o := PacketObservation{Spec: spec}
	o.Delivery, o.Reason = p.follow(ctx, s)
	o.Took = time.Since(began)
	return o, nil
}

// follow waits until the packet was delivered, or until a fence sent after its arrival got through.
func (p *Prober) follow(ctx context.Context, s *shot) (Delivery, string) {
	var fence <-chan error
	var over <-chan time.Time
	if p.waits > 0 {
		timer := time.NewTimer(p.waits)
		defer timer.Stop()
		over = timer.C
	}
	for {
		select {
		case <-over:
			return s.afterFence(nil)
		case <-s.received:
			return Delivered, "the gateway's listener got it"
		case packet := <-s.packets:
			switch {
			case packet.Outgoing && packet.Echo(true):
				return Delivered, "the gateway answered the echo request"
			case !packet.Outgoing && fence == nil && over == nil:
				fence = p.fences.pass(ctx, route{from: s.spec.From, source: s.local.Addr(), point: s.spec.Point, is4: s.spec.To.Is4()})
			}
		case err := <-fence:
			return s.afterFence(err)
		case <-s.lost:
			if err := s.send(ctx); err != nil {
				return DeliveryInconclusive, "a wire dropped it, and it could not be sent again: " + err.Error()
			}
		case <-ctx.Done():
			return DeliveryInconclusive, "it never arrived at the gateway, or no fence got through after it"
		}
	}
}

// afterFence looks once more: what the fence overtook has been seen by now.
func (s *shot) afterFence(err error) (Delivery, string) {
	for {
		select {
		case <-s.received:
			return Delivered, "the gateway's listener got it"
		case packet := <-s.packets:
			if packet.Outgoing && packet.Echo(true) {
				return Delivered, "the gateway answered the echo request"
			}
			continue
		default:
		}
		if err != nil {
			return DeliveryInconclusive, err.Error()
		}
		return Stopped, "it arrived at the gateway, and a fence sent after it got through"
	}
}

// shot is one packet under way, with what watches for it.
type shot struct {
	spec     PacketSpec
	local    netip.AddrPort
	packets  <-chan capture.Packet
	received <-chan struct{}
	send     func(context.Context) error
	lost     chan struct{} // room for one token: a wire dropped it, and nobody repeats it
	closers  []func()
}

// lose takes a packet that a wire dropped. A TCP repeats its own.
func (s *shot) lose(p capture.Packet) {
	if s.spec.Proto == flow.TCP || !s.belongs(p) || p.Echo(true) {
		return
	}
	select {
	case s.lost <- struct{}{}:
	default: // a token is there already
	}
}

func (s *shot) close() {
	for _, c := range slices.Backward(s.closers) {
		c()
	}
}

// shot opens the listener and the view on the gateway for one packet.
func (p *Prober) shot(ctx context.Context, spec PacketSpec) (_ *shot, err error) {
	v, ok := p.vantages[spec.From]
	if !ok {
		return nil, fmt.Errorf("%w: the world has no vantage %q", ErrSpec, spec.From)
	}
	w, ok := p.points[spec.Point]
	if !ok || w.Model != topology.Dedicated {
		return nil, fmt.Errorf("%w: %q is no gateway of this world", ErrSpec, spec.Point)
	}
	to := topology.Endpoint{Addr: netip.AddrPortFrom(spec.To, spec.Port)}
	source, err := sourceOf(v, Spec{Source: spec.Source, To: to})
	if err != nil {
		return nil, err
	}
	from, ok1 := p.lab.Node(v.Namespace)
	at, ok2 := p.lab.Node(spec.Point)
	if !ok1 || !ok2 {
		return nil, fmt.Errorf("%w: %s or %s has no namespace", ErrSpec, v.Namespace, spec.Point)
	}
	port, err := p.port()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", spec, err)
	}
	s := &shot{spec: spec, local: netip.AddrPortFrom(source, port), lost: make(chan struct{}, 1), closers: []func(){func() { p.release(port) }}}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	packets, stop := p.tapOf[spec.Point].Subscribe(s.belongs)
	s.packets, s.closers = packets, append(s.closers, stop, p.lab.WatchLosses(s.lose))
	if err := s.arm(ctx, from, at); err != nil {
		return nil, errors.Join(fmt.Errorf("listen at %s for %s", spec.Point, spec), err)
	}
	return s, nil
}

// belongs reports whether a packet at the gateway is this one or the answer to it.
func (s *shot) belongs(p capture.Packet) bool {
	if p.Flow.Proto != s.spec.Proto {
		return false
	}
	if p.Echo(false) || p.Echo(true) {
		return p.ICMP.ID == s.local.Port()
	}
	return p.Flow.Src == s.local
}
