package cut

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"drawbridge/enforcer/nlsocket"
)

// ctnetlink (linux/netfilter/nfnetlink_conntrack.h), as far as golang.org/x/sys does not name it.
const (
	msgGet    = 1 // IPCTNL_MSG_CT_GET
	msgDelete = 2 // IPCTNL_MSG_CT_DELETE

	attrOriginal  = 1  // CTA_TUPLE_ORIG
	attrReply     = 2  // CTA_TUPLE_REPLY
	attrProtoInfo = 4  // CTA_PROTOINFO
	attrMark      = 8  // CTA_MARK
	attrID        = 12 // CTA_ID
	attrZone      = 18 // CTA_ZONE

	tupleIP    = 1 // CTA_TUPLE_IP
	tupleProto = 2 // CTA_TUPLE_PROTO
	ipv4Src    = 1 // CTA_IP_V4_SRC
	ipv4Dst    = 2
	ipv6Src    = 3
	ipv6Dst    = 4
	protoNum   = 1 // CTA_PROTO_NUM
	protoSrc   = 2 // CTA_PROTO_SRC_PORT
	protoDst   = 3 // CTA_PROTO_DST_PORT

	protoInfoTCP = 1 // CTA_PROTOINFO_TCP
	tcpState     = 1 // CTA_PROTOINFO_TCP_STATE
)

// States of a tracked TCP connection in which an end may have a socket (linux/netfilter/nf_conntrack_tcp.h).
const (
	stateSynRecv     = 2
	stateEstablished = 3
	stateFinWait     = 4
	stateCloseWait   = 5
	stateClose       = 8 // after a reset
)

// tuple is one direction of a connection.
type tuple struct{ src, dst netip.AddrPort }

// tracking is an entry of the connection tracking table.
type tracking struct {
	family          uint8
	original, reply tuple
	mark            uint32
	zone            uint16
	id              []byte // opaque; with it only this very entry can be deleted
	state           uint8
}

// open tells whether either end may still hold a socket.
func (t tracking) open() bool {
	switch t.state {
	case stateSynRecv, stateEstablished, stateFinWait, stateCloseWait:
		return true
	case stateClose:
		// A reset went by. It may have been the gate's own, to a client whose late acknowledgement met the new rules before this
		// cut did: its server knows nothing of it.
		return true
	}
	return false
}

// stands tells whether both ends believe in the connection.
func (t tracking) stands() bool { return t.state == stateEstablished || t.state == stateSynRecv }

// conntrackMessage is a ctnetlink message.
func conntrackMessage(msg uint8, flags netlink.HeaderFlags, family uint8, attributes []byte) netlink.Message {
	return netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(unix.NFNL_SUBSYS_CTNETLINK<<8 | uint16(msg)), Flags: netlink.Request | flags},
		Data:   append([]byte{family, unix.NFNETLINK_V0, 0, 0}, attributes...),
	}
}

// countFile holds the number of tracked connections of the reading thread's network namespace. (ctnetlink's own count
// comes as a list without an end.)
const countFile = "/proc/sys/net/netfilter/nf_conntrack_count"

// noConntrack tells whether this namespace surely tracks no connection. It spares an empty namespace the dump, which
// walks the table of the whole machine (12 ms with 262,144 buckets).
func noConntrack() bool {
	count, err := os.ReadFile(countFile)
	return err == nil && strings.TrimSpace(string(count)) == "0"
}

// lookupConntrack finds the entry whose answers travel in this direction, in the default zone; nil if there is none.
func lookupConntrack(ctx context.Context, c *nlsocket.Socket, answers tuple) (*tracking, error) {
	ae := netlink.NewAttributeEncoder()
	ae.ByteOrder = binary.BigEndian
	ae.Nested(attrReply, func(ae *netlink.AttributeEncoder) error { return marshalTuple(ae, answers) })
	attributes, err := ae.Encode()
	if err != nil {
		return nil, err
	}
	family := uint8(unix.AF_INET6)
	if answers.src.Addr().Is4() {
		family = unix.AF_INET
	}
	replies, err := c.Ask(ctx, conntrackMessage(msgGet, 0, family, attributes))
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look up the tracking entry of %v: %w", answers.dst, err)
	}
	for _, r := range replies {
		if t, ok, err := unmarshalTracking(r.Data); ok || err != nil {
			return &t, err
		}
	}
	return nil, nil
}

// dumpConntrack lists the tracked TCP connections of both families.
func dumpConntrack(ctx context.Context, c *nlsocket.Socket) ([]tracking, error) {
	replies, err := c.Ask(ctx, conntrackMessage(msgGet, netlink.Dump, unix.AF_UNSPEC, nil))
	if err != nil {
		return nil, fmt.Errorf("list tracked connections: %w", err)
	}
	var out []tracking
	for _, r := range replies {
		t, ok, err := unmarshalTracking(r.Data)
		if err != nil {
			return nil, fmt.Errorf("list tracked connections: %w", err)
		}
		if ok {
			out = append(out, t)
		}
	}
	return out, nil
}

var errShort = errors.New("message too short")

// nfgenmsgLen is the length of struct nfgenmsg.
const nfgenmsgLen = 4

// unmarshalTracking reads one entry; ok is false if it is not TCP.
func unmarshalTracking(b []byte) (t tracking, ok bool, err error) {
	if len(b) < nfgenmsgLen {
		return t, false, errShort
	}
	t.family = b[0]
	ad, err := newDecoder(b[nfgenmsgLen:])
	if err != nil {
		return t, false, err
	}
	tcp := false
	for ad.Next() {
		switch ad.Type() {
		case attrOriginal:
			ad.Nested(func(ad *netlink.AttributeDecoder) (err error) { t.original, tcp, err = unmarshalTuple(ad); return err })
		case attrReply:
			ad.Nested(func(ad *netlink.AttributeDecoder) (err error) { t.reply, _, err = unmarshalTuple(ad); return err })
		case attrProtoInfo:
			ad.Nested(func(ad *netlink.AttributeDecoder) error { return unmarshalState(ad, &t.state) })
		case attrMark:
			t.mark = ad.Uint32()
		case attrZone:
			t.zone = ad.Uint16()
		case attrID:
			t.id = ad.Bytes()
		}
	}
	return t, tcp && t.original.complete() && t.reply.complete(), ad.Err()
}

func (t tuple) complete() bool { return t.src.IsValid() && t.dst.IsValid() }

func newDecoder(b []byte) (*netlink.AttributeDecoder, error) {
	ad, err := netlink.NewAttributeDecoder(b)
	if err == nil {
		ad.ByteOrder = binary.BigEndian
	}
	return ad, err
}

func unmarshalTuple(ad *netlink.AttributeDecoder) (t tuple, tcp bool, err error) {
	var src, dst netip.Addr
	var srcPort, dstPort uint16
	for ad.Next() {
		switch ad.Type() {
		case tupleIP:
			ad.Nested(func(ad *netlink.AttributeDecoder) error { return unmarshalAddresses(ad, &src, &dst) })
		case tupleProto:
			ad.Nested(func(ad *netlink.AttributeDecoder) error {
				for ad.Next() {
					switch ad.Type() {
					case protoNum:
						tcp = ad.Uint8() == unix.IPPROTO_TCP
					case protoSrc:
						srcPort = ad.Uint16()
					case protoDst:
						dstPort = ad.Uint16()
					}
				}
				return nil
			})
		}
	}
	return tuple{netip.AddrPortFrom(src, srcPort), netip.AddrPortFrom(dst, dstPort)}, tcp, ad.Err()
}

func unmarshalAddresses(ad *netlink.AttributeDecoder, src, dst *netip.Addr) error {
	for ad.Next() {
		switch ad.Type() {
		case ipv4Src, ipv6Src:
			*src, _ = netip.AddrFromSlice(ad.Bytes())
		case ipv4Dst, ipv6Dst:
			*dst, _ = netip.AddrFromSlice(ad.Bytes())
		}
	}
	return nil
}

func unmarshalState(ad *netlink.AttributeDecoder, state *uint8) error {
	for ad.Next() {
		if ad.Type() == protoInfoTCP {
			ad.Nested(func(ad *netlink.AttributeDecoder) error {
				for ad.Next() {
					if ad.Type() == tcpState {
						*state = ad.Uint8()
					}
				}
				return nil
			})
		}
	}
	return nil
}

// deleteConntrack deletes an entry. It is no error if that is gone already.
func deleteConntrack(ctx context.Context, c *nlsocket.Socket, t tracking) error {
	attributes, err := marshalTracking(t)
	if err != nil {
		return err
	}
	_, err = c.Ask(ctx, conntrackMessage(msgDelete, netlink.Acknowledge, t.family, attributes))
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("delete the tracking entry of %v: %w", t.original.src, err)
	}
	return nil
}

// marshalTracking writes what identifies an entry.
func marshalTracking(t tracking) ([]byte, error) {
	ae := netlink.NewAttributeEncoder()
	ae.ByteOrder = binary.BigEndian
	ae.Nested(attrOriginal, func(ae *netlink.AttributeEncoder) error { return marshalTuple(ae, t.original) })
	if t.zone != 0 {
		ae.Uint16(attrZone, t.zone)
	}
	if len(t.id) != 0 {
		ae.Bytes(attrID, t.id)
	}
	return ae.Encode()
}

func marshalTuple(ae *netlink.AttributeEncoder, t tuple) error {
	ae.Nested(tupleIP, func(ae *netlink.AttributeEncoder) error {
		srcAttr, dstAttr := uint16(ipv6Src), uint16(ipv6Dst)
		if t.src.Addr().Is4() {
			srcAttr, dstAttr = ipv4Src, ipv4Dst
		}
		ae.Bytes(srcAttr, t.src.Addr().AsSlice())
		ae.Bytes(dstAttr, t.dst.Addr().AsSlice())
		return nil
	})
	ae.Nested(tupleProto, func(ae *netlink.AttributeEncoder) error {
		ae.Uint8(protoNum, unix.IPPROTO_TCP)
		ae.Uint16(protoSrc, t.src.Port())
		ae.Uint16(protoDst, t.dst.Port())
		return nil
	})
	return nil
}
