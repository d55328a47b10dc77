package sim_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"testing"
	"time"

	"drawbridge/sim"
	"drawbridge/sim/client"
	"drawbridge/sim/endpoint"
	"drawbridge/sim/netns/netnstest"
	"drawbridge/sim/ports"
	"drawbridge/sim/stray"
	"drawbridge/topology"
	"drawbridge/topology/flow"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

func served(t testing.TB) *sim.Lab {
	t.Helper()
	l := up(t, sim.Options{})
	require.NoError(t, l.StartServers(t.Context()))
	return l
}

// A real driver's query is answered at every endpoint, over TLS and without, as far as the port speaks either.
func TestEveryEndpointServesItsEngine(t *testing.T) {
	l := served(t)
	office, _ := l.Node("office")
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	for i, e := range l.World().Endpoints() {
		for j, withTLS := range []bool{false, true} {
			if withTLS && e.TLS == topology.TLSNone || !withTLS && e.TLS == topology.TLSOnly {
				continue
			}
			port := uint16(30000 + 2*i + j)
			source, marker := sourceFor(e.Addr.Addr()), fmt.Sprintf("marker%d", port)
			g.Go(func() error {
				session, err := client.Open(ctx, func(ctx context.Context) (net.Conn, error) {
					return office.Dial(ctx, netip.AddrPortFrom(source, port), e.Addr)
				}, client.Target{Engine: e.Engine, Addr: e.Addr, TLS: withTLS, RootCAs: l.CA(), ServerName: e.Database})
				if err != nil {
					return fmt.Errorf("%s at %s, TLS %v: %w", e.Database, e.Addr, withTLS, err)
				}
				if err := session.Query(ctx, marker); err != nil {
					return fmt.Errorf("%s at %s, TLS %v: %w", e.Database, e.Addr, withTLS, err)
				}
				if err := session.Close(); err != nil {
					return fmt.Errorf("%s at %s, TLS %v: %w", e.Database, e.Addr, withTLS, err)
				}
				event, err := l.Journal().Wait(ctx, port, func(e endpoint.Event) bool { return e.Kind == endpoint.Query })
				if err != nil || event.Node != e.Node || event.TLS != withTLS {
					return fmt.Errorf("%s at %s, TLS %v: journal says %+v, %w", e.Database, e.Addr, withTLS, event, err)
				}
				return nil
			})
		}
	}
	require.NoError(t, g.Wait())
}

func sourceFor(to netip.Addr) netip.Addr {
	if to.Is4() {
		return netip.MustParseAddr("198.51.100.1")
	}
	return netip.MustParseAddr("2001:db8:a::1")
}

func TestServersAreKnownByNodeAndPort(t *testing.T) {
	l := up(t, sim.Options{})
	require.Nil(t, l.Server("pg-shared-1", 5432))
	require.Nil(t, l.Journal())
	require.Nil(t, l.Stray("gw-fr1"))
	require.NoError(t, l.StartServers(t.Context()))
	for _, d := range l.World().Databases() {
		for _, n := range d.Nodes {
			for _, p := range d.Listeners(n) {
				require.NotNil(t, l.Server(n.Name, p.Port), "%s:%d", n.Name, p.Port)
			}
		}
	}
	require.Nil(t, l.Server("pg-shared-1", 1))
	require.NotNil(t, l.Stray("gw-fr1"))
	require.Nil(t, l.Stray("shared-a"))
}

// What was forgotten on a gateway is reachable as long as nobody forbids it.
func TestForgottenListenersAreReached(t *testing.T) {
	l := served(t)
	office, _ := l.Node("office")
	for _, to := range []netip.Addr{netip.MustParseAddr("203.0.113.130"), netip.MustParseAddr("2001:db8:9a::1")} {
		source := netip.AddrPortFrom(sourceFor(to), 40000)
		c, err := office.Dial(t.Context(), source, netip.AddrPortFrom(to, stray.TCPPort))
		require.NoError(t, err)
		require.NoError(t, c.Close())
		arrived(t, l, flow.Flow{Proto: flow.TCP, Src: source, Dst: netip.AddrPortFrom(to, stray.TCPPort)})

		u, err := office.ListenPacket(t.Context(), source)
		require.NoError(t, err)
		for _, port := range []uint16{stray.UDPPort, 27017} {
			_, err = u.WriteToUDPAddrPort([]byte("x"), netip.AddrPortFrom(to, port))
			require.NoError(t, err)
			_, from, err := u.ReadFromUDPAddrPort(make([]byte, 1))
			require.NoError(t, err)
			require.Equal(t, netip.AddrPortFrom(to, port), from)
			arrived(t, l, flow.Flow{Proto: flow.UDP, Src: source, Dst: netip.AddrPortFrom(to, port)})
		}
		require.NoError(t, u.Close())

		sctp := []byte{0x9c, 0x40, 0x69, 0x89, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 4}
		sendRaw(t, l, to, unix.IPPROTO_SCTP, sctp)
		arrived(t, l, flow.Flow{Proto: flow.SCTP, Src: source, Dst: netip.AddrPortFrom(to, 27017)})

		echo, proto := []byte{8, 0, 0, 0, 0, 1, 0, 1}, flow.ICMP
		if to.Is6() {
			echo[0], proto = 128, flow.ICMPv6
		}
		sendRaw(t, l, to, int(proto), echo)
		arrived(t, l, flow.Flow{Proto: proto, Src: netip.AddrPortFrom(source.Addr(), 0), Dst: netip.AddrPortFrom(to, 0)})
	}
}

func arrived(t *testing.T, l *sim.Lab, f flow.Flow) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	_, err := l.Stray("gw-fr1").Next(ctx, func(a stray.Arrival) bool { return a.Flow == f })
	require.NoError(t, err, f)
}

func sendRaw(t *testing.T, l *sim.Lab, to netip.Addr, proto int, b []byte) {
	t.Helper()
	office, _ := l.Node("office")
	domain, sa := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Addr: to.As16()})
	if to.Is4() {
		domain, sa = unix.AF_INET, &unix.SockaddrInet4{Addr: to.As4()}
	}
	fd, err := office.Socket(domain, unix.SOCK_RAW, proto)
	require.NoError(t, err)
	defer unix.Close(fd)
	require.NoError(t, unix.Sendto(fd, b, 0, sa))
}

func TestPointsHaveTheInterfacesThatPoliciesName(t *testing.T) {
	l := up(t, sim.Options{})
	for _, p := range l.World().Points() {
		h, ok := l.Node(p.Name)
		require.True(t, ok)
		var names []string
		require.NoError(t, h.Do(func() error {
			links, err := net.Interfaces()
			for _, link := range links {
				if link.Name != "lo" {
					names = append(names, link.Name)
				}
			}
			return err
		}))
		var want []string
		for _, i := range p.Interfaces {
			want = append(want, i.Name)
		}
		require.ElementsMatch(t, want, names, p.Name)
	}
	for _, link := range l.Links() {
		require.Contains(t, l.Nodes(), link.Node)
		require.Contains(t, l.Nodes(), link.PeerNode)
	}
}

func TestLocalPortsStayClearOfProbes(t *testing.T) {
	l := up(t, sim.Options{})
	listen(t, l)
	office, _ := l.Node("office")
	require.NoError(t, l.PrepareVantages("office"))
	for range 20 {
		c, err := office.Dial(t.Context(), netip.AddrPort{}, netip.MustParseAddrPort("198.51.100.129:3306"))
		require.NoError(t, err)
		port := c.LocalAddr().(*net.TCPAddr).Port
		require.True(t, ports.Kernel.Contains(uint16(port)), port)
		require.NoError(t, c.Close())
	}
}

// Enforcement points are the drivers' own: of the fabric's there is the translation at gateways, and nothing that drops.
func TestPointsDropNothing(t *testing.T) {
	nft := netnstest.Tool(t, "nft")
	l := up(t, sim.Options{})
	for _, p := range l.World().Points() {
		h, _ := l.Node(p.Name)
		var out output
		cmd := exec.Command(nft, "list", "ruleset")
		cmd.Stdout, cmd.Stderr = &out, &out
		require.NoError(t, h.Start(cmd))
		require.NoError(t, cmd.Wait(), string(out))
		require.NotContains(t, string(out), "drop")
		if p.Model == topology.Shared {
			require.Empty(t, string(out))
		} else {
			require.Contains(t, string(out), "dnat ip to ip daddr . tcp dport map @destination4")
		}
	}
}

type output []byte

func (o *output) Write(b []byte) (int, error) { *o = append(*o, b...); return len(b), nil }
