package topology

import (
	"net/netip"
	"slices"
)

// EndpointKind says what an address and port are for clients. The zero value is no endpoint.
type EndpointKind string

// The kinds of endpoint. The first two are the words of SPEC.md; a way round is no endpoint at all, but can be connected to
// like one as long as nobody forbids it.
const (
	PublicRW         EndpointKind = "public-rw"
	PrivatePeeringRW EndpointKind = "private-peering-rw"
	WayRound         EndpointKind = "way-round"
)

// PortTLS says what a port speaks, in the words of docs/DRIVERS.md. The zero value is unknown.
type PortTLS string

// What ports speak.
const (
	TLSInBand PortTLS = "in-band" // plaintext and TLS, negotiated inside the protocol
	TLSEither PortTLS = "either"  // TLS or plaintext from the first byte
	TLSOnly   PortTLS = "only"    // TLS from the first byte
	TLSNone   PortTLS = "none"    // never TLS
)

// Endpoint is an address and port of a database that a client can try.
type Endpoint struct {
	Database string
	// Node is the node behind it: at a gateway the primary at start, which a fail-over changes.
	Node   string
	Kind   EndpointKind
	Addr   netip.AddrPort
	Engine Engine
	TLS    PortTLS
	Point  string // the enforcement point it is at
}

// Listener is a port on which a node's server listens, on every address of the node.
type Listener struct {
	Port uint16
	TLS  PortTLS
	// Client: clients connect here. Otherwise only the cluster's own nodes do (SPEC C-04).
	Client bool
}

// clientTLS is what Port and, with plain, PlainPort of an engine speak.
func (e Engine) clientTLS(plain bool) PortTLS {
	switch n := e.Negotiation(); {
	case n == InBand && !plain:
		return TLSInBand
	case n == EitherFirst && !plain:
		return TLSEither
	case n == SeparatePorts && !plain:
		return TLSOnly
	case n == SeparatePorts:
		return TLSNone
	}
	return ""
}

// Listeners returns every port on which a node of the database listens: its client ports, then those that only the
// cluster uses.
func (d Database) Listeners(n Node) []Listener {
	all := d.clientPorts(n.Port, n.PlainPort)
	for _, c := range d.ClusterPorts {
		if !c.Shared {
			all = append(all, Listener{Port: c.Port, TLS: TLSOnly})
		}
	}
	return all
}

func (d Database) clientPorts(port, plain uint16) []Listener {
	all := []Listener{{Port: port, TLS: d.Engine.clientTLS(false), Client: true}}
	if plain != 0 {
		all = append(all, Listener{Port: plain, TLS: d.Engine.clientTLS(true), Client: true})
	}
	return all
}

// Endpoints returns where clients of the database connect: for each published address of each shared node, or for
// each address of the gateway's, first the public and then the peering ones, the TLS-capable port and then the plaintext port.
func (d Database) Endpoints() []Endpoint {
	var all []Endpoint
	if d.Model == Shared {
		for _, n := range d.Nodes {
			all = append(all, d.at(n, PublicRW, n.Published, d.clientPorts(n.Port, n.PlainPort))...)
		}
		return all
	}
	ports := d.clientPorts(d.Port, d.PlainPort)
	all = d.at(d.Nodes[0], PublicRW, d.Addresses, ports)
	if d.Peering != nil {
		all = append(all, d.at(d.Nodes[0], PrivatePeeringRW, d.Peering.Address, ports)...)
	}
	return all
}

// Bypasses returns the ways round the database's endpoints (SPEC G-03): every address and port at which a node's
// server listens that is not an endpoint.
func (d Database) Bypasses() []Endpoint {
	var all []Endpoint
	for _, n := range d.Nodes {
		for _, a := range n.Addresses {
			ports := slices.DeleteFunc(d.Listeners(n), func(l Listener) bool {
				return l.Client && slices.Contains(n.Published, a)
			})
			all = append(all, d.at(n, WayRound, []netip.Addr{a}, ports)...)
		}
	}
	return all
}

func (d Database) at(n Node, kind EndpointKind, addrs []netip.Addr, ports []Listener) []Endpoint {
	point := d.Gateway
	if d.Model == Shared {
		point = n.Host
	}
	var all []Endpoint
	for _, a := range addrs {
		for _, l := range ports {
			all = append(all, Endpoint{
				Database: d.Name, Node: n.Name, Kind: kind, Addr: netip.AddrPortFrom(a, l.Port),
				Engine: d.Engine, TLS: l.TLS, Point: point,
			})
		}
	}
	return all
}

// Endpoints returns the endpoints of every database, canaries included.
func (w *World) Endpoints() []Endpoint { return w.collect(Database.Endpoints) }

// Bypasses returns the ways round every database's endpoints, canaries included.
func (w *World) Bypasses() []Endpoint { return w.collect(Database.Bypasses) }

func (w *World) collect(of func(Database) []Endpoint) []Endpoint {
	var all []Endpoint
	for _, d := range w.databases {
		all = append(all, of(d)...)
	}
	return all
}
