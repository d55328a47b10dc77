package topology

import (
	"net/netip"
	"slices"
)

// Region returns the region of that name.
func (w *World) Region(name string) (Region, bool) {
	return find(w.regions, Region.clone, func(r Region) bool { return r.Name == name })
}

// InternetHost returns the Internet host of that name.
func (w *World) InternetHost(name string) (InternetHost, bool) {
	return find(w.internet, InternetHost.clone, func(h InternetHost) bool { return h.Name == name })
}

// Peer returns the peered network of that name.
func (w *World) Peer(name string) (PeerNetwork, bool) {
	return find(w.peers, PeerNetwork.clone, func(p PeerNetwork) bool { return p.Name == name })
}

// Host returns the shared host of that name.
func (w *World) Host(name string) (SharedHost, bool) {
	return find(w.hosts, SharedHost.clone, func(h SharedHost) bool { return h.Name == name })
}

// Gateway returns the gateway of that name.
func (w *World) Gateway(name string) (Gateway, bool) {
	return find(w.gateways, Gateway.clone, func(g Gateway) bool { return g.Name == name })
}

// Database returns the database of that name, canaries included.
func (w *World) Database(name string) (Database, bool) {
	i, ok := w.byName[name]
	if !ok {
		return Database{}, false
	}
	return w.databases[i].clone(), true
}

// Vantage returns the vantage of that name.
func (w *World) Vantage(name string) (Vantage, bool) {
	return find(w.Vantages(), func(v Vantage) Vantage { return v }, func(v Vantage) bool { return v.Name == name })
}

// EgressOf returns the addresses, one of each family, IPv4 first, from which an app's Internet traffic leaves when the
// world starts: app i of a region uses egress address i modulo their number. Nil if there is no such region or app.
func (w *World) EgressOf(region, app string) []netip.Addr {
	r := slices.IndexFunc(w.regions, func(r Region) bool { return r.Name == region })
	if r < 0 {
		return nil
	}
	i := slices.IndexFunc(w.regions[r].Apps, func(a App) bool { return a.Name == app })
	if i < 0 {
		return nil
	}
	var out []netip.Addr
	for _, f := range []Family{IPv4, IPv6} {
		of := OfFamily(w.regions[r].Egress, f)
		out = append(out, of[i%len(of)])
	}
	return out
}

func find[T any](list []T, clone func(T) T, is func(T) bool) (T, bool) {
	for _, v := range list {
		if is(v) {
			return clone(v), true
		}
	}
	var none T
	return none, false
}
