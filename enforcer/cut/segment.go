package cut

import (
	"encoding/binary"
	"math"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Lengths and offsets in IP and TCP headers (RFC 791, RFC 8200, RFC 9293).
const (
	ipv4HeaderLen = 20
	ipv6HeaderLen = 40
	tcpHeaderLen  = 20

	ipv4TotalLenAt  = 2
	ipv4FragmentAt  = 6
	ipv4ProtocolAt  = 9
	ipv4ChecksumAt  = 10
	ipv4SrcAt       = 12
	ipv4DstAt       = 16
	ipv6PayloadAt   = 4
	ipv6NextAt      = 6
	ipv6HopLimitAt  = 7
	ipv6SrcAt       = 8
	ipv6DstAt       = 24
	tcpSeqAt        = 4
	tcpAckAt        = 8
	tcpDataOffsetAt = 12
	tcpFlagsAt      = 13
	tcpWindowAt     = 14
	tcpChecksumAt   = 16

	fragmentMask = 0x3fff // more fragments, and the offset
	hopLimit     = 64     // RFC 1700
)

// TCP flags.
const (
	flagFIN = 0x01
	flagSYN = 0x02
	flagRST = 0x04
	flagACK = 0x10
)

// segment is a TCP segment.
type segment struct {
	tuple
	flags    uint8
	seq, ack uint32
	length   uint32 // of the payload, with FIN counted; segments that are sent have none
}

// marshal writes an IP packet with the segment.
func (s segment) marshal() []byte {
	src, dst := s.src.Addr(), s.dst.Addr()
	headerLen := ipv6HeaderLen
	if src.Is4() {
		headerLen = ipv4HeaderLen
	}
	b := make([]byte, headerLen+tcpHeaderLen)
	tcp := b[headerLen:]
	binary.BigEndian.PutUint16(tcp[0:], s.src.Port())
	binary.BigEndian.PutUint16(tcp[2:], s.dst.Port())
	binary.BigEndian.PutUint32(tcp[tcpSeqAt:], s.seq)
	binary.BigEndian.PutUint32(tcp[tcpAckAt:], s.ack)
	tcp[tcpDataOffsetAt] = tcpHeaderLen / 4 << 4
	tcp[tcpFlagsAt] = s.flags
	if src.Is4() {
		marshalIPv4(b, src, dst)
	} else {
		marshalIPv6(b, src, dst)
	}
	binary.BigEndian.PutUint16(tcp[tcpChecksumAt:], checksum(pseudoHeader(src, dst)+sum(tcp)))
	return b
}

func marshalIPv4(b []byte, src, dst netip.Addr) {
	b[0] = 4<<4 | ipv4HeaderLen/4
	binary.BigEndian.PutUint16(b[ipv4TotalLenAt:], uint16(len(b)))
	b[8], b[ipv4ProtocolAt] = hopLimit, unix.IPPROTO_TCP
	copy(b[ipv4SrcAt:], src.AsSlice())
	copy(b[ipv4DstAt:], dst.AsSlice())
	binary.BigEndian.PutUint16(b[ipv4ChecksumAt:], checksum(sum(b[:ipv4HeaderLen])))
}

func marshalIPv6(b []byte, src, dst netip.Addr) {
	b[0] = 6 << 4
	binary.BigEndian.PutUint16(b[ipv6PayloadAt:], tcpHeaderLen)
	b[ipv6NextAt], b[ipv6HopLimitAt] = unix.IPPROTO_TCP, hopLimit
	copy(b[ipv6SrcAt:], src.AsSlice())
	copy(b[ipv6DstAt:], dst.AsSlice())
}

// pseudoHeader is the sum over what the TCP checksum covers besides the segment (RFC 9293 section 3.1).
func pseudoHeader(src, dst netip.Addr) uint32 {
	return sum(src.AsSlice()) + sum(dst.AsSlice()) + unix.IPPROTO_TCP + tcpHeaderLen
}

// sum adds up 16-bit words; b has an even length, and few enough for the sum to fit.
func sum(b []byte) (total uint32) {
	for i := 0; i+1 < len(b); i += 2 {
		total += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	return total
}

// checksum is the Internet checksum (RFC 1071).
func checksum(total uint32) uint16 {
	for total > math.MaxUint16 {
		total = total>>16 + total&math.MaxUint16
	}
	return ^uint16(total)
}

// unmarshalSegment reads the headers of a TCP segment in an IP packet, of which only the beginning need be there; ok is
// false for anything else: fragments, IPv6 extension headers, other protocols.
func unmarshalSegment(b []byte) (s segment, ok bool) {
	if len(b) == 0 {
		return s, false
	}
	var src, dst netip.Addr
	var total int
	switch {
	case b[0]>>4 == 4 && len(b) >= ipv4HeaderLen:
		headerLen := int(b[0]&0xf) * 4
		total = int(binary.BigEndian.Uint16(b[ipv4TotalLenAt:])) - headerLen
		if b[ipv4ProtocolAt] != unix.IPPROTO_TCP || binary.BigEndian.Uint16(b[ipv4FragmentAt:])&fragmentMask != 0 || headerLen < ipv4HeaderLen || headerLen > len(b) {
			return s, false
		}
		src, dst = netip.AddrFrom4([4]byte(b[ipv4SrcAt:])), netip.AddrFrom4([4]byte(b[ipv4DstAt:]))
		b = b[headerLen:]
	case b[0]>>4 == 6 && len(b) >= ipv6HeaderLen && b[ipv6NextAt] == unix.IPPROTO_TCP:
		total = int(binary.BigEndian.Uint16(b[ipv6PayloadAt:]))
		src, dst = netip.AddrFrom16([16]byte(b[ipv6SrcAt:])), netip.AddrFrom16([16]byte(b[ipv6DstAt:]))
		b = b[ipv6HeaderLen:]
	default:
		return s, false
	}
	return unmarshalTCP(b, total, src, dst)
}

func unmarshalTCP(b []byte, total int, src, dst netip.Addr) (s segment, ok bool) {
	if len(b) < tcpHeaderLen {
		return s, false
	}
	payload := total - int(b[tcpDataOffsetAt]>>4)*4
	if payload < 0 {
		return s, false
	}
	s.src = netip.AddrPortFrom(src, binary.BigEndian.Uint16(b))
	s.dst = netip.AddrPortFrom(dst, binary.BigEndian.Uint16(b[2:]))
	s.seq, s.ack = binary.BigEndian.Uint32(b[tcpSeqAt:]), binary.BigEndian.Uint32(b[tcpAckAt:])
	s.flags = b[tcpFlagsAt]
	s.length = uint32(payload)
	if s.flags&flagFIN != 0 {
		s.length++
	}
	return s, true
}
