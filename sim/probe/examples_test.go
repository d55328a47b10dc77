package probe_test

import (
	"path/filepath"
	"strings"
	"testing"

	"drawbridge/sim"
	"drawbridge/sim/netns/netnstest"
	"drawbridge/sim/probe"
	"drawbridge/topology"

	"github.com/stretchr/testify/require"
)

// TestExamplesComeUp builds every worked example of docs/TOPOLOGY.md and has everything reach everything in it.
func TestExamplesComeUp(t *testing.T) {
	netnstest.Require(t)
	paths, err := filepath.Glob("../../topology/testdata/examples/*.yaml")
	require.NoError(t, err)
	require.Len(t, paths, 5)
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".yaml"), func(t *testing.T) {
			netnstest.NoLeaks(t)
			w, err := topology.Load(path)
			require.NoError(t, err)
			_, p := labOf(t, w, sim.Options{})
			if len(w.Databases()) < 100 {
				require.NoError(t, p.Baseline(t.Context()))
				return
			}
			for _, o := range observeSome(t, p, w.Endpoints()) {
				require.Equal(t, probe.Served, o.Verdict, "%s: %s", o.Spec, o.Reason)
			}
		})
	}
}

// labOf is a world's lab with its servers, and a prober in it.
func labOf(t *testing.T, w *topology.World, options sim.Options) (*sim.Lab, *probe.Prober) {
	t.Helper()
	l, err := sim.Up(t.Context(), w, options)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Close()) })
	require.NoError(t, l.StartServers(t.Context()))
	p, err := probe.New(t.Context(), l)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, p.Close()) })
	return l, p
}

// observeSome probes the first endpoint, the last, and some between, over TLS.
func observeSome(t *testing.T, p *probe.Prober, all []topology.Endpoint) []probe.Observation {
	t.Helper()
	const some = 50
	var specs []probe.Spec
	for i := range some {
		specs = append(specs, probe.Spec{From: "office", To: all[i*(len(all)-1)/(some-1)], Mode: probe.TLS})
	}
	observations, err := p.ProbeAll(t.Context(), specs)
	require.NoError(t, err)
	return observations
}
