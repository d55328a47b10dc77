package probe_test

import (
	"context"
	"testing"
	"time"

	"drawbridge/sim"
	"drawbridge/sim/netns/netnstest"
	"drawbridge/sim/probe"
	"drawbridge/topology"

	"github.com/stretchr/testify/require"
)

// TestWhatIsInterruptedWasNotTried: no verdict comes of a connection that had no time for it, and none that had is lost.
func TestWhatIsInterruptedWasNotTried(t *testing.T) {
	netnstest.Require(t)
	netnstest.NoLeaks(t)
	w := topology.Default()
	lab, p := labOf(t, w, sim.Options{})
	require.NoError(t, lab.CutLink("office", "eth0"))
	var specs []probe.Spec
	for _, from := range []string{"home", "office", "stranger"} { // what comes from office hangs
		for _, to := range w.Endpoints() {
			if to.Addr.Addr().Is4() && to.TLS == topology.TLSInBand {
				specs = append(specs, probe.Spec{From: from, To: to, Mode: probe.TLS})
			}
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	served, told := len(specs)/3, 0
	began := time.Now()
	observations, err := p.ProbeAllTelling(ctx, specs, func(done int) {
		told++
		require.Equal(t, told, done)
		if done == 2*served {
			stop()
		}
	})
	require.NoError(t, err)
	require.Less(t, time.Since(began), 4*time.Second, "nothing is waited for any more")
	tried := 0
	for i, o := range observations {
		require.Equal(t, specs[i], o.Spec)
		if o.Tried() {
			tried++
			require.Equal(t, probe.Served, o.Verdict, "%s: %s", o.Spec, o.Reason)
			continue
		}
		require.Equal(t, probe.Inconclusive, o.Verdict, o.Spec)
		require.Contains(t, o.Reason, "interrupted")
	}
	require.Equal(t, 2*served, tried)

	observations, err = p.ProbeAll(ctx, specs)
	require.NoError(t, err)
	for _, o := range observations {
		require.False(t, o.Tried(), o.Spec)
	}
	require.Empty(t, p.Settle())
}
