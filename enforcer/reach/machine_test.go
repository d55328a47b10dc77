package reach_test

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"drawbridge/enforcer/addrset"
	"drawbridge/enforcer/reach"
	"drawbridge/enforcer/ruleset"
)

func from(network string) ruleset.Statement {
	p := netip.MustParsePrefix(network)
	mask := make([]byte, 4)
	for bit := range p.Bits() {
		mask[bit/8] |= 0x80 >> (bit % 8)
	}
	return ruleset.Match{Field: ruleset.F(ruleset.IPSaddr), Mask: mask, Op: ruleset.Eq, Value: p.Addr().AsSlice()}
}

func rule(s ...ruleset.Statement) ruleset.Rule { return ruleset.Rule{Statements: s} }

var (
	accept = ruleset.Verdict{Kind: ruleset.Accept}
	drop   = ruleset.Verdict{}
	back   = ruleset.Verdict{Kind: ruleset.Return}
	either = ruleset.Match{Field: ruleset.F(ruleset.CTMark), Op: ruleset.Eq, Value: []byte{1, 0, 0, 0}}
)

func to(kind ruleset.VerdictKind, chain string) ruleset.Verdict {
	return ruleset.Verdict{Kind: kind, Chain: chain}
}

// TestVerdicts: jump comes back behind itself, goto behind its caller, return too, and what is not known goes both ways.
func TestVerdicts(t *testing.T) {
	const ten = "10.0.0.0/8"
	for _, tt := range []struct {
		name            string
		rules, side     []ruleset.Rule
		policy          ruleset.Verdict
		accept, certain string
	}{
		{"policy", nil, nil, drop, "none", "none"},
		{"a rule", []ruleset.Rule{rule(from(ten), accept)}, nil, drop, ten, ten},
		{"jump and come back", []ruleset.Rule{rule(to(ruleset.Jump, "side")), rule(accept)}, []ruleset.Rule{rule(from(ten), drop)}, drop,
			"0.0.0.0-9.255.255.255, 11.0.0.0-255.255.255.255", "0.0.0.0-9.255.255.255, 11.0.0.0-255.255.255.255"},
		{"goto does not come back", []ruleset.Rule{rule(to(ruleset.Goto, "side")), rule(accept)}, []ruleset.Rule{rule(from(ten), accept)}, drop, ten, ten},
		{"return from a jump", []ruleset.Rule{rule(to(ruleset.Jump, "side")), rule(drop)}, []ruleset.Rule{rule(from(ten), back), rule(accept)}, drop,
			"0.0.0.0-9.255.255.255, 11.0.0.0-255.255.255.255", "0.0.0.0-9.255.255.255, 11.0.0.0-255.255.255.255"},
		{"return from a base chain", []ruleset.Rule{rule(from(ten), back), rule(drop)}, nil, accept, ten, ten},
		{"either", []ruleset.Rule{rule(from(ten), either, accept)}, nil, drop, ten, "none"},
		{"either, in front", []ruleset.Rule{rule(either, drop), rule(from(ten), accept)}, nil, drop, ten, "none"},
		{"a limit", []ruleset.Rule{rule(ruleset.Limit{Rate: 1}, accept)}, nil, drop, "0.0.0.0/0", "none"},
		{"reject", []ruleset.Rule{rule(from(ten), ruleset.Reject{})}, nil, accept,
			"0.0.0.0-9.255.255.255, 11.0.0.0-255.255.255.255", "0.0.0.0-9.255.255.255, 11.0.0.0-255.255.255.255"},
		{"a map", []ruleset.Rule{rule(ruleset.VerdictMap{Key: []ruleset.Field{ruleset.F(ruleset.IPSaddr)}, Map: "map"}), rule(drop)}, []ruleset.Rule{rule(accept)}, drop,
			"10.0.0.1-10.0.0.2", "10.0.0.1-10.0.0.2"},
		{"not in a set, and the field is missing", []ruleset.Rule{rule(ruleset.InSet{Key: []ruleset.Field{ruleset.F(ruleset.THDport)}, Set: "ports", Negate: true}, accept)},
			nil, drop, "none", "none"},
		{"a mark that was set", []ruleset.Rule{rule(ruleset.SetMark{Mask: 0xf, Value: 1}), rule(ruleset.Match{Field: ruleset.F(ruleset.CTMark), Mask: []byte{0xf, 0, 0, 0},
			Op: ruleset.Eq, Value: []byte{2, 0, 0, 0}}, accept)}, nil, drop, "none", "none"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			address := func(s string) ruleset.Key { return ruleset.Key(netip.MustParseAddr(s).AsSlice()) }
			m, err := reach.New(ruleset.Table{Family: ruleset.FamilyINET, Name: "t", Sets: []ruleset.Set{
				{Name: "map", Key: []ruleset.DataType{ruleset.TypeIPv4Addr}, Verdicts: true, Elements: []ruleset.Element{
					{Key: address("10.0.0.1"), Verdict: accept}, {Key: address("10.0.0.2"), Verdict: to(ruleset.Goto, "side")}, {Key: address("10.0.0.3")}}},
				{Name: "ports", Key: []ruleset.DataType{ruleset.TypeInetService}},
			}, Chains: []ruleset.Chain{
				{Name: "base", Hook: ruleset.HookPrerouting, Policy: tt.policy, Rules: tt.rules}, {Name: "side", Rules: tt.side},
				{Name: "elsewhere", Hook: ruleset.HookForward, Rules: []ruleset.Rule{rule(drop)}},
			}})
			require.NoError(t, err)
			p := reach.Packet{Hook: ruleset.HookPrerouting, Client: ruleset.IPSaddr, Missing: []ruleset.FieldKind{ruleset.THDport}}
			out := m.Run(p, addrset.All(true), nil)
			require.Equal(t, tt.accept, out.Accept.String())
			require.Equal(t, tt.certain, out.Certain().String())
			require.Equal(t, "0.0.0.0/0", out.Accept.Union(out.Drop).Union(out.Reject).String())
		})
	}
}

func TestTablesThatNoKernelHolds(t *testing.T) {
	for name, chains := range map[string][]ruleset.Chain{
		"no such chain":   {{Name: "a", Rules: []ruleset.Rule{rule(to(ruleset.Jump, "b"))}}},
		"no such set":     {{Name: "a", Rules: []ruleset.Rule{rule(ruleset.InSet{Set: "s"}, accept)}}},
		"round and round": {{Name: "a", Rules: []ruleset.Rule{rule(to(ruleset.Jump, "b"))}}, {Name: "b", Rules: []ruleset.Rule{rule(to(ruleset.Goto, "a"))}}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := reach.New(ruleset.Table{Chains: chains})
			require.Error(t, err)
		})
	}
}

// TestWhatIsRememberedOfAChain: a chain that does not look at the mark brings packets back with the mark that they came with,
// whatever others had for whom it was walked before.
func TestWhatIsRememberedOfAChain(t *testing.T) {
	zero := ruleset.Match{Field: ruleset.F(ruleset.CTMark), Op: ruleset.Eq, Value: []byte{0, 0, 0, 0}}
	m, err := reach.New(ruleset.Table{Chains: []ruleset.Chain{
		{Name: "base", Hook: ruleset.HookPrerouting, Policy: accept, Rules: []ruleset.Rule{rule(to(ruleset.Jump, "side")), rule(zero, drop)}},
		{Name: "side", Rules: []ruleset.Rule{rule(from("10.0.0.0/8"), drop)}},
	}})
	require.NoError(t, err)
	everybody, rest := addrset.All(true), "0.0.0.0-9.255.255.255, 11.0.0.0-255.255.255.255"
	packet := func(mark ...byte) reach.Packet {
		p := reach.Packet{Hook: ruleset.HookPrerouting, Client: ruleset.IPSaddr}
		if mark != nil {
			p.Known.Set(ruleset.CTMark, mark)
		}
		return p
	}
	for range 2 {
		require.Equal(t, "none", m.Run(packet(0, 0, 0, 0), everybody, nil).Accept.String())
		require.Equal(t, rest, m.Run(packet(), everybody, nil).Accept.String(), "not known: it may be another one")
		require.Equal(t, rest, m.Run(packet(1, 0, 0, 0), everybody, nil).Certain().String())
	}
}
