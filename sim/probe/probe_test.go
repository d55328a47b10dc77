package probe_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"drawbridge/sim"
	"drawbridge/sim/netns/netnstest"
	"drawbridge/sim/probe"
	"drawbridge/topology"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

// lab builds the default world with its servers, and a prober in it.
func lab(t *testing.T) (*sim.Lab, *probe.Prober) {
	t.Helper()
	netnstest.NoLeaks(t)
	ctx := context.Background()
	l, err := sim.Up(ctx, topology.Default(), sim.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Close()) })
	require.NoError(t, l.StartServers(ctx))
	p, err := probe.New(ctx, l)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, p.Close()) })
	return l, p
}

func TestBaselineHoldsWithoutAnEnforcer(t *testing.T) {
	_, p := lab(t)
	require.NoError(t, p.Baseline(context.Background()))
}

// TestNoProbeComesFromAServersPort: at a tap, what that server says would pass for what the probe's client says.
func TestNoProbeComesFromAServersPort(t *testing.T) {
	_, p := lab(t)
	taken := map[uint16]bool{}
	for _, e := range append(topology.Default().Endpoints(), topology.Default().Bypasses()...) {
		taken[e.Addr.Port()] = true
	}
	require.True(t, taken[27017], "MongoDB's is among the probes' own")
	for range 45000 {
		port, err := p.Port()
		require.NoError(t, err)
		require.False(t, taken[port])
	}
}
