package proof_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"drawbridge/enforcer/addrset"
	"drawbridge/enforcer/compile"
	"drawbridge/enforcer/intent"
	"drawbridge/enforcer/policy"
	"drawbridge/enforcer/proof"
	"drawbridge/enforcer/ruleset"
)

const document = `{"version": 1, "point": {"name": "gw", "model": "dedicated"}, "region": {"name": "r", "networks": []}, "managed_ranges": {},
"databases": [{"name": "orders", "model": "dedicated", "engine": "postgresql",
 "endpoints": [{"kind": "public-rw", "address": "203.0.113.1", "port": 5432, "family": "ipv4", "tls": "in-band"}],
 "nodes": [{"name": "one", "here": true, "addresses": ["10.64.1.1"], "ports": [{"port": 5432, "tls": "in-band"}]}],
 "firewall_rules": [{"type": "custom_range", "cidr": "198.51.100.0/28"}, {"type": "custom_range", "cidr": "192.0.2.7/32"}]}]}`

func set(t *ruleset.Table, name string) *ruleset.Set {
	return &t.Sets[slices.IndexFunc(t.Sets, func(s ruleset.Set) bool { return s.Name == name })]
}

// base are the chains of a hook.
func base(t *ruleset.Table, h ruleset.Hook) (chains []*ruleset.Chain) {
	for i := range t.Chains {
		if t.Chains[i].Hook == h {
			chains = append(chains, &t.Chains[i])
		}
	}
	return chains
}

func element(t *testing.T, s ruleset.Set, first string) int {
	t.Helper()
	i := slices.IndexFunc(s.Elements, func(e ruleset.Element) bool { return ruleset.PrintElement(s, e) == first })
	require.GreaterOrEqual(t, i, 0)
	return i
}

// TestWhatDiffersIsNamed: for whom rules and policy part, to the address.
func TestWhatDiffersIsNamed(t *testing.T) {
	const custom = "custom4_orders"
	for _, tt := range []struct {
		name  string
		spoil func(*testing.T, *ruleset.Table)
		want  []string // packets: sources, what the rules do
	}{
		{"nothing", func(*testing.T, *ruleset.Table) {}, nil},
		{"a rule's network less", func(t *testing.T, table *ruleset.Table) {
			s := set(table, custom)
			i := element(t, *s, "198.51.100.0/28")
			s.Elements = slices.Delete(s.Elements, i, i+1)
		}, []string{"a SYN to the port: 198.51.100.0/28 drop", "a SYN-ACK from the port: 198.51.100.0/28 drop"}},
		{"one address more than the network", func(t *testing.T, table *ruleset.Table) {
			s := set(table, custom)
			i := element(t, *s, "198.51.100.0/28")
			s.Elements[i].End = s.Elements[i].End[:3] + "\x10"
		}, []string{"TCP data from the port: 198.51.100.16 pass", "TCP to the port, of any sort: 198.51.100.16 pass"}},
		{"a door at the head of every chain before routing", func(_ *testing.T, table *ruleset.Table) {
			for _, c := range base(table, ruleset.HookPrerouting) {
				c.Rules = slices.Insert(slices.Clone(c.Rules), 0, ruleset.Rule{Statements: []ruleset.Statement{
					ruleset.Match{Field: ruleset.F(ruleset.IPSaddr), Op: ruleset.Eq, Value: []byte{192, 0, 2, 9}},
					ruleset.Match{Field: ruleset.F(ruleset.CTMark), Op: ruleset.Eq, Value: []byte{1, 2, 3, 4}},
					ruleset.Verdict{Kind: ruleset.Accept}}})
			}
		}, []string{"TCP to the port, of any sort: 192.0.2.9 pass"}},
		{"a limit in front", func(_ *testing.T, table *ruleset.Table) {
			c := base(table, ruleset.HookPrerouting)[0]
			c.Rules = slices.Insert(slices.Clone(c.Rules), 0, ruleset.Rule{Statements: []ruleset.Statement{ruleset.Limit{Rate: 1}, ruleset.Verdict{}}})
		}, []string{"a SYN to the port: 192.0.2.7, 198.51.100.0/28 drop"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, err := policy.Parse("test", []byte(document))
			require.NoError(t, err)
			table, err := compile.Compile(p)
			require.NoError(t, err)
			tt.spoil(t, &table)
			report, err := proof.Check(table, intent.Of(p, intent.Options{Blind: false}))
			require.NoError(t, err)
			require.Greater(t, report.Questions, 50)
			var found []string
			for _, d := range report.Differences {
				if d.At == "203.0.113.1:5432" && d.Interface != "lo" {
					require.Equal(t, "orders", d.Database)
					found = append(found, fmt.Sprintf("%s: %s %s", d.Packets, addrset.Of(d.Sources...), d.Rules))
				}
			}
			for _, w := range tt.want {
				require.Contains(t, found, w)
			}
			require.Equal(t, len(tt.want) == 0, len(report.Differences) == 0, "%v", report.Differences)
		})
	}
}
