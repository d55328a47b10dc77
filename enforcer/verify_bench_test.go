package enforcer_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"drawbridge/enforcer/compile"
	"drawbridge/enforcer/intent"
	"drawbridge/enforcer/policy"
	"drawbridge/enforcer/policy/policytest"
	"drawbridge/enforcer/proof"
)

// BenchmarkProof is the arithmetic of a verification, without the kernel, of databases with 30 rules each.
func BenchmarkProof(b *testing.B) {
	for _, n := range []int{100, 1000, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			p, err := policy.Parse("gateway", policytest.Gateway(b, n, "198.18.0.0/24"))
			require.NoError(b, err)
			table, err := compile.Compile(p)
			require.NoError(b, err)
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
