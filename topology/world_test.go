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
