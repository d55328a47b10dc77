// Package topology owns the World: what an emulated network contains, before any of it exists.
//
// A World is read from a strict YAML document (Load, Parse), validated as a whole, and immutable
// afterwards: every accessor returns copies. Nothing here touches the kernel.
package topology

import (
	"net/netip"
	"slices"
)

// Engine names a database engine by the word that policies and topologies use for it.
type Engine string

// The engines whose TLS negotiation the project knows.
const (
	PostgreSQL Engine = "postgresql"
	MySQL      Engine = "mysql"
	Redis      Engine = "redis"
	MongoDB    Engine = "mongodb"
	OpenSearch Engine = "opensearch"
	InfluxDB   Engine = "influxdb"
)

// Engines lists every known engine, in a fixed order.
func Engines() []Engine {
	return []Engine{PostgreSQL, MySQL, Redis, MongoDB, OpenSearch, InfluxDB}
}

// Negotiation says how an engine arrives at TLS on one port.
type Negotiation int

const (
	// NegotiationUnknown is the zero value: nothing may be assumed about the port.
	NegotiationUnknown Negotiation = iota
	// InBand engines serve TLS and plaintext on one port and negotiate inside their own protocol (PostgreSQL, MySQL).
	InBand
	// EitherFirst engines serve TLS and plaintext on one port and tell them apart by the first byte (MongoDB's preferTLS).
	EitherFirst
	// SeparatePorts engines publish one port for TLS and one for plaintext (Redis, OpenSearch, InfluxDB); SPEC S-05.
	SeparatePorts
)

// Negotiation returns how the engine arrives at TLS; NegotiationUnknown for an engine that is not listed in Engines.
func (e Engine) Negotiation() Negotiation {
	switch e {
	case PostgreSQL, MySQL:
		return InBand
	case MongoDB:
		return EitherFirst
	case Redis, OpenSearch, InfluxDB:
		return SeparatePorts
	}
	return NegotiationUnknown
}

// Model is the architecture model of a database (SPEC, Words). The zero value is no model at all.
type Model string

// The two architecture models.
const (
	Shared    Model = "shared"
	Dedicated Model = "dedicated"
)

// World is a validated, immutable description of an emulated network.
type World struct {
	name      string
	regions   []Region
	internet  []InternetHost
	peers     []PeerNetwork
	hosts     []SharedHost
	gateways  []Gateway
	databases []Database
	byName    map[string]int // databases by name
}

// Region is one region's private network, its apps, and the addresses its traffic leaves from.
type Region struct {
	Name     string
	Networks []netip.Prefix // the regional network; one IPv4 and one IPv6 prefix, masked
	Egress   []netip.Addr   // source addresses of the region's Internet traffic; at least two IPv4, at least one IPv6
	Spare    []netip.Addr   // egress addresses that the platform owns but does not use yet (SPEC D-13)
	Apps     []App
}

// App is one container of a region's regional network.
type App struct {
	Name      string
	Addresses []netip.Addr // one of each family, inside the region's networks
}

// InternetHost is a host somewhere on the public Internet. Every address of its networks is its own: a probe
// may use any of them as source.
type InternetHost struct {
	Name      string
	Networks  []netip.Prefix // at least one IPv4 and one IPv6 prefix, masked
	Addresses []netip.Addr   // its primary addresses, one of each family, inside Networks
}

// PeerNetwork is a customer's private network that is peered with one dedicated database.
type PeerNetwork struct {
	Name     string
	Networks []netip.Prefix // one IPv4 prefix, optionally one IPv6 prefix
	Hosts    []App          // at least two
}

// SharedHost carries containers of shared databases. It is attached to its region's network and to the Internet, at
// the same addresses.
type SharedHost struct {
	Name      string
	Region    string
	Addresses []netip.Addr // Internet-routable; one IPv4, one IPv6
	// CanaryPort is the port of the host's canary database (see Database.Canary).
	CanaryPort uint16
}

// Gateway stands in front of the VPC of dedicated databases: it owns their Internet-routable addresses and forwards
// to their nodes by destination NAT.
type Gateway struct {
	Name   string
	Region string
	// Networks are the VPC's; one IPv4 and one IPv6 prefix, masked. Every node behind the gateway has an address of each.
	Networks []netip.Prefix
	// Canary are the Internet-routable addresses, one of each family, of the gateway's canary database.
	Canary []netip.Addr
}

// Database is one managed database.
type Database struct {
	Name      string
	Model     Model
	Engine    Engine
	Region    string
	Gateway   string       // dedicated only: name of the Gateway in front of it
	Addresses []netip.Addr // dedicated only: its Internet-routable addresses; IPv4, optionally IPv6 (SPEC X-01)
	Port      uint16       // dedicated only: client port at the gateway (in-band, either-first, or TLS port)
	PlainPort uint16       // dedicated only: the plaintext port of a SeparatePorts engine; 0 otherwise
	Nodes     []Node       // at least one; Nodes[0] is the primary at start
	// ClusterPorts are the ports on which nodes talk to each other. Client ports of the nodes are included where
	// the engine shares them (PostgreSQL, Redis, MongoDB). Empty for a single node.
	ClusterPorts []ClusterPort
	Peering      *Peering // dedicated only, optional
	// Canary marks the extra database, one at every enforcement point, that every policy must leave reachable from
	// everywhere: it carries the fence and the control of every denial. Canaries are added by the loader.
	Canary bool
}

// Node is one node of a database.
type Node struct {
	Name string
	// Host is the SharedHost that carries the node (shared only; empty for dedicated).
	Host string
	// Machine is the machine that carries the node and others, of other databases behind the same gateway (dedicated only;
	// empty for a node that is a machine of its own).
	Machine string
	// Addresses are the node's own: the host's for shared, addresses of the VPC behind the gateway for dedicated.
	Addresses []netip.Addr
	// Published are the addresses, out of the host's, at which a shared node's endpoint exists. The server listens
	// on every address of the host all the same: the others are ways round (SPEC G-03).
	Published []netip.Addr
	Port      uint16 // port on which the node serves clients (in-band, either-first, or TLS port)
	PlainPort uint16 // plaintext port of a SeparatePorts engine; 0 otherwise
}

// ClusterPort is a port on which the nodes of one database talk to each other.
type ClusterPort struct {
	Port uint16
	// Shared: clients use the port too, so that the source decides (SPEC C-03). Otherwise only nodes may (SPEC C-04),
	// and the port speaks TLS from its first byte.
	Shared bool
}

// Peering attaches a peered network to a dedicated database's gateway.
type Peering struct {
	Network string       // name of the PeerNetwork
	Address []netip.Addr // the private-peering-rw endpoint's addresses at the gateway
}

// Name returns the world's name.
func (w *World) Name() string { return w.name }

// Regions returns the regions in document order.
func (w *World) Regions() []Region { return cloneAll(w.regions, Region.clone) }

// Internet returns the Internet hosts in document order.
func (w *World) Internet() []InternetHost { return cloneAll(w.internet, InternetHost.clone) }

// Peers returns the peered networks in document order.
func (w *World) Peers() []PeerNetwork { return cloneAll(w.peers, PeerNetwork.clone) }

// Hosts returns the shared hosts in document order.
func (w *World) Hosts() []SharedHost { return cloneAll(w.hosts, SharedHost.clone) }

// Gateways returns the gateways in document order.
func (w *World) Gateways() []Gateway { return cloneAll(w.gateways, Gateway.clone) }

// Databases returns the databases in document order, then the canaries.
func (w *World) Databases() []Database { return cloneAll(w.databases, Database.clone) }

func cloneAll[T any](in []T, clone func(T) T) []T {
	out := make([]T, len(in))
	for i, v := range in {
		out[i] = clone(v)
	}
	return out
}

func (a App) clone() App { a.Addresses = slices.Clone(a.Addresses); return a }

func (r Region) clone() Region {
	r.Networks, r.Egress, r.Spare = slices.Clone(r.Networks), slices.Clone(r.Egress), slices.Clone(r.Spare)
	r.Apps = cloneAll(r.Apps, App.clone)
	return r
}

func (h InternetHost) clone() InternetHost {
	h.Networks, h.Addresses = slices.Clone(h.Networks), slices.Clone(h.Addresses)
	return h
}

func (p PeerNetwork) clone() PeerNetwork {
	p.Networks, p.Hosts = slices.Clone(p.Networks), cloneAll(p.Hosts, App.clone)
	return p
}

func (h SharedHost) clone() SharedHost { h.Addresses = slices.Clone(h.Addresses); return h }

func (g Gateway) clone() Gateway {
	g.Networks, g.Canary = slices.Clone(g.Networks), slices.Clone(g.Canary)
	return g
}

func (n Node) clone() Node {
	n.Addresses, n.Published = slices.Clone(n.Addresses), slices.Clone(n.Published)
	return n
}

func (d Database) clone() Database {
	d.Addresses, d.ClusterPorts = slices.Clone(d.Addresses), slices.Clone(d.ClusterPorts)
	d.Nodes = cloneAll(d.Nodes, Node.clone)
	if d.Peering != nil {
		p := *d.Peering
		p.Address = slices.Clone(p.Address)
		d.Peering = &p
	}
	return d
}
