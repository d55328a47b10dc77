package bench_test

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"drawbridge/cmd/drawbridge/internal/bench"
	"drawbridge/enforcer/compile"
	"drawbridge/enforcer/policy"
	"drawbridge/enforcer/ruleset"

	"github.com/stretchr/testify/require"
)

var more = netip.MustParsePrefix("198.19.0.0/24")

func table(t *testing.T, g bench.Gateway) ruleset.Table {
	t.Helper()
	document, err := g.Document()
	require.NoError(t, err)
	p, err := policy.Parse("gateway", document)
	require.NoError(t, err)
	require.Len(t, p.Databases(), g.Databases)
	got, err := compile.Compile(p)
	require.NoError(t, err)
	return got
}

// TestOneRuleIsOneElementEachWay: what is measured as the change of one rule is no more than that, also at the far end of the addresses.
func TestOneRuleIsOneElementEachWay(t *testing.T) {
	for _, n := range []int{1, 3, 600} {
		with := func(last ...netip.Prefix) ruleset.Table {
			return table(t, bench.Gateway{Databases: n, Last: map[int][]netip.Prefix{n / 2: last}})
		}
		change := ruleset.Diff(with(), with(more))
		require.Empty(t, change.DeleteElements)
		require.Empty(t, change.AddSets)
		require.Empty(t, change.AddChains)
		for _, e := range change.AddElements {
			require.Len(t, e.Elements, 1)
		}
		require.NotEmpty(t, change.AddElements)
	}
	require.True(t, bench.Gateway{}.Node(bench.MostDatabases-1).Addr().IsPrivate())
}

// TestLinearPlaceIsBeforeTheDenial of the database that gets a rule: what is put there counts.
func TestLinearPlaceIsBeforeTheDenial(t *testing.T) {
	g := bench.Gateway{Databases: 3, Last: map[int][]netip.Prefix{1: {}}}
	var rules []string
	for line := range strings.Lines(g.Linear()) {
		if strings.HasPrefix(line, "-A ") {
			rules = append(rules, line)
		}
	}
	at := g.LinearPlace(1) - 1 // rules are counted from 1
	require.Contains(t, rules[at], "-d 203.0.1.1/32 ")
	require.Contains(t, rules[at], "-j DROP")
	require.Contains(t, rules[at-1], "-d 203.0.1.1/32 ")
	require.Equal(t, "-d 203.0.1.1/32 -p tcp -m tcp --dport 5432 -s 198.19.0.0/24 -j ACCEPT", strings.Join(g.LinearRule(1, more), " "))
	require.Len(t, rules, 2*(bench.RulesEach+1)+bench.RulesEach)
	require.Equal(t, 2*bench.RulesEach+bench.RulesEach-1, strings.Count(g.Sets(), "add "))
	require.Equal(t, 3, strings.Count(g.SetRules(), "--match-set"))
}

func TestCrowd(t *testing.T) {
	w, err := bench.Crowd(bench.MostHosts)
	require.NoError(t, err)
	require.Greater(t, len(w.Vantages()), bench.MostHosts)
	create, hosts, end := bench.IPLab(300)
	require.Len(t, hosts, 300)
	require.Equal(t, 300, strings.Count(create, "netns add "))
	require.Equal(t, 300, strings.Count(end, "netns delete "))
	seen := map[string]bool{}
	for _, h := range hosts {
		require.False(t, seen[h.Batch], "an address twice")
		seen[h.Batch] = true
	}
}

func TestInterpreter(t *testing.T) {
	script := filepath.Join(t.TempDir(), "script")
	for text, want := range map[string]string{
		"#!/usr/bin/python3\n": "/usr/bin/python3", "#! /bin/sh -e\nx": "/bin/sh", "": "", "import os\n": "", "#!\n": "",
	} {
		require.NoError(t, os.WriteFile(script, []byte(text), 0o600))
		got, err := bench.Interpreter(script)
		require.Equal(t, want, got)
		require.Equal(t, want == "", err != nil)
	}
}
