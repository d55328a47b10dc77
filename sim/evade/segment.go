package evade

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"

	"drawbridge/sim/capture"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

// Segment is one TCP segment, with everything about it that an ordinary client has no say in. The zero value of every
// field is what an ordinary client would send.
type Segment struct {
	// At is the distance of the segment from the first byte of the client's stream; a SYN stands at -1.
	At    int
	Flags capture.TCPFlags
	Data  []byte
	// AckBy is added to the number that it acknowledges.
	AckBy int32
	// Urgent is the urgent pointer; 0 leaves it and the flag out.
	Urgent uint16
	// ZeroWindow tells the server to say nothing.
	ZeroWindow bool
	// Stale carries a timestamp that the server discards the segment for (PAWS, RFC 7323 section 5.3).
	Stale bool
	// Options stand in front of the timestamps.
	Options []layers.TCPOption
	BadSum  bool
	TTL     uint8 // 0: 64
	// IPOptions are options of the IPv4 header, a multiple of four bytes.
	IPOptions []byte
	// Extensions are extension headers of IPv6, in order.
	Extensions []Extension
	// Fragments cuts the segment, header included, into the data of IP datagrams; nil: one datagram, no fragments.
	Fragments func(segment []byte) []Fragment
}

// Extension is an extension header of IPv6 (RFC 8200 section 4): its own type, and all of it but the byte that names the next.
type Extension struct {
	Type byte
	Body []byte
}

// Fragment is a piece of a datagram. Offset is in bytes, a multiple of 8.
type Fragment struct {
	Offset int
	Data   []byte
	More   bool
}

// TCP options beside those that gopacket names (IANA, "TCP Option Kind Numbers").
const (
	optionMD5      = 19
	optionMPTCP    = 30
	optionFastOpen = 34
)

const (
	defaultTTL    = 64
	ethernetTypes = 12 // offset of the type in an Ethernet header
)

// header is what a segment needs to know of its connection.
type header struct {
	local, remote netip.AddrPort
	seq, ack      uint32
	clock, echo   uint32
	window        uint16
	stamps        bool
	id            uint32 // of fragments
}

// encode returns the IP datagrams of a segment.
func (s Segment) encode(h header) ([][]byte, error) {
	tcp, err := s.encodeTCP(h)
	if err != nil {
		return nil, fmt.Errorf("encode a segment: %w", err)
	}
	pieces := []Fragment{{Data: tcp}}
	if s.Fragments != nil {
		pieces = s.Fragments(tcp)
	}
	var out [][]byte
	for _, p := range pieces {
		datagram, err := s.encodeIP(h, p)
		if err != nil {
			return nil, fmt.Errorf("encode a datagram: %w", err)
		}
		out = append(out, datagram)
	}
	return out, nil
}

func (s Segment) encodeTCP(h header) ([]byte, error) {
	tcp := &layers.TCP{
		SrcPort: layers.TCPPort(h.local.Port()), DstPort: layers.TCPPort(h.remote.Port()),
		Seq: h.seq, Ack: h.ack + uint32(s.AckBy), Window: h.window, Urgent: s.Urgent, URG: s.Urgent > 0,
		FIN: s.Flags.Has(capture.FIN), SYN: s.Flags.Has(capture.SYN), RST: s.Flags.Has(capture.RST),
		PSH: s.Flags.Has(capture.PSH), ACK: s.Flags.Has(capture.ACK), Options: s.Options,
	}
	if !tcp.ACK {
		tcp.Ack = 0
	}
	if s.ZeroWindow {
		tcp.Window = 0
	}
	if h.stamps {
		tcp.Options = append(tcp.Options[:len(tcp.Options):len(tcp.Options)], stamp(h, s.Stale))
	}
	src, dst := net.IP(h.local.Addr().AsSlice()), net.IP(h.remote.Addr().AsSlice())
	var network gopacket.NetworkLayer = &layers.IPv6{SrcIP: src, DstIP: dst}
	if h.local.Addr().Is4() {
		network = &layers.IPv4{SrcIP: src, DstIP: dst, Protocol: layers.IPProtocolTCP}
	}
	if err := tcp.SetNetworkLayerForChecksum(network); err != nil {
		return nil, err
	}
	buf := gopacket.NewSerializeBuffer()
	err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, tcp, gopacket.Payload(s.Data))
	out := append([]byte(nil), buf.Bytes()...)
	if err == nil && s.BadSum {
		out[tcpChecksum] ^= 0x55
	}
	return out, err
}

// tcpChecksum is the checksum's offset in a TCP header (RFC 9293 section 3.1).
const tcpChecksum = 16

// staleBy is how far back a stale timestamp lies. The clocks count milliseconds.
const staleBy = 500_000

func stamp(h header, stale bool) layers.TCPOption {
	clock := h.clock
	if stale {
		clock -= staleBy
	}
	data := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, clock), h.echo)
	return layers.TCPOption{OptionType: layers.TCPOptionKindTimestamps, OptionLength: 10, OptionData: data}
}

func (s Segment) encodeIP(h header, p Fragment) ([]byte, error) {
	ttl := s.TTL
	if ttl == 0 {
		ttl = defaultTTL
	}
	fragmented := s.Fragments != nil
	buf := gopacket.NewSerializeBuffer()
	sums := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	var err error
	if h.local.Addr().Is4() {
		ip := &layers.IPv4{Version: 4, IHL: 5, TTL: ttl, Id: uint16(h.id), Protocol: layers.IPProtocolTCP,
			SrcIP: h.local.Addr().AsSlice(), DstIP: h.remote.Addr().AsSlice(), FragOffset: uint16(p.Offset / 8)}
		if p.More {
			ip.Flags = layers.IPv4MoreFragments
		}
		if len(s.IPOptions) > 0 {
			ip.Options = ipv4Options(s.IPOptions)
		}
		err = gopacket.SerializeLayers(buf, sums, ip, gopacket.Payload(p.Data))
	} else {
		chain := s.Extensions
		if fragmented {
			chain = append(chain[:len(chain):len(chain)], fragmentHeader(h.id, p))
		}
		next, body := chained(chain, p.Data)
		ip := &layers.IPv6{Version: 6, HopLimit: ttl, NextHeader: layers.IPProtocol(next),
			SrcIP: h.local.Addr().AsSlice(), DstIP: h.remote.Addr().AsSlice()}
		// The next header by hand: gopacket would write a hop-by-hop header of its own.
		err = gopacket.SerializeLayers(buf, sums, ip, gopacket.Payload(body))
	}
	return append([]byte(nil), buf.Bytes()...), err
}

// ipv4Options cuts raw options apart as gopacket wants them: type, length, data (RFC 791 section 3.1).
func ipv4Options(raw []byte) []layers.IPv4Option {
	var out []layers.IPv4Option
	for len(raw) > 0 {
		if raw[0] <= 1 || len(raw) < 2 || int(raw[1]) > len(raw) || raw[1] < 2 { // end of list, no operation
			out = append(out, layers.IPv4Option{OptionType: raw[0], OptionLength: 1})
			raw = raw[1:]
			continue
		}
		out = append(out, layers.IPv4Option{OptionType: raw[0], OptionLength: raw[1], OptionData: raw[2:raw[1]]})
		raw = raw[raw[1]:]
	}
	return out
}

const protocolTCP = 6

// chained writes extension headers in front of a payload; next is the type of the first header.
func chained(chain []Extension, payload []byte) (next byte, out []byte) {
	next = protocolTCP
	out = payload
	for i := len(chain) - 1; i >= 0; i-- {
		header := append([]byte{next}, chain[i].Body...)
		out = append(header, out...)
		next = chain[i].Type
	}
	return next, out
}

// Types of extension headers (RFC 8200 section 4).
const (
	extHopByHop, extRouting, extFragment, extDestination = 0, 43, 44, 60
)

func fragmentHeader(id uint32, p Fragment) Extension {
	offset := uint16(p.Offset)
	if p.More {
		offset |= 1
	}
	body := binary.BigEndian.AppendUint16([]byte{0}, offset)
	return Extension{extFragment, binary.BigEndian.AppendUint32(body, id)}
}

// padding is an extension header of n times eight bytes that says nothing (PadN, RFC 8200 section 4.2).
func padding(kind byte, n int) Extension {
	body := make([]byte, n*8-1)
	body[0], body[1], body[2] = byte(n-1), 1, byte(n*8-4)
	return Extension{kind, body}
}
