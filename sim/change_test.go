package sim_test

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"drawbridge/sim"
	"drawbridge/sim/fabric"

	"github.com/stretchr/testify/require"
)

func addrPort(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

func TestFailoverRepointsEveryEndpointOfTheDatabaseAndNoOther(t *testing.T) {
	l := up(t, sim.Options{})
	listen(t, l)
	answering := func(from, source string, to string) string {
		who, _, _, err := ask(t.Context(), l, from, netip.MustParseAddr(source), addrPort(to))
		require.NoError(t, err)
		return who
	}
	public, peering, other := "203.0.113.129:5432", "172.31.0.5:5432", "203.0.113.130:27017"
	require.Equal(t, "pg-dedicated-1", l.Primary("pg-dedicated"))
	require.NoError(t, l.Failover("pg-dedicated", "pg-dedicated-3"))
	require.Equal(t, "pg-dedicated-3", l.Primary("pg-dedicated"))
	require.Equal(t, "pg-dedicated-3", answering("office", "198.51.100.1", public))
	require.Equal(t, "pg-dedicated-3", answering("corp/desk", "172.16.0.10", peering))
	require.Equal(t, "mongo-dedicated-1", answering("office", "198.51.100.1", other))
	require.NoError(t, l.Failover("pg-dedicated", "pg-dedicated-3"), "to where it is already")
	require.NoError(t, l.Failover("pg-dedicated", "pg-dedicated-1"))
	require.Equal(t, "pg-dedicated-1", answering("office", "198.51.100.1", public))

	require.ErrorIs(t, l.Failover("pg-dedicated", "mongo-dedicated-1"), sim.ErrUnknown)
	require.ErrorIs(t, l.Failover("pg-shared", "pg-shared-1"), sim.ErrUnknown)
	require.ErrorIs(t, l.Failover("none", "x"), sim.ErrUnknown)
	require.Empty(t, l.Primary("none"))
}

// The old primary is still there and would go on talking: only the fabric no longer leads to it.
func TestFailoverEndsConnections(t *testing.T) {
	l := up(t, sim.Options{})
	old, ok := l.Node("pg-dedicated-1")
	require.True(t, ok)
	listener, err := old.Listen(t.Context(), addrPort("[::]:5432"))
	require.NoError(t, err)
	defer listener.Close()
	office, _ := l.Node("office")
	c, err := office.Dial(t.Context(), netip.AddrPort{}, addrPort("203.0.113.129:5432"))
	require.NoError(t, err)
	defer c.Close()
	s, err := listener.Accept()
	require.NoError(t, err)
	defer s.Close()
	require.NoError(t, l.Failover("pg-dedicated", "pg-dedicated-2"))
	_, err = c.Write([]byte("to the old one"))
	require.NoError(t, err)
	require.NoError(t, c.SetReadDeadline(time.Now().Add(5*time.Second)))
	_, err = c.Read(make([]byte, 1))
	require.ErrorContains(t, err, "reset", "the new primary knows nothing of this connection")
}

func TestMoveEgressChangesWhatOthersSee(t *testing.T) {
	l := up(t, sim.Options{})
	listen(t, l)
	seenFrom := func(app, source, to string) string {
		_, seen, _, err := ask(t.Context(), l, app, netip.MustParseAddr(source), addrPort(to))
		require.NoError(t, err)
		return seen.Addr().String()
	}
	v4, v6 := "203.0.113.130:27017", "[2001:db8:9a::1]:27017"
	require.Equal(t, "192.0.2.129", seenFrom("osc-fr1/web", "10.10.0.2", v4))
	require.NoError(t, l.MoveEgress("osc-fr1", netip.MustParseAddr("192.0.2.129"), netip.MustParseAddr("192.0.2.131")))
	require.NoError(t, l.MoveEgress("osc-fr1", netip.MustParseAddr("2001:db8:f1::1"), netip.MustParseAddr("2001:db8:f1::3")))
	require.Equal(t, "192.0.2.131", seenFrom("osc-fr1/web", "10.10.0.2", v4))
	require.Equal(t, "2001:db8:f1::3", seenFrom("osc-fr1/web", "fd00:10::2", v6))
	require.Equal(t, "192.0.2.130", seenFrom("osc-fr1/worker", "10.10.0.3", v4))
	require.Equal(t, []netip.Addr{netip.MustParseAddr("192.0.2.131"), netip.MustParseAddr("2001:db8:f1::3")}, l.EgressOf("osc-fr1", "web"))
	require.Nil(t, l.EgressOf("osc-fr1", "none"))
	require.Nil(t, l.EgressOf("none", "web"))

	for region, move := range map[string][2]string{
		"none":           {"192.0.2.130", "192.0.2.131"},
		"osc-fr1":        {"192.0.2.130", "192.0.2.161"}, // another region's
		"osc-secnum-fr1": {"192.0.2.163", "192.0.2.162"}, // nobody leaves from a spare
	} {
		err := l.MoveEgress(region, netip.MustParseAddr(move[0]), netip.MustParseAddr(move[1]))
		require.Error(t, err, region)
	}
	err := l.MoveEgress("osc-fr1", netip.MustParseAddr("192.0.2.130"), netip.MustParseAddr("2001:db8:f1::2"))
	require.Error(t, err, "from one family to the other")
}

func TestGatewaysAnswerThemselvesWhereNoDatabaseDoes(t *testing.T) {
	l := up(t, sim.Options{})
	listen(t, l)
	answer(t, l, "gw-fr1", "[::]:2222", "gw-fr1")
	who, _, _, err := ask(t.Context(), l, "office", netip.MustParseAddr("198.51.100.1"), addrPort("203.0.113.129:2222"))
	require.NoError(t, err)
	require.Equal(t, "gw-fr1", who)
	_, _, _, err = ask(t.Context(), l, "office", netip.MustParseAddr("198.51.100.1"), addrPort("203.0.113.129:8008"))
	require.ErrorContains(t, err, "refused")
}

func TestUnknownAddressesAreUnreachableAndDoNotCircle(t *testing.T) {
	l := up(t, sim.Options{})
	for _, to := range []string{"10.64.1.200:5432", "172.16.0.99:5432", "[fd00:64:1::99]:5432", "10.10.0.2:80"} {
		source := "198.51.100.1"
		if addrPort(to).Addr().Is6() {
			source = "2001:db8:a::1"
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		_, _, _, err := ask(ctx, l, "office", netip.MustParseAddr(source), addrPort(to))
		cancel()
		require.ErrorContains(t, err, "unreachable", to)
	}
	_, _, _, err := ask(t.Context(), l, fabric.Core, netip.Addr{}, addrPort("[2001:db8:ffff::1]:1"))
	require.Error(t, err)
}
