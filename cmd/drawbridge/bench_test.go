//go:build !operator

package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"drawbridge/cmd/drawbridge/internal/bench"
	"drawbridge/sim/netns/netnstest"

	"github.com/stretchr/testify/require"
)

// TestBenchTLS measures one short round of every program, at both placements: that each way is really taken, and that the report is
// there. A round says nothing about the goal, so that the exit code never depends on the machine. `make bench-tls` measures.
func TestBenchTLS(t *testing.T) {
	netnstest.Require(t)
	if _, err := bench.Find(); err != nil {
		netnstest.Missing(t, err.Error())
	}
	t.Setenv(asProgram, "1")
	dir := filepath.Join(t.TempDir(), "report")
	const rows = "^(postgresql shared persistent tls|mysql dedicated new tls|redis (dedicated persistent|shared new) (tls|plain))$"
	got := invoke(t, nil, "bench", "tls", "--rounds", "1", "--length", "100ms", "--rows", rows, "--report", dir)
	require.Equal(t, exitOK, got.code, got.err)
	require.Contains(t, got.out, "| redis shared new tls ")
	text, err := os.ReadFile(filepath.Join(dir, "bench-tls.json"))
	require.NoError(t, err)
	var report bench.Report
	require.NoError(t, json.Unmarshal(text, &report))
	require.Len(t, report.Results, 6)
	for _, r := range report.Results {
		for _, m := range []bench.Measured{r.Direct, r.Gate, r.Proxy} {
			require.Positive(t, m.PerSecond.Median, "%+v", r)
			require.Positive(t, m.LatencyMS.Median, "%+v", r)
		}
	}
	for _, program := range []string{bench.PgBench, bench.MariaDBSlap, bench.RedisBenchmark, bench.HAProxy, "postgresql", "mysql", "redis"} {
		require.NotEmpty(t, report.Programs[program], program)
	}
	require.Equal(t, len(report.Results), strings.Count(got.err, " of 6: "), got.err)
}

// compared runs a comparison and returns its report; a single round says nothing about a goal, so that the exit code never depends on
// the machine, but for what cannot be measured.
func compared(t *testing.T, args ...string) (bench.Summary, result) {
	t.Helper()
	netnstest.Require(t)
	netnstest.Tool(t, "nft") // without it a goal could not be measured
	t.Setenv(asProgram, "1")
	dir := filepath.Join(t.TempDir(), "report")
	got := invoke(t, nil, append(append([]string{"bench"}, args...), "--rounds", "1", "--report", dir, "--json")...)
	require.Equal(t, exitOK, got.code, got.err)
	var s bench.Summary
	require.NoError(t, json.Unmarshal([]byte(got.out), &s))
	written, err := os.ReadFile(filepath.Join(dir, "bench.json"))
	require.NoError(t, err)
	require.JSONEq(t, got.out, string(written))
	for _, name := range []string{"bench.md", "bench.svg"} {
		require.FileExists(t, filepath.Join(dir, name))
	}
	require.NotEmpty(t, s.Kernel)
	require.Positive(t, s.Processors)
	for _, c := range s.Comparisons {
		for _, l := range c.Lines {
			if l.Kind != bench.Peer || l.Name == byNFT { // others may lack something in the kernel
				require.False(t, l.Failed, "%s: %+v", c.Title(), l)
			}
			require.True(t, l.Value != nil || l.Note != "", "%s: %s is silently missing", c.Title(), l.Name)
		}
	}
	return s, got
}

// TestBenchRules installs and changes a small policy by each program that is installed, ours and nft in any case.
func TestBenchRules(t *testing.T) {
	s, got := compared(t, "rules", "--databases", "3")
	require.Len(t, s.Comparisons, 4)
	for _, c := range s.Comparisons {
		require.Len(t, c.Lines, 6)
		if c.Metric != "time" {
			continue // of the processor, an element more may take less than can be told
		}
		for _, l := range c.Lines[:3] { // ours, its transaction, nft
			require.NotNil(t, l.Value, "%s: %+v", c.Title(), l)
			require.Positive(t, l.Value.Median, "%s: %s", c.Title(), l.Name)
		}
		require.Contains(t, got.err, c.Name, "progress")
	}
}

// TestBenchLab builds a small network in each way that there is here, without privileges and killed too.
func TestBenchLab(t *testing.T) {
	s, _ := compared(t, "lab", "--hosts", "3", "--tool", `by hand=for i in $(seq "$1"); do ip netns add "h$i"; done; echo up; read x; ip -all netns delete; echo 0.25`)
	var names []string
	for _, c := range s.Comparisons {
		names = append(names, c.Title())
		require.Equal(t, bench.Ours, c.Lines[0].Kind)
		require.NotNil(t, c.Lines[0].Value, c.Title())
	}
	for i, want := range map[int]func(ms float64){
		0: func(ms float64) { require.Greater(t, ms, 1.0) }, // timed from outside
		2: func(ms float64) { require.InDelta(t, 250, ms, 0.1) },
	} {
		tool := s.Comparisons[i].Lines[len(s.Comparisons[i].Lines)-1]
		require.Equal(t, "by hand", tool.Name)
		require.NotNil(t, tool.Value, tool.Note)
		want(tool.Value.Median)
	}
	require.Equal(t, []string{"3 hosts: up", "3 hosts: every host connects, IPv4 and IPv6", "3 hosts: down", "3 hosts: memory",
		"3 hosts without privileges: up", "3 hosts, SIGKILL until the last is gone"}, names)
}

// TestBenchPackets measures behind a small policy; before that it proves that both firewalls are in force.
func TestBenchPackets(t *testing.T) {
	s, _ := compared(t, "packets", "--databases", "5", "--budget", "1s")
	require.Len(t, s.Comparisons, 4)
	for _, c := range s.Comparisons {
		for _, l := range c.Lines[:2] { // without a firewall, and ours
			require.Positive(t, l.Value.Median, "%s: %s", c.Title(), l.Name)
		}
	}
}
