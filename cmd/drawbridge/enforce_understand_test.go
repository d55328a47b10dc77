package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"drawbridge/sim/netns"
	"drawbridge/sim/netns/netnstest"
)

// understood is a policy to be asked about.
const understood = `{"version": 1, "point": {"name": "gw", "model": "dedicated"}, "region": {"name": "r", "networks": []}, "managed_ranges": {},
"databases": [{"name": "orders", "model": "dedicated", "engine": "postgresql",
 "endpoints": [{"kind": "public-rw", "address": "203.0.113.1", "port": 5432, "family": "ipv4", "tls": "in-band"}],
 "nodes": [{"name": "one", "here": true, "addresses": ["10.64.1.1"], "ports": [{"port": 5432, "tls": "in-band"}]}],
 "firewall_rules": [{"type": "custom_range", "cidr": "198.51.100.0/28", "label": "office"}]}]}`

// asked runs the program in a namespace.
func asked(t *testing.T, ns *netns.Handle, args ...string) (code int, out, errs string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	require.NoError(t, ns.Do(func() error {
		code = run(context.Background(), args, streams{in: strings.NewReader(understood), out: &stdout, err: &stderr}, func(string) (string, bool) { return "", false })
		return nil
	}))
	return code, stdout.String(), stderr.String()
}

// TestAnOperatorAsks goes through the verbs that explain what is in force.
func TestAnOperatorAsks(t *testing.T) {
	ns := netnstest.New(t)
	file := filepath.Join(t.TempDir(), "policy.json")
	require.NoError(t, os.WriteFile(file, []byte(understood), 0o600))
	for _, tt := range []struct {
		name, args string
		code       int
		says       []string // on standard output, or behind "!" on standard error
	}{
		{"nothing yet", "verify --policy " + file, exitNotConformant, []string{"table inet drawbridge", "NOT PROVEN"}},
		{"nothing to explain", "explain --from 198.51.100.3 --to orders", exitNotConformant, []string{"!nothing is in force"}},
		{"a plan", "plan", exitOK, []string{"database orders would be protected", "orders at 203.0.113.1:5432, by any interface: 0.0.0.0-198.51.99.255, 198.51.100.16-255.255.255.255 would lose access"}},
		{"apply", "apply", exitOK, []string{"in_force_at"}},
		{"a plan of nothing", "plan", exitOK, []string{"nothing would change"}},
		{"proven", "verify", exitOK, []string{"PROVEN: what is in force is standard input", "not compared", "expected"}},
		{"proven, for programs", "verify --json", exitOK, []string{`"proven": true`}},
		{"let in", "explain --from 198.51.100.3 --to orders --policy " + file, exitOK, []string{"kernel: a SYN from the client: PASS", "custom4_orders { 198.51.100.0/28 }", "ALLOWED: rule 1, custom range 198.51.100.0/28 (office)"}},
		{"kept out", "explain --from 198.51.100.99%eth0 --to orders:5432 --policy -", exitOK, []string{"DROP", "DENIED: no rule of orders covers it", "nearest is 198.51.100.0/28"}},
		{"plaintext", "explain --from 198.51.100.3 --to orders=203.0.113.1:5432 --plain --policy " + file, exitOK, []string{"REJECT", "plaintext is refused"}},
		{"TLS", "explain --from 198.51.100.3 --to 203.0.113.1:5432 --tls --json --policy " + file, exitOK, []string{`"kernel": "pass"`}},
		{"no such database", "explain --from 198.51.100.3 --to basket", exitUsage, []string{"!known are orders"}},
		{"no address", "explain --from office --to orders", exitUsage, []string{"!--from"}},
		{"both", "explain --from 198.51.100.3 --to orders --tls --plain", exitUsage, []string{"!choose one"}},
		{"as a file", "export --policy " + file, exitOK, []string{"SHA-256", "table ip6 drawbridge {"}},
		{"hits", "hits --policy " + file, exitOK, []string{"DATABASE", "rule 1, custom range 198.51.100.0/28 (office)"}},
		{"nobody denied", "denied --over 50ms", exitOK, []string{"nobody was denied", "!listening for 50ms"}},
		{"reset", "reset", exitOK, nil},
		{"gone", "verify", exitNotConformant, []string{"missing"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			code, out, errs := asked(t, ns, append([]string{"enforce"}, strings.Fields(tt.args)...)...)
			require.Equal(t, tt.code, code, "%s%s", out, errs)
			for _, s := range tt.says {
				if words, ok := strings.CutPrefix(s, "!"); ok {
					require.Contains(t, errs, words)
				} else {
					require.Contains(t, out, s)
				}
			}
		})
	}
}
