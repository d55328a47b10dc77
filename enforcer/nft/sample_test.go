package nft

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"
	"time"

	"drawbridge/enforcer/ruleset"
)

func port(p uint16) []byte { return binary.BigEndian.AppendUint16(nil, p) }

func addr(s string) []byte { return netip.MustParseAddr(s).AsSlice() }

func endpoint(a string, p uint16) ruleset.Key { return ruleset.Key(addr(a)) + ruleset.Key(port(p)) }

func ranged(from, to string) ruleset.Element {
	return ruleset.Element{Key: ruleset.Key(addr(from)), End: ruleset.Key(addr(to))}
}

func ifname(s string) []byte { return append([]byte(s), make([]byte, ifnameLen-len(s))...) }

func host(v uint32) []byte { return hostOrder(v) }

func match(kind ruleset.FieldKind, value []byte) ruleset.Match {
	return ruleset.Match{Field: ruleset.F(kind), Op: ruleset.Eq, Value: value}
}

var (
	isIPv4   = match(ruleset.MetaNFProto, []byte{2})
	isIPv6   = match(ruleset.MetaNFProto, []byte{10})
	isTCP    = match(ruleset.MetaL4Proto, []byte{6})
	isICMP   = match(ruleset.MetaL4Proto, []byte{1})
	isICMPv6 = match(ruleset.MetaL4Proto, []byte{58})
	drop     = ruleset.Verdict{}
	accept   = ruleset.Verdict{Kind: ruleset.Accept}
)

func rule(comment string, s ...ruleset.Statement) ruleset.Rule {
	return ruleset.Rule{Comment: comment, Statements: s}
}

// sampleTable uses every type, field and statement of the typed form.
func sampleTable() ruleset.Table {
	return ruleset.Table{Family: ruleset.FamilyINET, Name: "drawbridge", Sets: sampleSets(), Chains: []ruleset.Chain{
		{Name: "admission", Hook: ruleset.HookPrerouting, Priority: -310, Policy: accept, Rules: admissionRules()},
		{Name: "containment", Hook: ruleset.HookPrerouting, Priority: -140, Policy: accept, Rules: fieldRules()},
		{Name: "local", Hook: ruleset.HookInput, Priority: 10, Policy: accept},
		{Name: "through", Hook: ruleset.HookForward, Priority: -1, Policy: accept},
		{Name: "out", Hook: ruleset.HookOutput, Priority: 0, Policy: drop, Rules: []ruleset.Rule{rule("", accept)}},
		{Name: "witness", Hook: ruleset.HookPostrouting, Priority: 310, Policy: accept, Rules: witnessRules()},
		{Name: "db_orders", Rules: []ruleset.Rule{rule("office", ruleset.InSet{Key: []ruleset.Field{ruleset.F(ruleset.IPSaddr)}, Set: "src_orders"}, accept), rule("", ruleset.Verdict{Kind: ruleset.Goto, Chain: "refuse"})}},
		{Name: "refuse", Rules: refuseRules()},
	}}
}

func sampleSets() []ruleset.Set {
	ep4 := []ruleset.DataType{ruleset.TypeIPv4Addr, ruleset.TypeInetService}
	ep6 := []ruleset.DataType{ruleset.TypeIPv6Addr, ruleset.TypeInetService}
	return []ruleset.Set{
		{Name: "open", Key: ep4, Elements: []ruleset.Element{{Key: endpoint("203.0.113.140", 5432), Comment: "orders"}}},
		{Name: "open6", Key: ep6, Counter: true, Elements: []ruleset.Element{{Key: endpoint("2001:db8::1", 5432)}}},
		{Name: "users", Key: append([]ruleset.DataType{ruleset.TypeIfname}, ep4...), Elements: []ruleset.Element{{Key: ruleset.Key(ifname("inet0")) + endpoint("203.0.113.140", 5432)}}},
		{Name: "databases", Key: ep4, Verdicts: true, Elements: []ruleset.Element{
			{Key: endpoint("203.0.113.140", 5432), Verdict: ruleset.Verdict{Kind: ruleset.Goto, Chain: "db_orders"}},
			{Key: endpoint("203.0.113.141", 5432), Verdict: drop},
			{Key: endpoint("203.0.113.142", 5432), Verdict: accept},
			{Key: endpoint("203.0.113.143", 5432), Verdict: ruleset.Verdict{Kind: ruleset.Jump, Chain: "db_orders"}},
		}},
		{Name: "src_orders", Key: ep4[:1], Interval: true, HasTimeout: true, Elements: []ruleset.Element{
			{Key: ruleset.Key(addr("0.0.0.0")), End: ruleset.Key(addr("0.0.0.5")), Comment: "first"},
			ranged("10.0.0.0", "10.0.0.255"), ranged("10.0.1.0", "10.0.1.0"),
			{Key: ruleset.Key(addr("198.51.100.0")), End: ruleset.Key(addr("198.51.100.15")), Timeout: time.Hour},
			ranged("255.255.255.0", "255.255.255.255"),
		}},
		{Name: "src6_orders", Key: ep6[:1], Interval: true, Elements: []ruleset.Element{
			ranged("::", "::"), ranged("2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"), ranged("ffff::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
		}},
		{Name: "all", Key: ep4[:1], Interval: true, Elements: []ruleset.Element{ranged("0.0.0.0", "255.255.255.255")}},
		{Name: "expected", Key: []ruleset.DataType{ruleset.TypeMark, ruleset.TypeMark}, Dynamic: true, Timeout: 30 * time.Second, Size: 65536},
		{Name: "seen", Key: []ruleset.DataType{ruleset.TypeMark}, Dynamic: true, HasTimeout: true, Size: 1024},
		{Name: "classes", Key: []ruleset.DataType{ruleset.TypeMark}, Size: 10, Elements: []ruleset.Element{{Key: ruleset.Key(host(0x00f00000))}}},
	}
}

func admissionRules() []ruleset.Rule {
	ep := []ruleset.Field{ruleset.F(ruleset.IPDaddr), ruleset.F(ruleset.THDport)}
	ep6 := []ruleset.Field{ruleset.F(ruleset.IP6Daddr), ruleset.F(ruleset.THDport)}
	users := append([]ruleset.Field{ruleset.F(ruleset.MetaIIFName)}, ep...)
	return []ruleset.Rule{
		rule("loopback is not judged", match(ruleset.MetaIIFName, ifname("lo")), accept),
		rule("", isIPv4, isTCP, ruleset.InSet{Key: ep, Set: "open"}, accept),
		rule("", isIPv6, isTCP, ruleset.InSet{Key: ep6, Set: "open6", Negate: true}, ruleset.Verdict{Kind: ruleset.Return}),
		rule("", isIPv4, isTCP, ruleset.InSet{Key: users, Set: "users"}, ruleset.Counter{Name: "users_in"}, accept),
		rule("", isIPv4, isTCP, ruleset.VerdictMap{Key: ep, Map: "databases"}),
		rule("", match(ruleset.FibSaddrIIFOIF, host(0)), ruleset.NoTrack{}),
		rule("", isTCP, ruleset.ResetTCPOption{Kind: tcpOptionMPTCP}, ruleset.ResetTCPOption{Kind: tcpOptionFastOpen}),
		rule("", ruleset.Verdict{Kind: ruleset.Jump, Chain: "refuse"}),
	}
}

func fieldRules() []ruleset.Rule {
	masked := func(kind ruleset.FieldKind, op ruleset.Op, mask, value []byte) ruleset.Match {
		return ruleset.Match{Field: ruleset.F(kind), Mask: mask, Op: op, Value: value}
	}
	return []ruleset.Rule{
		rule("", masked(ruleset.CTState, ruleset.Neq, host(6), host(0)), accept),
		rule("", masked(ruleset.CTStatus, ruleset.Neq, host(32), host(0)), accept),
		rule("", match(ruleset.CTDirection, []byte{1}), accept),
		rule("", masked(ruleset.CTMark, ruleset.Eq, host(0x00f00000), host(0x00300000)), accept),
		rule("", isIPv4, isICMP, ruleset.InAnonymous{Field: ruleset.F(ruleset.ICMPType), Values: [][]byte{{8}, {3}}}, drop),
		rule("", isIPv6, isICMPv6, ruleset.InAnonymous{Field: ruleset.F(ruleset.ICMPv6Type), Values: [][]byte{{133}, {134}, {135}, {136}}}, accept),
		rule("", isIPv4, masked(ruleset.IPFragOff, ruleset.Neq, []byte{0x1f, 0xff}, []byte{0, 0}), drop),
		rule("", isIPv6, match(ruleset.ExthdrFragExists, []byte{1}), drop),
		rule("", isIPv4, match(ruleset.IPSaddr, addr("192.0.2.1")), match(ruleset.IPDaddr, addr("192.0.2.2")), drop),
		rule("", isIPv6, match(ruleset.IP6Saddr, addr("2001:db8::1")), match(ruleset.IP6Daddr, addr("2001:db8::2")), drop),
		rule("", match(ruleset.MetaIIF, host(1)), match(ruleset.MetaOIF, host(1)), match(ruleset.MetaOIFName, ifname("lo")), accept),
		rule("", ruleset.InAnonymous{Field: ruleset.F(ruleset.MetaL4Proto), Values: [][]byte{{6}, {17}}, Negate: true}, ruleset.Limit{Rate: 10, Burst: 5}, ruleset.Log{Group: 7, Prefix: "drawbridge ", Snaplen: 64}, drop),
		rule("", isTCP, ruleset.Match{Field: ruleset.F(ruleset.THSport), Op: ruleset.Gte, Value: port(1024)}, ruleset.Match{Field: ruleset.F(ruleset.THDport), Op: ruleset.Lt, Value: port(1024)}, accept),
		rule("", isTCP, ruleset.Match{Field: ruleset.F(ruleset.TCPSeq), Op: ruleset.Gt, Value: []byte{0, 0, 0, 9}}, ruleset.Match{Field: ruleset.F(ruleset.TCPAckSeq), Op: ruleset.Lte, Value: []byte{1, 2, 3, 4}}, drop),
	}
}

func witnessRules() []ruleset.Rule {
	locked := func(f ruleset.FieldKind) []ruleset.Field {
		return []ruleset.Field{ruleset.F(ruleset.CTID), ruleset.F(f)}
	}
	synAck := ruleset.Match{Field: ruleset.F(ruleset.TCPFlags), Mask: []byte{0x12}, Op: ruleset.Eq, Value: []byte{0x12}}
	return []ruleset.Rule{
		rule("the locked byte", isTCP, synAck, ruleset.SetMark{Mask: 0x00f00000}, ruleset.Dynset{Op: ruleset.AddElement, Key: locked(ruleset.TCPAckSeq), Set: "expected"}, accept),
		rule("", isTCP, ruleset.InSet{Key: locked(ruleset.TCPSeq), Set: "expected"}, ruleset.Dynset{Op: ruleset.UpdateElement, Key: locked(ruleset.TCPSeq), Set: "expected", Timeout: 10 * time.Minute}),
		rule("", isTCP, ruleset.Dynset{Op: ruleset.DeleteElement, Key: locked(ruleset.TCPSeq), Set: "expected"}, ruleset.SetMark{Mask: 0x00f00000, Value: 0x00300000}),
		rule("", ruleset.Dynset{Op: ruleset.AddElement, Key: []ruleset.Field{ruleset.F(ruleset.CTID)}, Set: "seen"}),
		rule("SSLRequest", isTCP, ruleset.Match{Field: ruleset.InnerField(0, 8), Op: ruleset.Eq, Value: []byte{0, 0, 0, 8, 4, 0xd2, 0x16, 0x2f}}, ruleset.Match{Field: ruleset.InnerField(8, 1), Op: ruleset.Lte, Value: []byte{255}}, drop),
		rule("", isTCP, ruleset.InAnonymous{Field: ruleset.InnerField(0, 3), Values: [][]byte{{22, 3, 1}, {22, 3, 2}, {22, 3, 3}}}, accept),
		rule("", isTCP, ruleset.Match{Field: ruleset.InnerField(5, 1), Mask: []byte{8}, Op: ruleset.Neq, Value: []byte{8}}, drop),
		rule("", isTCP, ruleset.InAnonymous{Field: ruleset.F(ruleset.CTMark), Mask: host(0x00f00000), Values: [][]byte{host(0x00300000), host(0x00700000)}}, accept),
		rule("", isTCP, match(ruleset.TCPOptionMPTCP, []byte{1}), match(ruleset.TCPOptionFastOpen, []byte{0}), drop),
	}
}

func refuseRules() []ruleset.Rule {
	return []ruleset.Rule{
		rule("", ruleset.Counter{}),
		rule(strings.Repeat("c", maxComment-1), isTCP, ruleset.SetMark{Mask: 0xffffffff, Value: 1}, ruleset.Reject{TCPReset: true}),
		rule("", ruleset.Reject{}),
	}
}

// canonical orders what has no order, so that tables can be compared as values.
func canonical(t ruleset.Table) ruleset.Table {
	t.Sets = slices.Clone(t.Sets)
	slices.SortFunc(t.Sets, func(a, b ruleset.Set) int { return strings.Compare(a.Name, b.Name) })
	for i := range t.Sets {
		t.Sets[i].Elements = slices.Clone(t.Sets[i].Elements)
		slices.SortFunc(t.Sets[i].Elements, func(a, b ruleset.Element) int { return bytes.Compare([]byte(a.Key), []byte(b.Key)) })
		if len(t.Sets[i].Elements) == 0 {
			t.Sets[i].Elements = nil
		}
	}
	t.Chains = slices.Clone(t.Chains)
	for i := range t.Chains {
		rules := slices.Clone(t.Chains[i].Rules)
		for j := range rules {
			rules[j].Statements = canonicalStatements(rules[j].Statements)
		}
		t.Chains[i].Rules = rules
	}
	return t
}
