// Package capture watches the packets of a network namespace: every interface but lo, both directions, without loss or
// with an error that says so. It judges nothing.
//
// A packet is seen where it enters before any netfilter hook but those of device ingress, and where it leaves after all
// of them, so source and destination are those of the wire.
package capture

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"drawbridge/topology/flow"
)

// Packet is one IP packet at one interface.
type Packet struct {
	At       time.Time // when the kernel saw it
	Iface    string
	Outgoing bool // it left by Iface; otherwise it entered there
	Flow     flow.Flow
	Flags    TCPFlags // TCP only, as are Seq and Ack
	Seq, Ack uint32
	ICMP     ICMP // ICMP and ICMPv6 only
	// Fragment is set for all but the first fragment of a datagram: Flow has no ports.
	Fragment bool
	Payload  []byte // behind the transport header; the packet's own copy, as is Raw
	Raw      []byte // from the Ethernet header on, at most MaxFrame bytes
	Length   int    // of the whole packet, Ethernet header included
}

// Truncated reports whether the packet was longer than what was captured of it.
func (p Packet) Truncated() bool { return p.Length > len(p.Raw) }

// TCPFlags is the control bits octet of a TCP header (RFC 9293 section 3.1).
type TCPFlags uint8

// The control bits.
const (
	FIN TCPFlags = 1 << iota
	SYN
	RST
	PSH
	ACK
	URG
	ECE
	CWR
)

// Has reports whether every one of the bits is set.
func (f TCPFlags) Has(bits TCPFlags) bool { return f&bits == bits }

// String prints the bits from the lowest, as in "syn,ack".
func (f TCPFlags) String() string {
	var set []string
	for i, name := range []string{"fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr"} {
		if f&(1<<i) != 0 {
			set = append(set, name)
		}
	}
	return strings.Join(set, ",")
}

// ICMP is the header of an ICMP (RFC 792) or ICMPv6 (RFC 4443) message.
type ICMP struct {
	Type, Code uint8
	ID, Seq    uint16 // echo and echo reply only
	// Quoted is the packet that an error message is about, as the sender of the error saw it.
	Quoted flow.Flow
}

// Echo reports whether the message is an echo request of either family; reply asks for the reply instead.
func (p Packet) Echo(reply bool) bool {
	switch p.Flow.Proto {
	case flow.ICMP:
		return p.ICMP.Type == 8 && !reply || p.ICMP.Type == 0 && reply
	case flow.ICMPv6:
		return p.ICMP.Type == 128 && !reply || p.ICMP.Type == 129 && reply
	}
	return false
}

// errNotIP is returned by Decode for frames that carry no complete IP header (ARP, for instance).
var errNotIP = errors.New("no IP packet")

const (
	ethernetHeader = 14
	etherTypeIPv4  = 0x0800
	etherTypeIPv6  = 0x86dd
)

// Decode fills in all of a packet but where and when it was seen. It keeps raw. What is behind a header that does not
// fit stays zero: the addresses of a broken packet are still worth seeing.
func Decode(raw []byte) (Packet, error) {
	if len(raw) < ethernetHeader {
		return Packet{}, errNotIP
	}
	p := Packet{Raw: raw, Length: len(raw)}
	var err error
	switch binary.BigEndian.Uint16(raw[12:]) {
	case etherTypeIPv4, etherTypeIPv6:
		err = p.decodeIP(raw[ethernetHeader:])
	default:
		err = errNotIP
	}
	return p, err
}

func (p *Packet) decodeIP(b []byte) error {
	h, body, err := splitIP(b)
	if err != nil {
		return err
	}
	p.Flow, p.Fragment, p.Payload = h.flow, h.fragment, body
	if h.fragment {
		return nil
	}
	p.Flow = withPorts(h.flow, body)
	switch h.flow.Proto {
	case flow.TCP:
		p.decodeTCP(body)
	case flow.UDP:
		p.Payload = after(body, 8)
	case flow.SCTP:
		p.Payload = after(body, 12)
	case flow.ICMP, flow.ICMPv6:
		p.decodeICMP(body)
	}
	return nil
}

func (p *Packet) decodeTCP(b []byte) {
	if len(b) < 20 {
		return
	}
	p.Seq, p.Ack = binary.BigEndian.Uint32(b[4:]), binary.BigEndian.Uint32(b[8:])
	p.Flags = TCPFlags(b[13])
	p.Payload = after(b, int(b[12]>>4)*4)
}

func (p *Packet) decodeICMP(b []byte) {
	if len(b) < 8 {
		return
	}
	p.ICMP.Type, p.ICMP.Code, p.Payload = b[0], b[1], b[8:]
	if p.Echo(false) || p.Echo(true) {
		p.ICMP.ID, p.ICMP.Seq = binary.BigEndian.Uint16(b[4:]), binary.BigEndian.Uint16(b[6:])
		return
	}
	if !isError(p.Flow.Proto, b[0]) {
		return
	}
	if h, body, err := splitIP(b[8:]); err == nil {
		p.ICMP.Quoted = withPorts(h.flow, body)
	}
}

// isError: ICMP destination unreachable, source quench, redirect, time exceeded, parameter problem; ICMPv6 types below 128.
func isError(proto flow.Protocol, typ uint8) bool {
	if proto == flow.ICMPv6 {
		return typ < 128
	}
	return typ == 3 || typ == 4 || typ == 5 || typ == 11 || typ == 12
}

// ipHeader is what decode needs of an IP header of either version. The flow has no ports yet.
type ipHeader struct {
	flow     flow.Flow
	fragment bool
}

func splitIP(b []byte) (ipHeader, []byte, error) {
	if len(b) == 0 {
		return ipHeader{}, nil, errNotIP
	}
	switch b[0] >> 4 {
	case 4:
		return splitIPv4(b)
	case 6:
		return splitIPv6(b)
	}
	return ipHeader{}, nil, errNotIP
}

func splitIPv4(b []byte) (ipHeader, []byte, error) {
	if len(b) < 20 {
		return ipHeader{}, nil, errNotIP
	}
	size, total := int(b[0]&0xf)*4, int(binary.BigEndian.Uint16(b[2:]))
	if size < 20 || size > len(b) {
		return ipHeader{}, nil, fmt.Errorf("%w: header length %d", errNotIP, size)
	}
	if total >= size && total < len(b) {
		b = b[:total] // the rest is Ethernet padding
	}
	src, dst := netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
	h := ipHeader{flow: flowBetween(flow.Protocol(b[9]), src, dst), fragment: binary.BigEndian.Uint16(b[6:])&0x1fff != 0}
	return h, b[size:], nil
}

// Next header values that are extension headers (RFC 8200 section 4; RFC 4302 for AH).
const (
	extHopByHop, extRouting, extFragment, extAuthentication, extDestination = 0, 43, 44, 51, 60
)

func splitIPv6(b []byte) (ipHeader, []byte, error) {
	if len(b) < 40 {
		return ipHeader{}, nil, errNotIP
	}
	if total := 40 + int(binary.BigEndian.Uint16(b[4:])); total < len(b) {
		b = b[:total]
	}
	src, dst := netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40]))
	next, body := b[6], b[40:]
	h := ipHeader{}
	for !h.fragment && len(body) >= 8 {
		size := 0
		switch next {
		case extHopByHop, extRouting, extDestination:
			size = (int(body[1]) + 1) * 8
		case extAuthentication:
			size = (int(body[1]) + 2) * 4
		case extFragment:
			size = 8
			h.fragment = binary.BigEndian.Uint16(body[2:])&0xfff8 != 0
		}
		if size == 0 || size > len(body) {
			break
		}
		next, body = body[0], body[size:]
	}
	h.flow = flowBetween(flow.Protocol(next), src, dst)
	return h, body, nil
}

func flowBetween(proto flow.Protocol, src, dst netip.Addr) flow.Flow {
	return flow.Flow{Proto: proto, Src: netip.AddrPortFrom(src, 0), Dst: netip.AddrPortFrom(dst, 0)}
}

// withPorts adds the ports, which TCP, UDP and SCTP all have in their first four bytes.
func withPorts(f flow.Flow, body []byte) flow.Flow {
	switch f.Proto {
	case flow.TCP, flow.UDP, flow.SCTP:
		if len(body) >= 4 {
			f.Src = netip.AddrPortFrom(f.Src.Addr(), binary.BigEndian.Uint16(body))
			f.Dst = netip.AddrPortFrom(f.Dst.Addr(), binary.BigEndian.Uint16(body[2:]))
		}
	}
	return f
}

func after(b []byte, n int) []byte {
	if n > len(b) {
		return nil
	}
	return b[n:]
}
