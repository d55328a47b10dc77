package topology

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// sound checks what must hold for every world that a parser returned.
func sound(t *testing.T, w *World) {
	t.Helper()
	names, addresses := map[string]bool{}, map[netip.Addr]string{}
	own := func(owner string, addrs []netip.Addr) {
		for _, a := range addrs {
			require.True(t, a.IsValid() && a.Zone() == "" && !a.Is4In6(), "%s of %s", a, owner)
			require.Empty(t, addresses[a], "address %s of %s", a, owner)
			addresses[a] = owner
		}
	}
	for _, r := range w.Regions() {
		own(r.Name, slices.Concat(r.Egress, r.Spare))
	}
	for _, h := range w.Hosts() {
		own(h.Name, h.Addresses)
	}
	for _, v := range w.Vantages() {
		require.False(t, names[v.Name], "two vantages %s", v.Name)
		names[v.Name] = true
		require.NotEmpty(t, v.Addresses, v.Name)
		if v.Name == v.Namespace {
			own(v.Name, v.Addresses)
		}
	}
	soundEndpoints(t, w)
	soundPoints(t, w)
}

func soundEndpoints(t *testing.T, w *World) {
	t.Helper()
	taken := map[netip.AddrPort]bool{}
	for _, e := range slices.Concat(w.Endpoints(), w.Bypasses()) {
		require.False(t, taken[e.Addr], "two databases at %s", e.Addr)
		taken[e.Addr] = true
		require.NotZero(t, e.Addr.Port(), e.Database)
		require.NotEmpty(t, e.TLS, e.Database)
		require.NotEmpty(t, e.Kind, e.Database)
		p, ok := w.Point(e.Point)
		require.True(t, ok, "point %s", e.Point)
		require.Contains(t, p.Databases, e.Database)
	}
}

func soundPoints(t *testing.T, w *World) {
	t.Helper()
	for _, p := range w.Points() {
		last := p.Databases[len(p.Databases)-1]
		require.Equal(t, CanaryName(p.Name), last, "the canary is last")
		d, ok := w.Database(last)
		require.True(t, ok)
		require.True(t, d.Canary)
		_, ok = w.Region(d.Region)
		require.True(t, ok, "region %s", d.Region)
		require.Len(t, d.Endpoints(), 2, "a canary is there in both families")
	}
}

func TestDefaultWorldHoldsWhatTheScenariosNeed(t *testing.T) {
	w := Default()
	require.Len(t, w.Internet(), 3)
	for _, name := range []string{"osc-fr1", "osc-secnum-fr1"} {
		r, ok := w.Region(name)
		require.True(t, ok)
		require.GreaterOrEqual(t, len(r.Apps), 2)
		for _, f := range []Family{IPv4, IPv6} {
			require.Len(t, OfFamily(r.Egress, f), 2, "%s of %s", f, name)
			require.NotEmpty(t, OfFamily(r.Spare, f), "%s of %s", f, name)
		}
	}
	pg, _ := w.Database("pg-shared")
	my, _ := w.Database("my-shared")
	require.Equal(t, pg.Nodes[0].Host, my.Nodes[0].Host, "two databases on one host")
	require.NotEqual(t, pg.Nodes[0].Port, my.Nodes[0].Port)
	require.Len(t, pg.Endpoints(), 1)
	require.Len(t, my.Endpoints(), 2)
	require.Equal(t, netip.MustParseAddrPort("[2001:db8:5a::1]:5432"), pg.Bypasses()[0].Addr, "the other family is a way round")

	redis, _ := w.Database("redis-shared")
	require.Len(t, redis.Nodes, 3)
	require.Equal(t, []Listener{{6380, TLSOnly, true}, {6379, TLSNone, true}, {16380, TLSOnly, false}}, redis.Listeners(redis.Nodes[2]))

	cluster, _ := w.Database("pg-dedicated")
	require.Len(t, cluster.Nodes, 3)
	require.Equal(t, "corp", cluster.Peering.Network)
	mongo, _ := w.Database("mongo-dedicated")
	require.Equal(t, cluster.Gateway, mongo.Gateway, "a rule of one could open the other")
	require.Len(t, mongo.Addresses, 2)
	search, _ := w.Database("search-dedicated")
	require.Equal(t, "osc-secnum-fr1", search.Region)
}

func TestEndpointsOfADedicatedDatabase(t *testing.T) {
	d, _ := Default().Database("pg-dedicated")
	at := func(kind EndpointKind, node, addr string, tls PortTLS) Endpoint {
		return Endpoint{
			Database: "pg-dedicated", Node: node, Kind: kind, Addr: netip.MustParseAddrPort(addr),
			Engine: PostgreSQL, TLS: tls, Point: "gw-fr1",
		}
	}
	require.Equal(t, []Endpoint{
		at(PublicRW, "pg-dedicated-1", "203.0.113.129:5432", TLSInBand),
		at(PrivatePeeringRW, "pg-dedicated-1", "172.31.0.5:5432", TLSInBand),
	}, d.Endpoints())
	require.Len(t, d.Bypasses(), 3*2*2, "three nodes, two families, two ports")
	require.Equal(t, []Endpoint{
		at(WayRound, "pg-dedicated-1", "10.64.1.2:5432", TLSInBand),
		at(WayRound, "pg-dedicated-1", "10.64.1.2:8008", TLSOnly),
		at(WayRound, "pg-dedicated-1", "[fd00:64:1::2]:5432", TLSInBand),
	}, d.Bypasses()[:3])
}

func TestEgressIsDealtOutInTurn(t *testing.T) {
	w := Default()
	for _, c := range []struct{ region, app, v4, v6 string }{
		{"osc-fr1", "web", "192.0.2.129", "2001:db8:f1::1"},
		{"osc-fr1", "worker", "192.0.2.130", "2001:db8:f1::2"},
		{"osc-secnum-fr1", "batch", "192.0.2.162", "2001:db8:f2::2"},
	} {
		require.Equal(t, []netip.Addr{netip.MustParseAddr(c.v4), netip.MustParseAddr(c.v6)}, w.EgressOf(c.region, c.app))
	}
	require.Nil(t, w.EgressOf("osc-fr1", "batch"))
	require.Nil(t, w.EgressOf("nowhere", "web"))
}

func TestPlanningIsDeterministicAndKeepsWhatIsGiven(t *testing.T) {
	first := Default()
	require.Equal(t, first, Default())
	w, err := Load("testdata/dedicated.yaml")
	require.NoError(t, err)
	machines := w.MachinesBehind("gw")
	require.Equal(t, []string{"orders-1", "canary-gw-1"}, []string{machines[0].Name, machines[1].Name})
	require.Equal(t, netip.MustParseAddr("10.64.1.2"), machines[0].Nodes[0].Addresses[0])
	require.Equal(t, netip.MustParseAddr("10.64.1.3"), machines[1].Nodes[0].Addresses[0])
	desk, _ := Default().Vantage("corp/desk")
	require.Equal(t, []netip.Addr{netip.MustParseAddr("172.16.0.10")}, desk.Addresses)
}

func TestVantagesOfSharedNodesRunOnTheirHost(t *testing.T) {
	w := Default()
	v, ok := w.Vantage("redis-shared-2")
	require.True(t, ok)
	require.Equal(t, "redis-b", v.Namespace)
	require.Equal(t, "redis-shared", v.Database)
	_, ok = w.Vantage("canary-redis-b-1")
	require.False(t, ok, "the host's canary cannot be told from the host's other nodes")
	v, ok = w.Vantage("canary-gw-fr1-1")
	require.True(t, ok, "a stranger in the VPC")
	require.Equal(t, v.Name, v.Namespace)
}

func TestAccessorsGiveCopies(t *testing.T) {
	w := Default()
	none := netip.Addr{}
	w.Regions()[0].Apps[0].Addresses[0] = none
	w.Regions()[0].Egress[0] = none
	w.Internet()[0].Networks[0] = netip.Prefix{}
	w.Internet()[0].Addresses[0] = none
	w.Peers()[0].Hosts[0].Addresses[0] = none
	w.Hosts()[0].Addresses[0] = none
	w.Gateways()[0].Networks[0] = netip.Prefix{}
	w.Gateways()[0].Canary[0] = none
	w.MachinesBehind("gw-fr1")[0].Nodes[0].Addresses[0] = none
	for _, d := range w.Databases() {
		d.Nodes[0].Addresses[0] = none
		for _, n := range d.Nodes {
			clear(n.Published)
		}
		clear(d.ClusterPorts)
		clear(d.Addresses)
		if d.Peering != nil {
			d.Peering.Network = ""
			clear(d.Peering.Address)
		}
	}
	for _, v := range w.Vantages() {
		clear(v.Addresses)
		clear(v.Networks)
	}
	r, _ := w.Region("osc-fr1")
	clear(r.Networks)
	d, _ := w.Database("pg-dedicated")
	clear(d.Nodes)
	require.Equal(t, Default(), w)
}
