package bench_test

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"drawbridge/cmd/drawbridge/internal/bench"

	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write the golden files anew")

func spread(values ...float64) *bench.Spread {
	s := bench.NewSpread(values)
	return &s
}

// summary has everything that there can be: better, worse, missing, failed, cut short, and words that are markup.
func summary() *bench.Summary {
	s := &bench.Summary{
		Machine:  bench.Machine{Kernel: "6.18.0", Processor: "a <fast> processor", Processors: 2},
		Programs: map[string]string{"nft": "nftables v1.0.6", "drawbridge": "v1"}, Rounds: 5, Budget: 20, Notes: []string{"Memory is what was counted"},
		Comparisons: []bench.Comparison{
			{Group: "Rules", Name: "install 1,000 databases", Unit: "ms", Others: 0.3, Lines: []bench.Line{
				{Name: "drawbridge", Kind: bench.Ours, Value: spread(100, 110, 120, 130, 140)},
				{Name: "nft", Kind: bench.Peer, Value: spread(1200, 1100, 1300, 1250, 1150), Ratio: spread(0.1, 0.09, 0.11, 0.12, 0.13)},
				{Name: "ipset & iptables", Kind: bench.Peer, Note: "not installed: ipset"},
				{Name: "iptables", Kind: bench.Peer, Note: "failed: a | b\nc", Failed: true},
			}, Goals: []bench.Judged{
				{Of: "drawbridge", Against: "nft", Limit: 1, Value: spread(0.1, 0.09, 0.11, 0.12, 0.13), Verdict: bench.Met},
				{Of: "drawbridge", Against: "ipset & iptables", Limit: 1, Verdict: bench.Unmeasured, Excused: true},
			}},
			{Group: "Packets", Name: "connect", Metric: "rate", Unit: "connections/s", More: true, Lines: []bench.Line{
				{Name: "no firewall", Kind: bench.Floor, Value: spread(10_000), Ratio: spread(0.9), Note: "1 of 5 rounds took 21s"},
				{Name: "drawbridge", Kind: bench.Ours, Value: spread(9000)},
			}, Goals: []bench.Judged{{Of: "drawbridge", Limit: 9500, Value: spread(9000), Verdict: bench.Noise}}},
		},
	}
	s.Conclude()
	return s
}

func TestMarkdownGolden(t *testing.T) {
	var b strings.Builder
	require.NoError(t, summary().WriteMarkdown(&b))
	golden(t, "summary.md", b.String())
}

func TestChartGolden(t *testing.T) { golden(t, "summary.svg", summary().Chart()) }

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(path, []byte(got), 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), got)
}

// TestChartIsXMLAndSelfContained: whatever names and reasons hold, and with no value at all.
func TestChartIsXMLAndSelfContained(t *testing.T) {
	zero := summary()
	zero.Comparisons[0].Lines[1].Ratio = spread(0)
	for name, s := range map[string]*bench.Summary{"full": summary(), "empty": {}, "a ratio of 0": zero} {
		t.Run(name, func(t *testing.T) {
			text := s.Chart()
			var root struct {
				XMLName xml.Name
			}
			require.NoError(t, xml.Unmarshal([]byte(text), &root))
			require.Equal(t, xml.Name{Space: "http://www.w3.org/2000/svg", Local: "svg"}, root.XMLName)
			d := xml.NewDecoder(strings.NewReader(text))
			for {
				token, err := d.Token()
				if errors.Is(err, io.EOF) {
					break
				}
				require.NoError(t, err)
				if e, ok := token.(xml.StartElement); ok {
					require.NotContains(t, []string{"image", "script", "use", "a"}, e.Name.Local)
					for _, a := range e.Attr {
						require.NotContains(t, a.Value, "NaN")
						require.NotContains(t, a.Value, "Inf")
					}
				}
			}
			require.Contains(t, text, "prefers-color-scheme: dark")
		})
	}
}

func TestSummaryFiles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "report", "bench")
	s := summary()
	require.NoError(t, s.Write(dir))
	text, err := os.ReadFile(filepath.Join(dir, "bench.json"))
	require.NoError(t, err)
	var back bench.Summary
	require.NoError(t, json.Unmarshal(text, &back))
	require.Equal(t, *s, back)
	for _, name := range []string{"bench.md", "bench.svg"} {
		require.FileExists(t, filepath.Join(dir, name))
	}
}

// TestWorstGoalDecides, and what this machine cannot be asked says nothing.
func TestWorstGoalDecides(t *testing.T) {
	goals := func(all ...bench.Judged) bench.Verdict {
		s := bench.Summary{Comparisons: []bench.Comparison{{Goals: all}}}
		s.Conclude()
		return s.Verdict
	}
	met, noise := bench.Judged{Verdict: bench.Met}, bench.Judged{Verdict: bench.Noise}
	missed, failed := bench.Judged{Verdict: bench.Missed}, bench.Judged{Verdict: bench.Unmeasured}
	require.Equal(t, bench.Met, goals())
	require.Equal(t, bench.Met, goals(met, bench.Judged{Verdict: bench.Unmeasured, Excused: true}))
	require.Equal(t, bench.Noise, goals(noise, met))
	require.Equal(t, bench.Unmeasured, goals(noise, failed, met))
	require.Equal(t, bench.Missed, goals(missed, failed))
}

// TestIncomplete: what was measured before is told, and never passes for all.
func TestIncomplete(t *testing.T) {
	s := summary()
	s.Comparisons, s.Incomplete = s.Comparisons[:1], "the suite:\nnot passed"
	s.Conclude()
	require.Equal(t, bench.Unmeasured, s.Verdict)
	var b strings.Builder
	require.NoError(t, s.WriteMarkdown(&b))
	require.Contains(t, b.String(), "**Incomplete.** The run ended before everything was measured: the suite: not passed\n")
}

func TestThousands(t *testing.T) {
	for n, want := range map[int]string{0: "0", 999: "999", 1000: "1,000", 10_000: "10,000", 1_234_567: "1,234,567"} {
		require.Equal(t, want, bench.Thousands(n))
	}
}
