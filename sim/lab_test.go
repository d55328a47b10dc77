package sim_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"drawbridge/sim"
	"drawbridge/sim/fabric"
	"drawbridge/sim/netns/netnstest"
	"drawbridge/sim/ports"
	"drawbridge/topology"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

// up builds the default world.
func up(t testing.TB, opts sim.Options) *sim.Lab {
	t.Helper()
	netnstest.NoLeaks(t)
	l, err := sim.Up(t.Context(), topology.Default(), opts)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Close()) })
	return l
}

// listen makes every port of every database node answer each connection with one line: the node's name and whom it sees.
func listen(t testing.TB, l *sim.Lab) {
	t.Helper()
	for _, d := range l.World().Databases() {
		for _, n := range d.Nodes {
			for _, port := range d.Listeners(n) {
				answer(t, l, n.Listener(), fmt.Sprintf("[::]:%d", port.Port), n.Name)
			}
		}
	}
}

func answer(t testing.TB, l *sim.Lab, node, at, name string) {
	t.Helper()
	h, ok := l.Node(node)
	require.True(t, ok, node)
	listener, err := h.Listen(t.Context(), netip.MustParseAddrPort(at))
	require.NoError(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			remote := c.RemoteAddr().(*net.TCPAddr).AddrPort()
			fmt.Fprintf(c, "%s %s\n", name, netip.AddrPortFrom(remote.Addr().Unmap(), remote.Port()))
			c.Close()
		}
	}()
}

var nextPort atomic.Uint32

// ask connects and returns who answered, whom it saw, and from which port the question came.
func ask(
	ctx context.Context, l *sim.Lab, from string, source netip.Addr, to netip.AddrPort,
) (who string, seen netip.AddrPort, port uint16, err error) {
	h, ok := l.Node(from)
	if !ok {
		return "", netip.AddrPort{}, 0, errors.New("no such node")
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	port = uint16(20000 + nextPort.Add(1)%40000)
	c, err := h.Dial(ctx, netip.AddrPortFrom(source, port), to)
	if err != nil {
		return "", netip.AddrPort{}, port, err
	}
	defer c.Close()
	deadline, _ := ctx.Deadline()
	if err := c.SetDeadline(deadline); err != nil {
		return "", netip.AddrPort{}, port, err
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		return "", netip.AddrPort{}, port, err
	}
	who, addr, _ := strings.Cut(strings.TrimSpace(line), " ")
	seen, err = netip.ParseAddrPort(addr)
	return who, seen, port, err
}

func sameFamily(addrs []netip.Addr, as netip.Addr) (netip.Addr, bool) {
	i := slices.IndexFunc(addrs, func(a netip.Addr) bool { return a.Is4() == as.Is4() })
	if i < 0 {
		return netip.Addr{}, false
	}
	return addrs[i], true
}

// In a fresh lab everything reaches everything: else a denial would prove nothing.
func TestEveryVantageReachesEveryEndpointAndWayRound(t *testing.T) {
	l := up(t, sim.Options{})
	listen(t, l)
	w := l.World()
	g, ctx := errgroup.WithContext(t.Context())
	g.SetLimit(64)
	tried := 0
	for _, v := range w.Vantages() {
		for _, e := range append(w.Endpoints(), w.Bypasses()...) {
			source, ok := sameFamily(v.Addresses, e.Addr.Addr())
			if !ok {
				continue
			}
			tried++
			g.Go(func() error {
				who, seen, port, err := ask(ctx, l, v.Namespace, source, e.Addr)
				if err != nil {
					return fmt.Errorf("%s to %s %s of %s: %w", v.Name, e.Kind, e.Addr, e.Database, err)
				}
				if want := (netip.AddrPortFrom(expectedSource(w, v, source, e), port)); who != e.Node || seen != want {
					return fmt.Errorf("%s to %s %s of %s: answered by %s, want %s; seen as %s, want %s",
						v.Name, e.Kind, e.Addr, e.Database, who, e.Node, seen, want)
				}
				return nil
			})
		}
	}
	require.NoError(t, g.Wait())
	require.Greater(t, tried, 1000)
}

// expectedSource says, from the world alone, as whom a vantage is seen.
func expectedSource(w *topology.World, v topology.Vantage, source netip.Addr, e topology.Endpoint) netip.Addr {
	point, _ := w.Point(e.Point)
	if v.Kind == topology.VantageApp && (point.Model == topology.Dedicated || point.Region != v.Region) {
		outside, _ := sameFamily(w.EgressOf(v.Region, strings.TrimPrefix(v.Name, v.Region+"/")), source)
		return outside
	}
	if v.Name == e.Node && point.Model == topology.Dedicated && e.Kind != topology.WayRound {
		gateway, _ := w.Gateway(e.Point) // a node that comes back to itself through its gateway
		via, _ := sameFamily(gateway.Canary, source)
		return via
	}
	return source
}

func TestInternetHostsOwnTheirNetworks(t *testing.T) {
	l := up(t, sim.Options{})
	listen(t, l)
	for to, sources := range map[string][]string{
		"198.51.100.129:3306":   {"198.51.100.0", "198.51.100.127", "198.51.100.77"},
		"[2001:db8:5a::1]:3306": {"2001:db8:a::", "2001:db8:a:0:ffff:ffff:ffff:ffff", "2001:db8:a::7"},
	} {
		for _, source := range sources {
			_, seen, _, err := ask(t.Context(), l, "office", netip.MustParseAddr(source), netip.MustParseAddrPort(to))
			require.NoError(t, err)
			require.Equal(t, source, seen.Addr().String())
		}
	}
}

// Networks of one and two addresses, beside each other, and a node that is called as every node's own interface.
func TestTheSmallestNetworks(t *testing.T) {
	netnstest.Require(t)
	text := strings.NewReplacer(
		`[192.0.2.0/25, "3fff:c::/64"]`, `[192.0.2.1/32, 192.0.2.2/31, 192.0.2.4/32, "3fff:c::/128", "3fff:c::2/127"]`,
		"name: stranger", "name: lo",
	).Replace(defaultDocument(t))
	w, err := topology.Parse("world.yaml", []byte(text))
	require.NoError(t, err)
	l, err := sim.Up(t.Context(), w, sim.Options{})
	require.NoError(t, err)
	defer func() { require.NoError(t, l.Close()) }()
	listen(t, l)
	for _, source := range []string{"192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"} {
		_, seen, _, err := ask(t.Context(), l, "lo", netip.MustParseAddr(source), netip.MustParseAddrPort("198.51.100.129:3306"))
		require.NoError(t, err, source)
		require.Equal(t, source, seen.Addr().String())
	}
	for _, source := range []string{"3fff:c::", "3fff:c::2", "3fff:c::3"} {
		_, seen, _, err := ask(t.Context(), l, "lo", netip.MustParseAddr(source), netip.MustParseAddrPort("[2001:db8:5a::1]:3306"))
		require.NoError(t, err, source)
		require.Equal(t, source, seen.Addr().String())
	}
}

func defaultDocument(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../topology/testdata/default.yaml")
	require.NoError(t, err)
	return string(text)
}

// TestTranslationsForgetBeforePortsComeRound: a probe is found again by its port, and a translation that remembers a connection that would be the
// same behind it gives it a different one.
func TestTranslationsForgetBeforePortsComeRound(t *testing.T) {
	netnstest.Require(t)
	netnstest.NoLeaks(t)
	l, err := sim.Up(t.Context(), topology.Default(), sim.Options{})
	require.NoError(t, err)
	defer func() { require.NoError(t, l.Close()) }()
	for _, name := range []string{fabric.Edge("osc-fr1"), "gw-fr1"} {
		node, ok := l.Node(name)
		require.True(t, ok)
		require.NoError(t, node.Do(func() error {
			for _, state := range []string{"syn_sent", "syn_recv", "fin_wait", "close_wait", "last_ack", "time_wait", "close"} {
				const most = 1000 // probes a second
				text, err := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_" + state)
				if err != nil {
					return err
				}
				seconds, err := strconv.Atoi(strings.TrimSpace(string(text)))
				require.NoError(t, err)
				require.Less(t, seconds*most, ports.Probes.Size(), "%s: %s", name, state)
			}
			return nil
		}))
	}
}
