package bench_test

import (
	"math/bits"
	"testing"

	"drawbridge/cmd/drawbridge/internal/bench"

	"github.com/stretchr/testify/require"
)

func TestSpread(t *testing.T) {
	for _, tt := range []struct {
		name              string
		values            []float64
		median, low, high float64
		confident         bool
	}{
		{"one", []float64{3}, 3, 3, 3, false},
		{"two", []float64{3, 1}, 2, 1, 3, false},
		{"four", []float64{4, 1, 3, 2}, 2.5, 1, 4, false},
		{"five", []float64{5, 1, 4, 2, 3}, 3, 1, 5, true},
		{"eight", []float64{8, 7, 6, 5, 4, 3, 2, 1}, 4.5, 2, 7, true},
		{"fifteen", []float64{15, 1, 14, 2, 13, 3, 12, 4, 11, 5, 10, 6, 9, 7, 8}, 8, 4, 12, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			given := append([]float64(nil), tt.values...)
			got := bench.NewSpread(tt.values)
			require.Equal(t, bench.Spread{Median: tt.median, Low: tt.low, High: tt.high, Confident: tt.confident, Values: given}, got)
		})
	}
}

// TestBoundsAreAsNarrowAsTheyMay: of any number of values, the true median lies beyond the bounds in 10 per cent of all cases at
// most, and one value less at each end would be more. All cases are counted: each value lies below the median or above it.
func TestBoundsAreAsNarrowAsTheyMay(t *testing.T) {
	for n := 1; n <= 16; n++ {
		values := make([]float64, n)
		for i := range values {
			values[i] = float64(i)
		}
		got := bench.NewSpread(values)
		left := int(got.Low) // out at this end
		require.InDelta(t, n-1-left, got.High, 0, "%d values", n)
		require.Equal(t, beyond(n, left) <= 0.1, got.Confident, "%d values", n)
		require.Greater(t, beyond(n, left+1), 0.1, "%d values", n)
	}
}

// beyond is the share of cases in which the median lies beyond n values less left ones at each end.
func beyond(n, left int) float64 {
	cases := 0
	for which := range 1 << n {
		if below := bits.OnesCount(uint(which)); below <= left || below >= n-left {
			cases++
		}
	}
	return float64(cases) / float64(int(1)<<n)
}

func TestRatiosArePairs(t *testing.T) {
	require.Equal(t, []float64{0.5, 2}, bench.Ratios([]float64{1, 4, 9}, []float64{2, 2}))
	require.Zero(t, bench.Drift([]float64{7}))
	require.InDelta(t, 0.5, bench.Drift([]float64{2, 3, 1.5, 2.25}), 1e-9)
}
