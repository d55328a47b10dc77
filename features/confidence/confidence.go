// Package confidence says what a random sample tells about all that it was drawn from.
package confidence

import "math"

// Sample is what was found in a uniform random sample, drawn without replacement.
type Sample struct {
	Of    int // how many there are to draw from
	Tried int // how many were drawn, 0 to Of
	Wrong int // how many of these were wrong, 0 to Tried
}

// Below returns a fraction that the true fraction of wrong ones in all does not exceed, at a level of confidence between 0 and 1, both
// exclusive. It is exact where all were tried, and 1 where none was.
func (s Sample) Below(level float64) float64 {
	if s.Tried == s.Of && s.Of > 0 {
		return float64(s.Wrong) / float64(s.Of)
	}
	return Upper(s.Wrong, s.Tried, level)
}

// Upper is the exact one-sided upper limit of a proportion of which k of n independent trials were instances, at a level of confidence:
// the p at which k or fewer of n have the probability 1-level (C. J. Clopper and E. S. Pearson, "The use of confidence or fiducial
// limits illustrated in the case of the binomial", Biometrika 26, 1934). Drawn without replacement the limit only gets smaller, so
// that it holds for such samples too.
func Upper(k, n int, level float64) float64 {
	switch {
	case n <= 0 || k >= n:
		return 1
	case k <= 0:
		return -math.Expm1(math.Log1p(-level) / float64(n)) // 1-(1-level)^(1/n)
	}
	low, high := float64(k)/float64(n), 1.0
	for range bisections {
		middle := low + (high-low)/2
		if atMost(k, n, middle) > 1-level {
			low = middle
		} else {
			high = middle
		}
	}
	return high
}

// bisections halve an interval of at most 1 until float64 cannot tell its ends apart.
const bisections = 60

// atMost is the probability of k or fewer instances in n independent trials, each of which is one with probability p, 0 < p < 1.
func atMost(k, n int, p float64) float64 {
	sum := 0.0
	for i := range k + 1 {
		sum += math.Exp(logChoose(n, i) + float64(i)*math.Log(p) + float64(n-i)*math.Log1p(-p))
	}
	return sum
}

// logChoose is the logarithm of the number of ways to choose k of n.
func logChoose(n, k int) float64 {
	gamma := func(x int) float64 { l, _ := math.Lgamma(float64(x) + 1); return l }
	return gamma(n) - gamma(k) - gamma(n-k)
}

// Found returns the probability that a sample of n out of all holds at least one wrong one, where a fraction of all is wrong; drawn without
// replacement it is at least that.
func Found(n int, fraction float64) float64 {
	if fraction >= 1 {
		return 1
	}
	return -math.Expm1(float64(n) * math.Log1p(-fraction))
}
