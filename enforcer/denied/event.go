// Package denied hears from the kernel who was denied, through an nflog group: pure decoding beside one thin socket, and a
// bounded memory of the latest. What is heard is a sample: the rules that tell it are rate-limited, so that a flood costs
// nothing.
//
// The socket is that of enforcer/nlsocket, which this project has anyway; a library for nflog would bring a second one.
package denied

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Event is one packet that was denied.
type Event struct {
	Source netip.Addr     `json:"source"`
	To     netip.AddrPort `json:"to"`
	// Why is what the rule that told it says: one of the prefixes of enforcer/compile.
	Why string    `json:"why"`
	At  time.Time `json:"at"`
}

// What golang.org/x/sys does not name (linux/netfilter/nfnetlink_log.h).
const (
	nfulnlMessagePacket = 0
	nfulnlMessageConfig = 1

	nfulaPayload = 9
	nfulaPrefix  = 10

	nfulaConfigCommand = 1
	nfulaConfigMode    = 2
	nfulaConfigTimeout = 4 // hundredths of a second
	nfulaConfigQueue   = 5

	commandBind = 1
	copyPacket  = 2
)

// errMalformed: what the kernel sent could not be read.
var errMalformed = errors.New("malformed nflog packet")

// headerSize is that of nfgenmsg (linux/netfilter/nfnetlink.h).
const headerSize = 4

// parse reads one message of the group; not ok if it is none about a packet.
func parse(m netlink.Message, now time.Time) (e Event, ok bool, err error) {
	if m.Header.Type != messageType(nfulnlMessagePacket) {
		return Event{}, false, nil
	}
	if len(m.Data) < headerSize {
		return Event{}, true, errMalformed
	}
	ad, err := netlink.NewAttributeDecoder(m.Data[headerSize:])
	if err != nil {
		return Event{}, true, fmt.Errorf("%w: %w", errMalformed, err)
	}
	e.At = now
	var packet []byte
	for ad.Next() {
		switch ad.Type() {
		case nfulaPrefix:
			e.Why = strings.TrimRight(ad.String(), "\x00")
		case nfulaPayload:
			packet = ad.Bytes()
		}
	}
	if err := ad.Err(); err != nil {
		return Event{}, true, fmt.Errorf("%w: %w", errMalformed, err)
	}
	e.Source, e.To, err = addresses(packet)
	return e, true, err
}

func messageType(kind int) netlink.HeaderType {
	return netlink.HeaderType(unix.NFNL_SUBSYS_ULOG<<8 | kind)
}

// Sizes and places in headers (RFC 791 section 3.1, RFC 8200 section 3, RFC 9293 section 3.1).
const (
	ipv4Header  = 20
	ipv6Header  = 40
	wordSize    = 4
	portsSize   = 4
	protocolTCP = 6
)

// addresses reads the head of a packet. Without a TCP header behind the IP header the port is 0.
func addresses(p []byte) (source netip.Addr, to netip.AddrPort, err error) {
	var dest netip.Addr
	var protocol byte
	header := ipv6Header
	switch {
	case len(p) >= ipv4Header && p[0]>>4 == 4:
		source, dest = netip.AddrFrom4([4]byte(p[12:16])), netip.AddrFrom4([4]byte(p[16:20]))
		protocol, header = p[9], int(p[0]&0xf)*wordSize
	case len(p) >= ipv6Header && p[0]>>4 == 6:
		source, dest = netip.AddrFrom16([16]byte(p[8:24])), netip.AddrFrom16([16]byte(p[24:40]))
		protocol = p[6]
	default:
		return source, to, fmt.Errorf("%w: %d bytes of a packet", errMalformed, len(p))
	}
	var port uint16
	if protocol == protocolTCP && header >= ipv4Header && len(p) >= header+portsSize {
		port = binary.BigEndian.Uint16(p[header+2:])
	}
	return source, netip.AddrPortFrom(dest, port), nil
}
