package enforcer_test

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"drawbridge/enforcer"
	"drawbridge/enforcer/policy/policytest"
	"drawbridge/sim/netns"
	"drawbridge/sim/netns/netnstest"
)

func applied(tb testing.TB, ns *netns.Handle, document []byte) {
	tb.Helper()
	require.NoError(tb, ns.Do(func() error {
		_, err := enforcer.Apply(tb.Context(), document, enforcer.Options{})
		return err
	}))
}

// BenchmarkApply is the whole way from the document to what was read back from the kernel, without a daemon's memory: a
// first installation, and one rule changed.
func BenchmarkApply(b *testing.B) {
	for _, n := range []int{100, 1000} {
		before, after := policytest.Gateway(b, n, "198.18.0.0/24"), policytest.Gateway(b, n, "198.18.1.0/24")
		require.False(b, bytes.Equal(before, after))
		b.Run(fmt.Sprintf("install/%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				b.StopTimer()
				ns := netnstest.New(b)
				b.StartTimer()
				applied(b, ns, before)
			}
		})
		b.Run(fmt.Sprintf("one-rule/%d", n), func(b *testing.B) {
			b.ReportAllocs()
			ns := netnstest.New(b)
			applied(b, ns, before)
			for i := 0; b.Loop(); i++ {
				applied(b, ns, [][]byte{after, before}[i%2])
			}
		})
	}
}
