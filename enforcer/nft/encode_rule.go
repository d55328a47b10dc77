package nft

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"drawbridge/enforcer/ruleset"
)

// maxComment is the longest comment in bytes (nftables: NFTNL_UDATA_COMMENT_MAXLEN).
const maxComment = 128

// resetTCPOption is the expression "reset tcp option". google/nftables cannot say it: without a register of either
// kind its Exthdr names destination register 0.
type resetTCPOption struct{ kind uint8 }

// operation is one expression: an expr.Any or a resetTCPOption.
type operation any

// anonymousSet is a constant set that belongs to one rule.
type anonymousSet struct {
	id     uint32
	field  ruleset.Field
	values [][]byte
}

// encodedRule is a rule as the kernel wants it.
type encodedRule struct {
	ops       []operation
	anonymous []anonymousSet
}

// ruleEncoder translates one rule. nextID numbers anonymous sets within a batch.
type ruleEncoder struct {
	out    encodedRule
	nextID func() uint32
}

// encodeRule translates a rule and proves that it decodes to the same value.
func encodeRule(r ruleset.Rule, nextID func() uint32) (encodedRule, error) {
	if len(r.Comment) > maxComment {
		return encodedRule{}, fmt.Errorf("comment of %d bytes: at most %d", len(r.Comment), maxComment)
	}
	e := ruleEncoder{nextID: nextID}
	for i, s := range r.Statements {
		if err := e.statement(s); err != nil {
			return encodedRule{}, fmt.Errorf("statement %d: %w", i, err)
		}
	}
	if err := proveReadable(r, e.out); err != nil {
		return encodedRule{}, err
	}
	return e.out, nil
}

func (e *ruleEncoder) add(ops ...operation) { e.out.ops = append(e.out.ops, ops...) }

func (e *ruleEncoder) statement(s ruleset.Statement) error {
	switch s := s.(type) {
	case ruleset.Match:
		return e.match(s)
	case ruleset.InSet:
		return e.inSet(s)
	case ruleset.InAnonymous:
		return e.inAnonymous(s)
	case ruleset.VerdictMap:
		return e.verdictMap(s)
	case ruleset.Dynset:
		return e.dynset(s)
	case ruleset.SetMark:
		return e.setMark(s)
	case ruleset.Verdict:
		return e.verdict(s)
	}
	return e.action(s)
}

func (e *ruleEncoder) action(s ruleset.Statement) error {
	switch s := s.(type) {
	case ruleset.Counter:
		e.add(counter(s))
	case ruleset.Limit:
		return e.limit(s)
	case ruleset.Log:
		e.add(logExpr(s))
	case ruleset.ResetTCPOption:
		e.add(resetTCPOption{kind: s.Kind})
	case ruleset.SetTCPFlags:
		load, write := tcpFlagsLoad(register(0)), tcpFlagsWrite(register(0))
		e.add(&load, &expr.Bitwise{
			SourceRegister: register(0), DestRegister: register(0), Len: 2, Mask: tcpKeepsOffset, Xor: []byte{0, s.Flags},
		}, &write)
	case ruleset.SetTCPAckSeq:
		return e.setAckSeq(s)
	case ruleset.Duplicate:
		return e.duplicate(s)
	case ruleset.NoTrack:
		e.add(&expr.Notrack{})
	case ruleset.Reject:
		e.add(reject(s))
	default:
		return fmt.Errorf("statement %T is not known to the encoder", s)
	}
	return nil
}

// load loads a field and masks it.
func (e *ruleEncoder) load(f ruleset.Field, mask []byte) error {
	length, err := fieldLen(f)
	if err != nil {
		return err
	}
	op, err := loadField(f, 0)
	if err != nil {
		return err
	}
	e.add(op)
	if mask == nil {
		return nil
	}
	if len(mask) != length {
		return fmt.Errorf("mask of %d bytes on a field of %d", len(mask), length)
	}
	e.add(&expr.Bitwise{SourceRegister: register(0), DestRegister: register(0), Len: uint32(length), Mask: mask, Xor: make([]byte, length)})
	return nil
}

func (e *ruleEncoder) match(m ruleset.Match) error {
	length, err := fieldLen(m.Field)
	if err != nil {
		return err
	}
	if len(m.Value) != length {
		return fmt.Errorf("value of %d bytes for a field of %d", len(m.Value), length)
	}
	op, ok := cmpOps[m.Op]
	if !ok {
		return fmt.Errorf("unknown comparison %d", m.Op)
	}
	if err := e.load(m.Field, m.Mask); err != nil {
		return err
	}
	e.add(&expr.Cmp{Op: op, Register: register(0), Data: m.Value})
	return nil
}

// cmpOps translates comparison operators.
var cmpOps = map[ruleset.Op]expr.CmpOp{
	ruleset.Eq: expr.CmpOpEq, ruleset.Neq: expr.CmpOpNeq,
	ruleset.Lt: expr.CmpOpLt, ruleset.Lte: expr.CmpOpLte,
	ruleset.Gt: expr.CmpOpGt, ruleset.Gte: expr.CmpOpGte,
}

// key loads the parts of a key side by side, each at the start of a register.
func (e *ruleEncoder) key(fields []ruleset.Field) error {
	if len(fields) == 0 {
		return fmt.Errorf("a lookup without a key")
	}
	index := 0
	for _, f := range fields {
		length, err := fieldLen(f)
		if err != nil {
			return err
		}
		if index+registersFor(length) > registerCount {
			return fmt.Errorf("a key of more than %d bytes", registerCount*registerBytes)
		}
		op, err := loadField(f, index)
		if err != nil {
			return err
		}
		e.add(op)
		if f.Map != "" {
			e.add(&expr.Lookup{SourceRegister: register(index), SetName: f.Map, IsDestRegSet: true, DestRegister: register(index)})
		}
		index += registersFor(length)
	}
	return nil
}

func (e *ruleEncoder) inSet(s ruleset.InSet) error {
	if err := e.key(s.Key); err != nil {
		return fmt.Errorf("set %q: %w", s.Set, err)
	}
	e.add(&expr.Lookup{SourceRegister: register(0), SetName: s.Set, Invert: s.Negate})
	return nil
}

func (e *ruleEncoder) verdictMap(m ruleset.VerdictMap) error {
	if err := e.key(m.Key); err != nil {
		return fmt.Errorf("map %q: %w", m.Map, err)
	}
	e.add(&expr.Lookup{SourceRegister: register(0), SetName: m.Map, IsDestRegSet: true, DestRegister: unix.NFT_REG_VERDICT})
	return nil
}

// anonymousName is the pattern from which the kernel makes an anonymous set's name.
const anonymousName = "__set%d"

func (e *ruleEncoder) inAnonymous(s ruleset.InAnonymous) error {
	length, err := fieldLen(s.Field)
	if err != nil {
		return err
	}
	if len(s.Values) == 0 {
		return fmt.Errorf("an anonymous set without values")
	}
	for _, v := range s.Values {
		if len(v) != length {
			return fmt.Errorf("value of %d bytes for a field of %d", len(v), length)
		}
	}
	if err := e.load(s.Field, s.Mask); err != nil {
		return err
	}
	set := anonymousSet{id: e.nextID(), field: s.Field, values: s.Values}
	e.out.anonymous = append(e.out.anonymous, set)
	e.add(&expr.Lookup{SourceRegister: register(0), SetName: anonymousName, SetID: set.id, Invert: s.Negate})
	return nil
}

// setOps translates the operations of a dynset.
var setOps = map[ruleset.SetOp]uint32{
	ruleset.AddElement:    unix.NFT_DYNSET_OP_ADD,
	ruleset.UpdateElement: unix.NFT_DYNSET_OP_UPDATE,
	ruleset.DeleteElement: dynsetOpDelete,
}

// dynsetOpDelete is NFT_DYNSET_OP_DELETE (linux/netfilter/nf_tables.h).
const dynsetOpDelete = 2

func (e *ruleEncoder) dynset(d ruleset.Dynset) error {
	op, ok := setOps[d.Op]
	if !ok {
		return fmt.Errorf("set %q: unknown operation %d", d.Set, d.Op)
	}
	if err := wholeSeconds(d.Timeout); err != nil {
		return fmt.Errorf("set %q: %w", d.Set, err)
	}
	if err := e.key(d.Key); err != nil {
		return fmt.Errorf("set %q: %w", d.Set, err)
	}
	encoded := &expr.Dynset{SrcRegKey: register(0), SetName: d.Set, Operation: op, Timeout: d.Timeout}
	if d.Data.Kind != ruleset.FieldInvalid {
		data, err := loadField(d.Data, dataIndex)
		if err != nil {
			return fmt.Errorf("map %q: %w", d.Set, err)
		}
		e.add(data)
		encoded.SrcRegData = register(dataIndex)
	}
	if d.Over != (ruleset.Limit{}) {
		limit, err := limitExpr(d.Over)
		if err != nil {
			return fmt.Errorf("set %q: %w", d.Set, err)
		}
		limit.Over = true
		encoded.Exprs = []expr.Any{limit}
	}
	e.add(encoded)
	return nil
}

// dataIndex is the register for the value of a map's element, away from those for its key.
const dataIndex = 12

// wholeSeconds refuses what the kernel would round: it keeps timeouts in ticks of its own clock, and only whole seconds
// are a whole number of ticks at every configured rate.
func wholeSeconds(d time.Duration) error {
	if d < 0 || d%time.Second != 0 {
		return fmt.Errorf("timeout %v: whole seconds only, the kernel rounds others", d)
	}
	return nil
}

func (e *ruleEncoder) setMark(s ruleset.SetMark) error {
	if s.Mask == 0 || s.Value&^s.Mask != 0 {
		return fmt.Errorf("ct mark set to %#x under mask %#x: the value must lie within a mask that is not 0", s.Value, s.Mask)
	}
	e.add(&expr.Ct{Key: expr.CtKeyMARK, Register: register(0)},
		&expr.Bitwise{SourceRegister: register(0), DestRegister: register(0), Len: 4, Mask: hostOrder(^s.Mask), Xor: hostOrder(s.Value)},
		&expr.Ct{Key: expr.CtKeyMARK, Register: register(0), SourceRegister: true})
	return nil
}

func hostOrder(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }

func (e *ruleEncoder) verdict(v ruleset.Verdict) error {
	encoded, err := encodeVerdict(v)
	if err != nil {
		return err
	}
	e.add(encoded)
	return nil
}

// encodeVerdict translates a verdict, with its target for jump and goto.
func encodeVerdict(v ruleset.Verdict) (*expr.Verdict, error) {
	kind, ok := verdictKinds[v.Kind]
	if !ok {
		return nil, fmt.Errorf("unknown verdict %d", v.Kind)
	}
	if needsChain := v.Kind == ruleset.Jump || v.Kind == ruleset.Goto; needsChain != (v.Chain != "") {
		return nil, fmt.Errorf("verdict %d with chain %q: jump and goto need one, others have none", v.Kind, v.Chain)
	}
	return &expr.Verdict{Kind: kind, Chain: v.Chain}, nil
}

// verdictKinds translates verdicts.
var verdictKinds = map[ruleset.VerdictKind]expr.VerdictKind{
	ruleset.Drop: expr.VerdictDrop, ruleset.Accept: expr.VerdictAccept, ruleset.Return: expr.VerdictReturn,
	ruleset.Jump: expr.VerdictJump, ruleset.Goto: expr.VerdictGoto,
}

func counter(c ruleset.Counter) operation {
	if c.Name == "" {
		return &expr.Counter{}
	}
	return &expr.Objref{Type: unix.NFT_OBJECT_COUNTER, Name: c.Name}
}

func (e *ruleEncoder) limit(l ruleset.Limit) error {
	encoded, err := limitExpr(l)
	if err != nil {
		return err
	}
	e.add(encoded)
	return nil
}

func limitExpr(l ruleset.Limit) (*expr.Limit, error) {
	if l.Rate == 0 || l.Burst == 0 {
		return nil, fmt.Errorf("limit of %d/second with burst %d: both must be positive (the kernel replaces a burst of 0)", l.Rate, l.Burst)
	}
	return &expr.Limit{Type: expr.LimitTypePkts, Rate: l.Rate, Unit: expr.LimitTimeSecond, Burst: l.Burst}, nil
}

func logExpr(l ruleset.Log) operation {
	out := &expr.Log{Key: 1 << unix.NFTA_LOG_GROUP, Group: l.Group}
	if l.Prefix != "" {
		out.Key |= 1 << unix.NFTA_LOG_PREFIX
		out.Data = []byte(l.Prefix)
	}
	if l.Snaplen != 0 {
		out.Key |= 1 << unix.NFTA_LOG_SNAPLEN
		out.Snaplen = l.Snaplen
	}
	return out
}

func reject(r ruleset.Reject) operation {
	if r.TCPReset {
		return &expr.Reject{Type: unix.NFT_REJECT_TCP_RST}
	}
	return &expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_ADMIN_PROHIBITED}
}

// tcpKeepsOffset keeps the data offset in the word that also holds the flags.
var tcpKeepsOffset = []byte{0xff, 0}

// tcpFlagsLoad loads data offset and flags: a checksum is summed up of words, so that single bytes are written with their
// neighbours. nft(8) does the same.
func tcpFlagsLoad(dest uint32) expr.Payload {
	return expr.Payload{OperationType: expr.PayloadLoad, DestRegister: dest, Base: expr.PayloadBaseTransportHeader, Offset: tcpFlagsOffset - 1, Len: 2}
}

// tcpFlagsWrite writes data offset and flags, and mends the checksum.
func tcpFlagsWrite(source uint32) expr.Payload {
	return expr.Payload{
		OperationType: expr.PayloadWrite, SourceRegister: source, Base: expr.PayloadBaseTransportHeader,
		Offset: tcpFlagsOffset - 1, Len: 2, CsumType: expr.CsumTypeInet, CsumOffset: tcpChecksumOffset,
	}
}

// tcpAckWrite writes the acknowledgement number, and mends the checksum.
func tcpAckWrite(source uint32) expr.Payload {
	return expr.Payload{
		OperationType: expr.PayloadWrite, SourceRegister: source, Base: expr.PayloadBaseTransportHeader,
		Offset: tcpAckOffset, Len: 4, CsumType: expr.CsumTypeInet, CsumOffset: tcpChecksumOffset,
	}
}

func (e *ruleEncoder) setAckSeq(s ruleset.SetTCPAckSeq) error {
	if s.From.Kind == ruleset.FieldInvalid {
		e.add(&expr.Immediate{Register: register(0), Data: make([]byte, 4)})
	} else if s.From.Map == "" {
		return fmt.Errorf("acknowledgement number set to a field that is not looked up in a map")
	} else if err := e.key([]ruleset.Field{s.From}); err != nil {
		return err
	}
	write := tcpAckWrite(register(0))
	e.add(&write)
	return nil
}

// duplicate loads the address to which the copy goes.
func (e *ruleEncoder) duplicate(d ruleset.Duplicate) error {
	op, err := loadField(d.To, 0)
	if err != nil {
		return err
	}
	e.add(op, &expr.Dup{RegAddr: register(0)})
	return nil
}

// isZero reports whether all bytes are 0.
func isZero(b []byte) bool { return len(bytes.Trim(b, "\x00")) == 0 }
