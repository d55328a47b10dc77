package compile_test

import (
	"strings"
	"testing"

	"drawbridge/enforcer/compile"
	"drawbridge/enforcer/policy"
	"drawbridge/enforcer/ruleset"

	"github.com/stretchr/testify/require"
)

const explained = `{"version": 1, "point": {"name": "gw", "model": "dedicated"}, "region": {"name": "here", "networks": ["10.10.0.0/16"]},
 "interfaces": [{"name": "inet0", "zone": "internet"}], "managed_ranges": {"here": ["192.0.2.129/32"]},
 "databases": [{"name": "orders", "model": "dedicated", "engine": "postgresql",
  "endpoints": [{"kind": "public-rw", "address": "203.0.113.1", "port": 5432, "family": "ipv4", "tls": "in-band", "dnat": {"address": "10.64.1.2", "port": 5432}}],
  "nodes": [{"name": "orders-1", "here": true, "addresses": ["10.64.1.2"], "ports": [{"port": 5432, "tls": "in-band"}]}],
  "firewall_rules": [RULES]}]}`

func parsed(t *testing.T, rules string) *policy.Policy {
	t.Helper()
	p, err := policy.Parse("test", []byte(strings.Replace(explained, "RULES", rules, 1)))
	require.NoError(t, err)
	return p
}

func TestExplain(t *testing.T) {
	p := parsed(t, `{"type": "custom_range", "cidr": "198.51.100.0/25", "label": "the office"}, {"type": "custom_range", "cidr": "198.51.100.7/32"},
		{"type": "custom_range", "cidr": "203.0.113.200/32", "label": "a \"quoted\" one"}, {"type": "managed_range", "name": "here"}`)
	table, err := compile.Compile(p)
	require.NoError(t, err)
	text := ruleset.Print(compile.Explain(p, table))
	for _, want := range []string{
		`198.51.100.0-198.51.100.6 comment "orders: rule 198.51.100.0/25 the office"`,
		`198.51.100.7 comment "orders: rule 198.51.100.0/25 the office, rule 198.51.100.7/32"`,
		`198.51.100.8-198.51.100.127 comment "orders: rule 198.51.100.0/25 the office"`,
		`203.0.113.200 comment "orders: rule 203.0.113.200/32 a  quoted  one"`,
		`203.0.113.1 . 5432 comment "orders: rule: managed range here"`,
		`192.0.2.129 comment "managed range here"`,
		`203.0.113.1 . 5432 comment "orders: its firewall rules" : goto from4_orders`,
		`203.0.113.1 . 5432 comment "orders"`,
	} {
		require.Contains(t, text, want)
	}
	require.NotContains(t, text, "nothing in this policy")
	require.NotContains(t, ruleset.Print(table), "the office", "the table that was given stays as it is")
}

func TestExplainSaysWhatThePolicyHasNoReasonFor(t *testing.T) {
	table, err := compile.Compile(parsed(t, `{"type": "custom_range", "cidr": "198.51.100.0/25"}`))
	require.NoError(t, err)
	text := ruleset.Print(compile.Explain(parsed(t, `{"type": "custom_range", "cidr": "192.0.2.0/24"}`), table))
	require.Contains(t, text, `198.51.100.0/25 comment "orders: nothing in this policy"`)
}

func TestExplainKeepsCommentsWithinTheKernelsBounds(t *testing.T) {
	p := parsed(t, `{"type": "custom_range", "cidr": "198.51.100.0/25", "label": "`+strings.Repeat("é", 60)+`"}`)
	table, err := compile.Compile(p)
	require.NoError(t, err)
	for _, s := range compile.Explain(p, table).Sets {
		for _, e := range s.Elements {
			require.LessOrEqual(t, len(e.Comment), 128)
		}
	}
}
