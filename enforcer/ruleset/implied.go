package ruleset

import "slices"

// Protocols by number: NFPROTO_ (include/uapi/linux/netfilter.h) and IANA's.
const (
	nfprotoIPv4 = 2
	nfprotoIPv6 = 10
	protoTCP    = 6
)

// equalRule tells whether a rule that stands is the one that is wanted. Where nft(8) has loaded it, a test for the protocol of
// a header field may stand in front of that field (Print), which for any packet that has the field matches anyway. Such a
// test may be there though it is not wanted, and never the other way round.
func equalRule(have, want Rule) bool {
	rest := want.Statements
	for i, s := range have.Statements {
		switch {
		case len(rest) > 0 && equalStatement(s, rest[0]):
			rest = rest[1:]
		case !isImplied(s, have.Statements[i+1:]):
			return false
		}
	}
	return len(rest) == 0
}

// isImplied tells whether a statement tests for the protocol that one of those behind it needs anyway.
func isImplied(s Statement, behind []Statement) bool {
	m, ok := s.(Match)
	if !ok || m.Op != Eq || len(m.Mask) > 0 || len(m.Value) != 1 {
		return false
	}
	return slices.ContainsFunc(behind, func(s Statement) bool {
		switch m.Field.Kind {
		case MetaNFProto:
			return slices.ContainsFunc(looksAt(s), func(f Field) bool { return networkOf(f.Kind) == m.Value[0] })
		case MetaL4Proto:
			return m.Value[0] == protoTCP && (isForTCP(s) || slices.ContainsFunc(looksAt(s), func(f Field) bool { return isOfTCP(f.Kind) }))
		}
		return false
	})
}

// looksAt are the fields of a statement.
func looksAt(s Statement) []Field {
	switch s := s.(type) {
	case Match:
		return []Field{s.Field}
	case InAnonymous:
		return []Field{s.Field}
	case InSet:
		return s.Key
	case VerdictMap:
		return s.Key
	case Dynset:
		return append(slices.Clone(s.Key), s.Data)
	case Duplicate:
		return []Field{s.To}
	}
	return nil
}

// networkOf is the protocol that has a field in its header; 0 for fields of none.
func networkOf(k FieldKind) byte {
	switch k {
	case IPSaddr, IPDaddr, IPFragOff:
		return nfprotoIPv4
	case IP6Saddr, IP6Daddr, ExthdrFragExists:
		return nfprotoIPv6
	}
	return 0
}

func isOfTCP(k FieldKind) bool {
	switch k {
	case TCPFlags, TCPSeq, TCPAckSeq, TCPOptionMPTCP, TCPOptionFastOpen:
		return true
	}
	return false
}

// isForTCP tells whether a statement acts on TCP only.
func isForTCP(s Statement) bool {
	switch s := s.(type) {
	case ResetTCPOption, SetTCPFlags, SetTCPAckSeq:
		return true
	case Reject:
		return s.TCPReset
	}
	return false
}
