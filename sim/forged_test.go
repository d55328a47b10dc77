package sim_test

import (
	"fmt"
	"net/netip"
	"os"
	"testing"
	"time"

	"drawbridge/sim"
	"drawbridge/sim/capture"
	"drawbridge/sim/link"
	"drawbridge/topology/flow"

	"github.com/stretchr/testify/require"
)

// forge sends a datagram from the node with a source that is not its own, and then an honest one, and reports whether the first
// arrived at the point. The second proves that the way is open and that the first would have arrived before it.
func forge(t *testing.T, l *sim.Lab, node, honest, forged, to, point string) bool {
	t.Helper()
	h, ok := l.Node(node)
	require.True(t, ok)
	conn, err := link.Open(h)
	require.NoError(t, err)
	defer conn.Close()
	addr := netip.MustParseAddr(forged)
	var b link.Batch
	b.Own(netip.PrefixFrom(addr, addr.BitLen()))
	if err := conn.Run(&b); err != nil {
		require.ErrorContains(t, err, "exists") // from an earlier call
	}
	require.NoError(t, h.Do(func() error { // IPv6 binds to assigned addresses only
		return os.WriteFile("/proc/sys/net/ipv6/ip_nonlocal_bind", []byte("1"), 0)
	}))
	target, _ := l.Node(point)
	tap, err := capture.Open(target)
	require.NoError(t, err)
	packets, cancel := tap.Subscribe(func(p capture.Packet) bool {
		return !p.Outgoing && p.Flow.Proto == flow.UDP && p.Flow.Dst.Port() == 7
	})
	defer cancel()
	for _, source := range []string{forged, honest} {
		c, err := h.ListenPacket(t.Context(), netip.AddrPortFrom(netip.MustParseAddr(source), 0))
		require.NoError(t, err)
		_, err = c.WriteToUDPAddrPort([]byte(source), netip.AddrPortFrom(netip.MustParseAddr(to), 7))
		require.NoError(t, err)
		require.NoError(t, c.Close())
	}
	arrived := false
	for {
		select {
		case p := <-packets:
			if string(p.Payload) == honest {
				require.NoError(t, tap.Close())
				return arrived
			}
			arrived = true
		case <-time.After(5 * time.Second):
			t.Fatal("the honest packet did not arrive")
		}
	}
}

func TestForgedSourcesAreDroppedAtTheEdgesUnlessAllowed(t *testing.T) {
	l := up(t, sim.Options{})
	cases := []struct {
		node, honest, forged, to, point string
		allow                           []string
	}{
		{"office", "198.51.100.1", "10.10.0.2", "198.51.100.129", "shared-a", []string{"office"}},
		{"office", "2001:db8:a::1", "fd00:10::2", "2001:db8:5a::1", "shared-a", []string{"office"}},
		{"office", "198.51.100.1", "203.0.113.7", "203.0.113.129", "gw-fr1", []string{"office"}},
		{"office", "2001:db8:a::1", "2001:db8:b::1", "2001:db8:9a::1", "gw-fr1", []string{"office"}},
		{"office", "198.51.100.1", "172.16.0.10", "203.0.113.129", "gw-fr1", []string{"office"}},
		{"osc-fr1/web", "10.10.0.2", "10.10.0.3", "198.51.100.129", "shared-a", []string{"osc-fr1/web"}},
		{"osc-fr1/web", "10.10.0.2", "198.51.100.7", "203.0.113.129", "gw-fr1", []string{"osc-fr1/web", "edge-osc-fr1"}},
		{"osc-fr1/web", "fd00:10::2", "fd00:10::3", "2001:db8:5a::1", "shared-a", []string{"osc-fr1/web"}},
		{"redis-a", "198.51.100.131", "198.51.100.7", "198.51.100.129", "shared-a", []string{"redis-a"}},
		{"corp/desk", "172.16.0.10", "172.16.0.200", "172.31.0.5", "gw-fr1", []string{"corp/desk"}},
	}
	for i, c := range cases {
		t.Run(fmt.Sprint(i, c.node, " as ", c.forged), func(t *testing.T) {
			try := func() bool { return forge(t, l, c.node, c.honest, c.forged, c.to, c.point) }
			require.False(t, try())
			for _, n := range c.allow {
				require.NoError(t, l.AllowForged(n, true))
				require.NoError(t, l.AllowForged(n, true), "twice")
			}
			require.True(t, try())
			for _, n := range c.allow {
				require.NoError(t, l.AllowForged(n, false))
			}
			require.False(t, try())
		})
	}
	require.ErrorIs(t, l.AllowForged("none", true), sim.ErrUnknown)
	require.NoError(t, l.AllowForged("pg-dedicated-1", true), "a gateway filters nothing: there is nothing to switch off")
}

func TestForgedSourcesMayBeAllowedFromTheStart(t *testing.T) {
	l := up(t, sim.Options{AllowForged: true})
	try := func() bool {
		return forge(t, l, "office", "198.51.100.1", "10.10.0.2", "198.51.100.129", "shared-a")
	}
	require.True(t, try())
	require.NoError(t, l.AllowForged("office", false))
	require.False(t, try())
}
