package evade

import (
	"errors"
	"fmt"
	"slices"

	"drawbridge/sim/capture"
	"drawbridge/topology"
)

// Attempt is one way to try to get plaintext past Force TLS.
type Attempt struct {
	Name string
	// Idea says what it would exploit.
	Idea string

	engines []topology.Engine // empty: all
	model   topology.Model    // "": both
	only6   bool
	only4   bool
	play    func(*script)
}

// ErrUnknown is the error for a name that no attempt has.
var ErrUnknown = errors.New("no such attempt")

// Attempts lists all attempts.
func Attempts() []Attempt {
	return slices.Concat(segments(), peculiar(), discarded(), handshakes(), forgotten(), tuples(), datagrams(), requests())
}

// For lists the attempts that make sense at an endpoint.
func For(to topology.Endpoint, model topology.Model) []Attempt {
	return slices.DeleteFunc(Attempts(), func(a Attempt) bool { return !a.fits(to, model) })
}

// Find returns an attempt by its name.
func Find(name string) (Attempt, error) {
	all := Attempts()
	i := slices.IndexFunc(all, func(a Attempt) bool { return a.Name == name })
	if i < 0 {
		return Attempt{}, fmt.Errorf("%w: %q", ErrUnknown, name)
	}
	return all[i], nil
}

func (a Attempt) fits(to topology.Endpoint, model topology.Model) bool {
	is4 := to.Addr.Addr().Is4()
	switch {
	case len(a.engines) > 0 && !slices.Contains(a.engines, to.Engine),
		a.model != "" && a.model != model, a.only6 && is4, a.only4 && !is4:
		return false
	}
	return true
}

// script is a client with what its engine's protocol says.
type script struct {
	*client
	wire    wire
	between func() error
}

// discard is a peculiarity for which a server throws a segment away that others may have seen.
type discard func(s *script, g *Segment)

// bait sends what begins TLS, in a way that the server will not take, and after it plaintext in the same place.
func bait(how discard) func(*script) {
	return func(s *script) {
		s.connect()
		g := Segment{Flags: capture.ACK | capture.PSH, Data: s.wire.opening()}
		how(s, &g)
		s.send(g)
		s.settle()
		s.data(0, s.wire.plain)
	}
}

// segments move bytes around in the sequence space.
func segments() []Attempt {
	return []Attempt{
		{Name: "plaintext", Idea: "nothing looks at it", play: func(s *script) { s.connect(); s.data(0, s.wire.plain) }},
		{Name: "plaintext with the handshake's last packet", Idea: "a connection is looked at once it stands", play: func(s *script) {
			s.ask(Segment{})
			p, ok := s.await(func(p capture.Packet) bool { return p.Flags.Has(capture.SYN | capture.ACK) })
			if ok {
				s.ack = p.Seq + 1
				s.data(0, s.wire.plain)
			}
		}},
		{Name: "second segment first", Idea: "only a first segment is looked at", play: func(s *script) {
			s.connect()
			s.data(1, s.wire.plain[1:])
			s.data(0, s.wire.plain[:1])
		}},
		{Name: "one byte a segment", Idea: "a byte tells nothing", play: func(s *script) {
			s.connect()
			for i := range s.wire.plain {
				s.data(i, s.wire.plain[i:i+1])
			}
		}},
		{Name: "overlap before the first byte", Idea: "a segment that begins before the stream is not at its beginning", play: func(s *script) {
			s.connect()
			s.data(-1, append([]byte("x"), s.wire.plain...))
		}},
		{Name: "hello before the first byte", Idea: "what begins with a hello is one, wherever it begins", play: func(s *script) {
			const before = 80
			s.connect()
			s.data(-before, append(s.padded(before), s.wire.plain...))
		}},
		{Name: "overlap after a bait", Idea: "as before, once the beginning was looked at", play: func(s *script) {
			s.connect()
			s.send(Segment{Flags: capture.ACK | capture.PSH, Data: s.wire.opening(), Stale: true})
			s.settle()
			s.data(-3, append([]byte("xyz"), s.wire.plain...))
		}},
		{Name: "plaintext in front of a hello", Idea: "what is queued is not looked at", play: func(s *script) {
			s.connect()
			s.data(3, s.wire.plain[3:])
			s.data(0, s.wire.plain[:3])
			s.data(0, s.wire.opening())
		}},
		{Name: "first bytes of a record, then plaintext", Idea: "two bytes are taken for TLS", play: func(s *script) {
			s.connect()
			s.data(0, append([]byte{0x16, 3, 1}, s.wire.plain...))
		}},
		{Name: "record and command in one", Idea: "a version of CR LF is no version", play: func(s *script) {
			s.connect()
			s.data(0, append([]byte("\x16\x03\r\n"), s.wire.plain...))
		}},
		{Name: "record header alone, then plaintext", Idea: "five bytes are taken for TLS", play: func(s *script) {
			s.connect()
			s.data(0, []byte{0x16, 3, 1, 0, 0xff})
			s.settle()
			s.data(5, s.wire.plain)
		}},
		{Name: "SSLv2 hello", Idea: "an older hello is let through", play: func(s *script) {
			s.connect()
			s.data(0, append([]byte{0x80, 0x2e, 1, 3, 1, 0, 21, 0, 0, 0, 16}, s.wire.plain...))
		}},
		{Name: "SSL 3 record", Idea: "an older record is let through", play: func(s *script) {
			s.connect()
			// The hello in it asks for TLS 1.2, so that nothing but the record's own version tells.
			s.data(0, append([]byte{0x16, 3, 0, 2, 0, 1, 0, 1, 0xfc, 3, 3}, s.wire.plain...))
		}},
		{Name: "alert, then plaintext", Idea: "any record is let through", play: func(s *script) {
			s.connect()
			s.data(0, append([]byte{0x15, 3, 1, 0, 2, 1, 0}, s.wire.plain...))
		}},
	}
}

// peculiar use what ordinary clients hardly ever do.
func peculiar() []Attempt {
	return []Attempt{
		{Name: "urgent byte", Idea: "the urgent pointer moves the beginning", play: func(s *script) {
			s.connect()
			s.send(Segment{Flags: capture.ACK | capture.PSH, Data: append([]byte("x"), s.wire.plain...), Urgent: 1})
		}},
		{Name: "urgent bait", Idea: "a byte out of band is not in the stream", play: func(s *script) {
			s.connect()
			s.send(Segment{Flags: capture.ACK | capture.PSH, Data: s.wire.opening()[:1], Urgent: 1})
			s.settle()
			s.data(1, s.wire.plain)
		}},
		{Name: "zero window", Idea: "a server that may not speak cannot give the plaintext away", play: func(s *script) {
			s.connect()
			s.send(Segment{Flags: capture.ACK | capture.PSH, Data: s.wire.plain, ZeroWindow: true})
		}},
		{Name: "plaintext with the end of the stream", Idea: "what ends a connection is let through", play: func(s *script) {
			s.connect()
			s.send(Segment{Flags: capture.ACK | capture.FIN, Data: s.wire.plain})
		}},
		{Name: "numbers wrap around", Idea: "sequence numbers are compared as integers", play: func(s *script) {
			s.isn = 0xffff_fffc
			s.connect()
			s.data(2, s.wire.plain[2:])
			s.data(0, s.wire.plain[:2])
		}},
		{Name: "numbers wrap around behind a bait", Idea: "as before, once the beginning was looked at", play: func(s *script) {
			s.isn = 0xffff_fffe
			s.connect()
			s.send(Segment{Flags: capture.ACK | capture.PSH, Data: s.wire.opening(), Stale: true})
			s.settle()
			s.data(-1, append([]byte("x"), s.wire.plain...))
		}},
	}
}
