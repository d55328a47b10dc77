package nft

import (
	"errors"
	"fmt"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"drawbridge/enforcer/ruleset"
)

// Header offsets and lengths in bytes.
const (
	ipFragOffOffset   = 6  // RFC 791 section 3.1: flags and fragment offset
	ipSaddrOffset     = 12 // RFC 791 section 3.1
	ipDaddrOffset     = 16
	ip6SaddrOffset    = 8 // RFC 8200 section 3
	ip6DaddrOffset    = 24
	thSportOffset     = 0 // RFC 9293 section 3.1; the same in UDP and SCTP
	thDportOffset     = 2
	tcpSeqOffset      = 4
	tcpAckOffset      = 8
	tcpFlagsOffset    = 13
	tcpChecksumOffset = 16
	icmpTypeOffset    = 0 // RFC 792, RFC 4443 section 2.1

	ipv4Len   = 4
	ipv6Len   = 16
	portLen   = 2
	ifnameLen = unix.IFNAMSIZ
)

// Numbers of options and extension headers.
const (
	tcpOptionMPTCP    = 30 // RFC 8684
	tcpOptionFastOpen = 34 // RFC 7413
	ip6ExtFragment    = unix.IPPROTO_FRAGMENT
)

// payloadBaseInner is the TCP payload (kernel 6.2 and later); google/nftables has no name for it.
const payloadBaseInner = expr.PayloadBase(unix.NFT_PAYLOAD_INNER_HEADER)

// ctKeyID is "ct id" (kernel 5.2 and later).
const ctKeyID = expr.CtKey(unix.NFT_CT_ID)

// exthdrPresent asks whether a header or option is there (NFT_EXTHDR_F_PRESENT).
const exthdrPresent = 1

// Registers: 16 of 4 bytes each. The first of every four has a second name from the time when a register had 16 bytes;
// the kernel prefers that name in dumps (net/netfilter/nf_tables_api.c: nft_dump_register).
const (
	registerCount   = 16
	registerBytes   = 4
	longRegisterMax = unix.NFT_REG_4
)

// register is the netlink number of the 4-byte register with this index.
func register(index int) uint32 { return unix.NFT_REG32_00 + uint32(index) }

// registerIndex is the index of the register with this netlink number.
func registerIndex(number uint32) (int, error) {
	switch {
	case number >= unix.NFT_REG_1 && number <= longRegisterMax:
		return int(number-unix.NFT_REG_1) * 4, nil
	case number >= unix.NFT_REG32_00 && number < unix.NFT_REG32_00+registerCount:
		return int(number - unix.NFT_REG32_00), nil
	}
	return 0, fmt.Errorf("register %d: %w", number, errOutOfRange)
}

// registersFor is how many registers a value of this many bytes takes.
func registersFor(length int) int { return (length + registerBytes - 1) / registerBytes }

var errOutOfRange = errors.New("out of range")

// payloadField locates a header field.
type payloadField struct {
	base        expr.PayloadBase
	offset, len uint32
}

// payloadFields are the fields that are bytes of a header.
var payloadFields = map[ruleset.FieldKind]payloadField{
	ruleset.IPSaddr:    {expr.PayloadBaseNetworkHeader, ipSaddrOffset, ipv4Len},
	ruleset.IPDaddr:    {expr.PayloadBaseNetworkHeader, ipDaddrOffset, ipv4Len},
	ruleset.IP6Saddr:   {expr.PayloadBaseNetworkHeader, ip6SaddrOffset, ipv6Len},
	ruleset.IP6Daddr:   {expr.PayloadBaseNetworkHeader, ip6DaddrOffset, ipv6Len},
	ruleset.IPFragOff:  {expr.PayloadBaseNetworkHeader, ipFragOffOffset, 2},
	ruleset.THSport:    {expr.PayloadBaseTransportHeader, thSportOffset, portLen},
	ruleset.THDport:    {expr.PayloadBaseTransportHeader, thDportOffset, portLen},
	ruleset.TCPFlags:   {expr.PayloadBaseTransportHeader, tcpFlagsOffset, 1},
	ruleset.TCPSeq:     {expr.PayloadBaseTransportHeader, tcpSeqOffset, 4},
	ruleset.TCPAckSeq:  {expr.PayloadBaseTransportHeader, tcpAckOffset, 4},
	ruleset.ICMPType:   {expr.PayloadBaseTransportHeader, icmpTypeOffset, 1},
	ruleset.ICMPv6Type: {expr.PayloadBaseTransportHeader, icmpTypeOffset, 1},
}

// keyField is a field that the kernel knows by a number.
type keyField[K comparable] struct {
	key K
	len int
}

var metaFields = map[ruleset.FieldKind]keyField[expr.MetaKey]{
	ruleset.MetaNFProto: {expr.MetaKeyNFPROTO, 1},
	ruleset.MetaL4Proto: {expr.MetaKeyL4PROTO, 1},
	ruleset.MetaIIF:     {expr.MetaKeyIIF, 4},
	ruleset.MetaOIF:     {expr.MetaKeyOIF, 4},
	ruleset.MetaIIFName: {expr.MetaKeyIIFNAME, ifnameLen},
	ruleset.MetaOIFName: {expr.MetaKeyOIFNAME, ifnameLen},
}

var ctFields = map[ruleset.FieldKind]keyField[expr.CtKey]{
	ruleset.CTState:     {expr.CtKeySTATE, 4},
	ruleset.CTDirection: {expr.CtKeyDIRECTION, 1},
	ruleset.CTStatus:    {expr.CtKeySTATUS, 4},
	ruleset.CTMark:      {expr.CtKeyMARK, 4},
	ruleset.CTID:        {ctKeyID, 4},
}

// existsField is an option or extension header whose presence is asked for.
type existsField struct {
	op   expr.ExthdrOp
	kind uint8
}

var existsFields = map[ruleset.FieldKind]existsField{
	ruleset.TCPOptionMPTCP:    {expr.ExthdrOpTcpopt, tcpOptionMPTCP},
	ruleset.TCPOptionFastOpen: {expr.ExthdrOpTcpopt, tcpOptionFastOpen},
	ruleset.ExthdrFragExists:  {expr.ExthdrOpIpv6, ip6ExtFragment},
}

// fieldLen is the length of a field's value in bytes.
func fieldLen(f ruleset.Field) (int, error) {
	if f.Kind == ruleset.Inner {
		return innerLen(f)
	}
	if f.Map != "" && f.Kind != ruleset.CTID {
		return 0, fmt.Errorf("field kind %d through map %q: only ct id, whose values are as long", f.Kind, f.Map)
	}
	if f.OffsetBits != 0 || f.LengthBits != 0 {
		return 0, fmt.Errorf("field kind %d has an offset, which only a payload field has", f.Kind)
	}
	if p, ok := payloadFields[f.Kind]; ok {
		return int(p.len), nil
	}
	if m, ok := metaFields[f.Kind]; ok {
		return m.len, nil
	}
	if c, ok := ctFields[f.Kind]; ok {
		return c.len, nil
	}
	if _, ok := existsFields[f.Kind]; ok {
		return 1, nil
	}
	if f.Kind == ruleset.FibSaddrIIFOIF {
		return 4, nil
	}
	return 0, fmt.Errorf("unknown field kind %d", f.Kind)
}

func innerLen(f ruleset.Field) (int, error) {
	if f.OffsetBits < 0 || f.OffsetBits%8 != 0 || f.LengthBits <= 0 || f.LengthBits%8 != 0 {
		return 0, fmt.Errorf("payload field @ih,%d,%d: offset and length must be whole bytes, the length positive", f.OffsetBits, f.LengthBits)
	}
	if f.LengthBits/8 > ipv6Len {
		return 0, fmt.Errorf("payload field @ih,%d,%d: at most %d bytes fit a comparison", f.OffsetBits, f.LengthBits, ipv6Len)
	}
	return f.LengthBits / 8, nil
}

// loadField is the expression that puts a field into the register with this index.
func loadField(f ruleset.Field, index int) (expr.Any, error) {
	if _, err := fieldLen(f); err != nil {
		return nil, err
	}
	reg := register(index)
	if f.Kind == ruleset.Inner {
		return &expr.Payload{DestRegister: reg, Base: payloadBaseInner, Offset: uint32(f.OffsetBits / 8), Len: uint32(f.LengthBits / 8)}, nil
	}
	if p, ok := payloadFields[f.Kind]; ok {
		return &expr.Payload{DestRegister: reg, Base: p.base, Offset: p.offset, Len: p.len}, nil
	}
	if m, ok := metaFields[f.Kind]; ok {
		return &expr.Meta{Key: m.key, Register: reg}, nil
	}
	if c, ok := ctFields[f.Kind]; ok {
		return &expr.Ct{Key: c.key, Register: reg}, nil
	}
	if e, ok := existsFields[f.Kind]; ok {
		return &expr.Exthdr{DestRegister: reg, Op: e.op, Type: e.kind, Len: 1, Flags: exthdrPresent}, nil
	}
	return &expr.Fib{Register: reg, FlagSADDR: true, FlagIIF: true, ResultOIF: true}, nil
}
