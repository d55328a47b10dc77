package enforcer_test

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"drawbridge/enforcer"
	"drawbridge/enforcer/intent"
	"drawbridge/sim/netns/netnstest"
)

// TestExplain: which packet decides, which element, and which word of the policy.
func TestExplain(t *testing.T) {
	ns := netnstest.New(t)
	mustApply(t, ns, []byte(planted))
	explain := func(q enforcer.Query, document []byte) (all []enforcer.Explanation, err error) {
		err = ns.Do(func() (err error) {
			all, err = enforcer.Explain(t.Context(), q, document, enforcer.Options{})
			return err
		})
		return all, err
	}
	for _, tt := range []struct {
		name              string
		from, iface, to   string
		at                string
		says              intent.Speech
		kernel, packet    string
		allowed           bool
		why, near, proves string
	}{
		{"a rule", "198.51.100.3", "inet0", "orders", "203.0.113.1:5432", "", "pass", "the SYN-ACK of the server", true, "rule 1, custom range 198.51.100.0/28", "", "custom4_orders { 198.51.100.0/28 }"},
		{"a managed range", "192.0.2.129", "inet0", "orders", "203.0.113.1:5432", "", "pass", "the SYN-ACK of the server", true, "rule 3, managed range fr1", "", "range4_fr1 { 192.0.2.128/30 }"},
		{"no rule", "198.51.100.19", "inet0", "orders", "203.0.113.1:5432", "", "drop", "a SYN from the client", false, "no rule of orders covers it", "198.51.100.0/28, by rule 1", ""},
		{"no rules at all", "198.51.100.19", "inet0", "shop", "203.0.113.3:3306", "", "drop", "a SYN from the client", false, "shop has no rules", "", ""},
		{"plaintext", "198.51.100.3", "inet0", "orders", "203.0.113.1:5432", "plaintext", "reject", "the client's startup packet, in plaintext", false, "Force TLS is on", "", ""},
		{"TLS", "198.51.100.3", "inet0", "orders", "203.0.113.1:5432", "tls", "pass", "the server's ServerHello", true, "rule 1", "", ""},
		{"plaintext where it may", "198.51.100.3", "inet0", "docs", "203.0.113.2:27017", "plaintext", "pass", "the client's first bytes, in plaintext", true, "rule 1", "", ""},
		{"TLS from the first byte", "198.51.100.3", "inet0", "docs", "203.0.113.2:27017", "tls", "pass", "the server's ServerHello", true, "rule 1", "", ""},
		{"IPv6", "2001:db8:1::5", "inet0", "orders", "[2001:db8:2::1]:5432", "tls", "pass", "the server's ServerHello", true, "rule 2", "", ""},
		{"a node of the cluster", "10.64.1.2", "vpc0", "orders", "10.64.1.1:8008", "tls", "pass", "the server's ServerHello", true, "a node of its own cluster", "", ""},
		{"a node's name from outside", "10.64.1.2", "inet0", "orders", "10.64.1.1:8008", "", "drop", "a SYN from the client", false, "in a server's name", "", ""},
		{"around the peering", "198.51.100.3", "inet0", "orders", "172.20.0.1:5432", "", "drop", "a SYN from the client", false, "from elsewhere than the peering", "", ""},
		{"another port", "198.51.100.3", "inet0", "", "203.0.113.1:22", "", "drop", "a SYN from the client", false, "nothing but its endpoints", "", ""},
		{"loopback", "127.0.0.1", "lo", "orders", "203.0.113.1:5432", "", "pass", "the SYN-ACK of the server", true, "G-02", "", ""},
		{"loopback, plaintext", "127.0.0.1", "lo", "orders", "203.0.113.1:5432", "plaintext", "pass", "the client's startup packet, in plaintext", true, "G-02", "", ""},
		{"loopback, in the name of a server", "203.0.113.1", "lo", "orders", "203.0.113.1:5432", "", "pass", "the SYN-ACK of the server", true, "G-02", "", ""},
		{"loopback, a port of the cluster's", "127.0.0.1", "lo", "orders", "10.64.1.1:8008", "", "pass", "the SYN-ACK of the server", true, "G-02", "", ""},
		{"elsewhere", "198.51.100.3", "inet0", "", "203.0.113.77:22", "", "pass", "the SYN-ACK of the server", true, "not judged", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			q := enforcer.Query{From: netip.MustParseAddr(tt.from), Interface: tt.iface, Database: tt.to, At: netip.MustParseAddrPort(tt.at), Says: tt.says}
			all, err := explain(q, []byte(planted))
			require.NoError(t, err)
			require.Len(t, all, 1)
			x := all[0]
			last := x.Packets[len(x.Packets)-1]
			require.Equal(t, []any{tt.kernel, tt.packet, tt.allowed, false}, []any{x.Kernel, last.What, x.Policy.Allowed, x.Differ}, "%+v", last)
			require.Contains(t, x.Policy.Why, tt.why)
			require.Contains(t, x.Policy.Nearest, tt.near)
			if tt.proves != "" {
				found := ""
				for _, s := range x.Packets[0].Steps {
					for _, e := range s.Elements {
						found += e
					}
				}
				require.Contains(t, found, tt.proves)
			}
		})
	}
	from := netip.MustParseAddr("198.51.100.3")
	_, err := explain(enforcer.Query{From: from, Database: "nobody"}, nil)
	require.ErrorIs(t, err, enforcer.ErrUnknownTarget)
	require.ErrorContains(t, err, "docs, orders, shop")
	_, err = explain(enforcer.Query{From: from, Database: "orders", Port: 9}, nil)
	require.ErrorContains(t, err, "203.0.113.1:5432")
	all, err := explain(enforcer.Query{From: from, Database: "docs", Says: intent.SaysPlain}, nil)
	require.NoError(t, err)
	require.Len(t, all, 8, "two ports by every interface that the table tells apart, without a policy")

	runNFT(t, ns, netnstest.Tool(t, "nft"), "delete element inet drawbridge custom4_orders { 198.51.100.0/28 }")
	all, err = explain(enforcer.Query{From: from, Database: "orders", Interface: "inet0", Port: 5432, At: netip.MustParseAddrPort("203.0.113.1:5432")}, []byte(planted))
	require.NoError(t, err)
	require.True(t, all[0].Differ)
}

func TestExplainWhereNothingIsInForce(t *testing.T) {
	ns := netnstest.New(t)
	require.ErrorIs(t, ns.Do(func() error {
		_, err := enforcer.Explain(t.Context(), enforcer.Query{From: netip.MustParseAddr("192.0.2.1"), Database: "x"}, nil, enforcer.Options{})
		return err
	}), enforcer.ErrNothingInForce)
}

// inRegion is a cluster on shared hosts whose second node has an address of the region's networks.
const inRegion = `{"version":1,"point":{"name":"h","model":"shared"},
"interfaces":[{"name":"inet0","zone":"internet"},{"name":"reg0","zone":"regional"}],"region":{"name":"r","networks":["10.10.0.0/16"]},"managed_ranges":{},
"databases":[{"name":"sessions","model":"shared","engine":"redis","force_tls":%t,
"endpoints":[{"kind":"public-rw","address":"198.51.100.131","port":6380,"family":"ipv4","tls":"only"},
{"kind":"public-rw","address":"198.51.100.131","port":6381,"family":"ipv4","tls":"either"},
{"kind":"public-rw","address":"198.51.100.131","port":6379,"family":"ipv4","tls":"none"}],
"nodes":[{"name":"n1","here":true,"addresses":["198.51.100.131"],"ports":[{"port":6379,"tls":"none"},{"port":6380,"tls":"only"},{"port":6381,"tls":"either"},{"port":16380,"tls":"only"}]},
{"name":"n2","here":false,"addresses":["10.10.0.132"],"ports":[{"port":6379,"tls":"none"},{"port":6380,"tls":"only"},{"port":6381,"tls":"either"},{"port":16380,"tls":"only"}]}],
"cluster_ports":[{"port":16380,"shared":false}]}]}`

// TestANodeInItsRegion may say no more in plaintext than one that is elsewhere (SPEC C-03).
func TestANodeInItsRegion(t *testing.T) {
	const node, app = "10.10.0.132", "10.10.0.7"
	type ask struct {
		from string
		port uint16
		says intent.Speech
	}
	allowed := map[ask]bool{
		{node, 6379, intent.SaysPlain}: false, {node, 6381, intent.SaysPlain}: false, {node, 6381, intent.SaysTLS}: true,
		{node, 6380, intent.SaysTLS}: true, {node, 16380, intent.SaysTLS}: true, {app, 16380, intent.SaysTLS}: false,
		{app, 6381, intent.SaysTLS}: true, {app, 6380, intent.SaysTLS}: true,
	}
	for _, forced := range []bool{false, true} {
		ns := netnstest.New(t)
		document := fmt.Appendf(nil, inRegion, forced)
		mustApply(t, ns, document)
		allowed[ask{app, 6379, intent.SaysPlain}], allowed[ask{app, 6381, intent.SaysPlain}] = !forced, !forced
		for a, want := range allowed {
			q := enforcer.Query{From: netip.MustParseAddr(a.from), Interface: "reg0", Database: "sessions", Port: a.port, Says: a.says}
			var all []enforcer.Explanation
			require.NoError(t, ns.Do(func() (err error) {
				all, err = enforcer.Explain(t.Context(), q, document, enforcer.Options{})
				return err
			}))
			require.Len(t, all, 1)
			require.Equal(t, []any{want, false}, []any{all[0].Policy.Allowed, all[0].Differ}, "%+v, Force TLS %t: %s", a, forced, all[0].Policy.Why)
		}
		require.True(t, verify(t, ns, string(document)).Proven)
	}
}
