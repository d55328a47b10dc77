package evade

import (
	"bytes"

	"drawbridge/sim/capture"
)

// cut cuts a segment into fragments at the given offsets, multiples of 8, in order.
func cut(offsets ...int) func([]byte) []Fragment {
	return func(b []byte) []Fragment {
		var out []Fragment
		at := 0
		for _, o := range offsets {
			if o >= len(b) {
				break
			}
			out = append(out, Fragment{at, b[at:o], true})
			at = o
		}
		return append(out, Fragment{at, b[at:], false})
	}
}

func tiny(b []byte) []Fragment { return eights(8, b) }

// small has the whole TCP header in the first fragment: IPv6 hosts insist on it (RFC 7112 section 5).
func small(b []byte) []Fragment { return eights(32, b) }

func eights(from int, b []byte) []Fragment {
	var offsets []int
	for o := from; o < len(b); o += 8 {
		offsets = append(offsets, o)
	}
	return cut(offsets...)(b)
}

func reversed(pieces []Fragment) []Fragment {
	var out []Fragment
	for i := len(pieces) - 1; i >= 0; i-- {
		out = append(out, pieces[i])
	}
	return out
}

// twice sends the last piece twice, the second time with other bytes in it: the first to come is kept.
func twice(b []byte) []Fragment {
	pieces := cut(40)(b)
	last := pieces[len(pieces)-1]
	other := Fragment{last.Offset, bytes.Repeat([]byte{0x16}, len(last.Data)), false}
	return []Fragment{last, other, pieces[0]}
}

func fragmented(how func([]byte) []Fragment) func(*script) {
	return func(s *script) {
		s.connect()
		s.send(Segment{Flags: capture.ACK | capture.PSH, Data: s.wire.plain, Fragments: how})
	}
}

func extended(chain ...Extension) func(*script) {
	return func(s *script) {
		s.connect()
		s.send(Segment{Flags: capture.ACK | capture.PSH, Data: s.wire.plain, Extensions: chain})
	}
}

// whole is a fragment that is all of its datagram (RFC 6946).
func whole(b []byte) []Fragment { return []Fragment{{0, b, false}} }

// datagrams hide the segment in IP.
func datagrams() []Attempt {
	return []Attempt{
		{Name: "two fragments", Idea: "the bytes are in the second", play: fragmented(cut(32))},
		{Name: "tiny fragments", Idea: "not even the flags are in the first (RFC 3128)", only4: true, play: fragmented(tiny)},
		{Name: "small fragments", Idea: "the header is in the first, and nothing else", play: fragmented(small)},
		{Name: "last fragment first", Idea: "what comes first has no header", play: fragmented(func(b []byte) []Fragment { return reversed(cut(24, 40)(b)) })},
		{Name: "fragment sent twice with other bytes", Idea: "the gate keeps one copy, the server the other", play: fragmented(twice)},
		{Name: "bait and plaintext in overlapping fragments", Idea: "the gate puts them together in another way", play: func(s *script) {
			s.connect()
			s.send(Segment{Flags: capture.ACK | capture.PSH, Data: s.wire.plain, Fragments: func(b []byte) []Fragment {
				mask := append([]byte(nil), b...)
				copy(mask[32:], s.wire.opening())
				pieces := cut(32)(b)
				return []Fragment{pieces[0], {24, mask[24:40], true}, pieces[1]}
			}})
			s.settle()
			s.send(Segment{Flags: capture.ACK | capture.PSH, Data: s.wire.plain, Fragments: cut(32)})
		}},
		{Name: "fragment that is all of it", Idea: "a header that says fragment, and none there", only6: true, play: fragmented(whole)},
		{Name: "IPv4 options", Idea: "the TCP header is not where it is looked for", only4: true, play: func(s *script) {
			s.connect()
			s.send(Segment{Flags: capture.ACK | capture.PSH, Data: s.wire.plain, IPOptions: bytes.Repeat([]byte{1}, 40)})
		}},
		{Name: "TCP options up to the end", Idea: "the payload is not where it is looked for", play: func(s *script) {
			s.connect()
			s.send(Segment{Flags: capture.ACK | capture.PSH, Data: s.wire.plain, Options: noOperations(28)})
		}},
		{Name: "hop-by-hop header", Idea: "the TCP header is not where it is looked for", only6: true, play: extended(padding(extHopByHop, 1))},
		{Name: "destination header", Idea: "as before", only6: true, play: extended(padding(extDestination, 1))},
		{Name: "many destination headers", Idea: "as before, and farther away", only6: true, play: extended(
			padding(extDestination, 1), padding(extDestination, 1), padding(extDestination, 1), padding(extDestination, 1),
			padding(extDestination, 1), padding(extDestination, 1), padding(extDestination, 1), padding(extDestination, 1))},
		{Name: "spent routing header", Idea: "as before", only6: true, play: extended(Extension{extRouting, append([]byte{2, 2, 0, 0, 0, 0, 0}, make([]byte, 16)...)})},
		{Name: "destination header in fragments", Idea: "both at once", only6: true, play: func(s *script) {
			s.connect()
			s.send(Segment{Flags: capture.ACK | capture.PSH, Data: s.wire.plain, Extensions: []Extension{padding(extDestination, 1)}, Fragments: small})
		}},
		{Name: "bait in a fragment without its rest", Idea: "half a datagram is looked at", play: func(s *script) {
			s.connect()
			s.send(Segment{Flags: capture.ACK | capture.PSH, Data: s.wire.opening(), Fragments: func(b []byte) []Fragment {
				return cut(len(b) &^ 7)(append(b, make([]byte, 8)...))[:1]
			}})
			s.settle()
			s.data(0, s.wire.plain)
		}},
	}
}
