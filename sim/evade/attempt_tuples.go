package evade

import (
	"drawbridge/sim/capture"
	"drawbridge/topology"
)

// elsewhere is how far a connection's numbers are from those of the one before on the same ports.
const elsewhere = 1 << 20

// again begins another connection of the same addresses and ports.
func (s *script) again(by uint32) {
	s.isn += by
	s.connect()
}

// hangUp resets the connection as the server's TCP wants it: at exactly the byte that it expects.
func (s *script) hangUp(at int) {
	s.send(Segment{At: at, Flags: capture.RST | capture.ACK})
	s.settle()
}

// speakTLS opens TLS as an ordinary client does, as far as the server's first words of it.
func (s *script) speakTLS() (sent int) {
	s.connect()
	if len(s.wire.request) > 0 {
		s.data(0, s.wire.request)
		sent = len(s.wire.request)
		if s.to.Engine == topology.PostgreSQL {
			s.answer()
		} else {
			s.acknowledged(sent)
		}
	}
	s.data(sent, s.wire.hello)
	s.answer()
	return sent + len(s.wire.hello)
}

// tuples use addresses and ports again.
func tuples() []Attempt {
	return []Attempt{
		{Name: "same ports after a request", Idea: "what is known of a connection outlives it", play: func(s *script) {
			s.connect()
			s.data(0, s.wire.opening())
			s.acknowledged(len(s.wire.opening()))
			s.hangUp(len(s.wire.opening()))
			s.again(elsewhere)
			s.data(0, s.wire.plain)
		}},
		{Name: "same ports after TLS", Idea: "as before", play: func(s *script) {
			s.hangUp(s.speakTLS())
			s.again(elsewhere)
			s.data(0, s.wire.plain)
		}},
		{Name: "same ports and numbers after TLS", Idea: "as before, and nothing tells the two apart", play: func(s *script) {
			s.hangUp(s.speakTLS())
			s.again(0)
			s.data(0, s.wire.plain)
		}},
		{Name: "same ports after an orderly end", Idea: "as before, without a reset", play: func(s *script) {
			s.goodbye(s.speakTLS())
			s.again(elsewhere)
			s.data(0, s.wire.plain)
		}},
		{Name: "SYN over a standing connection", Idea: "the gate lets go of it, the server does not", play: func(s *script) {
			s.connect()
			s.send(Segment{At: elsewhere, Flags: capture.SYN})
			s.settle()
			s.send(Segment{At: elsewhere, Flags: capture.RST})
			s.settle()
			s.data(0, s.wire.plain)
		}},
		{Name: "beginning of the connection before", Idea: "the first byte's place is remembered for longer than the connection",
			play: before(func(s *script) {
				s.connect()
				s.hangUp(0)
			})},
		{Name: "beginning of an unfinished connection before", Idea: "as before, with a client that never completed the handshake",
			play: before(func(s *script) {
				s.ask(Segment{})
				s.await(func(p capture.Packet) bool { return p.Flags.Has(capture.SYN | capture.ACK) })
				s.send(Segment{Flags: capture.RST})
				s.settle()
			})},
		{Name: "beginning of an orderly ended connection before", Idea: "as before, without a reset",
			play: before(func(s *script) {
				s.connect()
				s.goodbye(0)
			})},
	}
}

// rounds is how often the same ports are used: what a kernel remembers of a connection may be found again only if the next one
// gets the same place in its memory.
const rounds = 6

// before begins connections whose first byte is a little behind that of the one before on the same ports, and sends a segment
// from there: the server takes its tail alone, for it has the rest already, as far as it can tell.
func before(first func(*script)) func(*script) {
	const distance = 80
	return func(s *script) {
		for range rounds {
			first(s)
			s.again(distance)
			s.data(-distance, append(s.padded(distance), s.wire.plain...))
			s.settle()
			s.field.catchUp(s.client) // a reset would take unread bytes back
			s.send(Segment{At: len(s.wire.plain), Flags: capture.RST | capture.ACK})
			s.send(Segment{Flags: capture.RST | capture.ACK})
			s.settle()
			s.isn += elsewhere
		}
	}
}

// goodbye ends the connection in good order.
func (s *script) goodbye(at int) {
	s.send(Segment{At: at, Flags: capture.FIN | capture.ACK})
	p, ok := s.await(func(p capture.Packet) bool { return p.Flags.Has(capture.FIN) })
	if ok {
		s.ack = p.Seq + uint32(len(p.Payload)) + 1
		s.send(Segment{At: at + 1, Flags: capture.ACK})
	} else {
		s.hangUp(at + 1)
	}
	s.settle()
}

// padded is the beginning of what opens TLS in one segment, n bytes of it: more would be needed for it to be all.
func (s *script) padded(n int) []byte {
	opening := s.wire.hello
	if s.to.Engine == topology.MySQL { // knows no hello without a request
		opening = append(append([]byte(nil), s.wire.request...), s.wire.hello...)
	}
	return append([]byte(nil), opening[:n]...)
}
