package nft

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"drawbridge/enforcer/nlsocket"
)

// Survey is what the tables of other programs do that a filter which relies on connection tracking must know of.
type Survey struct {
	// MarkWriters are rules that write to the mark of connections.
	MarkWriters []MarkWriter
	// Untracking are rules that exempt packets from connection tracking.
	Untracking []Place
	// Flowtables take established connections past the hooks of all other tables.
	Flowtables []Flowtable
}

// Place is where a rule stands.
type Place struct {
	Family uint8 // NFPROTO_... (include/uapi/linux/netfilter.h)
	Table  string
	Chain  string
	Handle uint64
}

// MarkWriter is a rule that writes to the mark of connections.
type MarkWriter struct {
	Place
	// Bits that it may change; all of them where that cannot be told.
	Bits uint32
}

// Flowtable is a flow table and the devices that it takes packets from.
type Flowtable struct {
	Table, Name string
	Devices     []string
}

// What golang.org/x/sys does not name (include/uapi/linux/netfilter/nf_tables.h).
const (
	flowtableTable   = 1 // NFTA_FLOWTABLE_TABLE
	flowtableName    = 2 // NFTA_FLOWTABLE_NAME
	flowtableHook    = 3 // NFTA_FLOWTABLE_HOOK
	flowtableDevices = 3 // NFTA_FLOWTABLE_HOOK_DEVS
	targetName       = 1 // NFTA_TARGET_NAME
	targetRevision   = 2 // NFTA_TARGET_REV
	targetInfo       = 3 // NFTA_TARGET_INFO
	lookupDREG       = 3 // NFTA_LOOKUP_DREG
	commonDREG       = 1 // the attribute of nearly every expression that loads something: NFTA_META_DREG and others
)

// ReadSurvey looks through all tables of the network namespace of the calling thread, of every family, that have another name than
// own. It knows few expressions, and takes of the others no more than their names.
func ReadSurvey(ctx context.Context, own string) (s Survey, err error) {
	socket, err := nlsocket.Open(unix.NETLINK_NETFILTER, receiveBuffer)
	if err != nil {
		return s, fmt.Errorf("open a netfilter socket: %w", err)
	}
	defer func() { err = errors.Join(err, socket.Close()) }()
	dump := func(msg int) ([]netlink.Message, error) {
		return socket.Ask(ctx, netlink.Message{
			Header: netlink.Header{Type: messageType(msg), Flags: netlink.Request | netlink.Dump},
			Data:   nfgenmsg(unix.NFPROTO_UNSPEC, 0),
		})
	}
	rules, err := dump(unix.NFT_MSG_GETRULE)
	if err != nil {
		return s, fmt.Errorf("read all rules: %w", err)
	}
	for _, m := range rules {
		if err := s.rule(m, own); err != nil {
			return s, fmt.Errorf("a rule of another program: %w", err)
		}
	}
	tables, err := dump(unix.NFT_MSG_GETFLOWTABLE)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL) {
		return s, nil // this kernel has none
	}
	if err != nil {
		return s, fmt.Errorf("read flow tables: %w", err)
	}
	for _, m := range tables {
		f, err := decodeFlowtable(payload(m))
		if err != nil {
			return s, fmt.Errorf("a flow table: %w", err)
		}
		s.Flowtables = append(s.Flowtables, f)
	}
	return s, nil
}

func (s *Survey) rule(m netlink.Message, own string) error {
	ad, err := newDecoder(payload(m))
	if err != nil {
		return err
	}
	at := Place{}
	if len(m.Data) > 0 {
		at.Family = m.Data[0]
	}
	var expressions []byte
	for ad.Next() {
		switch ad.Type() {
		case unix.NFTA_RULE_TABLE:
			at.Table = ad.String()
		case unix.NFTA_RULE_CHAIN:
			at.Chain = ad.String()
		case unix.NFTA_RULE_HANDLE:
			at.Handle = ad.Uint64()
		case unix.NFTA_RULE_EXPRESSIONS:
			expressions = ad.Bytes()
		}
	}
	if err := ad.Err(); err != nil || at.Table == own {
		return err
	}
	does, err := decodeForeign(expressions)
	if err != nil {
		return err
	}
	if does.marks != 0 {
		s.MarkWriters = append(s.MarkWriters, MarkWriter{Place: at, Bits: does.marks})
	}
	if does.untracks {
		s.Untracking = append(s.Untracking, at)
	}
	return nil
}

// foreignRule is what a rule of another program does.
type foreignRule struct {
	marks    uint32 // bits of the connection's mark that it may change
	untracks bool
	// registers that hold the connection's mark, with the bits in which they may differ from it
	holding map[uint32]uint32
}

// decodeForeign reads a rule's list of expressions.
func decodeForeign(list []byte) (foreignRule, error) {
	r := foreignRule{holding: map[uint32]uint32{}}
	ad, err := newDecoder(list)
	if err != nil {
		return r, err
	}
	for ad.Next() {
		var name string
		var data []byte
		ad.Nested(func(ad *netlink.AttributeDecoder) error {
			for ad.Next() {
				switch ad.Type() {
				case unix.NFTA_EXPR_NAME:
					name = ad.String()
				case unix.NFTA_EXPR_DATA:
					data = ad.Bytes()
				}
			}
			return nil
		})
		if err := r.expression(name, data); err != nil {
			return r, err
		}
	}
	return r, ad.Err()
}

func (r *foreignRule) expression(name string, data []byte) error {
	attributes := map[uint16][]byte{}
	if len(data) > 0 {
		ad, err := newDecoder(data)
		if err != nil {
			return err
		}
		for ad.Next() {
			attributes[ad.Type()] = ad.Bytes()
		}
		if err := ad.Err(); err != nil {
			return err
		}
	}
	number := func(attribute uint16) (uint32, bool) {
		b := attributes[attribute]
		if len(b) != 4 {
			return 0, false
		}
		return binary.BigEndian.Uint32(b), true
	}
	switch name {
	case "ct":
		r.conntrack(number)
	case "bitwise":
		r.bitwise(number, attributes)
	case "notrack":
		r.untracks = true
	case "target":
		r.target(attributes)
	case "lookup":
		if to, ok := number(lookupDREG); ok {
			delete(r.holding, to)
		}
	default:
		if to, ok := number(commonDREG); ok {
			delete(r.holding, to)
		}
	}
	return nil
}

func (r *foreignRule) conntrack(number func(uint16) (uint32, bool)) {
	key, _ := number(unix.NFTA_CT_KEY)
	if to, ok := number(unix.NFTA_CT_DREG); ok {
		delete(r.holding, to)
		if key == unix.NFT_CT_MARK {
			r.holding[to] = 0
		}
	}
	if from, ok := number(unix.NFTA_CT_SREG); ok && key == unix.NFT_CT_MARK {
		changed, known := r.holding[from]
		if !known {
			changed = ^uint32(0)
		}
		r.marks |= changed
	}
}

func (r *foreignRule) bitwise(number func(uint16) (uint32, bool), attributes map[uint16][]byte) {
	from, _ := number(unix.NFTA_BITWISE_SREG)
	to, _ := number(unix.NFTA_BITWISE_DREG)
	changed, known := r.holding[from]
	mask, maskOK := dataValue(attributes[unix.NFTA_BITWISE_MASK])
	xor, xorOK := dataValue(attributes[unix.NFTA_BITWISE_XOR])
	delete(r.holding, to)
	if known && maskOK && xorOK {
		r.holding[to] = changed | ^mask | xor
	}
}

// dataValue is a nested NFTA_DATA_VALUE of four bytes, in host order as marks are.
func dataValue(b []byte) (uint32, bool) {
	ad, err := newDecoder(b)
	if err != nil {
		return 0, false
	}
	for ad.Next() {
		if ad.Type() == unix.NFTA_DATA_VALUE && len(ad.Bytes()) == 4 {
			return binary.NativeEndian.Uint32(ad.Bytes()), true
		}
	}
	return 0, false
}

// Modes of CONNMARK (include/uapi/linux/netfilter/xt_connmark.h), and where they are in its data: struct xt_connmark_tginfo1, and
// from revision 2 on xt_connmark_tginfo2, which shifts.
const (
	connmarkRestore  = 2
	connmarkMode     = 12
	connmarkMode2    = 14
	connmarkLength   = 13
	ctTargetUntracks = 1 // XT_CT_NOTRACK (include/uapi/linux/netfilter/xt_CT.h)
)

// target reads a target of iptables-nft.
func (r *foreignRule) target(attributes map[uint16][]byte) {
	info := attributes[targetInfo]
	revision := uint32(0)
	if b := attributes[targetRevision]; len(b) == 4 {
		revision = binary.BigEndian.Uint32(b)
	}
	switch name := cString(attributes[targetName]); {
	case name == "NOTRACK":
		r.untracks = true
	case name == "CT" && len(info) >= 2:
		r.untracks = r.untracks || binary.NativeEndian.Uint16(info)&ctTargetUntracks != 0
	case name == "CONNMARK" && len(info) >= connmarkLength && (revision == 1 || len(info) > connmarkMode2):
		mode := info[connmarkMode]
		if revision >= 2 {
			mode = info[connmarkMode2]
		}
		if mode != connmarkRestore {
			// Set and save change the bits of the second mask, and toggle those of the first value or the third.
			r.marks |= binary.NativeEndian.Uint32(info[4:])
			if mode == 0 {
				r.marks |= binary.NativeEndian.Uint32(info)
			} else {
				r.marks |= binary.NativeEndian.Uint32(info[8:])
			}
		}
	case name == "CONNMARK" || name == "CONNSECMARK":
		r.marks = ^uint32(0) // of a revision that is not known
	}
}

func cString(b []byte) string {
	for i, c := range b {
		if c == 0 {
			return string(b[:i])
		}
	}
	return string(b)
}

func decodeFlowtable(b []byte) (f Flowtable, err error) {
	ad, err := newDecoder(b)
	if err != nil {
		return f, err
	}
	for ad.Next() {
		switch ad.Type() {
		case flowtableTable:
			f.Table = ad.String()
		case flowtableName:
			f.Name = ad.String()
		case flowtableHook:
			ad.Nested(func(ad *netlink.AttributeDecoder) error {
				for ad.Next() {
					if ad.Type() == flowtableDevices {
						ad.Nested(func(ad *netlink.AttributeDecoder) error {
							for ad.Next() {
								f.Devices = append(f.Devices, ad.String())
							}
							return nil
						})
					}
				}
				return nil
			})
		}
	}
	return f, ad.Err()
}
