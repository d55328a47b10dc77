package sim_test

import (
	"net/netip"
	"sync"
	"testing"
	"time"

	"drawbridge/sim"
	"drawbridge/sim/capture"
	"drawbridge/sim/impair"
	"drawbridge/topology"

	"github.com/stretchr/testify/require"
)

// takes measures the quickest of some connections from a vantage's first address to an endpoint.
func takes(t *testing.T, l *sim.Lab, from string, to netip.AddrPort) time.Duration {
	t.Helper()
	quickest := time.Hour
	for range 3 { // a busy machine adds to some
		began := time.Now()
		require.NoError(t, connects(t, l, from, to.String()), "%s to %s", from, to)
		quickest = min(quickest, time.Since(began))
	}
	return quickest
}

// TestEveryWayToADatabaseHasOneImpairedLink compares handshakes from a vantage of each kind.
func TestEveryWayToADatabaseHasOneImpairedLink(t *testing.T) {
	const delay, tolerance = 20 * time.Millisecond, 10 * time.Millisecond
	l := up(t, sim.Options{Impairment: impair.Impairment{Delay: delay}})
	require.NoError(t, l.StartServers(t.Context()))
	require.Equal(t, delay, l.Delay())
	require.False(t, l.Lossy())
	kinds := map[topology.VantageKind]bool{}
	for _, e := range l.World().Endpoints() {
		if !e.Addr.Addr().Is4() || e.Kind != topology.PublicRW {
			continue
		}
		for _, v := range l.World().Vantages() {
			if v.Kind == topology.VantageNode || v.Kind == topology.VantagePeer || v.Namespace == e.Point || kinds[v.Kind] {
				continue
			}
			kinds[v.Kind] = true
			require.InDelta(t, 2*delay, takes(t, l, v.Name, e.Addr), float64(tolerance), "%s to %s", v.Name, e.Addr)
		}
	}
	require.GreaterOrEqual(t, len(kinds), 2)
	require.NoError(t, l.WiresErr())
	for _, x := range l.Impaired() {
		require.NoError(t, l.Impair(x.Node, x.Interface, impair.Impairment{}))
	}
	require.Empty(t, l.Impaired())
	require.Less(t, takes(t, l, "office", netip.MustParseAddrPort("198.51.100.129:5432")), delay)
}

func TestALinkIsImpairedAtEitherNameAndTellsWhatItLoses(t *testing.T) {
	l := up(t, sim.Options{})
	require.NoError(t, l.StartServers(t.Context()))
	to := netip.MustParseAddrPort("198.51.100.129:5432")
	var mu sync.Mutex
	lost := map[capture.TCPFlags]int{}
	stop := l.WatchLosses(func(p capture.Packet) {
		mu.Lock()
		defer mu.Unlock()
		lost[p.Flags]++
	})
	defer stop()
	require.NoError(t, l.Impair("office", "eth0", impair.Impairment{Loss: 1}))
	require.True(t, l.Lossy())
	require.Error(t, connects(t, l, "office", to.String()))
	require.NoError(t, connects(t, l, "osc-fr1/web", to.String()), "others are not concerned")
	mu.Lock()
	require.Equal(t, map[capture.TCPFlags]int{capture.SYN: 1}, lost)
	mu.Unlock()
	all := l.Impaired()
	require.Len(t, all, 1)
	require.Equal(t, "internet", all[0].Node)
	require.Equal(t, "office", all[0].PeerNode)
	require.EqualValues(t, 1, all[0].Inwards.Lost)
	require.Zero(t, all[0].Outwards.Lost)

	require.NoError(t, l.Impair(all[0].Node, all[0].Interface, impair.Impairment{Delay: 30 * time.Millisecond}), "by its other name")
	require.GreaterOrEqual(t, takes(t, l, "office", to), 60*time.Millisecond)
	require.NoError(t, l.Impair("office", "eth0", impair.Impairment{}))
	require.NoError(t, l.Impair("office", "eth0", impair.Impairment{}), "twice does nothing")
	require.Less(t, takes(t, l, "office", to), 30*time.Millisecond)
	require.ErrorIs(t, l.Impair("office", "eth7", impair.Impairment{Loss: 1}), sim.ErrUnknown)
	require.ErrorIs(t, l.Impair("office", "eth0", impair.Impairment{Loss: 2}), impair.ErrImpairment)
}
