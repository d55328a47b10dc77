package realserver_test

import (
	"context"
	"net"
	"net/netip"
	"testing"

	"drawbridge/sim"
	"drawbridge/sim/client"
	"drawbridge/sim/realserver"
	"drawbridge/topology"

	"github.com/stretchr/testify/require"
)

// TestQuietServersServeAndTellNothing: queries are answered, no event of them reaches the journal, and who asks what the server
// saw is told that it cannot say, at once.
func TestQuietServersServeAndTellNothing(t *testing.T) {
	installed := installation(t)
	installed.Quiet = true
	l, err := sim.Up(t.Context(), topology.Default(), sim.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Close()) })
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	require.NoError(t, l.StartRealServers(ctx, installed))
	from, _ := l.Node("office")
	engines := map[topology.Engine]bool{}
	for _, e := range l.World().Endpoints() {
		if l.RealServer(e.Node) == nil || e.Kind != topology.PublicRW || e.TLS == topology.TLSNone || !e.Addr.Addr().Is4() {
			continue
		}
		session, err := client.Open(ctx, func(ctx context.Context) (net.Conn, error) { return from.Dial(ctx, netip.AddrPort{}, e.Addr) },
			client.Target{Engine: e.Engine, Addr: e.Addr, TLS: true, RootCAs: l.CA(), ServerName: e.Database})
		require.NoError(t, err, e.Database)
		require.NoError(t, session.Query(ctx, "marker"))
		require.NoError(t, session.Close())
		_, err = real(t, l, e.Node).Seen(ctx, netip.AddrPortFrom(office, 0))
		require.ErrorIs(t, err, realserver.ErrQuiet)
		engines[e.Engine] = true
	}
	require.Len(t, engines, 3)
	require.Empty(t, l.Journal().All())
}
