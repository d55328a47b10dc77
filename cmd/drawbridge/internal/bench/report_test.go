package bench_test

import (
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"drawbridge/cmd/drawbridge/internal/bench"
	"drawbridge/sim/realserver"
	"drawbridge/topology"

	"github.com/stretchr/testify/require"
)

// TestWorldHasWhatTheRowsNeed: the vantages, and a database for each engine and placement.
func TestWorldHasWhatTheRowsNeed(t *testing.T) {
	w := bench.World()
	for _, r := range bench.Rows() {
		require.Contains(t, bench.Vantages, r.Vantage(), r)
		require.True(t, slices.ContainsFunc(w.Databases(), func(d topology.Database) bool {
			return d.Engine == r.Engine && d.Model == r.Model
		}), r)
	}
	for _, name := range bench.Vantages {
		_, ok := w.Vantage(name)
		require.True(t, ok, name)
	}
}

// TestArgumentsAskSoManyQuestions: what the programs are told is what their output is held against.
func TestArgumentsAskSoManyQuestions(t *testing.T) {
	target := bench.Target{Addr: netip.MustParseAddrPort("203.0.113.1:5432"), CAFile: "/ca.pem", Clients: 4}
	for _, r := range bench.Rows() {
		line := strings.Join(r.Arguments(target, 400), " ")
		count := map[topology.Engine]string{
			topology.PostgreSQL: "-c 4 -j 4 -t 100", topology.MySQL: "--concurrency=4 --number-of-queries=400", topology.Redis: "-c 4 -n 400",
		}[r.Engine]
		require.Contains(t, line, count, r)
		require.Equal(t, r.TLS, strings.Contains(line, "verify-ca") || strings.Contains(line, "--ssl-ca=/ca.pem") || strings.Contains(line, "--tls"), r)
		again := map[topology.Engine]string{topology.PostgreSQL: " -C ", topology.MySQL: " --detach=1", topology.Redis: " -k 0 "}[r.Engine]
		require.Equal(t, r.New, strings.Contains(line, again), r)
	}
}

func TestProxySettings(t *testing.T) {
	got := bench.ProxySettings([]bench.Forward{{3, netip.MustParseAddrPort("127.0.0.1:5432")}, {4, netip.MustParseAddrPort("10.64.1.1:3306")}})
	require.Contains(t, got, "mode tcp\n")
	require.Contains(t, got, "listen l0\n\tbind fd@3\n\tserver s 127.0.0.1:5432\nlisten l1\n\tbind fd@4\n\tserver s 10.64.1.1:3306\n")
}

// TestMissingProgramsAreNamedTogether with the packages that have them.
func TestMissingProgramsAreNamedTogether(t *testing.T) {
	t.Setenv("PATH", "")
	_, err := bench.Find()
	require.ErrorIs(t, err, realserver.ErrMissing)
	missing, ok := errors.AsType[*realserver.MissingError](err)
	require.True(t, ok)
	require.Subset(t, missing.Programs, []string{bench.MariaDBSlap, bench.RedisBenchmark})
	require.Subset(t, missing.Packages, []string{"mariadb-client", "redis-tools"})
	require.Equal(t, slices.Compact(slices.Sorted(slices.Values(missing.Packages))), missing.Packages)
}

// samples of a row: rates of the gate and the proxy as parts of what each round has without firewall.
func samples(gate, proxy float64, rounds int) map[bench.Way][]bench.Sample {
	all := map[bench.Way][]bench.Sample{}
	for round := range rounds {
		speed := 1000 * float64(1+round%3) // the machine's mood, which ratios must not see
		for way, part := range map[bench.Way]float64{bench.Direct: 1, bench.Gate: gate, bench.Proxy: proxy} {
			all[way] = append(all[way], bench.Sample{
				Outcome: bench.Outcome{PerSecond: speed * part, Latency: time.Millisecond}, N: 100, Elapsed: time.Second,
				Used: bench.Usage{Processes: time.Second, Machine: 1500 * time.Millisecond},
			})
		}
	}
	return all
}

func TestVerdict(t *testing.T) {
	row := bench.Row{Engine: topology.Redis, Model: topology.Shared, TLS: true}
	for _, tt := range []struct {
		name   string
		gate   float64
		rounds int
		want   bench.Verdict
	}{
		{"at the goal", bench.Goal, 5, bench.Met},
		{"above", 1.1, 1, bench.Met},
		{"below, in too few rounds to tell", 0.5, 4, bench.Noise},
		{"below in all of five rounds", 0.96, 5, bench.Missed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := bench.NewResult(row, samples(tt.gate, 0.5, tt.rounds), 2)
			require.Equal(t, tt.want, got.Verdict)
			require.InDelta(t, tt.gate, got.GateRatio.Median, 1e-9)
			require.InDelta(t, 0.5, got.ProxyRatio.Median, 1e-9)
			require.InDelta(t, 10_000, got.Gate.ProcessorMicro.Median, 1e-9)
			require.InDelta(t, 0.25, got.Others, 1e-9)
		})
	}
	mixed := samples(0.9, 0.5, 15)
	for i := range 6 { // of 15, four at each end are no evidence
		mixed[bench.Gate][i].PerSecond = 2 * mixed[bench.Direct][i].PerSecond
	}
	require.Equal(t, bench.Noise, bench.NewResult(row, mixed, 2).Verdict)
}

// TestOneRowMissesTheGoalForAll, and the report says which.
func TestOneRowMissesTheGoalForAll(t *testing.T) {
	r := bench.Report{Kernel: "6.18", Processor: "a processor", Processors: 2, Programs: map[string]string{"haproxy": "2.6"}, Rounds: 5, Seconds: 1}
	r.Results = append(r.Results, bench.NewResult(bench.Row{Engine: topology.Redis, Model: topology.Shared, TLS: true}, samples(1, 0.5, 5), 2))
	r.Conclude()
	require.Equal(t, bench.Met, r.Verdict)
	for _, step := range []struct {
		gate   float64
		rounds int
		want   bench.Verdict
	}{{0.9, 1, bench.Noise}, {0.9, 5, bench.Missed}, {0.9, 1, bench.Missed}} {
		row := bench.Row{Engine: topology.MySQL, Model: topology.Dedicated, New: true, TLS: true}
		r.Results = append(r.Results, bench.NewResult(row, samples(step.gate, 0.5, step.rounds), 2))
		r.Conclude()
		require.Equal(t, step.want, r.Verdict)
	}
	dir := filepath.Join(t.TempDir(), "report")
	require.NoError(t, r.Write(dir))
	text, err := os.ReadFile(filepath.Join(dir, "bench-tls.md"))
	require.NoError(t, err)
	require.Contains(t, string(text), "Missed beyond noise: mysql dedicated new tls.\n")
	requireAligned(t, string(text))
	text, err = os.ReadFile(filepath.Join(dir, "bench-tls.json"))
	require.NoError(t, err)
	var back bench.Report
	require.NoError(t, json.Unmarshal(text, &back))
	require.Equal(t, r, back)
}

// TestAllRowsTogether: what no row has rounds enough to tell, all of them may.
func TestAllRowsTogether(t *testing.T) {
	var r bench.Report
	for i := range 3 {
		row := bench.Row{Engine: topology.Redis, Model: topology.Shared, TLS: true}
		r.Results = append(r.Results, bench.NewResult(row, samples(0.9, 0.5, 2), 2))
		r.Conclude()
		want := bench.Noise
		if i == 2 { // six ratios
			want = bench.Missed
		}
		require.Equal(t, want, r.Verdict, i)
	}
	var text strings.Builder
	require.NoError(t, r.WriteMarkdown(&text))
	require.Contains(t, text.String(), "Missed beyond noise: all together.")
	require.Contains(t, text.String(), "Other work used more than 20 % of the machine during 3 of 3 rows")
	r.Results[1].Others = 0.1
	text.Reset()
	require.NoError(t, r.WriteMarkdown(&text))
	require.Contains(t, text.String(), "during 2 of 3 rows")
}

// requireAligned: the lines of each table are of one length.
func requireAligned(t *testing.T, text string) {
	t.Helper()
	tables, width := 0, 0
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "|") {
			width = 0
			continue
		}
		if width == 0 {
			width = utf8.RuneCountInString(line)
			tables++
		}
		require.Equal(t, width, utf8.RuneCountInString(line), line)
	}
	require.Equal(t, 2, tables)
}
