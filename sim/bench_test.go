package sim_test

import (
	"testing"
	"time"

	"drawbridge/sim"
	"drawbridge/sim/netns/netnstest"
	"drawbridge/topology"

	"github.com/stretchr/testify/require"
)

func BenchmarkUpAndClose(b *testing.B) {
	netnstest.Require(b)
	w := topology.Default()
	var up, down time.Duration
	for b.Loop() {
		start := time.Now()
		l, err := sim.Up(b.Context(), w, sim.Options{})
		require.NoError(b, err)
		up += time.Since(start)
		start = time.Now()
		require.NoError(b, l.Close())
		down += time.Since(start)
	}
	b.ReportMetric(float64(up.Microseconds())/1000/float64(b.N), "up-ms")
	b.ReportMetric(float64(down.Microseconds())/1000/float64(b.N), "close-ms")
}

func BenchmarkStartServers(b *testing.B) {
	netnstest.Require(b)
	w := topology.Default()
	var start, down time.Duration
	for b.Loop() {
		l, err := sim.Up(b.Context(), w, sim.Options{})
		require.NoError(b, err)
		at := time.Now()
		require.NoError(b, l.StartServers(b.Context()))
		start += time.Since(at)
		at = time.Now()
		require.NoError(b, l.Close())
		down += time.Since(at)
	}
	b.ReportMetric(float64(start.Microseconds())/1000/float64(b.N), "start-ms")
	b.ReportMetric(float64(down.Microseconds())/1000/float64(b.N), "close-ms")
}
