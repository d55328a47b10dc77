package evade

import (
	"crypto/sha256"
	"encoding/binary"

	"drawbridge/sim/capture"

	"github.com/gopacket/gopacket/layers"
)

// Multipath TCP (RFC 8684): subtypes of its option in the upper half of a byte, and flags.
const (
	mpCapable    = 0x01 // subtype 0, version 1 (section 3.1)
	mpSHA256     = 0x01 // flag H
	mpDSS        = 0x20 // subtype 2 (section 3.3)
	mpMapping    = 0x0c // flags M and m: a mapping with a data sequence number of 8 bytes
	mpKeySize    = 8
	mpKeyAt      = 4 // offset of a key in the option
	mpSYNACKSize = 12
)

var mpClientKey = [mpKeySize]byte{1, 2, 3, 4, 5, 6, 7, 8}

func mpOption(data ...byte) layers.TCPOption {
	return layers.TCPOption{OptionType: optionMPTCP, OptionLength: uint8(2 + len(data)), OptionData: data}
}

// multipath are attempts at servers that speak Multipath TCP: which bytes the application reads is not what the sequence numbers
// say, but what the options do.
func multipath(copies int) func(*script) {
	return func(s *script) {
		var asked []layers.TCPOption
		for range copies {
			asked = append(asked, mpOption(mpCapable, mpSHA256))
		}
		s.ask(Segment{Options: asked})
		p, ok := s.await(func(p capture.Packet) bool { return p.Flags.Has(capture.SYN | capture.ACK) })
		if !ok {
			return
		}
		s.ack = p.Seq + 1
		server := mpServerKey(p)
		if server == nil { // the server takes it for ordinary TCP, and so it is
			s.send(Segment{Flags: capture.ACK})
			s.data(0, s.wire.plain)
			return
		}
		s.send(Segment{Flags: capture.ACK, Options: []layers.TCPOption{mpOption(append(append([]byte{mpCapable, mpSHA256}, mpClientKey[:]...), server...)...)}})
		digest := sha256.Sum256(mpClientKey[:])
		start := binary.BigEndian.Uint64(digest[len(digest)-8:]) + 1 // of the client's data (section 3.1)
		hello := s.padded(80)
		// The hello is at the beginning of the subflow and nowhere in the data: its mapping says that all of it came before.
		s.mapped(0, start-uint64(len(hello)), hello)
		s.acknowledged(len(hello))
		s.mapped(len(hello), start, s.wire.plain)
	}
}

// mapped sends bytes at a place of the subflow with a place in the data.
func (s *script) mapped(at int, number uint64, data []byte) {
	dss := binary.BigEndian.AppendUint64([]byte{mpDSS, mpMapping}, number)
	dss = binary.BigEndian.AppendUint32(dss, uint32(at+1)) // relative to the SYN
	dss = binary.BigEndian.AppendUint16(dss, uint16(len(data)))
	s.send(Segment{At: at, Flags: capture.ACK | capture.PSH, Data: data, Options: []layers.TCPOption{mpOption(dss...)}})
}

// mpServerKey is the key in the MP_CAPABLE of a SYN-ACK; nil if there is none.
func mpServerKey(p capture.Packet) []byte {
	header := p.Raw[:len(p.Raw)-len(p.Payload)]
	for i := 0; i+mpSYNACKSize <= len(header); i++ {
		if o := header[i : i+mpSYNACKSize]; o[0] == optionMPTCP && o[1] == mpSYNACKSize && o[2]&0xf0 == 0 {
			return o[mpKeyAt:]
		}
	}
	return nil
}

// Multipath lists the attempts for servers that speak Multipath TCP (ListenMultipath).
func Multipath() []Attempt {
	return []Attempt{
		{Name: "hello outside of the data (Multipath TCP)", Idea: "the application reads what the options say", play: multipath(1)},
		{Name: "hello outside of the data, asked for twice (Multipath TCP)", Idea: "the first option is taken out, the second stays", play: multipath(2)},
	}
}
