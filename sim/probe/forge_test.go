package probe_test

import (
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"drawbridge/sim"
	"drawbridge/sim/netns/netnstest"
	"drawbridge/sim/probe"
	"drawbridge/topology"
)

// endpoint is a database's first public one over IPv4.
func endpoint(t *testing.T, database string) topology.Endpoint {
	t.Helper()
	d, ok := topology.Default().Database(database)
	require.True(t, ok)
	for _, e := range d.Endpoints() {
		if e.Kind == topology.PublicRW && e.Addr.Addr().Is4() {
			return e
		}
	}
	t.Fatalf("%s has no public IPv4 endpoint", database)
	return topology.Endpoint{}
}

// drop adds a rule that drops packets where they enter a node.
func drop(t *testing.T, l *sim.Lab, node, match string) {
	t.Helper()
	h, ok := l.Node(node)
	require.True(t, ok)
	cmd := exec.Command(netnstest.Tool(t, "nft"), "-f", "-")
	cmd.Stdin = strings.NewReader("table inet t { chain c { type filter hook prerouting priority -300; " + match + " drop; }; }")
	require.NoError(t, h.Start(cmd))
	require.NoError(t, cmd.Wait())
}

func TestForgedPacketsAreSeen(t *testing.T) {
	l, p := lab(t)
	require.NoError(t, l.AllowForged("stranger", true))
	for _, c := range []struct{ claims, database string }{
		{"10.10.0.2", "pg-shared"},
		{"198.51.100.7", "pg-dedicated"},
	} {
		spec := probe.ForgeSpec{From: "stranger", Claims: netip.MustParseAddr(c.claims), To: endpoint(t, c.database)}
		open, err := p.Forge(t.Context(), spec)
		require.NoError(t, err)
		require.Equal(t, 4, open.Sent)
		require.Equal(t, 2, open.Passed, c.database)
		require.Positive(t, open.Bytes, "the SYN's data")

		drop(t, l, spec.To.Point, "ip saddr "+c.claims)
		closed, err := p.Forge(t.Context(), spec)
		require.NoError(t, err)
		require.Equal(t, probe.Forged{Sent: 4}, closed)
	}
}

func TestAForgedPacketThatNeverArrivesProvesNothing(t *testing.T) {
	_, p := lab(t)
	_, err := p.Forge(t.Context(), probe.ForgeSpec{From: "stranger", Claims: netip.MustParseAddr("10.10.0.2"), To: endpoint(t, "pg-shared")})
	require.ErrorIs(t, err, probe.ErrFence, "the lab's edges let nothing forged through")
	_, err = p.Forge(t.Context(), probe.ForgeSpec{From: "nobody", Claims: netip.MustParseAddr("10.10.0.2"), To: endpoint(t, "pg-shared")})
	require.ErrorIs(t, err, probe.ErrSpec)
}

func TestAFloodIsCounted(t *testing.T) {
	l, p := lab(t)
	spec := probe.FloodSpec{From: "home", Sources: netip.MustParsePrefix("203.0.113.0/25"), To: endpoint(t, "pg-dedicated"), SYNs: 2000}
	open, err := p.Flood(t.Context(), spec)
	require.NoError(t, err)
	require.Equal(t, spec.SYNs, open.Sent)
	require.GreaterOrEqual(t, open.Passed, spec.SYNs)
	require.Positive(t, open.Tracked, "the gateway translates addresses")
	gate, ok := l.Node(spec.To.Point)
	require.True(t, ok)
	var flows []*netlink.ConntrackFlow
	require.NoError(t, gate.Do(func() (err error) {
		flows, err = netlink.ConntrackTableList(netlink.ConntrackTable, unix.AF_INET)
		return err
	}))
	require.Len(t, flows, 1, "the fence's alone: the flood is forgotten at the end")

	spec.Sources = netip.MustParsePrefix("203.0.113.64/27")
	drop(t, l, spec.To.Point, "ip saddr 203.0.113.64/27 tcp sport 61000-65535")
	closed, err := p.Flood(t.Context(), spec)
	require.NoError(t, err)
	require.Zero(t, closed.Passed)
	require.Zero(t, closed.Tracked, "what the flood before left is not this one's")
	require.NoError(t, p.Err())

	spec.Sources = netip.MustParsePrefix("198.51.100.0/25")
	_, err = p.Flood(t.Context(), spec)
	require.ErrorIs(t, err, probe.ErrSpec, "not its own")
}
