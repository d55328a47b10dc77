package proof

import (
	"encoding/binary"
	"net/netip"

	"drawbridge/enforcer/reach"
	"drawbridge/enforcer/ruleset"
)

// Values that packets and the kernel fix.
const (
	nfprotoIPv4 = 2  // include/uapi/linux/netfilter.h: NFPROTO_IPV4
	nfprotoIPv6 = 10 // NFPROTO_IPV6

	protoICMP   = 1   // IANA
	protoTCP    = 6   // IANA
	protoUDP    = 17  // IANA
	protoICMPv6 = 58  // IANA
	protoOther  = 253 // RFC 3692: for experiments; stands for all protocols without ports

	echoRequest   = 8   // RFC 792
	echoRequestV6 = 128 // RFC 4443

	flagSYN = 0x02 // RFC 9293 section 3.1
	flagPSH = 0x08
	flagACK = 0x10

	stateEstablished = 2 // include/uapi/linux/netfilter/nf_conntrack_common.h
	stateNew         = 8

	directionOriginal = 0 // include/uapi/linux/netfilter/nf_conntrack_tuple_common.h
	directionReply    = 1

	loIndex = 1 // include/net/flow.h: LOOPBACK_IFINDEX

	moreFragments = 0x2000 // RFC 791 section 3.1
	someOffset    = 0x0010

	ifnameSize = 16 // include/uapi/linux/if.h: IFNAMSIZ
	anyIndex   = 2  // of an interface that is not lo
)

// family holds the fields of IPv4 or IPv6.
type family struct {
	nfproto      byte
	saddr, daddr ruleset.FieldKind
}

func familyOf(a netip.Addr) family {
	if a.Is4() {
		return family{nfprotoIPv4, ruleset.IPSaddr, ruleset.IPDaddr}
	}
	return family{nfprotoIPv6, ruleset.IP6Saddr, ruleset.IP6Daddr}
}

// Values that thousands of packets have in common.
var (
	bytesOf       = [...][]byte{{0}, {1}}
	loopbackIndex = native(loIndex)
	otherIndex    = native(anyIndex)
	freshState    = native(stateNew)
	plainFields   = []struct {
		kind  ruleset.FieldKind
		value []byte
	}{
		{ruleset.CTMark, native(0)}, {ruleset.CTID, native(1)}, {ruleset.TCPOptionMPTCP, bytesOf[0]}, {ruleset.TCPOptionFastOpen, bytesOf[0]},
		{ruleset.TCPSeq, []byte{0, 0, 0, 1}}, {ruleset.TCPAckSeq, []byte{0, 0, 0, 1}},
	}
)

func native(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }

func ifname(name string) []byte {
	b := make([]byte, ifnameSize)
	copy(b, name)
	return b
}

// toServer are packets to an address by an interface, of which nothing else is known.
func toServer(to netip.Addr, iface string, proto byte) reach.Packet {
	f := familyOf(to)
	p := reach.Packet{Hook: ruleset.HookPrerouting, Client: f.saddr, NotLoopback: true}
	p.Known.Set(f.daddr, to.AsSlice())
	p.Known.Set(ruleset.MetaIIFName, ifname(iface))
	return f.protocol(p, proto)
}

// toClient are answers of an address that leave by an interface.
func toClient(from netip.Addr, iface string, proto byte) reach.Packet {
	f := familyOf(from)
	p := reach.Packet{Hook: ruleset.HookPostrouting, Client: f.daddr, NotLoopback: true}
	p.Known.Set(f.saddr, from.AsSlice())
	p.Known.Set(ruleset.MetaOIFName, ifname(iface))
	return f.protocol(p, proto)
}

func (f family) protocol(p reach.Packet, proto byte) reach.Packet {
	p.Known.Set(ruleset.MetaNFProto, []byte{f.nfproto})
	p.Known.Set(ruleset.MetaL4Proto, []byte{proto})
	return p
}

func withPort(p reach.Packet, k ruleset.FieldKind, port uint16) reach.Packet {
	p.Known.Set(k, binary.BigEndian.AppendUint16(nil, port))
	return p
}

// anything are all TCP packets to a port: whatever their flags, whatever they carry, whatever is known of their connection.
func anything(to netip.AddrPort, iface string) reach.Packet {
	return fragmented(withPort(toServer(to.Addr(), iface, protoTCP), ruleset.THDport, to.Port()), 0, false)
}

// firstFragment are first fragments, which show their port.
func firstFragment(to netip.AddrPort, iface string) reach.Packet {
	return fragmented(anything(to, iface), moreFragments, true)
}

// fragmented says whether packets are fragments: the field of IPv4 (RFC 791 section 3.1), the header of IPv6.
func fragmented(p reach.Packet, v4 uint16, v6 bool) reach.Packet {
	p.Known.Set(ruleset.IPFragOff, binary.BigEndian.AppendUint16(nil, v4))
	p.Known.Set(ruleset.ExthdrFragExists, bytesOf[0])
	if v6 {
		p.Known.Set(ruleset.ExthdrFragExists, bytesOf[1])
	}
	return p
}

// syn is the SYN of an ordinary client, whose route is where it comes from.
func syn(to netip.AddrPort, iface string) reach.Packet {
	p := anything(to, iface)
	p.Known.Set(ruleset.FibSaddrIIFOIF, otherIndex)
	return plain(p, flagSYN, stateNew, directionOriginal)
}

// synAck is a server's answer to a SYN.
func synAck(from netip.AddrPort, iface string) reach.Packet {
	return plain(fragmented(data(from, iface), 0, false), flagSYN|flagACK, stateEstablished, directionReply)
}

// data are all TCP packets of a port that carry a byte: whatever their flags, whatever is known of their connection.
func data(from netip.AddrPort, iface string) reach.Packet {
	p := withPort(toClient(from.Addr(), iface, protoTCP), ruleset.THSport, from.Port())
	p.Payload.Length = reach.Some
	return p
}

// plain is a packet without payload, options and fragmentation.
func plain(p reach.Packet, flags byte, state uint32, direction byte) reach.Packet {
	p.Payload.Length = reach.Empty
	p.Room = true
	p.Known.Set(ruleset.TCPFlags, []byte{flags})
	p.Known.Set(ruleset.CTState, native(state))
	p.Known.Set(ruleset.CTDirection, bytesOf[direction])
	for _, f := range plainFields {
		p.Known.Set(f.kind, f.value)
	}
	return p
}

// fragment is a fragment of TCP, which does not show its port.
func fragment(to netip.Addr, iface string) reach.Packet {
	p := toServer(to, iface, protoTCP)
	p.Missing = []ruleset.FieldKind{ruleset.THSport, ruleset.THDport, ruleset.TCPFlags, ruleset.TCPSeq, ruleset.TCPAckSeq, ruleset.TCPOptionMPTCP, ruleset.TCPOptionFastOpen}
	p.Payload.Length = reach.Empty
	return fragmented(p, someOffset, true)
}

// opening is a packet that may begin something: conntrack knows no connection that it belongs to.
func opening(p reach.Packet) reach.Packet {
	p.Known.Set(ruleset.CTState, freshState)
	p.Known.Set(ruleset.CTDirection, bytesOf[directionOriginal])
	return p
}

// udp, icmp and other are what opens something over other protocols than TCP.
func udp(to netip.AddrPort, iface string) reach.Packet {
	return opening(withPort(toServer(to.Addr(), iface, protoUDP), ruleset.THDport, to.Port()))
}

func icmp(to netip.Addr, iface string) reach.Packet {
	p := opening(toServer(to, iface, protoICMP))
	p.Known.Set(ruleset.ICMPType, []byte{echoRequest})
	if !to.Is4() {
		p = opening(toServer(to, iface, protoICMPv6))
		p.Known.Set(ruleset.ICMPv6Type, []byte{echoRequestV6})
	}
	p.Missing = []ruleset.FieldKind{ruleset.THSport, ruleset.THDport}
	return p
}

func other(to netip.Addr, iface string) reach.Packet {
	p := opening(toServer(to, iface, protoOther))
	p.Missing = []ruleset.FieldKind{ruleset.THSport, ruleset.THDport}
	return p
}
