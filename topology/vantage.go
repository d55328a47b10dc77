package topology

import (
	"cmp"
	"net/netip"
	"slices"
)

// VantageKind says what stands at a vantage. The zero value is no vantage.
type VantageKind string

// The kinds of vantage.
const (
	VantageInternet VantageKind = "internet"
	VantageApp      VantageKind = "app"
	VantagePeer     VantageKind = "peer"
	VantageNode     VantageKind = "node"
)

// Vantage is a place where a probe may start.
type Vantage struct {
	// Name is unique: an Internet host's or a node's name, <region>/<app>, or <peer network>/<host>.
	Name string
	Kind VantageKind
	// Namespace names the node of the fabric in which the probe runs: the host or machine that carries a node, otherwise Name.
	Namespace string
	Region    string         // of an app or node; empty otherwise
	Addresses []netip.Addr   // its primary addresses, at most one of each family, IPv4 first
	Networks  []netip.Prefix // Internet hosts only: every address in them is its own
	Database  string         // nodes only: the database it belongs to
}

// Owns reports whether an address is the vantage's own.
func (v Vantage) Owns(a netip.Addr) bool {
	return slices.Contains(v.Addresses, a) || slices.ContainsFunc(v.Networks, func(n netip.Prefix) bool { return n.Contains(a) })
}

// Vantages returns every place where a probe may start: Internet hosts, apps, peer hosts, nodes, each in document order.
//
// The nodes of several databases on one shared host have the same address, so the network cannot tell them apart:
// whoever expects something of a node must go by its address. Canaries on shared hosts are left out for that reason;
// those behind gateways are there, as strangers in the VPC.
func (w *World) Vantages() []Vantage {
	var all []Vantage
	for _, h := range w.internet {
		all = append(all, Vantage{
			Name: h.Name, Kind: VantageInternet, Namespace: h.Name,
			Addresses: slices.Clone(h.Addresses), Networks: slices.Clone(h.Networks),
		})
	}
	for _, r := range w.regions {
		for _, a := range r.Apps {
			all = append(all, a.vantage(r.Name, VantageApp, r.Name))
		}
	}
	for _, p := range w.peers {
		for _, h := range p.Hosts {
			all = append(all, h.vantage(p.Name, VantagePeer, ""))
		}
	}
	for _, d := range w.databases {
		if d.Canary && d.Model == Shared {
			continue
		}
		for _, n := range d.Nodes {
			all = append(all, Vantage{
				Name: n.Name, Kind: VantageNode, Namespace: n.Listener(), Region: d.Region,
				Addresses: slices.Clone(n.Addresses), Database: d.Name,
			})
		}
	}
	return all
}

func (a App) vantage(owner string, kind VantageKind, region string) Vantage {
	name := owner + "/" + a.Name
	return Vantage{Name: name, Kind: kind, Namespace: name, Region: region, Addresses: slices.Clone(a.Addresses)}
}

// Listener names the node of the fabric in which the database node's server listens: its shared host, its machine, or itself.
func (n Node) Listener() string { return cmp.Or(n.Host, n.Machine, n.Name) }
