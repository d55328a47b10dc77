package enforcer_test

import (
	"bytes"
	"fmt"
	"regexp"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"drawbridge/enforcer/compile"
	"drawbridge/enforcer/intent"
	"drawbridge/enforcer/policy"
	"drawbridge/enforcer/policy/policytest"
	"drawbridge/enforcer/proof"
	"drawbridge/enforcer/ruleset"
)

// BenchmarkProof is the arithmetic of a verification, without the kernel, of databases with 30 rules each.
func BenchmarkProof(b *testing.B) {
	for _, n := range []int{100, 1000, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			p, table := compiled(b, policytest.Gateway(b, n, "198.18.0.0/24"))
			b.ReportAllocs()
			for b.Loop() {
				report, err := proof.Check(table, intent.Of(p, intent.Options{Blind: false}))
				require.NoError(b, err)
				require.Empty(b, report.Differences)
				b.ReportMetric(float64(report.Questions), "sets")
			}
		})
	}
}

func compiled(tb testing.TB, document []byte) (*policy.Policy, ruleset.Table) {
	tb.Helper()
	p, err := policy.Parse("gateway", document)
	require.NoError(tb, err)
	table, err := compile.Compile(p)
	require.NoError(tb, err)
	return p, table
}

// TestAProofCostsWhatAPolicyIsLong: with four times as many databases it takes about four times as much, also where every
// database has rules that cover all servers. What is allocated stands for what is done: it is the same on every machine.
func TestAProofCostsWhatAPolicyIsLong(t *testing.T) {
	for _, wide := range []string{"", `"10.0.0.0/8"`, `"0.0.0.0/0"`, `"128.0.0.0/1"`} {
		cost := func(n int) float64 {
			document := policytest.Gateway(t, n, "198.18.0.0/24")
			if wide != "" {
				document = regexp.MustCompile(`"198\.51\.[0-9]+\.0/32"`).ReplaceAll(document, []byte(wide))
				require.Equal(t, n, bytes.Count(document, []byte(wide)))
			}
			p, table := compiled(t, document)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			report, err := proof.Check(table, intent.Of(p, intent.Options{Blind: false}))
			runtime.ReadMemStats(&after)
			require.NoError(t, err)
			require.Empty(t, report.Differences)
			return float64(after.TotalAlloc - before.TotalAlloc)
		}
		few, many := cost(60), cost(240)
		t.Logf("rule %s: %.0f bytes, and %.2f times that", wide, few, many/few)
		require.Less(t, many/few, 5.0, "rule %s", wide)
	}
}
