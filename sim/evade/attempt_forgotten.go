package evade

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"drawbridge/sim/capture"
	"drawbridge/topology"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// forgotten have the enforcement point's kernel forget the connection, as it does when its table is full.
func forgotten() []Attempt {
	my := []topology.Engine{topology.MySQL}
	return []Attempt{
		{Name: "connection that is forgotten before its first byte", Idea: "what was begun unseen is let through", play: func(s *script) {
			s.connect()
			s.settle()
			s.forget()
			s.data(0, s.wire.plain)
		}},
		{Name: "connection that is forgotten behind a bait", Idea: "as before", play: func(s *script) {
			s.connect()
			s.send(Segment{Flags: capture.ACK | capture.PSH, Data: s.wire.opening(), Stale: true})
			s.settle()
			s.forget()
			s.send(Segment{At: -1, Flags: capture.ACK})
			s.settle()
			s.data(0, s.wire.plain)
		}},
		{Name: "connection that is found again from its other end", Idea: "whoever is seen first is taken for the client", engines: my,
			model: topology.Shared, play: func(s *script) {
				s.ask(Segment{})
				p, ok := s.await(func(p capture.Packet) bool { return p.Flags.Has(capture.SYN | capture.ACK) })
				if !ok {
					return
				}
				s.ack = p.Seq + 1
				s.send(Segment{Flags: capture.ACK})
				_, ok = s.await(func(p capture.Packet) bool { return len(p.Payload) > 0 })
				s.settle()
				s.forget()
				if ok { // the greeting was not acknowledged, and comes again
					s.answer()
				}
				s.settle()
				s.data(0, s.wire.plain)
			}},
	}
}

// forget takes the client's connections out of the enforcement point's connection tracking.
func (c *client) forget() {
	if c.err != nil {
		return
	}
	ns, ok := c.field.lab.Node(c.to.Point)
	if !ok {
		c.fail(fmt.Errorf("%w: enforcement point %s", ErrField, c.to.Point))
		return
	}
	family := netlink.InetFamily(unix.AF_INET6)
	if c.local.Addr().Is4() {
		family = unix.AF_INET
	}
	c.fail(ns.Do(func() error {
		_, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, family, ofClient(c.local))
		return err
	}))
}

// ofClient matches the flows of one client, whichever end was seen first.
type ofClient netip.AddrPort

// MatchConntrackFlow implements netlink.CustomConntrackFilter.
func (o ofClient) MatchConntrackFlow(f *netlink.ConntrackFlow) bool {
	port := netip.AddrPort(o).Port()
	return f.Forward.Protocol == unix.IPPROTO_TCP && (f.Forward.SrcPort == port || f.Reverse.SrcPort == port)
}

// Patient is an attempt that waits until whoever saw its bait has forgotten where it was: for so long.
func Patient(wait time.Duration) Attempt {
	return Attempt{Name: "bait that outlasts its watcher", Idea: "what is remembered for a while only is forgotten after it", play: func(s *script) {
		s.connect()
		bait := s.wire.hello
		if s.to.Engine == topology.MySQL {
			bait = append(append([]byte(nil), s.wire.request...), s.wire.hello...)
		}
		s.send(Segment{Flags: capture.ACK | capture.PSH, Data: bait, Stale: true})
		s.settle()
		s.idle(wait)
		s.send(Segment{At: -1, Flags: capture.ACK}) // a keep-alive: the server acknowledges what it has
		s.settle()
		s.data(0, s.wire.plain)
	}}
}

// idle lets time pass, on purpose.
func (c *client) idle(d time.Duration) {
	ctx, cancel := context.WithTimeout(c.ctx, d)
	defer cancel()
	<-ctx.Done()
	c.fail(c.ctx.Err())
}

// Halfway lists attempts in two parts: what the first does is harmless as long as Force TLS is off; in between it is turned on.
func Halfway() []Attempt {
	return []Attempt{
		{Name: "plaintext queued behind a request", Idea: "what came out of order earlier is not looked at later", engines: inBand, play: func(s *script) {
			s.connect()
			s.data(len(s.wire.request), s.wire.plain)
			s.settle()
			s.fail(s.between())
			s.data(0, s.wire.request)
		}},
		{Name: "plaintext queued behind its first byte", Idea: "as before", play: func(s *script) {
			s.connect()
			s.data(1, s.wire.plain[1:])
			s.settle()
			s.fail(s.between())
			s.data(0, s.wire.plain[:1])
		}},
		{Name: "bait before, plaintext after", Idea: "what was seen while nothing was required counts later", play: func(s *script) {
			s.connect()
			s.send(Segment{Flags: capture.ACK | capture.PSH, Data: s.wire.opening(), Stale: true})
			s.settle()
			s.fail(s.between())
			s.data(-1, append([]byte("x"), s.wire.plain...))
			s.data(0, s.wire.plain)
		}},
		{Name: "bait before, acknowledgement and plaintext after", Idea: "as before, with an acknowledgement of something else", play: func(s *script) {
			s.connect()
			s.send(Segment{Flags: capture.ACK | capture.PSH, Data: s.wire.opening(), Stale: true})
			s.settle()
			s.fail(s.between())
			s.send(Segment{At: -1, Flags: capture.ACK})
			s.settle()
			s.data(0, s.wire.plain)
		}},
		{Name: "handshake before, plaintext after", Idea: "whose handshake was seen while nothing was required is let through", play: func(s *script) {
			s.connect()
			s.settle()
			s.fail(s.between())
			s.data(0, s.wire.plain)
		}},
		{Name: "SYN before, the rest after", Idea: "as before", play: func(s *script) {
			s.ask(Segment{})
			s.settle()
			s.fail(s.between())
			s.complete()
			s.data(0, s.wire.plain)
		}},
	}
}

// FitsHalfway lists those attempts of Halfway that make sense at an endpoint.
func FitsHalfway(to topology.Endpoint, model topology.Model) []Attempt {
	var out []Attempt
	for _, a := range Halfway() {
		if a.fits(to, model) {
			out = append(out, a)
		}
	}
	return out
}
