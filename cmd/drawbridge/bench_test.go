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
