package nft

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"reflect"
	"slices"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"drawbridge/enforcer/ruleset"
)

// anonymousValues finds the elements of an anonymous set by the name or the id in a lookup.
type anonymousValues func(name string, id uint32) ([][]byte, bool)

// loaded is what a register holds: a field, perhaps masked. For a SetMark it is masked and then changed. Where constant is
// not nil, it holds that and no field.
type loaded struct {
	field     ruleset.Field
	len       int
	mask, xor []byte
	constant  []byte
	flags     bool // TCP's data offset and flags, to be changed and written back
}

// ruleDecoder follows the registers through a rule's expressions.
type ruleDecoder struct {
	registers [registerCount]*loaded
	out       []ruleset.Statement
	anonymous anonymousValues
	icmpv6    bool // a match on "meta l4proto ipv6-icmp" came before: a type field is ICMPv6's
}

// decodeRule is the inverse of encodeRule. Anything that encodeRule would not have written is an error that wraps
// ErrForeign.
func decodeRule(ops []operation, anonymous anonymousValues) ([]ruleset.Statement, error) {
	d := ruleDecoder{anonymous: anonymous}
	for i, op := range ops {
		if err := d.operation(op); err != nil {
			return nil, fmt.Errorf("expression %d (%T): %w", i, op, err)
		}
	}
	for i, l := range d.registers {
		if l != nil {
			return nil, foreign("register %d is loaded and never used", i)
		}
	}
	return d.out, nil
}

// proveReadable checks that a rule reads back as it was written.
func proveReadable(r ruleset.Rule, e encodedRule) error {
	values := func(_ string, id uint32) ([][]byte, bool) {
		for _, s := range e.anonymous {
			if s.id == id {
				return s.values, true
			}
		}
		return nil, false
	}
	back, err := decodeRule(e.ops, values)
	if err != nil {
		return fmt.Errorf("the rule would not read back: %w", err)
	}
	if want := canonicalStatements(r.Statements); !reflect.DeepEqual(canonicalStatements(back), want) {
		return fmt.Errorf("the rule would read back differently: %+v instead of %+v", back, want)
	}
	return nil
}

// canonicalStatements orders the values of anonymous sets, which have no order of their own.
func canonicalStatements(in []ruleset.Statement) []ruleset.Statement {
	out := make([]ruleset.Statement, 0, len(in))
	for _, s := range in {
		if a, ok := s.(ruleset.InAnonymous); ok {
			a.Values = slices.Clone(a.Values)
			slices.SortFunc(a.Values, bytes.Compare)
			s = a
		}
		out = append(out, s)
	}
	return out
}

func (d *ruleDecoder) emit(s ruleset.Statement) { d.out = append(d.out, s) }

func (d *ruleDecoder) operation(op operation) error {
	switch op := op.(type) {
	case *expr.Payload:
		if op.OperationType == expr.PayloadWrite {
			return d.write(op)
		}
		return d.load(op)
	case *expr.Meta, *expr.Exthdr, *expr.Fib:
		return d.load(op)
	case *expr.Immediate:
		return d.constant(op)
	case *expr.Dup:
		return d.duplicate(op)
	case *expr.Ct:
		if op.SourceRegister {
			return d.setMark(op)
		}
		return d.load(op)
	case *expr.Bitwise:
		return d.bitwise(op)
	case *expr.Cmp:
		return d.cmp(op)
	case *expr.Lookup:
		return d.lookup(op)
	case *expr.Dynset:
		return d.dynset(op)
	}
	return d.action(op)
}

func (d *ruleDecoder) action(op operation) error {
	var s ruleset.Statement
	var err error
	switch op := op.(type) {
	case *expr.Verdict:
		s, err = decodeVerdict(op)
	case *expr.Counter:
		s = ruleset.Counter{}
	case *expr.Objref:
		s, err = decodeObjref(op)
	case *expr.Limit:
		s, err = decodeLimit(op)
	case *expr.Log:
		s, err = decodeLog(op)
	case *expr.Reject:
		s, err = decodeReject(op)
	case resetTCPOption:
		s = ruleset.ResetTCPOption{Kind: op.kind}
	case *expr.Notrack:
		s = ruleset.NoTrack{}
	default:
		return foreign("not an expression that this enforcer writes")
	}
	if err == nil {
		d.emit(s)
	}
	return err
}

// load notes a field in its register.
func (d *ruleDecoder) load(op operation) error {
	if p, ok := op.(*expr.Payload); ok && *p == tcpFlagsLoad(p.DestRegister) {
		return d.hold(p.DestRegister, &loaded{len: int(p.Len), flags: true})
	}
	number, field, ok := d.fieldOf(op)
	if !ok {
		return foreign("loads something that no rule here looks at: %+v", op)
	}
	length, err := fieldLen(field)
	if err != nil {
		return foreign("%v", err)
	}
	return d.hold(number, &loaded{field: field, len: length})
}

// hold puts something into a register that is empty.
func (d *ruleDecoder) hold(number uint32, l *loaded) error {
	index, err := registerIndex(number)
	if err != nil || index+registersFor(l.len) > registerCount {
		return foreign("register %d is out of range", number)
	}
	if d.registers[index] != nil {
		return foreign("register %d is loaded twice", number)
	}
	d.registers[index] = l
	return nil
}

// fieldOf is the inverse of loadField.
func (d *ruleDecoder) fieldOf(op operation) (number uint32, f ruleset.Field, ok bool) {
	switch op := op.(type) {
	case *expr.Payload:
		f, ok = d.payload(op)
		return op.DestRegister, f, ok
	case *expr.Meta:
		f, ok = byKey(metaFields, op.Key)
		return op.Register, f, ok && !op.SourceRegister
	case *expr.Ct:
		f, ok = byKey(ctFields, op.Key)
		return op.Register, f, ok && op.Direction == 0 && !op.OptDirection
	case *expr.Exthdr:
		for kind, e := range existsFields {
			if *op == (expr.Exthdr{DestRegister: op.DestRegister, Op: e.op, Type: e.kind, Len: 1, Flags: exthdrPresent}) {
				return op.DestRegister, ruleset.F(kind), true
			}
		}
	case *expr.Fib:
		want := expr.Fib{Register: op.Register, FlagSADDR: true, FlagIIF: true, ResultOIF: true}
		return op.Register, ruleset.F(ruleset.FibSaddrIIFOIF), *op == want
	}
	return 0, f, false
}

func byKey[K comparable](fields map[ruleset.FieldKind]keyField[K], key K) (ruleset.Field, bool) {
	for kind, f := range fields {
		if f.key == key {
			return ruleset.F(kind), true
		}
	}
	return ruleset.Field{}, false
}

// maxInnerOffset is the greatest offset of a payload field (the kernel keeps it in 8 bits or 16, by version).
const maxInnerOffset = 0xffff

func (d *ruleDecoder) payload(p *expr.Payload) (ruleset.Field, bool) {
	if p.OperationType != expr.PayloadLoad || p.CsumType != 0 {
		return ruleset.Field{}, false
	}
	if p.Base == payloadBaseInner {
		return ruleset.InnerField(int(p.Offset), int(p.Len)), p.Offset <= maxInnerOffset && p.Len <= ipv6Len
	}
	for kind, f := range payloadFields {
		if f != (payloadField{p.Base, p.Offset, p.Len}) || kind == ruleset.ICMPType && d.icmpv6 || kind == ruleset.ICMPv6Type && !d.icmpv6 {
			continue
		}
		return ruleset.F(kind), true
	}
	return ruleset.Field{}, false
}

// at is what the register with this netlink number holds.
func (d *ruleDecoder) at(number uint32) (*loaded, int, error) {
	index, err := registerIndex(number)
	if err != nil || d.registers[index] == nil {
		return nil, 0, foreign("register %d is used but not loaded", number)
	}
	return d.registers[index], index, nil
}

func (d *ruleDecoder) bitwise(b *expr.Bitwise) error {
	l, _, err := d.at(b.SourceRegister)
	if err != nil {
		return err
	}
	if b.SourceRegister != b.DestRegister || l.mask != nil || int(b.Len) != l.len || len(b.Mask) != l.len || len(b.Xor) != l.len {
		return foreign("a mask that does not fit its field")
	}
	l.mask, l.xor = b.Mask, b.Xor
	return nil
}

// take empties a register that holds a field, plain or masked.
func (d *ruleDecoder) take(number uint32) (*loaded, error) {
	l, index, err := d.at(number)
	if err != nil {
		return nil, err
	}
	if !isZero(l.xor) || l.constant != nil || l.flags {
		return nil, foreign("compares a changed value")
	}
	d.registers[index] = nil
	return l, nil
}

func (d *ruleDecoder) cmp(c *expr.Cmp) error {
	l, err := d.take(c.Register)
	if err != nil {
		return err
	}
	if len(c.Data) != l.len {
		return foreign("compares %d bytes of a field of %d", len(c.Data), l.len)
	}
	for op, code := range cmpOps {
		if code != c.Op {
			continue
		}
		if l.field.Kind == ruleset.MetaL4Proto && op == ruleset.Eq && l.mask == nil {
			d.icmpv6 = c.Data[0] == unix.IPPROTO_ICMPV6
		}
		d.emit(ruleset.Match{Field: l.field, Mask: l.mask, Op: op, Value: c.Data})
		return nil
	}
	return foreign("comparison %d", c.Op)
}

// key empties the registers from this one on, as far as they are loaded side by side.
func (d *ruleDecoder) key(number uint32) ([]ruleset.Field, error) {
	_, index, err := d.at(number)
	if err != nil {
		return nil, err
	}
	var fields []ruleset.Field
	for index < registerCount && d.registers[index] != nil {
		l := d.registers[index]
		if l.mask != nil || l.constant != nil || l.flags {
			return nil, foreign("looks up a masked value in a named set")
		}
		fields = append(fields, l.field)
		d.registers[index] = nil
		index += registersFor(l.len)
	}
	return fields, nil
}

func (d *ruleDecoder) lookup(l *expr.Lookup) error {
	if values, ok := d.anonymous(l.SetName, l.SetID); ok {
		return d.inAnonymous(l, values)
	}
	if l.IsDestRegSet && l.DestRegister != unix.NFT_REG_VERDICT {
		return d.mapped(l)
	}
	key, err := d.key(l.SourceRegister)
	if err != nil {
		return err
	}
	if !l.IsDestRegSet {
		d.emit(ruleset.InSet{Key: key, Set: l.SetName, Negate: l.Invert})
		return nil
	}
	if l.Invert {
		return foreign("a verdict map that is negated")
	}
	d.emit(ruleset.VerdictMap{Key: key, Map: l.SetName})
	return nil
}

// mapped puts the value that a map holds for a field in its place.
func (d *ruleDecoder) mapped(l *expr.Lookup) error {
	from, index, err := d.at(l.SourceRegister)
	if err != nil {
		return err
	}
	to, err := registerIndex(l.DestRegister)
	if err != nil || to != index || l.Invert || from.mask != nil || from.constant != nil || from.field != ruleset.F(ruleset.CTID) {
		return foreign("looks up data in a map")
	}
	from.field.Map = l.SetName
	return nil
}

func (d *ruleDecoder) inAnonymous(l *expr.Lookup, values [][]byte) error {
	from, err := d.take(l.SourceRegister)
	if err != nil {
		return err
	}
	if l.IsDestRegSet {
		return foreign("an anonymous map")
	}
	for _, v := range values {
		if len(v) != from.len {
			return foreign("an anonymous set of other values than its field has")
		}
	}
	d.emit(ruleset.InAnonymous{Field: from.field, Mask: from.mask, Values: values, Negate: l.Invert})
	return nil
}

func (d *ruleDecoder) dynset(s *expr.Dynset) error {
	if s.Invert {
		return foreign("a dynset that is inverted")
	}
	over, err := decodeOver(s.Exprs)
	if err != nil {
		return err
	}
	var data ruleset.Field
	if s.SrcRegData != 0 {
		value, err := d.take(s.SrcRegData)
		if err != nil {
			return err
		}
		if value.mask != nil {
			return foreign("a masked value in a map")
		}
		data = value.field
	}
	key, err := d.key(s.SrcRegKey)
	if err != nil {
		return err
	}
	for op, code := range setOps {
		if code == s.Operation {
			d.emit(ruleset.Dynset{Op: op, Key: key, Set: s.SetName, Timeout: s.Timeout, Data: data, Over: over})
			return nil
		}
	}
	return foreign("dynset operation %d", s.Operation)
}

// decodeOver reads the limit that a dynset counts by.
func decodeOver(expressions []expr.Any) (ruleset.Limit, error) {
	if len(expressions) == 0 {
		return ruleset.Limit{}, nil
	}
	l, ok := expressions[0].(*expr.Limit)
	if len(expressions) > 1 || !ok || !l.Over || l.Type != expr.LimitTypePkts || l.Unit != expr.LimitTimeSecond {
		return ruleset.Limit{}, foreign("a dynset with expressions that are no limit to be exceeded")
	}
	return ruleset.Limit{Rate: l.Rate, Burst: l.Burst}, nil
}

func (d *ruleDecoder) setMark(c *expr.Ct) error {
	l, index, err := d.at(c.Register)
	if err != nil {
		return err
	}
	if c.Key != expr.CtKeyMARK || l.field.Kind != ruleset.CTMark || l.mask == nil {
		return foreign("sets something other than a masked ct mark")
	}
	d.registers[index] = nil
	d.emit(ruleset.SetMark{Mask: ^binary.NativeEndian.Uint32(l.mask), Value: binary.NativeEndian.Uint32(l.xor)})
	return nil
}

// constant notes a value in its register.
func (d *ruleDecoder) constant(i *expr.Immediate) error {
	index, err := registerIndex(i.Register)
	if err != nil || d.registers[index] != nil || len(i.Data) == 0 {
		return foreign("register %d cannot hold a constant of %d bytes", i.Register, len(i.Data))
	}
	d.registers[index] = &loaded{len: len(i.Data), constant: i.Data}
	return nil
}

// write decodes what changes a header.
func (d *ruleDecoder) write(p *expr.Payload) error {
	l, index, err := d.at(p.SourceRegister)
	if err != nil {
		return err
	}
	if *p == tcpAckWrite(p.SourceRegister) && (l.constant != nil && isZero(l.constant) && len(l.constant) == 4 || l.field.Map != "") {
		d.registers[index] = nil
		d.emit(ruleset.SetTCPAckSeq{From: l.field})
		return nil
	}
	if *p != tcpFlagsWrite(p.SourceRegister) || !l.flags || !bytes.Equal(l.mask, tcpKeepsOffset) || l.xor[0] != 0 {
		return foreign("writes something other than constant TCP flags")
	}
	d.registers[index] = nil
	d.emit(ruleset.SetTCPFlags{Flags: l.xor[1]})
	return nil
}

func (d *ruleDecoder) duplicate(e *expr.Dup) error {
	l, err := d.take(e.RegAddr)
	if err != nil {
		return err
	}
	if e.RegDev != 0 || l.mask != nil {
		return foreign("a copy to a device, or to a changed address")
	}
	d.emit(ruleset.Duplicate{To: l.field})
	return nil
}

func decodeVerdict(v *expr.Verdict) (ruleset.Verdict, error) {
	for kind, code := range verdictKinds {
		if code == v.Kind {
			return ruleset.Verdict{Kind: kind, Chain: v.Chain}, nil
		}
	}
	return ruleset.Verdict{}, foreign("verdict %d", v.Kind)
}

func decodeObjref(o *expr.Objref) (ruleset.Statement, error) {
	if o.Type != unix.NFT_OBJECT_COUNTER {
		return nil, foreign("an object of type %d", o.Type)
	}
	return ruleset.Counter{Name: o.Name}, nil
}

func decodeLimit(l *expr.Limit) (ruleset.Statement, error) {
	if l.Type != expr.LimitTypePkts || l.Over || l.Unit != expr.LimitTimeSecond {
		return nil, foreign("a limit other than packets per second")
	}
	return ruleset.Limit{Rate: l.Rate, Burst: l.Burst}, nil
}

func decodeLog(l *expr.Log) (ruleset.Statement, error) {
	const known = 1<<unix.NFTA_LOG_GROUP | 1<<unix.NFTA_LOG_PREFIX | 1<<unix.NFTA_LOG_SNAPLEN
	if l.Key&(1<<unix.NFTA_LOG_GROUP) == 0 || l.Key&^known != 0 {
		return nil, foreign("a log that does not go to an nflog group only")
	}
	return ruleset.Log{Group: l.Group, Prefix: string(l.Data), Snaplen: l.Snaplen}, nil
}

func decodeReject(r *expr.Reject) (ruleset.Statement, error) {
	switch {
	case r.Type == unix.NFT_REJECT_TCP_RST && r.Code == 0:
		return ruleset.Reject{TCPReset: true}, nil
	case r.Type == unix.NFT_REJECT_ICMPX_UNREACH && r.Code == unix.NFT_REJECT_ICMPX_ADMIN_PROHIBITED:
		return ruleset.Reject{}, nil
	}
	return nil, foreign("reject type %d code %d", r.Type, r.Code)
}
