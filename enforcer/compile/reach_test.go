package compile_test

import (
	"encoding/json"
	"net/netip"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"drawbridge/enforcer/addrset"
	"drawbridge/enforcer/reach"
	"drawbridge/enforcer/ruleset"
)

// fieldKinds are what the walker can read of a packet, but for the client's address.
var fieldKinds = []ruleset.FieldKind{
	ruleset.MetaNFProto, ruleset.MetaL4Proto, ruleset.MetaIIF, ruleset.MetaOIF, ruleset.MetaIIFName, ruleset.MetaOIFName,
	ruleset.IPSaddr, ruleset.IPDaddr, ruleset.IP6Saddr, ruleset.IP6Daddr, ruleset.THSport, ruleset.THDport, ruleset.TCPFlags,
	ruleset.TCPSeq, ruleset.TCPAckSeq, ruleset.CTState, ruleset.CTDirection, ruleset.CTMark, ruleset.CTID, ruleset.TCPOptionMPTCP,
	ruleset.ICMPv6Type, ruleset.FibSaddrIIFOIF, ruleset.IPFragOff, ruleset.ExthdrFragExists,
}

// asReach is a packet as the package reach takes it; forgotten fields are left out.
func asReach(w *walker, h ruleset.Hook, client ruleset.FieldKind, p packet, forget func() bool) reach.Packet {
	out := reach.Packet{Hook: h, Client: client, Room: true}
	for _, k := range fieldKinds {
		if k == client || forget() {
			continue
		}
		if v, ok := w.field(ruleset.F(k), p); ok {
			out.Known.Set(k, v)
		} else {
			out.Missing = append(out.Missing, k)
		}
	}
	switch {
	case forget():
	case p.proto != 6 || p.fragment || len(p.payload) == 0:
		out.Payload = reach.Payload{Length: reach.Empty}
	case forget():
		out.Payload = reach.Payload{Length: reach.Some}
	default:
		out.Payload = reach.Payload{Length: reach.Exact, Bytes: p.payload}
	}
	return out
}

func asTable(t *rapid.T, d document) ruleset.Table {
	data, err := json.Marshal(d)
	require.NoError(t, err)
	return compiled(t, "any", data)
}

func anyPacket(t *rapid.T, d document) packet {
	dst, src := anyTarget(t, d), anySource(t)
	if src.Is4() != dst.Addr().Is4() {
		src = netip.MustParseAddr(map[bool]string{true: "198.51.100.3", false: "2001:db8:1::2"}[dst.Addr().Is4()])
	}
	p := packet{
		src: netip.AddrPortFrom(src, 40000), dst: dst,
		proto: rapid.SampledFrom([]byte{6, 6, 6, 17, 1, 58}).Draw(t, "proto"),
		flags: rapid.SampledFrom([]byte{0x02, 0x12, 0x10, 0x18, 0x04, 0x14, 0x11}).Draw(t, "flags"),
		seq:   rapid.Uint32Range(1, 3).Draw(t, "seq"), ack: rapid.Uint32Range(1, 3).Draw(t, "ack"),
		payload:  rapid.SampledFrom([][]byte{nil, []byte("PING"), {0, 0, 0, 8, 4, 0xd2, 0x16, 0x2f}, {0x16, 3, 1, 0, 9, 1, 0, 0, 5, 3, 3, 0}}).Draw(t, "payload"),
		iif:      rapid.SampledFrom([]string{"inet0", "reg0", "vpc0", "peer0", "other", "lo"}).Draw(t, "iif"),
		oif:      rapid.SampledFrom([]string{"inet0", "reg0", "vpc0", "peer0", "other", "lo"}).Draw(t, "oif"),
		fragment: rapid.IntRange(0, 9).Draw(t, "fragment") == 0, noWayBack: rapid.Bool().Draw(t, "no way back"),
		icmp:  rapid.SampledFrom([]byte{128, 135}).Draw(t, "icmp"),
		state: rapid.SampledFrom([]uint32{stateInvalid, stateEstablished, stateRelated, stateNew}).Draw(t, "state"), reply: rapid.Bool().Draw(t, "reply"),
	}
	if rapid.Bool().Draw(t, "answer") {
		p.src, p.dst = p.dst, p.src
	}
	return p
}

// spoil changes a table a little, so that it is not only what the compiler would write.
func spoil(t *rapid.T, table ruleset.Table) ruleset.Table {
	table.Chains, table.Sets = slices.Clone(table.Chains), slices.Clone(table.Sets)
	for range rapid.IntRange(0, 3).Draw(t, "spoilings") {
		c := &table.Chains[rapid.IntRange(0, len(table.Chains)-1).Draw(t, "chain")]
		s := &table.Sets[rapid.IntRange(0, len(table.Sets)-1).Draw(t, "set")]
		switch rapid.IntRange(0, 4).Draw(t, "how") {
		case 0:
			if n := len(c.Rules); n > 0 {
				i := rapid.IntRange(0, n-1).Draw(t, "rule")
				c.Rules = slices.Delete(slices.Clone(c.Rules), i, i+1)
			}
		case 1:
			if n := len(c.Rules); n > 1 {
				c.Rules = slices.Clone(c.Rules)
				i := rapid.IntRange(1, n-1).Draw(t, "rule")
				c.Rules[i], c.Rules[i-1] = c.Rules[i-1], c.Rules[i]
			}
		case 2:
			if n := len(s.Elements); n > 0 {
				i := rapid.IntRange(0, n-1).Draw(t, "element")
				s.Elements = slices.Delete(slices.Clone(s.Elements), i, i+1)
			}
		case 3:
			c.Policy = ruleset.Verdict{}
		case 4:
			c.Rules = slices.Insert(slices.Clone(c.Rules), 0, ruleset.Rule{Statements: []ruleset.Statement{
				ruleset.Match{Field: ruleset.F(ruleset.MetaL4Proto), Op: ruleset.Eq, Value: []byte{17}}, ruleset.Verdict{Kind: ruleset.Return}}})
		}
	}
	return table
}

// TestSetsOfClientsFareAsSinglePacketsDo compares the symbolic evaluation with the walk of single packets: with everything
// known both say the same; with any part forgotten, what happens is among what may.
func TestSetsOfClientsFareAsSinglePacketsDo(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := anyDocument(t)
		table := spoil(t, asTable(t, d))
		p := anyPacket(t, d)
		hook, client := ruleset.HookPrerouting, ruleset.IPSaddr
		if rapid.Bool().Draw(t, "postrouting") {
			hook = ruleset.HookPostrouting
		}
		fromServer := p.dst.Port() == 40000
		who := p.src.Addr()
		if fromServer {
			client, who = ruleset.IPDaddr, p.dst.Addr()
		}
		if !who.Is4() {
			client = map[bool]ruleset.FieldKind{false: ruleset.IP6Saddr, true: ruleset.IP6Daddr}[fromServer]
		}
		m, err := reach.New(table)
		require.NoError(t, err)
		w := walk(table)
		w.mark = rapid.SampledFrom([]uint32{0, 0x100000, 0x300000, 0x700000, 0xf00000, 0x900007}).Draw(t, "mark")
		whole := asReach(w, hook, client, p, func() bool { return false })
		whole.Memory = reach.Memory{}
		parts := asReach(w, hook, client, p, func() bool { return rapid.IntRange(0, 3).Draw(t, "forget") == 0 })
		want := w.hook(hook, p)

		everybody := addrset.All(who.Is4())
		single := addrset.Addrs(who)
		got, mark := m.RunMark(whole, single, nil)
		switch want {
		case accepted:
			require.True(t, got.Certain().Equal(single), "%+v", got)
			if p.state != stateInvalid {
				require.Equal(t, w.mark, mark)
			}
		case dropped:
			require.True(t, got.Drop.Equal(single) && got.Accept.IsEmpty() && got.Reject.IsEmpty(), "%+v", got)
		default:
			require.True(t, got.Reject.Equal(single) && got.Accept.IsEmpty() && got.Drop.IsEmpty(), "%+v", got)
		}
		all := m.Run(parts, everybody, nil)
		among := map[outcome]addrset.Set{accepted: all.Accept, dropped: all.Drop, rejected: all.Reject}[want]
		require.True(t, among.Contains(who), "%s, but may: %+v", want, all)
		if all.Certain().Contains(who) {
			require.Equal(t, accepted, want)
		}
		require.True(t, all.Accept.Union(all.Drop).Union(all.Reject).Equal(everybody), "nobody gets lost")
	})
}
