package compile_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"drawbridge/enforcer/compile"
	"drawbridge/enforcer/ruleset"
)

// TestFamilies: a family that has no protected address has neither sets nor chains, and its packets pass; one that has a single one,
// even of a node alone, is judged like the other.
func TestFamilies(t *testing.T) {
	four, six := endpoint{"public-rw", "203.0.113.1", 5432, "ipv4", "in-band"}, endpoint{"public-rw", "2001:db8:5::1", 5432, "ipv6", "in-band"}
	for _, tt := range []struct {
		name, model  string
		endpoints    []endpoint
		nodes        []string
		elsewhere    bool
		want, absent string
	}{
		{"a gateway of IPv4", "dedicated", []endpoint{four}, []string{"10.64.1.11"}, false, "4", "6"},
		{"a gateway of IPv6", "dedicated", []endpoint{six}, []string{"2001:db8:6::11"}, false, "6", "4"},
		{"a shared host of IPv4", "shared", []endpoint{four}, []string{"203.0.113.1"}, false, "4", "6"},
		{"both", "dedicated", []endpoint{four, six}, []string{"10.64.1.11"}, false, "46", ""},
		{"a node's address alone", "dedicated", []endpoint{four}, []string{"10.64.1.11", "2001:db8:6::11"}, false, "46", ""},
		{"a node elsewhere is nobody's here", "dedicated", []endpoint{four}, []string{"10.64.1.11", "2001:db8:6::11"}, true, "4", "6"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := document{Version: 1, Point: point{"p", tt.model}, Region: region{"r", []string{"10.10.0.0/16", "2001:db8:10::/48"}},
				Ranges: map[string][]string{"fr1": {"192.0.2.1/32", "2001:db8:2::1/128"}}}
			db := database{Name: "orders", Model: tt.model, Engine: "postgresql", Endpoints: tt.endpoints}
			for i, a := range tt.nodes {
				db.Nodes = append(db.Nodes, node{string(rune('a' + i)), i == 0 || !tt.elsewhere, []string{a}, []nodePort{{5432, "in-band"}}})
			}
			d.Databases = []database{db}
			table := compiled(t, tt.name, written(t, d))
			for _, suffix := range strings.Split(tt.want, "") {
				require.Contains(t, names(table), "protected"+suffix)
				require.Contains(t, names(table), "admission"+suffix)
			}
			for _, name := range names(table) {
				require.False(t, tt.absent != "" && strings.HasSuffix(name, tt.absent), name)
			}
			if tt.absent != "" {
				family := map[string]string{"4": "ip ", "6": "ip6 "}[tt.absent]
				require.NotContains(t, ruleset.Print(table), "\t"+family, "a rule looks at it")
			}
		})
	}
}

func written(t *testing.T, d document) []byte {
	t.Helper()
	data, err := json.Marshal(d)
	require.NoError(t, err)
	return data
}

func names(t ruleset.Table) (all []string) {
	for _, s := range t.Sets {
		all = append(all, s.Name)
	}
	for _, c := range t.Chains {
		all = append(all, c.Name)
	}
	return all
}

// TestNoToggleChangesAChain, also where it leaves no element of a kind: what a session patches is elements, and it looks at nothing else.
func TestNoToggleChangesAChain(t *testing.T) {
	for _, model := range []string{"dedicated", "shared"} {
		for _, tls := range []string{"none", "in-band"} {
			for _, nodes := range []int{1, 2} {
				t.Run(fmt.Sprint(model, " ", tls, " ", nodes), func(t *testing.T) {
					policies := map[string]ruleset.Table{}
					for _, toggle := range []struct{ force, rules bool }{{true, true}, {true, false}, {false, true}, {false, false}} {
						d := document{Version: 1, Point: point{"p", model}, Region: region{"r", []string{"10.10.0.0/16"}}, Ranges: map[string][]string{}}
						db := database{Name: "orders", Model: model, Engine: "postgresql", ForceTLS: &toggle.force,
							Endpoints: []endpoint{{"public-rw", "203.0.113.1", 5432, "ipv4", tls}}}
						for i := range nodes {
							db.Nodes = append(db.Nodes, node{string(rune('a' + i)), i == 0 || model == "dedicated", []string{fmt.Sprintf("10.64.1.1%d", i)}, []nodePort{{5432, tls}}})
						}
						if toggle.rules && model == "dedicated" {
							db.Rules = []rule{{Type: "custom_range", CIDR: "10.64.0.0/16"}}
						}
						d.Databases = []database{db}
						policies[fmt.Sprint(toggle)] = compiled(t, t.Name(), written(t, d))
					}
					for from, before := range policies {
						for to, after := range policies {
							change := ruleset.Diff(before, after)
							require.True(t, change.IsEmpty() || change.OnlyElements(), "from %s to %s", from, to)
						}
					}
				})
			}
		}
	}
}

// TestWhatAHandshakeCosts counts chains, rules and look-ups of the packets that begin a connection at a gateway: where Force TLS is off, where it
// is on, and at a port that never speaks TLS.
func TestWhatAHandshakeCosts(t *testing.T) {
	for _, tt := range []struct {
		name, engine, tls string
		force             bool
		syn, synAck, ack  cost
	}{
		// speakers, inbound, the database's own ranges; protected, watched, force. outbound, own ranges, watched, force. As the SYN, and
		// requested, expected, requested.
		{"watched", "postgresql", "in-band", false, cost{9, 23, 6}, cost{8, 16, 4}, cost{8, 23, 9}},
		{"forced", "postgresql", "in-band", true, cost{10, 26, 6}, cost{8, 16, 4}, cost{9, 28, 9}},
		// speakers, inbound, rules, own ranges; protected, watched. outbound, answers, own ranges, watched.
		{"never TLS", "postgresql", "none", false, cost{9, 19, 6}, cost{5, 8, 4}, cost{8, 14, 6}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			at, from := netip.MustParseAddrPort("203.0.113.1:5432"), netip.MustParseAddrPort("198.51.100.1:40000")
			d := document{Version: 1, Point: point{"p", "dedicated"}, Region: region{"r", []string{"10.10.0.0/16"}}, Ranges: map[string][]string{},
				Databases: []database{{Name: "orders", Model: "dedicated", Engine: tt.engine, ForceTLS: &tt.force,
					Endpoints: []endpoint{{"public-rw", at.Addr().String(), at.Port(), "ipv4", tt.tls}},
					Nodes:     []node{{"n", true, []string{"10.64.1.11"}, []nodePort{{5432, tt.tls}}}},
					Rules:     []rule{{Type: "custom_range", CIDR: "198.51.100.0/28"}}}}}
			w := walk(compiled(t, tt.name, written(t, d)))
			up := packet{proto: 6, flags: syn, seq: 100, state: stateNew, src: from, dst: at, iif: "inet0"}
			require.Equal(t, accepted, w.hook(ruleset.HookPrerouting, up))
			require.Equal(t, tt.syn, w.cost, "SYN")
			w.cost = cost{}
			down := packet{proto: 6, flags: syn | ack, seq: 500, ack: 101, state: stateEstablished, reply: true, src: at, dst: from, oif: "inet0"}
			require.Equal(t, accepted, w.hook(ruleset.HookPostrouting, down))
			require.Equal(t, tt.synAck, w.cost, "SYN-ACK")
			w.cost = cost{}
			up.flags, up.seq, up.state = ack, 101, stateEstablished
			require.Equal(t, accepted, w.hook(ruleset.HookPrerouting, up))
			require.Equal(t, tt.ack, w.cost, "ACK")
			require.NotEqual(t, compile.ClassTLS, compile.Class(w.mark>>markShift))
		})
	}
}
