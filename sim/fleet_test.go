package sim_test

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"drawbridge/sim"
	"drawbridge/sim/netns/netnstest"
	"drawbridge/sim/probe"
	"drawbridge/topology"
)

// fleet is a world of many databases, with its servers, and a prober in it.
func fleet(t *testing.T, f topology.Fleet) (*topology.World, *sim.Lab, *probe.Prober) {
	t.Helper()
	netnstest.Require(t)
	text, err := topology.NewFleet(f)
	require.NoError(t, err)
	w, err := topology.Parse("fleet.yaml", text)
	require.NoError(t, err)
	l, err := sim.Up(t.Context(), w, sim.Options{WithoutStray: true})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Close()) })
	require.NoError(t, l.StartServers(t.Context()))
	p, err := probe.New(t.Context(), l)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, p.Close()) })
	return w, l, p
}

// TestAFleetServes: each of the databases that share a machine is reached at its own endpoints and node addresses, in every mode, and
// answers in its own name. Some addresses are interfaces' and some are routes'.
func TestAFleetServes(t *testing.T) {
	w, l, p := fleet(t, topology.Fleet{Name: "fleet", Dedicated: 1100, Shared: 8})
	var specs []probe.Spec
	wanted := []string{"dedicated-1", "dedicated-2", "dedicated-999", "dedicated-1000", "dedicated-1001", "dedicated-1100", "shared-3", "shared-8"}
	for _, e := range slices.Concat(w.Endpoints(), w.Bypasses()) {
		if !slices.Contains(wanted, e.Database) {
			continue
		}
		for _, from := range []string{"office", "here/app-2", "elsewhere/app-1"} {
			for _, mode := range probe.Modes(e) {
				specs = append(specs, probe.Spec{From: from, To: e, Mode: mode})
			}
		}
	}
	all, err := p.ProbeAll(t.Context(), specs)
	require.NoError(t, err)
	require.Greater(t, len(all), 150)
	for _, o := range all {
		require.Equal(t, probe.Served, o.Verdict, "%s: %s", o.Spec, o.Reason) // the journal has the query under the database's name
	}
	require.Less(t, sim.Needs(w).Descriptors, 30_000)
	require.Nil(t, l.Stray("gateway"))
}

func TestAServerOnAMachineStopsAlone(t *testing.T) {
	w, l, p := fleet(t, topology.Fleet{Name: "fleet", Dedicated: 8})
	verdict := func(database string) probe.Verdict {
		d, ok := w.Database(database)
		require.True(t, ok)
		o, err := p.Probe(t.Context(), probe.Spec{From: "office", To: d.Endpoints()[0], Mode: probe.TLS})
		require.NoError(t, err)
		return o.Verdict
	}
	require.NoError(t, l.StopServer("dedicated-1-1"))
	require.NotEqual(t, probe.Served, verdict("dedicated-1"))
	require.Equal(t, probe.Served, verdict("dedicated-5"), "the same engine on the same machine")
	require.NoError(t, l.RestartServer(t.Context(), "dedicated-1-1"))
	require.Equal(t, probe.Served, verdict("dedicated-1"))
}
