package ruleset

import "fmt"

// String returns the nft(8) name of the type; "invalid" for the zero value.
func (t DataType) String() string {
	switch t {
	case TypeIPv4Addr:
		return "ipv4_addr"
	case TypeIPv6Addr:
		return "ipv6_addr"
	case TypeInetService:
		return "inet_service"
	case TypeIfname:
		return "ifname"
	case TypeMark:
		return "mark"
	}
	return "invalid"
}

// Len returns the length of a value of the type in bytes; 0 for the zero value.
func (t DataType) Len() int {
	switch t {
	case TypeIPv4Addr, TypeMark:
		return 4
	case TypeIPv6Addr, TypeIfname:
		return 16
	case TypeInetService:
		return 2
	}
	return 0
}

// String returns the hook's nft(8) name; "none" for the zero value.
func (h Hook) String() string {
	return [...]string{"none", "prerouting", "input", "forward", "output", "postrouting"}[h]
}

// String returns the operator as nft(8) writes it.
func (o Op) String() string {
	return [...]string{"invalid", "==", "!=", "<", "<=", ">", ">="}[o]
}

// String returns the operation as nft(8) writes it.
func (o SetOp) String() string {
	return [...]string{"invalid", "add", "update", "delete"}[o]
}

var fieldNames = map[FieldKind]string{
	MetaNFProto: "meta nfproto", MetaL4Proto: "meta l4proto",
	MetaIIF: "iif", MetaOIF: "oif", MetaIIFName: "iifname", MetaOIFName: "oifname",
	IPSaddr: "ip saddr", IPDaddr: "ip daddr", IP6Saddr: "ip6 saddr", IP6Daddr: "ip6 daddr",
	THSport: "th sport", THDport: "th dport",
	TCPFlags: "tcp flags", TCPSeq: "tcp sequence", TCPAckSeq: "tcp ackseq",
	CTState: "ct state", CTDirection: "ct direction", CTStatus: "ct status", CTMark: "ct mark", CTID: "ct id",
	TCPOptionMPTCP: "tcp option mptcp", TCPOptionFastOpen: "tcp option fastopen",
	ICMPType: "icmp type", ICMPv6Type: "icmpv6 type",
	FibSaddrIIFOIF: "fib saddr . iif oif", IPFragOff: "ip frag-off", ExthdrFragExists: "exthdr frag",
}

// String returns the field as nft(8) writes it; "invalid" for the zero value.
func (f Field) String() string {
	if f.Kind == Inner {
		return fmt.Sprintf("@ih,%d,%d", f.OffsetBits, f.LengthBits)
	}
	if name, ok := fieldNames[f.Kind]; ok {
		if f.Map != "" {
			return name + " map @" + f.Map
		}
		return name
	}
	return "invalid"
}

// String returns the verdict as nft(8) writes it.
func (v Verdict) String() string { return printVerdict(v) }
