package reach

import (
	"bytes"
	"encoding/binary"
	"net/netip"

	"drawbridge/enforcer/addrset"
	"drawbridge/enforcer/ruleset"
)

// loopbackIndex is the index of lo in every network namespace (include/net/flow.h: LOOPBACK_IFINDEX).
const loopbackIndex = 1

func (s *step) match(m ruleset.Match, in flow) (yes, no flow) {
	v := s.packet.field(m.Field, in)
	switch v.certainty {
	case broken:
		return decided(in, false)
	case known:
		return decided(in, compare(masked(v.bytes, m.Mask), m.Op, m.Value))
	case client:
		if matching, ok := addresses(m); ok {
			return s.split(in, matching, false)
		}
	}
	if matches, ok := s.packet.partly(m, in); ok {
		return decided(in, matches)
	}
	return s.either(in)
}

// partly decides comparisons for which it is enough to know something about a field.
func (p *Packet) partly(m ruleset.Match, in flow) (matches, ok bool) {
	switch m.Field.Kind {
	case ruleset.MetaIIF, ruleset.MetaOIF:
		isLo := len(m.Value) == 4 && binary.NativeEndian.Uint32(m.Value) == loopbackIndex
		return m.Op == ruleset.Neq, p.NotLoopback && m.Mask == nil && isLo && (m.Op == ruleset.Eq || m.Op == ruleset.Neq)
	case ruleset.Inner:
		// Every byte is at least zero: such a rule asks whether there is one.
		return true, p.Payload.Length == Some && m.Op == ruleset.Gte && m.Field.OffsetBits == 0 && m.Field.LengthBits == 8 && m.Value[0] == 0
	case ruleset.CTMark:
		if m.Op == ruleset.Eq || m.Op == ruleset.Neq {
			equal, ok := in.mark.equals(m.Mask, m.Value)
			matches = equal == (m.Op == ruleset.Eq)
			return matches, ok && (!matches || p.tracked())
		}
	}
	return false, false
}

// tracked tells whether packets are known to belong to a connection: without one there is no mark, whatever a rule has set.
func (p *Packet) tracked() bool {
	_, ok := p.Known.Get(ruleset.CTMark)
	return ok
}

// equals compares a mark's bits, if enough of them are known.
func (m mark) equals(mask, want []byte) (equal, ok bool) {
	if len(want) != 4 {
		return false, false
	}
	bits, value := ^uint32(0), binary.NativeEndian.Uint32(want)
	if len(mask) == 4 {
		bits = binary.NativeEndian.Uint32(mask)
	}
	if value&^bits != 0 || (m.value^value)&bits&m.known != 0 {
		return false, true
	}
	return true, m.known&bits == bits
}

func (s *step) inAnonymous(a ruleset.InAnonymous, in flow) (yes, no flow) {
	v := s.packet.field(a.Field, in)
	switch {
	case v.certainty == broken:
		return decided(in, false)
	case v.certainty == known:
		there := false
		for _, x := range a.Values {
			there = there || bytes.Equal(x, masked(v.bytes, a.Mask))
		}
		return decided(in, there != a.Negate)
	case v.certainty == client && a.Mask == nil:
		var all []netip.Addr
		for _, x := range a.Values {
			if address, ok := netip.AddrFromSlice(x); ok {
				all = append(all, address)
			}
		}
		return s.split(in, addrset.Addrs(all...), a.Negate)
	case a.Field.Kind == ruleset.CTMark:
		if there, ok := in.mark.oneOf(a); ok && (there == a.Negate || s.packet.tracked()) {
			return decided(in, there != a.Negate)
		}
	}
	return s.either(in)
}

// oneOf looks a mark up, if enough of its bits are known.
func (m mark) oneOf(a ruleset.InAnonymous) (there, ok bool) {
	ok = true
	for _, x := range a.Values {
		equal, sure := m.equals(a.Mask, x)
		if equal && sure {
			return true, true
		}
		ok = ok && sure
	}
	return false, ok
}

func masked(v, mask []byte) []byte {
	if len(mask) == 0 || len(v) != len(mask) {
		return v
	}
	out := make([]byte, len(v))
	for i := range v {
		out[i] = v[i] & mask[i]
	}
	return out
}

// compare compares registers as the kernel does, byte by byte (net/netfilter/nft_cmp.c).
func compare(v []byte, op ruleset.Op, want []byte) bool {
	c := bytes.Compare(v, want)
	switch op {
	case ruleset.Eq:
		return c == 0
	case ruleset.Neq:
		return c != 0
	case ruleset.Lt:
		return c < 0
	case ruleset.Lte:
		return c <= 0
	case ruleset.Gt:
		return c > 0
	case ruleset.Gte:
		return c >= 0
	}
	return false
}

// addresses are those that a comparison of the client's address matches; not ok for a mask that is no prefix.
func addresses(m ruleset.Match) (addrset.Set, bool) {
	a, ok := netip.AddrFromSlice(m.Value)
	if !ok {
		return addrset.Set{}, false
	}
	bits, ok := prefixLength(m.Mask, a.BitLen())
	if !ok {
		return addrset.Set{}, false
	}
	all := addrset.All(a.Is4())
	first, last := all.Intervals()[0].First, all.Intervals()[0].Last
	p := netip.PrefixFrom(a, bits)
	if p.Masked().Addr() != a { // no masked address is like that
		switch m.Op {
		case ruleset.Eq:
			return addrset.Set{}, true
		case ruleset.Neq:
			return all, true
		}
		return addrset.Set{}, false
	}
	upTo := addrset.Of(addrset.Interval{First: first, Last: addrset.LastOf(p)})
	from := addrset.Of(addrset.Interval{First: a, Last: last})
	switch m.Op {
	case ruleset.Eq:
		return addrset.Prefixes(p), true
	case ruleset.Neq:
		return all.Minus(addrset.Prefixes(p)), true
	case ruleset.Lte:
		return upTo, true
	case ruleset.Gt:
		return all.Minus(upTo), true
	case ruleset.Gte:
		return from, true
	case ruleset.Lt:
		return all.Minus(from), true
	}
	return addrset.Set{}, false
}

// prefixLength is how many ones a mask begins with, if nothing but zeros follows; no mask is all ones.
func prefixLength(mask []byte, length int) (int, bool) {
	if len(mask) == 0 {
		return length, true
	}
	if len(mask)*8 != length {
		return 0, false
	}
	ones := 0
	for ones < length && mask[ones/8]&(0x80>>(ones%8)) != 0 {
		ones++
	}
	for i := ones; i < length; i++ {
		if mask[i/8]&(0x80>>(i%8)) != 0 {
			return 0, false
		}
	}
	return ones, true
}
