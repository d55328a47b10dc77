package fabric_test

import (
	"net/netip"
	"os"
	"strings"
	"testing"

	"drawbridge/sim/fabric"
	"drawbridge/topology"

	"github.com/stretchr/testify/require"
)

func plan(t *testing.T) fabric.Plan {
	t.Helper()
	return fabric.New(topology.Default())
}

func node(t *testing.T, p fabric.Plan, name string) fabric.Node {
	t.Helper()
	for _, n := range p.Nodes {
		if n.Name == name {
			return n
		}
	}
	t.Fatalf("no node %s", name)
	return fabric.Node{}
}

func TestPlanIsTheSameEveryTime(t *testing.T) {
	first := plan(t)
	for range 5 {
		require.Equal(t, first, plan(t))
	}
}

func TestNamesIndicesAndHardwareAddressesAreUnique(t *testing.T) {
	p := plan(t)
	nodes, macs, names, indices := map[string]bool{}, map[string]bool{}, map[string]bool{}, map[string]map[int]bool{}
	for _, n := range p.Nodes {
		require.False(t, nodes[n.Name], n.Name)
		nodes[n.Name], indices[n.Name] = true, map[int]bool{1: true}
	}
	for _, l := range p.Links {
		for _, e := range []fabric.End{l.A, l.Z} {
			require.True(t, nodes[e.Node], e.Node)
			require.False(t, macs[e.MAC.String()], e.MAC)
			require.False(t, names[e.Node+" "+e.Name], e)
			require.False(t, indices[e.Node][e.Index], e)
			require.Less(t, len(e.Name), 16, e.Name)
			require.Zero(t, e.MAC[0]&1, "multicast")
			macs[e.MAC.String()], names[e.Node+" "+e.Name], indices[e.Node][e.Index] = true, true, true
		}
	}
	require.Len(t, p.Links, len(p.Nodes)-1+len(topology.Default().Hosts()), "a tree, and a regional link for each shared host")
}

func TestEveryVantageHasItsNode(t *testing.T) {
	p := plan(t)
	for _, v := range topology.Default().Vantages() {
		n := node(t, p, v.Namespace)
		for _, want := range v.Addresses {
			require.Condition(t, func() bool {
				for _, a := range n.Addresses {
					if a.Addr == want {
						return true
					}
				}
				return false
			}, "%s lacks %s", n.Name, want)
		}
		require.Equal(t, len(v.Networks) > 0, len(n.Owned) > 0)
	}
}

// The kernel has a route to each assigned address, and takes no second one.
func TestANetworkOfOneAssignedAddressIsNotOwnedTwice(t *testing.T) {
	text, err := os.ReadFile("../../topology/testdata/default.yaml")
	require.NoError(t, err)
	changed := strings.Replace(string(text), `[192.0.2.0/25, "3fff:c::/64"]`, `[192.0.2.1/32, 192.0.2.2/32, "3fff:c::/127"]`, 1)
	w, err := topology.Parse("world.yaml", []byte(changed))
	require.NoError(t, err)
	require.Equal(t, []netip.Prefix{netip.MustParsePrefix("192.0.2.2/32"), netip.MustParsePrefix("3fff:c::/127")}, node(t, fabric.New(w), "stranger").Owned)
}

func TestEnforcementPointsGuardNothing(t *testing.T) {
	w, p := topology.Default(), plan(t)
	for _, point := range w.Points() {
		n := node(t, p, point.Name)
		require.Empty(t, n.Filter.Guarded, point.Name)
		require.Equal(t, point.Model == topology.Dedicated, n.Filter.Active(), point.Name)
	}
	for _, router := range []string{fabric.Core, fabric.Edge("osc-fr1"), fabric.Edge("osc-secnum-fr1"), "corp"} {
		require.NotEmpty(t, node(t, p, router).Filter.Guarded, router)
	}
}

func TestDestinationsCoverEveryEndpointOfADedicatedDatabase(t *testing.T) {
	w := topology.Default()
	for _, d := range w.Databases() {
		if d.Model != topology.Dedicated {
			continue
		}
		for _, primary := range d.Nodes {
			from := map[netip.AddrPort]netip.AddrPort{}
			for _, nat := range fabric.Destinations(d, primary) {
				from[nat.From] = nat.To
			}
			require.Len(t, from, len(d.Endpoints()))
			for _, e := range d.Endpoints() {
				to, ok := from[e.Addr]
				require.True(t, ok, e.Addr)
				require.Contains(t, primary.Addresses, to.Addr())
				require.Equal(t, e.Addr.Addr().Is4(), to.Addr().Is4())
				require.True(t, to.Port() == primary.Port || to.Port() == primary.PlainPort)
			}
		}
	}
}
