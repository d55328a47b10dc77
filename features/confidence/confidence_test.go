package confidence_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"drawbridge/features/confidence"
)

// TestUpperIsThePublishedLimit: two-sided limits of 95% are one-sided ones of 97.5% (binom.test of R prints these).
func TestUpperIsThePublishedLimit(t *testing.T) {
	for _, c := range []struct {
		k, n  int
		level float64
		want  float64
	}{
		{0, 10, .975, 0.3085}, {1, 10, .975, 0.4450}, {2, 10, .975, 0.5561}, {5, 10, .975, 0.8129}, {9, 10, .975, 0.9975}, {10, 10, .975, 1},
		{3, 20, .975, 0.3789}, {5, 100, .975, 0.1128}, {10, 100, .975, 0.1762},
		{0, 3, .95, 0.6316}, {0, 10, .95, 0.2589}, {1, 10, .95, 0.3942}, {2, 10, .95, 0.5069},
		{0, 2000, .95, 0.0015}, {0, 0, .95, 1},
	} {
		t.Run(fmt.Sprintf("%d of %d at %v", c.k, c.n, c.level), func(t *testing.T) {
			require.InDelta(t, c.want, confidence.Upper(c.k, c.n, c.level), 0.00006)
		})
	}
}

// TestUpperIsWilksTable: the least numbers of trials that show with 95% confidence that less than 5% are wrong, when k were
// (S. S. Wilks, "Determination of sample sizes for setting tolerance limits", Annals of Mathematical Statistics 12, 1941).
func TestUpperIsWilksTable(t *testing.T) {
	for k, n := range []int{59, 93, 124, 153, 181, 208} {
		require.LessOrEqual(t, confidence.Upper(k, n, .95), .05, "%d of %d", k, n)
		require.Greater(t, confidence.Upper(k, n-1, .95), .05, "%d of %d", k, n-1)
	}
}

func TestUpperOfGreatNumbers(t *testing.T) {
	for _, n := range []int{1_000, 100_000, 10_000_000} {
		u := confidence.Upper(1, n, .95)
		require.InEpsilon(t, 4.7439/float64(n), u, .01, "of Poisson's distribution") // half the 95th percentile of chi-squared with 4 degrees
	}
	require.Less(t, confidence.Upper(0, 1000, .9), confidence.Upper(0, 1000, .99))
	require.False(t, math.IsNaN(confidence.Upper(200, 20_000, .9999)))
}

func TestASampleOfAllIsExact(t *testing.T) {
	require.Zero(t, confidence.Sample{Of: 7, Tried: 7}.Below(.95))
	require.Equal(t, .25, confidence.Sample{Of: 8, Tried: 8, Wrong: 2}.Below(.95))
	require.Equal(t, 1., confidence.Sample{Of: 8}.Below(.95), "nothing is known")
	require.Equal(t, 1., confidence.Sample{}.Below(.95))
}

// TestTheStatementHoldsAsOftenAsItSays draws many samples out of populations of which the worst number is wrong, and counts how often the
// true fraction is above the stated one.
func TestTheStatementHoldsAsOftenAsItSays(t *testing.T) {
	const rounds = 2000
	random := rand.New(rand.NewPCG(1, 2))
	for _, c := range []struct {
		of, tried, wrong int
		level            float64
	}{{5000, 300, 50, .95}, {5000, 300, 48, .95}, {1000, 500, 6, .95}, {3000, 100, 69, .9}, {60, 30, 1, .99}} {
		missed := 0
		for range rounds {
			found := 0
			for _, i := range random.Perm(c.of)[:c.tried] {
				if i < c.wrong {
					found++
				}
			}
			s := confidence.Sample{Of: c.of, Tried: c.tried, Wrong: found}
			if s.Below(c.level) < float64(c.wrong)/float64(c.of) {
				missed++
			}
		}
		allowed := rounds * (1 - c.level)
		require.LessOrEqual(t, float64(missed), allowed+4*math.Sqrt(allowed), "%+v", c)
	}
}

func TestFound(t *testing.T) {
	require.Zero(t, confidence.Found(0, .5))
	require.InDelta(t, .75, confidence.Found(2, .5), 1e-12)
	require.Equal(t, 1., confidence.Found(1, 1))
	for _, n := range []int{10, 2000} {
		require.InDelta(t, .95, confidence.Found(n, confidence.Upper(0, n, .95)), 1e-9, "what would have been found is what the limit says")
	}
}
