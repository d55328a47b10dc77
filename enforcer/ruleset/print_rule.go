package ruleset

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
)

func printStatement(s Statement) string {
	switch s := s.(type) {
	case Match:
		return printMatch(s)
	case InSet:
		return printFields(s.Key) + negated(s.Negate) + " @" + s.Set
	case InAnonymous:
		return printInAnonymous(s)
	case VerdictMap:
		return printFields(s.Key) + " vmap @" + s.Map
	case Dynset:
		return printDynset(s)
	case SetMark:
		return fmt.Sprintf("ct mark set ct mark & 0x%08x | 0x%08x", ^s.Mask, s.Value)
	case Verdict:
		return printVerdict(s)
	}
	return printAction(s)
}

func printAction(s Statement) string {
	switch s := s.(type) {
	case Counter:
		if s.Name != "" {
			return "counter name " + printString(s.Name)
		}
		return "counter"
	case Limit:
		return fmt.Sprintf("limit rate %d/second burst %d packets", s.Rate, s.Burst)
	case Log:
		return fmt.Sprintf("log prefix %s group %d snaplen %d", printString(s.Prefix), s.Group, s.Snaplen)
	case ResetTCPOption:
		return fmt.Sprintf("reset tcp option %d", s.Kind)
	case SetTCPFlags:
		return "tcp flags set " + printTCPFlags([]byte{s.Flags})
	case SetTCPAckSeq:
		if s.From.Kind == FieldInvalid {
			return "tcp ackseq set 0"
		}
		return "tcp ackseq set " + s.From.String()
	case Duplicate:
		return "dup to " + s.To.String()
	case NoTrack:
		return "notrack"
	case Reject:
		if s.TCPReset {
			return "reject with tcp reset"
		}
		return "reject with icmpx admin-prohibited"
	}
	return fmt.Sprintf("# %T", s) // the set of statements is closed: never reached
}

func negated(not bool) string {
	if not {
		return " !="
	}
	return ""
}

func printDynset(s Dynset) string {
	timeout := ""
	if s.Timeout > 0 {
		timeout = " timeout " + printDuration(s.Timeout)
	}
	data := ""
	if s.Data.Kind != FieldInvalid {
		data = " : " + s.Data.String()
	}
	over := ""
	if s.Over != (Limit{}) {
		over = fmt.Sprintf(" limit rate over %d/second burst %d packets", s.Over.Rate, s.Over.Burst)
	}
	return fmt.Sprintf("%s @%s { %s%s%s%s }", s.Op, s.Set, printFields(s.Key), timeout, over, data)
}

func printInAnonymous(s InAnonymous) string {
	values := make([]string, len(s.Values))
	for i, v := range s.Values {
		values[i] = printValue(s.Field, v)
	}
	op := "=="
	if s.Negate {
		op = "!="
	}
	return fmt.Sprintf("%s %s { %s }", printMasked(s.Field, s.Mask), op, strings.Join(values, ", "))
}

func printMatch(m Match) string {
	value := printValue(m.Field, m.Value)
	switch m.Field.Kind {
	case ExthdrFragExists, TCPOptionMPTCP, TCPOptionFastOpen:
		if (m.Op == Eq) == (len(m.Value) == 1 && m.Value[0] == 1) {
			return m.Field.String() + " exists"
		}
		return m.Field.String() + " missing"
	case CTState:
		if m.Op == Neq && isZero(m.Value) && len(m.Mask) == 4 {
			if names, ok := stateNames(binary.NativeEndian.Uint32(m.Mask)); ok {
				return "ct state " + names
			}
		}
	}
	return fmt.Sprintf("%s %s %s", printMasked(m.Field, m.Mask), m.Op, value)
}

func printMasked(f Field, mask []byte) string {
	if len(mask) == 0 {
		return f.String()
	}
	m := printValue(f, mask)
	if f.Kind == TCPFlags && strings.Contains(m, "|") {
		m = "(" + m + ")"
	}
	return f.String() + " & " + m
}

// printValue writes a value as nft(8) reads it for that field.
func printValue(f Field, v []byte) string {
	switch f.Kind {
	case MetaNFProto:
		return named(v, map[byte]string{2: "ipv4", 10: "ipv6"})
	case MetaL4Proto:
		return named(v, map[byte]string{1: "icmp", 6: "tcp", 17: "udp", 58: "icmpv6"})
	case CTDirection:
		return named(v, map[byte]string{0: "original", 1: "reply"})
	case MetaIIFName, MetaOIFName:
		return printData(TypeIfname, v)
	case MetaIIF, MetaOIF:
		return printIndex(v)
	case IPSaddr, IPDaddr, IP6Saddr, IP6Daddr:
		return printData(TypeIPv4Addr, v)
	case TCPFlags:
		return printTCPFlags(v)
	case CTState, CTStatus, CTMark, CTID:
		return nativeHex(v)
	case FibSaddrIIFOIF:
		return strconv.FormatUint(uint64(native(v)), 10)
	case THSport, THDport, TCPSeq, TCPAckSeq, ICMPType, ICMPv6Type:
		return strconv.FormatUint(bigEndian(v), 10)
	}
	return fmt.Sprintf("0x%x", v)
}

func named(v []byte, names map[byte]string) string {
	if len(v) == 1 {
		if name, ok := names[v[0]]; ok {
			return name
		}
	}
	return strconv.FormatUint(bigEndian(v), 10)
}

// loopbackIndex is the index of lo in every network namespace (include/net/flow.h: LOOPBACK_IFINDEX).
const loopbackIndex = 1

func printIndex(v []byte) string {
	if native(v) == loopbackIndex {
		return `"lo"`
	}
	return strconv.FormatUint(uint64(native(v)), 10)
}

func native(v []byte) uint32 {
	if len(v) != 4 {
		return 0
	}
	return binary.NativeEndian.Uint32(v)
}

func nativeHex(v []byte) string { return fmt.Sprintf("0x%08x", native(v)) }

func bigEndian(v []byte) uint64 {
	var n uint64
	for _, b := range v {
		n = n<<8 | uint64(b)
	}
	return n
}

func isZero(v []byte) bool { return bigEndian(v) == 0 }

// printTCPFlags names the bits of RFC 9293 section 3.1, in ascending order.
func printTCPFlags(v []byte) string {
	if len(v) != 1 {
		return fmt.Sprintf("0x%x", v)
	}
	var names []string
	for i, name := range []string{"fin", "syn", "rst", "psh", "ack", "urg", "ecn", "cwr"} {
		if v[0]&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return "0x0"
	}
	return strings.Join(names, "|")
}

// stateNames names the bits of a ct state mask (include/uapi/linux/netfilter/nf_conntrack_common.h).
func stateNames(mask uint32) (string, bool) {
	var names []string
	for _, s := range []struct {
		bit  uint32
		name string
	}{{1, "invalid"}, {2, "established"}, {4, "related"}, {8, "new"}, {64, "untracked"}} {
		if mask&s.bit != 0 {
			names = append(names, s.name)
			mask &^= s.bit
		}
	}
	return strings.Join(names, ","), mask == 0 && len(names) > 0
}

func printVerdict(v Verdict) string {
	switch v.Kind {
	case Accept:
		return "accept"
	case Return:
		return "return"
	case Jump:
		return "jump " + v.Chain
	case Goto:
		return "goto " + v.Chain
	}
	return "drop"
}

func printFields(fields []Field) string {
	parts := make([]string, len(fields))
	for i, f := range fields {
		parts[i] = f.String()
	}
	return strings.Join(parts, " . ")
}
