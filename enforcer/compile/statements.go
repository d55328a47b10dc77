package compile

import "drawbridge/enforcer/ruleset"

// Values that packets and the kernel fix.
const (
	protoTCP    = 6  // IANA
	protoICMP   = 1  // IANA
	protoICMPv6 = 58 // IANA

	ndSolicit   = 135 // RFC 4861 section 4.3
	ndAdvertise = 136 // RFC 4861 section 4.4

	loopbackIndex = 1 // include/net/flow.h: LOOPBACK_IFINDEX

	ipFragment = 0x3fff // ip frag-off: more fragments, and the offset (RFC 791 section 3.1)

	optionMPTCP        = 30  // RFC 8684
	optionFastOpen     = 34  // RFC 7413
	optionExperimental = 254 // RFC 6994; carried Fast Open before it had a number, and Linux still takes it
)

// TCP flags (RFC 9293 section 3.1).
const (
	fin = 0x01
	syn = 0x02
	rst = 0x04
	ack = 0x10
)

// Bits of ct state (include/uapi/linux/netfilter/nf_conntrack_common.h).
const (
	stateInvalid     = 1
	stateEstablished = 2
	stateRelated     = 4
	stateUntracked   = 64
)

// Directions (include/uapi/linux/netfilter/nf_conntrack_tuple_common.h).
const (
	directionOriginal = 0 // IP_CT_DIR_ORIGINAL
	directionReply    = 1 // IP_CT_DIR_REPLY
)

var (
	accept = ruleset.Verdict{Kind: ruleset.Accept}
	drop   = ruleset.Verdict{Kind: ruleset.Drop}
	back   = ruleset.Verdict{Kind: ruleset.Return}
)

func jump(chain string) ruleset.Verdict { return ruleset.Verdict{Kind: ruleset.Jump, Chain: chain} }
func goTo(chain string) ruleset.Verdict { return ruleset.Verdict{Kind: ruleset.Goto, Chain: chain} }

func rule(s ...ruleset.Statement) ruleset.Rule { return ruleset.Rule{Statements: s} }

// because gives a rule its comment for operators.
func because(comment string, s ...ruleset.Statement) ruleset.Rule {
	return ruleset.Rule{Statements: s, Comment: comment}
}

func match(k ruleset.FieldKind, op ruleset.Op, value ...byte) ruleset.Match {
	return ruleset.Match{Field: ruleset.F(k), Op: op, Value: value}
}

var (
	isTCP      = match(ruleset.MetaL4Proto, ruleset.Eq, protoTCP)
	notTCP     = match(ruleset.MetaL4Proto, ruleset.Neq, protoTCP)
	fromLo     = match(ruleset.MetaIIF, ruleset.Eq, native(loopbackIndex)...)
	toLo       = match(ruleset.MetaOIF, ruleset.Eq, native(loopbackIndex)...)
	noWayBack  = match(ruleset.FibSaddrIIFOIF, ruleset.Eq, native(0)...)
	isOriginal = match(ruleset.CTDirection, ruleset.Eq, directionOriginal)
	isReply    = match(ruleset.CTDirection, ruleset.Eq, directionReply)
)

// flags matches packets of whose flags in mask exactly those in want are set.
func flags(mask, want byte) ruleset.Match {
	return ruleset.Match{Field: ruleset.F(ruleset.TCPFlags), Mask: []byte{mask}, Op: ruleset.Eq, Value: []byte{want}}
}

// anyFlag matches packets with at least one of the flags.
func anyFlag(mask byte) ruleset.Match {
	return ruleset.Match{Field: ruleset.F(ruleset.TCPFlags), Mask: []byte{mask}, Op: ruleset.Neq, Value: []byte{0}}
}

func state(bits uint32) ruleset.Match {
	return ruleset.Match{Field: ruleset.F(ruleset.CTState), Mask: native(bits), Op: ruleset.Neq, Value: native(0)}
}

// reaches matches packets whose TCP payload has a byte at the offset: a payload expression beyond the end of the
// packet stops the rule, and every byte is at least zero.
func reaches(offset int) ruleset.Match {
	return ruleset.Match{Field: ruleset.InnerField(offset, 1), Op: ruleset.Gte, Value: []byte{0}}
}

var payload = reaches(0)

// bytesAt matches packets whose TCP payload has these bytes at the offset.
func bytesAt(offset int, b ...byte) ruleset.Match {
	return ruleset.Match{Field: ruleset.InnerField(offset, len(b)), Op: ruleset.Eq, Value: b}
}

// oneOf matches packets whose TCP payload has one of the strings, all of one length, at the offset.
func oneOf(offset int, values ...[]byte) ruleset.InAnonymous {
	return ruleset.InAnonymous{Field: ruleset.InnerField(offset, len(values[0])), Values: values}
}

func fields(kinds ...ruleset.FieldKind) []ruleset.Field {
	out := make([]ruleset.Field, len(kinds))
	for i, k := range kinds {
		out[i] = ruleset.F(k)
	}
	return out
}

func in(set string, key ...ruleset.FieldKind) ruleset.InSet {
	return ruleset.InSet{Key: fields(key...), Set: set}
}

func notIn(set string, key ...ruleset.FieldKind) ruleset.InSet {
	return ruleset.InSet{Key: fields(key...), Set: set, Negate: true}
}

func negate(s ruleset.InSet) ruleset.InSet {
	s.Negate = !s.Negate
	return s
}

// to matches packets to an address and port in the family's set of that name.
func (f family) to(set string) ruleset.InSet { return in(set+f.suffix, f.daddr, ruleset.THDport) }

// from matches packets from an address and port in the family's set of that name.
func (f family) from(set string) ruleset.InSet { return in(set+f.suffix, f.saddr, ruleset.THSport) }

// fragment matches fragments, the first one of a packet included.
func (f family) fragment() ruleset.Match {
	if f.is4 {
		return ruleset.Match{Field: ruleset.F(ruleset.IPFragOff), Mask: []byte{ipFragment >> 8, ipFragment & 0xff}, Op: ruleset.Neq, Value: []byte{0, 0}}
	}
	return match(ruleset.ExthdrFragExists, ruleset.Eq, 1)
}

func (f family) is() ruleset.Match { return match(ruleset.MetaNFProto, ruleset.Eq, f.nfproto) }
