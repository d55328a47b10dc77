package compile_test

import (
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"drawbridge/enforcer/compile"
	"drawbridge/enforcer/ruleset"
)

// TestWhatAnEstablishedPacketCosts counts base chains and look-ups of a packet of a connection that speaks TLS. Who adds one
// changes this test, and docs/ARCHITECTURE.md.
func TestWhatAnEstablishedPacketCosts(t *testing.T) {
	for _, tt := range []struct {
		policy, client, via, endpoint, node string
		up, down                            cost
	}{
		// speakers, inbound, the database's own ranges; protected; outbound. And speakers, the cluster's interfaces, inbound;
		// none; outbound, the database's own ranges.
		{"dedicated", "198.51.100.1", "inet0", "203.0.113.250:6380", "10.64.9.9", cost{7, 11, 5}, cost{9, 12, 5}},
		// Three more for a managed range.
		{"dedicated", "192.0.2.129", "inet0", "203.0.113.140:5432", "10.64.1.11", cost{8, 13, 7}, cost{10, 14, 7}},
		// speakers, inbound: and outbound. The host's own packets do not arrive, and those for it do not leave.
		{"shared_toggles", "198.51.100.1", "inet0", "192.0.2.10:6380", "", cost{3, 5, 2}, cost{3, 3, 1}},
		// Two more for the region and its interfaces.
		{"shared_default", "10.10.1.1", "reg0", "192.0.2.10:6380", "", cost{4, 6, 4}, cost{4, 4, 3}},
	} {
		t.Run(tt.policy+" "+tt.client, func(t *testing.T) {
			w := walk(compiled(t, tt.policy, fixture(t, tt.policy)))
			w.mark = uint32(compile.ClassTLS) << markShift
			at := netip.MustParseAddrPort(tt.endpoint)
			up := packet{proto: 6, flags: psh | ack, payload: []byte("x"), state: stateEstablished, src: netip.AddrPortFrom(netip.MustParseAddr(tt.client), 40000), dst: at, iif: tt.via}
			down := packet{proto: 6, flags: psh | ack, payload: []byte("x"), state: stateEstablished, reply: true, src: at, dst: up.src, oif: tt.via}
			require.Equal(t, accepted, w.hook(ruleset.HookPrerouting, up))
			if tt.node != "" {
				translated := up
				translated.dst, translated.oif = netip.AddrPortFrom(netip.MustParseAddr(tt.node), at.Port()), "vpc0"
				require.Equal(t, accepted, w.hook(ruleset.HookPostrouting, translated))
			}
			require.Equal(t, tt.up, w.cost)
			w.cost = cost{}
			if tt.node != "" {
				arrives := down
				arrives.src, arrives.iif = netip.AddrPortFrom(netip.MustParseAddr(tt.node), at.Port()), "vpc0"
				require.Equal(t, accepted, w.hook(ruleset.HookPrerouting, arrives))
			}
			require.Equal(t, accepted, w.hook(ruleset.HookPostrouting, down))
			require.Equal(t, tt.down, w.cost)
		})
	}
}

// comeBack are the chains that may be left by falling off their ends, or by return. They are only ever jumped to, and who
// jumps there goes on itself.
var comeBack = []string{
	"node_speaks", "forged", "known", "place", "place_repeated", "answer", "forget", "tally_refused", "tally_no_consent",
	"forced_answer", "watched_answer", "judge", "judge_by4", "judge_by6", "judge_pg", "judge_mysql", "nothing_new",
	"lock", "asked", "in_place", // where there is no room
}

// TestChainsEnd: a chain that is reached by goto from a base chain and has no end would accept, as the base chain does. So
// every regular chain ends in a verdict for all that is left, unless it is one of those that come back; and to those nobody
// goes who does not come back himself.
func TestChainsEnd(t *testing.T) {
	for _, name := range fixtures {
		for _, options := range []compile.Options{{}, {WithoutGate: true}} {
			table, err := options.Compile(parse(t, name, fixture(t, name)))
			require.NoError(t, err)
			reached := map[string]bool{}
			exists := map[string]bool{"": true}
			for _, c := range table.Chains {
				exists[c.Name] = true
			}
			for _, c := range table.Chains {
				for _, v := range verdicts(table, c) {
					require.True(t, exists[v.Chain], "%s: there is no chain %s", name, v.Chain)
					reached[v.Chain] = true
					if v.Kind == ruleset.Goto && slices.Contains(comeBack, v.Chain) {
						require.Contains(t, comeBack, c.Name, "%s: %s goes to %s, which comes back", name, c.Name, v.Chain)
					}
				}
			}
			for _, c := range table.Chains {
				if c.Hook != ruleset.HookNone {
					require.Equal(t, accepted, verdictOutcome(c.Policy), "%s: the host's other traffic is none of its business", c.Name)
					continue
				}
				require.True(t, reached[c.Name] || isForOneDatabase(c.Name), "%s: nobody goes to %s", name, c.Name)
				if !slices.Contains(comeBack, c.Name) {
					require.True(t, ends(c), "%s: chain %s has no end", name, c.Name)
				}
			}
		}
	}
}

// isForOneDatabase tells whether a chain is reached by elements only, which may be none.
func isForOneDatabase(chain string) bool {
	for _, prefix := range []string{"from4_", "from6_", "to4_", "to6_", "from_", "to_", "node_speaks", "forged"} {
		if strings.HasPrefix(chain, prefix) {
			return true
		}
	}
	return false
}

// verdicts are those of a chain's rules, and of the elements of the maps that they name.
func verdicts(table ruleset.Table, c ruleset.Chain) (all []ruleset.Verdict) {
	for _, r := range c.Rules {
		for _, s := range r.Statements {
			switch s := s.(type) {
			case ruleset.Verdict:
				all = append(all, s)
			case ruleset.VerdictMap:
				i := slices.IndexFunc(table.Sets, func(set ruleset.Set) bool { return set.Name == s.Map })
				for _, e := range table.Sets[i].Elements {
					all = append(all, e.Verdict)
				}
			}
		}
	}
	return all
}

// ends tells whether a chain's last rule is a verdict without conditions, and none that comes back.
func ends(c ruleset.Chain) bool {
	if len(c.Rules) == 0 {
		return false
	}
	for _, s := range c.Rules[len(c.Rules)-1].Statements {
		switch s := s.(type) {
		case ruleset.Verdict:
			return s.Kind == ruleset.Accept || s.Kind == ruleset.Drop || s.Kind == ruleset.Goto
		case ruleset.SetMark, ruleset.Counter:
		default:
			return false
		}
	}
	return false
}

// TestNobodyJudgesLoopbackOrOtherProtocols: admission asks for them only where it would drop something, and so it has to ask
// there wherever that is (G-02). Other protocols at dedicated addresses are containment's.
func TestNobodyJudgesLoopbackOrOtherProtocols(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := anyDocument(t)
		data, err := json.Marshal(d)
		require.NoError(t, err)
		w := walk(compiled(t, "random", data))
		for range 20 {
			p := made(rapid.SampledFrom([]string{"syn", "data", "fragment", "udp", "reply"}).Draw(t, "kind"))
			a, b := anyTarget(t, d), anyTarget(t, d)
			if a.Addr().Is4() != b.Addr().Is4() {
				continue
			}
			p.src, p.dst, p.iif, p.oif, p.noWayBack = a, b, "lo", "lo", rapid.Bool().Draw(t, "no way back")
			require.Equal(t, accepted, w.hook(ruleset.HookPrerouting, p), "%v to %v\n%s", a, b, data)
			require.Equal(t, accepted, w.hook(ruleset.HookPostrouting, p), "%v to %v\n%s", a, b, data)
			p = made("udp")
			p.src, p.dst, p.iif, p.oif, p.noWayBack = a, b, "inet0", "inet0", true
			require.Equal(t, accepted, w.hook(ruleset.HookPostrouting, p), "%v to %v\n%s", a, b, data)
			if want := accepted; !d.dedicatedAddress(b.Addr()) {
				require.Equal(t, want, w.hook(ruleset.HookPrerouting, p), "%v to %v\n%s", a, b, data)
			} else {
				require.Equal(t, dropped, w.hook(ruleset.HookPrerouting, p), "%v to %v\n%s", a, b, data)
			}
		}
	})
}

// TestTheClassOpensNothing: what a connection spoke once lets none of its packets to a dedicated address past containment,
// unless it goes to an endpoint of today or comes back from one.
func TestTheClassOpensNothing(t *testing.T) {
	w := walk(compiled(t, "dedicated", fixture(t, "dedicated")))
	for _, tt := range []struct {
		name, to string
		change   func(*packet)
		want     outcome
	}{
		{"an endpoint", "203.0.113.140:5432", func(*packet) {}, accepted},
		{"an endpoint that has gone, at an address that is still there", "203.0.113.140:5433", func(*packet) {}, dropped},
		{"a node's port that is none of its own any more", "10.64.1.11:9999", func(*packet) {}, dropped},
		{"an address that is nobody's any more", "203.0.113.141:5432", func(*packet) {}, accepted},
		{"the answer to what a node asked", "10.64.1.11:9999", func(p *packet) { p.reply = true }, accepted},
		{"a SYN", "203.0.113.140:5433", func(p *packet) { p.flags, p.payload = syn, nil }, dropped},
		{"a SYN with data", "203.0.113.250:6380", func(p *packet) { p.flags = syn }, dropped},
		{"a helper's other protocol", "203.0.113.140:5432", func(p *packet) { p.proto = 17 }, dropped},
		{"an ICMP message", "203.0.113.140:0", func(p *packet) { p.proto, p.icmp = 1, 8 }, dropped},
		{"an ICMP error of the connection", "203.0.113.140:0", func(p *packet) { p.proto, p.icmp, p.state = 1, 3, stateRelated }, accepted},
		{"a packet that conntrack cannot place", "203.0.113.140:5433", func(p *packet) { p.state = stateInvalid }, dropped},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w.mark = uint32(compile.ClassTLS) << markShift
			p := packet{proto: 6, flags: psh | ack, payload: []byte("x"), state: stateEstablished, src: netip.MustParseAddrPort("198.51.100.1:40000"), dst: netip.MustParseAddrPort(tt.to), iif: "inet0"}
			tt.change(&p)
			require.Equal(t, tt.want, w.hookFrom(ruleset.HookPrerouting, afterConntrack, p))
		})
	}
}

// TestRevocationEndsTLS: what a connection speaks is no reason to let its answers out.
func TestRevocationEndsTLS(t *testing.T) {
	for _, policy := range []string{"dedicated", "shared_default"} {
		w := walk(compiled(t, policy, fixture(t, policy)))
		from := map[string]string{"dedicated": "203.0.113.140:5432", "shared_default": "192.0.2.10:5432"}[policy]
		p := packet{proto: 6, flags: psh | ack, payload: []byte("x"), state: stateEstablished, reply: true, src: netip.MustParseAddrPort(from), dst: netip.MustParseAddrPort("8.8.8.8:40000"), oif: "inet0"}
		require.Equal(t, dropped, exit(w, p))
		p.flags, p.payload = rst, nil
		require.Equal(t, accepted, exit(w, p), "it ends the client's half")
		in := packet{proto: 6, flags: psh | ack, payload: []byte("x"), state: stateEstablished, src: p.dst, dst: p.src, iif: "inet0"}
		w.mark = uint32(compile.ClassTLS) << markShift
		require.Equal(t, rejected, w.hook(ruleset.HookPrerouting, in))
	}
}

// TestAnEndpointAtANodesAddress is an endpoint first: its rules are asked, whatever its cluster's nodes may do there.
func TestAnEndpointAtANodesAddress(t *testing.T) {
	var d document
	require.NoError(t, json.Unmarshal(pathDocument(t), &d))
	db := &d.Databases[0]
	db.Nodes[0].Addresses = []string{netip.MustParseAddrPort(pathEndpoint).Addr().String()}
	data, err := json.Marshal(d)
	require.NoError(t, err)
	w := walk(compiled(t, "one address", data))
	p := made("syn")
	p.src, p.dst, p.iif = netip.MustParseAddrPort("198.51.100.1:40000"), netip.MustParseAddrPort(pathEndpoint), "inet0"
	require.Equal(t, accepted, w.hook(ruleset.HookPrerouting, p))
	p.src = netip.MustParseAddrPort("198.51.100.99:40000")
	require.Equal(t, dropped, w.hook(ruleset.HookPrerouting, p))
	p.src, p.iif = p.dst, "vpc0"
	require.Equal(t, dropped, w.hook(ruleset.HookPrerouting, p), "nobody speaks from an endpoint")
}
