//go:build !operator

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"drawbridge/enforcer/policy"
	"drawbridge/features"
	"drawbridge/features/suite"
	"drawbridge/sim/netns"
	"drawbridge/sim/netns/netnstest"

	"github.com/stretchr/testify/require"
)

// exampleDriver returns the path of one of the drivers that docs/DRIVERS.md shows; they are made of nft, and of jq or Python.
func exampleDriver(t *testing.T, name string) string {
	t.Helper()
	netnstest.Require(t)
	netnstest.Tool(t, "nft")
	netnstest.Tool(t, map[string]string{".sh": "jq", ".py": "python3"}[filepath.Ext(name)])
	if filepath.Ext(name) == ".py" {
		realPython(t)
	}
	path, err := filepath.Abs(filepath.Join("..", "..", "docs", "drivers", name))
	require.NoError(t, err)
	return path
}

// realPython puts the interpreter that python3 stands for first on the PATH: where that is a script that looks for one anew each
// time, a call takes half a second.
func realPython(t *testing.T) {
	t.Helper()
	out, err := exec.Command("python3", "-c", "import os, sys; print(os.path.dirname(os.path.realpath(sys.executable)))").Output()
	require.NoError(t, err)
	t.Setenv("PATH", strings.TrimSpace(string(out))+":"+os.Getenv("PATH"))
}

// TestExampleDriversConform judges the drivers that docs/DRIVERS.md shows, in a real lab.
func TestExampleDriversConform(t *testing.T) {
	for _, c := range []struct {
		driver, tags string
		scenarios    int // at least
	}{
		{"first-bytes.sh", "", features.Expected["core"]},
		{"first-bytes.py", "", features.Expected["core"]},
		{"database.sh", "@S-06,@C-03,@D-04,@D-11,@D-14", 8}, // what its way of doing Force TLS could get wrong
	} {
		t.Run(c.driver, func(t *testing.T) {
			args := []string{"conform", "--json", "--report=", "--profile", "core", "--driver", exampleDriver(t, c.driver)}
			if c.tags != "" {
				args = append(args, "--tags", c.tags)
			}
			got := invoke(t, nil, args...)
			require.Equal(t, exitOK, got.code, "%s%s", got.out, got.err)
			var report struct{ Counts suite.Counts }
			require.NoError(t, json.Unmarshal([]byte(got.out), &report))
			require.GreaterOrEqual(t, report.Counts.Executed, c.scenarios)
		})
	}
}

// TestExampleDriversRefuse hands them what they must not bring into force, nor take for a mistake of their own.
func TestExampleDriversRefuse(t *testing.T) {
	doc := func(edit ...string) string { return strings.NewReplacer(edit...).Replace(gatewayExample) }
	type call struct {
		name, policy string
		code         int
		stderr       string
	}
	calls := []call{
		{"a good policy", gatewayExample, 0, ""},
		{"everybody let in", doc("198.51.100.0/25", "0.0.0.0/0"), 0, "warning: database pg is open to every address: 0.0.0.0/0\n"},
		{"nothing", "", 2, "not one JSON document"},
		{"no JSON", "table", 2, "Invalid"},
		{"half a document", gatewayExample[:len(gatewayExample)/2], 2, "Unfinished"},
		{"two documents", gatewayExample + gatewayExample, 2, "not one JSON document"},
		{"another version", doc(`"version": 1`, `"version": 2`), 2, "not a policy that this driver can read"},
		{"no databases", doc(`"databases"`, `"bases"`), 2, "null"},
		{"a ruleset in an address", doc("198.51.100.0/25", `0.0.0.0/0 accept\n`), 2, "not a policy that this driver can read"},
		{"a ruleset in a name", doc(`"name": "pg"`, `"name": "pg\nflush"`), 2, "not a policy that this driver can read"},
		{"an unknown managed range", doc(`"cidr": "198.51.100.0/25"`, `"name": "osc-fr2"`), 2, "database pg: no managed range osc-fr2"},
		{"Internet accessibility", doc(`"firewall_rules"`, `"internet_accessibility": true, "firewall_rules"`), 2, "firewall rules only"},
		{"rules on a shared one", doc(`"model": "dedicated"`, `"model": "shared"`), 2, "a shared database has no firewall rules"},
	}
	for i, text := range manualPolicies(t) {
		calls = append(calls, call{fmt.Sprintf("policy %d of the manual", i+1), text, 0, ""})
	}
	for _, c := range calls {
		for _, driver := range []string{"first-bytes.sh", "database.sh", "first-bytes.py"} {
			t.Run(c.name+"/"+driver, func(t *testing.T) {
				path := exampleDriver(t, driver)
				ns, err := netns.New()
				require.NoError(t, err)
				t.Cleanup(func() { require.NoError(t, ns.Close()) })
				dir := t.TempDir()
				call := func(verb, stdin string) (int, string, string) {
					var out, stderr strings.Builder
					cmd := exec.Command(path, verb)
					cmd.Dir, cmd.Stdin, cmd.Stdout, cmd.Stderr = dir, strings.NewReader(stdin), &out, &stderr
					require.NoError(t, ns.Start(cmd))
					_ = cmd.Wait() // the status says it
					return cmd.ProcessState.ExitCode(), out.String(), stderr.String()
				}
				code, out, stderr := call("apply", c.policy)
				require.Equal(t, c.code, code, stderr)
				if words := inPython[c.name]; words != "" && driver == "first-bytes.py" {
					c.stderr = words
				}
				require.Contains(t, stderr, c.stderr)
				require.Equal(t, code == 0, strings.Contains(out, `"generation"`), out)
				require.Equal(t, c.stderr == "", stderr == "", stderr)
				for range 2 {
					code, _, stderr = call("reset", "")
					require.Zero(t, code, stderr)
				}
			})
		}
	}
}

// inPython is how its driver complains where it does so in words of its own, by the call's name.
var inPython = map[string]string{
	"no JSON": "not one JSON document", "half a document": "not one JSON document", "no databases": "KeyError: 'databases'",
	"two documents": "Extra data",
}

// manualPolicies are the policies that docs/DRIVERS.md shows. The reference enforcer takes them too.
func manualPolicies(t *testing.T) []string {
	t.Helper()
	manual, err := os.ReadFile(filepath.Join("..", "..", "docs", "DRIVERS.md"))
	require.NoError(t, err)
	var all []string
	for _, m := range regexp.MustCompile("(?ms)^```json\n(.*?)^```$").FindAllStringSubmatch(string(manual), -1) {
		if strings.Contains(m[1], `"databases"`) {
			_, err := policy.Parse("docs/DRIVERS.md", []byte(m[1]))
			require.NoError(t, err)
			all = append(all, m[1])
		}
	}
	require.NotEmpty(t, all)
	return all
}

// gatewayExample is a policy with one database and one rule.
const gatewayExample = `{
  "version": 1,
  "point": {"name": "gw", "model": "dedicated"},
  "interfaces": [{"name": "inet0", "zone": "internet"}, {"name": "vpc0", "zone": "cluster"}],
  "region": {"name": "osc-fr1", "networks": ["10.10.0.0/16"]},
  "managed_ranges": {},
  "databases": [{
    "name": "pg", "model": "dedicated", "engine": "postgresql",
    "endpoints": [{"kind": "public-rw", "address": "203.0.113.129", "port": 5432, "family": "ipv4", "tls": "in-band",
                   "dnat": {"address": "10.64.1.11", "port": 5432}}],
    "nodes": [{"name": "pg-1", "here": true, "addresses": ["10.64.1.11"], "ports": [{"port": 5432, "tls": "in-band"}]}],
    "firewall_rules": [{"type": "custom_range", "cidr": "198.51.100.0/25", "label": "office"}]
  }]
}
`

// TestExampleDriversNameNoMachine: they work wherever they are copied to.
func TestExampleDriversNameNoMachine(t *testing.T) {
	found, err := filepath.Glob(filepath.Join("..", "..", "docs", "drivers", "*.*"))
	require.NoError(t, err)
	require.Len(t, found, 3)
	first := map[string]string{".sh": "#!/bin/sh\n", ".py": "#!/usr/bin/env python3\n"}
	for _, path := range found {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		require.True(t, strings.HasPrefix(string(text), first[filepath.Ext(path)]), path)
		require.NotRegexp(t, `/(tmp|home|root|work)\b`, string(text), path)
	}
}
