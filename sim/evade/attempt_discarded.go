package evade

import (
	"drawbridge/sim/capture"
	"drawbridge/topology"

	"github.com/gopacket/gopacket/layers"
)

// discarded show the gate what the server never takes.
func discarded() []Attempt {
	return []Attempt{
		{Name: "bait with a wrong checksum", Idea: "the server discards it", play: bait(func(_ *script, g *Segment) { g.BadSum = true })},
		{Name: "bait with a stale timestamp", Idea: "the server discards it (PAWS)", play: bait(func(_ *script, g *Segment) { g.Stale = true })},
		{Name: "bait with an acknowledgement from the future", Idea: "the server discards it (RFC 5961 section 5.2)",
			play: bait(func(_ *script, g *Segment) { g.AckBy = 1000 })},
		{Name: "bait with an old acknowledgement", Idea: "the server discards what acknowledges less than a window ago",
			play: func(s *script) {
				s.window = 500
				bait(func(_ *script, g *Segment) { g.AckBy = -2000 })(s)
			}},
		{Name: "bait without an acknowledgement", Idea: "the server discards it (RFC 9293 section 3.10.7.4)",
			play: bait(func(_ *script, g *Segment) { g.Flags = capture.PSH })},
		{Name: "bait with a TCP-MD5 signature", Idea: "a server without a key discards it (RFC 2385)",
			play: bait(func(_ *script, g *Segment) {
				g.Options = []layers.TCPOption{{OptionType: optionMD5, OptionLength: 18, OptionData: make([]byte, 16)}}
			})},
		{Name: "bait whose TTL ends behind the gateway", Idea: "the database never gets it", model: topology.Dedicated,
			play: bait(func(_ *script, g *Segment) { g.TTL = 2 })}, // the core and the gateway
		{Name: "bait with a source route", Idea: "a host discards it (RFC 7126 section 4.3)", only4: true,
			play: bait(func(_ *script, g *Segment) { g.IPOptions = []byte{0x83, 7, 8, 192, 0, 2, 1, 0} })},
		{Name: "bait behind an unknown extension header", Idea: "a host discards it (RFC 8200 section 4.2)", only6: true,
			play: bait(func(_ *script, g *Segment) {
				g.Extensions = []Extension{{extDestination, []byte{0, 0x5e, 4, 0, 0, 0, 0}}} // discard if unknown
			})},
		{Name: "bait behind a routing header", Idea: "a host discards it (RFC 5095)", only6: true,
			play: bait(func(_ *script, g *Segment) {
				g.Extensions = []Extension{{extRouting, append([]byte{2, 0, 1, 0, 0, 0, 0}, make([]byte, 16)...)}}
			})},
		{Name: "bait beyond the window", Idea: "the server discards it", play: bait(func(_ *script, g *Segment) { g.At = 200_000 })},
		{Name: "bait, then plaintext in its place and around it", Idea: "once looked at, never again", play: func(s *script) {
			s.connect()
			s.send(Segment{Flags: capture.ACK | capture.PSH, Data: s.wire.opening(), Stale: true})
			s.settle()
			s.data(1, s.wire.plain[1:])
			s.data(0, s.wire.plain[:1])
		}},
		{Name: "bait, then an acknowledgement that was asked for", Idea: "any acknowledgement is taken for one of the bait", play: func(s *script) {
			s.connect()
			s.send(Segment{Flags: capture.ACK | capture.PSH, Data: s.wire.opening(), Stale: true})
			s.send(Segment{At: -1, Flags: capture.ACK}) // a keep-alive: the server acknowledges what it has
			s.settle()
			s.send(Segment{At: -1, Flags: capture.ACK})
			s.settle()
			s.data(0, s.wire.plain)
		}},
		{Name: "bait without a timestamp, far too old", Idea: "keep-alives in between make the gate forget", play: func(s *script) {
			s.connect()
			for range 3 {
				s.send(Segment{Flags: capture.ACK | capture.PSH, Data: s.wire.opening(), Stale: true})
				s.send(Segment{At: -1, Flags: capture.ACK})
			}
			s.settle()
			s.data(-1, append([]byte("x"), s.wire.plain...))
			s.data(0, s.wire.plain)
		}},
	}
}

// handshakes play with the beginning of the connection.
func handshakes() []Attempt {
	return []Attempt{
		{Name: "data in the SYN", Idea: "the server keeps it (RFC 7413)", play: func(s *script) {
			s.ask(Segment{Data: s.wire.plain, Options: fastOpen(false)})
			s.complete()
		}},
		{Name: "data in the SYN behind two Fast Open options", Idea: "the first is taken out, the second stays", play: func(s *script) {
			s.ask(Segment{Data: s.wire.plain, Options: append(fastOpen(false), fastOpen(false)...)})
			s.complete()
		}},
		{Name: "data in an experimental Fast Open SYN", Idea: "the older option kind is forgotten", only4: false, play: func(s *script) {
			s.ask(Segment{Data: s.wire.plain, Options: fastOpen(true)})
			s.complete()
		}},
		{Name: "data in the SYN and again behind it", Idea: "the SYN's bytes move the beginning", play: func(s *script) {
			s.ask(Segment{Data: s.wire.plain[:1], Options: fastOpen(false)})
			s.complete()
			s.data(1, s.wire.plain[1:])
			s.data(0, s.wire.plain)
		}},
		{Name: "second SYN in the middle", Idea: "a SYN begins the gate's work anew", play: func(s *script) {
			s.connect()
			s.send(Segment{At: 10_000, Flags: capture.SYN})
			s.settle()
			s.data(0, s.wire.plain)
		}},
		{Name: "second SYN with the same number", Idea: "as before", play: func(s *script) {
			s.connect()
			s.send(Segment{At: -1, Flags: capture.SYN})
			s.settle()
			s.data(0, s.wire.plain)
		}},
		{Name: "SYN-ACK from the client", Idea: "the gate takes it for the server's", play: func(s *script) {
			s.connect()
			s.send(Segment{At: 100, Flags: capture.SYN | capture.ACK})
			s.settle()
			s.data(0, s.wire.plain)
		}},
		{Name: "simultaneous open", Idea: "the gate takes the client for the server", play: func(s *script) {
			s.send(Segment{At: -1, Flags: capture.SYN | capture.ACK})
			s.settle()
			s.connect()
			s.data(0, s.wire.plain)
		}},
		{Name: "two SYNs with different numbers", Idea: "the first is looked at, the second counts", play: func(s *script) {
			s.ask(Segment{})
			s.send(Segment{At: elsewhere, Flags: capture.SYN})
			s.complete()
			s.data(0, s.wire.plain)
		}},
		{Name: "forged reset that the server ignores", Idea: "the connection is forgotten in between", play: func(s *script) {
			s.connect()
			s.send(Segment{At: 100, Flags: capture.RST})
			s.settle()
			s.data(0, s.wire.plain)
		}},
		{Name: "forged reset behind a bait", Idea: "as before", play: func(s *script) {
			s.connect()
			s.send(Segment{Flags: capture.ACK | capture.PSH, Data: s.wire.opening(), Stale: true})
			s.send(Segment{At: 100, Flags: capture.RST | capture.ACK})
			s.settle()
			s.data(0, s.wire.plain)
		}},
		{Name: "reset that ends behind the gateway", Idea: "the gateway forgets what the database does not", model: topology.Dedicated, play: func(s *script) {
			s.connect()
			s.send(Segment{Flags: capture.RST, TTL: 2})
			s.settle()
			s.data(0, s.wire.plain)
		}},
		{Name: "reset with data", Idea: "a reset is let through", play: func(s *script) {
			s.connect()
			s.send(Segment{At: 50, Flags: capture.RST | capture.ACK, Data: s.wire.plain})
			s.settle()
			s.data(0, s.wire.plain)
		}},
	}
}

// fastOpen asks for TCP Fast Open: by its own option (RFC 7413 section 4.1.1), or the experimental one (RFC 6994, 0xf989). The
// lab's servers want no cookie.
func fastOpen(experimental bool) []layers.TCPOption {
	if experimental {
		return []layers.TCPOption{{OptionType: layers.TCPOptionKind(254), OptionLength: 4, OptionData: []byte{0xf9, 0x89}}}
	}
	return []layers.TCPOption{{OptionType: optionFastOpen, OptionLength: 2}}
}
