package bench

import (
	"math"
	"slices"
)

// Spread is a sample told by its median and by where the median of what it was drawn from lies.
type Spread struct {
	Median float64 `json:"median"`
	// Low and High bound the true median with at least the confidence that Confident tells; the smallest and greatest value if
	// there are too few values to be that sure.
	Low  float64 `json:"low"`
	High float64 `json:"high"`
	// Confident: the bounds hold with a probability of at least 90 per cent, whatever the distribution is.
	Confident bool      `json:"confident"`
	Values    []float64 `json:"values"` // in the order in which they were measured
}

// confidence is what bounds have to reach. Five rounds give 0.9375 by their smallest and greatest value.
const confidence = 0.90

// NewSpread describes a sample, which must not be empty.
func NewSpread(values []float64) Spread {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	k, sure := bounds(n)
	return Spread{
		Median: (sorted[(n-1)/2] + sorted[n/2]) / 2, Low: sorted[k], High: sorted[n-1-k], Confident: sure, Values: values,
	}
}

// bounds returns how many of n sorted values may be left out at each end, so that the rest still spans the true median with enough
// confidence: of n values, the number that lies below it is binomial (the sign test).
func bounds(n int) (k int, sure bool) {
	outside, ways := 0.0, 1.0 // ways: n over k
	for k := 0; k < (n+1)/2; k++ {
		outside += 2 * ways * math.Pow(0.5, float64(n)) // fewer than k+1 below, or above
		if 1-outside < confidence {
			return max(k-1, 0), k > 0
		}
		ways = ways * float64(n-k) / float64(k+1)
	}
	return max((n+1)/2-1, 0), n > 0
}

// Ratios divides pair by pair: what was measured in the same round, on the same machine in the same mood.
func Ratios(of, to []float64) []float64 {
	out := make([]float64, min(len(of), len(to)))
	for i := range out {
		out[i] = of[i] / to[i]
	}
	return out
}

// Drift is the median distance from 1 of the ratio of each value to the one before: how much a measurement differs from
// the same measurement a round earlier. 0 for fewer than two values.
func Drift(values []float64) float64 {
	if len(values) < 2 {
		return 0
	}
	steps := Ratios(values[1:], values)
	for i := range steps {
		steps[i] = math.Abs(steps[i] - 1)
	}
	return NewSpread(steps).Median
}
