// Package reach reads a table as the kernel does, for all clients at once: it computes which source addresses the base
// chains of a hook let pass, exactly, as sets of intervals. It is pure, knows no policy and none of the compiler's names:
// the typed rules are all that it has, so that what it finds is what the rules say and not what somebody meant.
//
// A Packet says what is known about packets; only the client's address is a set. What is not known is taken both ways: a
// rule that looks at it may match and may not. So Outcome.Accept is all who can pass, and Outcome.Certain all who pass
// whatever is not known.
package reach

import (
	"bytes"
	"encoding/binary"
	"slices"

	"drawbridge/enforcer/addrset"
	"drawbridge/enforcer/ruleset"
)

// Packet is what is known about packets at one hook. The zero value knows nothing.
type Packet struct {
	Hook ruleset.Hook
	// Client is the field that holds the client's address: the source of what it sends, the destination of what it gets. It
	// also tells the family.
	Client ruleset.FieldKind
	// Known are fields with known values.
	Known Fields
	// Missing are fields that the packets do not have: a rule that looks at one ends there (NFT_BREAK).
	Missing []ruleset.FieldKind
	// Payload is what is known of the TCP payload.
	Payload Payload
	// NotLoopback: the interface is not lo.
	NotLoopback bool
	// Room: dynamic sets have room, and nobody's budget is used up.
	Room bool
	// Memory is what rules have put into dynamic sets; nil: that is not known. With a Memory everything must be known, and
	// there must be one client.
	Memory Memory
}

// Fields are fields with their values, in the byte order of ruleset.Match. The zero value has none. They are a dozen, which
// are found sooner one after the other than in a map.
type Fields struct{ list []fieldValue }

type fieldValue struct {
	kind  ruleset.FieldKind
	bytes []byte
}

// usualFields is how many fields a packet has at most, most of the time.
const usualFields = 20

// Set gives a field a value, in place of another one.
func (f *Fields) Set(k ruleset.FieldKind, value []byte) {
	for i := range f.list {
		if f.list[i].kind == k {
			f.list[i].bytes = value
			return
		}
	}
	if f.list == nil {
		f.list = make([]fieldValue, 0, usualFields)
	}
	f.list = append(f.list, fieldValue{k, value})
}

// Get returns a field's value, if it is known.
func (f Fields) Get(k ruleset.FieldKind) (value []byte, ok bool) {
	for i := range f.list {
		if f.list[i].kind == k {
			return f.list[i].bytes, true
		}
	}
	return nil, false
}

// Payload is what is known of a TCP payload. The zero value: nothing.
type Payload struct {
	// Length tells whether there is any.
	Length Length
	// Bytes is the whole payload, if it is known.
	Bytes []byte
}

// Length is what is known of a payload's length.
type Length int

// Lengths.
const (
	AnyLength Length = iota
	Empty            // no payload
	Some             // at least one byte; the bytes are not known
	Exact            // Payload.Bytes is all of it
)

// Memory is what rules have put into dynamic sets: by set and key, the value of a map's element.
type Memory map[string]map[string][]byte

// certainty is what is known of a value.
type certainty int

const (
	unknown certainty = iota // anything; the zero value is the safe one
	broken                   // there is none: the rule ends
	known
	client // the client's address: one of the set
)

type value struct {
	certainty
	bytes []byte
}

func exactly(b []byte) value { return value{known, b} }

// cell is a value that a rule may have overwritten.
type cell struct {
	written bool
	value   value
}

func (c cell) join(d cell) cell {
	if c.written == d.written && c.value.certainty == d.value.certainty && bytes.Equal(c.value.bytes, d.value.bytes) {
		return c
	}
	return cell{written: true}
}

// mark is the connection's mark, as far as its bits are known.
type mark struct{ known, value uint32 }

func (m mark) join(n mark) mark {
	same := m.known & n.known &^ (m.value ^ n.value)
	return mark{known: same, value: m.value & same}
}

func (m mark) set(s ruleset.SetMark) mark {
	return mark{known: m.known | s.Mask, value: m.value&^s.Mask | s.Value&s.Mask}
}

// flow is packets at one place in the rules: whose they are, and what rules have changed about them.
type flow struct {
	clients addrset.Set
	mark    mark
	written *written // nil: nothing
}

// written is what rules have written into packets. It is immutable.
type written struct{ ack, flags, option, state cell }

// cells are what has been written.
func (f flow) cells() written {
	if f.written == nil {
		return written{}
	}
	return *f.written
}

// with is the flow after a rule has written something.
func (f flow) with(w written) flow {
	f.written = &w
	return f
}

func (f flow) isEmpty() bool { return f.clients.IsEmpty() }

func (f flow) of(clients addrset.Set) flow {
	f.clients = clients
	return f
}

// join is both flows, as one.
func (m *Machine) join(f, g flow) flow {
	switch {
	case f.isEmpty():
		return g
	case g.isEmpty():
		return f
	}
	f.clients, f.mark = m.calc.Union(f.clients, g.clients), f.mark.join(g.mark)
	if f.written != g.written {
		v, w := f.cells(), g.cells()
		f = f.with(written{ack: v.ack.join(w.ack), flags: v.flags.join(w.flags), option: v.option.join(w.option), state: v.state.join(w.state)})
	}
	return f
}

// mark is the connection's mark as the packet arrives.
func (p *Packet) mark() mark {
	if b, ok := p.Known.Get(ruleset.CTMark); ok && len(b) == 4 {
		return mark{known: ^uint32(0), value: binary.NativeEndian.Uint32(b)}
	}
	return mark{}
}

// ctUntracked is the bit of an untracked packet (include/uapi/linux/netfilter/nf_conntrack_common.h:
// IP_CT_UNTRACKED's NF_CT_STATE_UNTRACKED_BIT).
const ctUntracked = 64

// field is the value of a field for the packets of a flow. That of a CTMark is only known if all its bits are.
func (p *Packet) field(f ruleset.Field, in flow) value {
	v := p.plain(f, in)
	if f.Map == "" || v.certainty == broken {
		return v
	}
	if p.Memory == nil || v.certainty != known {
		return value{}
	}
	if data, ok := p.Memory[f.Map][string(v.bytes)]; ok {
		return exactly(data)
	}
	return value{certainty: broken}
}

func (p *Packet) plain(f ruleset.Field, in flow) value {
	if slices.Contains(p.Missing, f.Kind) {
		return value{certainty: broken}
	}
	switch f.Kind {
	case p.Client:
		return value{certainty: client}
	case ruleset.Inner:
		return p.inner(f)
	case ruleset.CTMark:
		if in.mark.known == ^uint32(0) {
			return exactly(binary.NativeEndian.AppendUint32(nil, in.mark.value))
		}
		return value{}
	}
	if in.written != nil {
		if c := in.written.cell(f.Kind); c.written {
			return c.value
		}
	}
	if b, ok := p.Known.Get(f.Kind); ok {
		return exactly(b)
	}
	return value{}
}

// cell is where a field may have been written.
func (w *written) cell(k ruleset.FieldKind) cell {
	switch k {
	case ruleset.TCPAckSeq:
		return w.ack
	case ruleset.TCPFlags:
		return w.flags
	case ruleset.CTState:
		return w.state
	case ruleset.TCPOptionMPTCP, ruleset.TCPOptionFastOpen:
		return w.option
	}
	return cell{}
}

func (p *Packet) inner(f ruleset.Field) value {
	from, to := f.OffsetBits/8, (f.OffsetBits+f.LengthBits)/8
	switch {
	case p.Payload.Length == Empty, p.Payload.Length == Exact && to > len(p.Payload.Bytes):
		return value{certainty: broken}
	case p.Payload.Length == Exact:
		return exactly(p.Payload.Bytes[from:to])
	}
	return value{}
}
