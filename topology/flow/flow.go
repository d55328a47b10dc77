// Package flow holds the words for traffic. It matches nothing and decides nothing.
package flow

import (
	"fmt"
	"net/netip"
)

// Protocol is an IP protocol number (IANA, "Assigned Internet Protocol Numbers").
type Protocol uint8

// The protocols that policies and probes speak of.
const (
	ICMP   Protocol = 1
	TCP    Protocol = 6
	UDP    Protocol = 17
	ICMPv6 Protocol = 58
	SCTP   Protocol = 132
)

// String returns the protocol's IANA keyword in lower case, or its number.
func (p Protocol) String() string {
	switch p {
	case ICMP:
		return "icmp"
	case TCP:
		return "tcp"
	case UDP:
		return "udp"
	case ICMPv6:
		return "ipv6-icmp"
	case SCTP:
		return "sctp"
	}
	return fmt.Sprintf("proto-%d", uint8(p))
}

// Flow is one direction of a conversation as it stands on the wire at one place.
type Flow struct {
	Proto    Protocol
	Src, Dst netip.AddrPort
}

// Reverse returns the flow of the answers.
func (f Flow) Reverse() Flow { return Flow{Proto: f.Proto, Src: f.Dst, Dst: f.Src} }

// String prints the flow as "tcp 192.0.2.1:4000 > 198.51.100.2:5432".
func (f Flow) String() string { return fmt.Sprintf("%s %s > %s", f.Proto, f.Src, f.Dst) }
