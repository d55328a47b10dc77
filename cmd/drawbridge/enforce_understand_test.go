package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"drawbridge/enforcer"
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
	other := filepath.Join(t.TempDir(), "other.json")
	require.NoError(t, os.WriteFile(other, []byte(strings.Replace(understood, "198.51.100.0/28", "198.51.100.0/27", 1)), 0o600))
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
		{"over loopback", "explain --from 127.0.0.1%lo --to orders --policy " + file, exitOK, []string{"PASS", "ALLOWED: not judged", "G-02"}},
		{"no such interface", "explain --from 198.51.100.3%nope0 --to orders", exitOK, []string{"PASS", "!warning: this network namespace has no interface \"nope0\""}},
		{"kept out", "explain --from 198.51.100.99%eth0 --to orders:5432 --policy -", exitOK, []string{"DROP", "DENIED: no rule of orders covers it", "nearest is 198.51.100.0/28"}},
		{"plaintext", "explain --from 198.51.100.3 --to orders=203.0.113.1:5432 --plain --policy " + file, exitOK, []string{"REJECT", "plaintext is refused"}},
		{"TLS", "explain --from 198.51.100.3 --to 203.0.113.1:5432 --tls --json --policy " + file, exitOK, []string{`"kernel": "pass"`}},
		{"no such database", "explain --from 198.51.100.3 --to basket", exitUsage, []string{"!known are orders"}},
		{"no address", "explain --from office --to orders", exitUsage, []string{"!--from"}},
		{"both", "explain --from 198.51.100.3 --to orders --tls --plain", exitUsage, []string{"!choose one"}},
		{"as a file", "export --policy " + file, exitOK, []string{"SHA-256", "table ip6 drawbridge {"}},
		{"hits", "hits --policy " + file, exitOK, []string{"DATABASE", "rule 1, custom range 198.51.100.0/28 (office)"}},
		{"hits of another policy", "hits --policy " + other, exitOK, []string{"198.51.100.0/27 (office) (not in force)", "!warning: " + other + " is not the policy in force here"}},
		{"nobody denied", "denied --over 50ms", exitOK, []string{"nobody was denied", "!listening for 50ms"}},
		{"other bits", "apply --mark-mask 0xf0", exitOK, []string{"in_force_at"}},
		{"a status of them", "status", exitOK, []string{"in force, kernel generation"}},
		{"for programs", "status --json", exitOK, []string{`"mark_mask": 240`}},
		{"a status of the bits that were meant", "status --mark-mask 0xf00000", exitNotConformant, []string{"tampered with"}},
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

// TestExplainCountsAlike: the numbers of rules are the same for programs and for people.
func TestExplainCountsAlike(t *testing.T) {
	ns := netnstest.New(t)
	code, _, errs := asked(t, ns, "enforce", "apply")
	require.Equal(t, exitOK, code, errs)
	question := []string{"enforce", "explain", "--from", "198.51.100.3%lo", "--to", "orders:5432"}
	code, text, errs := asked(t, ns, question...)
	require.Equal(t, exitOK, code, errs)
	code, out, errs := asked(t, ns, append(question, "--json")...)
	require.Equal(t, exitOK, code, errs)
	var all []enforcer.Explanation
	require.NoError(t, json.Unmarshal([]byte(out), &all))
	rules := 0
	for _, packet := range all[0].Packets {
		for _, s := range packet.Steps {
			require.Equal(t, strings.HasPrefix(s.Text, "policy "), s.Rule == 0, "%+v: 0 is the end of a chain and nothing else", s)
			at := fmt.Sprintf("chain %s, rule %d: %s", s.Chain, s.Rule, s.Text)
			if s.Rule == 0 {
				at = fmt.Sprintf("chain %s, the end: %s", s.Chain, s.Text)
			} else {
				rules++
			}
			require.Contains(t, text, at)
		}
	}
	require.NotZero(t, rules)
}
