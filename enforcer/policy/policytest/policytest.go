// Package policytest makes policies for tests and benchmarks.
package policytest

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

// Gateway is the policy of a gateway with n databases of 30 rules each; the last rule of the middle one is given.
func Gateway(tb testing.TB, n int, last string) []byte {
	tb.Helper()
	type m = map[string]any
	var databases []m
	for i := range n {
		var rules []m
		for r := range 29 {
			rules = append(rules, m{"type": "custom_range", "cidr": fmt.Sprintf("198.51.%d.%d/32", i%250, 2*r)})
		}
		cidr := "198.18.0.0/24"
		if i == n/2 {
			cidr = last
		}
		node := fmt.Sprintf("10.%d.%d.1", 100+i/250, i%250)
		databases = append(databases, m{
			"name": fmt.Sprint("db", i), "model": "dedicated", "engine": "postgresql",
			"endpoints": []m{{"kind": "public-rw", "address": fmt.Sprintf("203.%d.%d.1", i/250, i%250), "port": 5432, "family": "ipv4", "tls": "in-band",
				"dnat": m{"address": node, "port": 5432}}},
			"nodes":          []m{{"name": fmt.Sprint("n", i), "here": true, "addresses": []string{node}, "ports": []m{{"port": 5432, "tls": "in-band"}}}},
			"firewall_rules": append(rules, m{"type": "custom_range", "cidr": cidr}),
		})
	}
	document, err := json.Marshal(m{"version": 1, "point": m{"name": "gw", "model": "dedicated"},
		"region": m{"name": "r", "networks": []string{"10.10.0.0/16"}}, "managed_ranges": m{}, "databases": databases})
	require.NoError(tb, err)
	return document
}
