package fabric

import (
	"net/netip"
	"slices"

	"drawbridge/topology"

	"go4.org/netipx"
)

// routerAddresses are what routers without an address of their own send ICMP errors from: the IPv4 dummy address (RFC 7600
// section 4.8) and, there being no such thing for IPv6, a unique local address (RFC 4193) far from those of people.
var routerAddresses = []netip.Addr{netip.MustParseAddr("192.0.0.8"), netip.MustParseAddr("fdff:ffff:ffff::8")}

func (b *builder) core() {
	b.node(Core, true).address(loInterface, routerAddresses...)
}

// attach hangs a node on the core and makes the given destinations known there.
func (b *builder) attach(n *Node, iface string, reachable ...netip.Prefix) {
	core := b.nodes[Core]
	port := b.connect(core, "", n, iface)
	core.route(port, reachable...)
	core.guard(port)
	n.defaultRoute(iface)
}

func (b *builder) internetHost(h topology.InternetHost) {
	n := b.node(h.Name, false)
	b.attach(n, hostInterface, h.Networks...)
	n.address(hostInterface, h.Addresses...)
	// A network of one address that was assigned is the node's own by that, and the kernel takes no second route to it.
	n.Owned = slices.DeleteFunc(slices.Clone(h.Networks), func(p netip.Prefix) bool {
		return p.IsSingleIP() && slices.Contains(h.Addresses, p.Addr())
	})
}

// region adds a region's edge and apps. Every egress address is the edge's own, spare ones too, and the core knows the way to them, so that a
// change of egress changes the translation and nothing else.
func (b *builder) region(r topology.Region) {
	edge := b.node(Edge(r.Name), true)
	outside := slices.Concat(r.Egress, r.Spare)
	b.attach(edge, topology.InternetInterface, single(outside)...)
	edge.address(topology.InternetInterface, outside...)
	edge.Filter.Uplink = topology.InternetInterface
	for _, a := range r.Apps {
		b.host(edge, r.Name+"/"+a.Name, a.Addresses)
		edge.Filter.Source = append(edge.Filter.Source, b.sourceNAT(r.Name, a)...)
	}
}

// host hangs a host on a router other than the core.
func (b *builder) host(router *Node, name string, addrs []netip.Addr) {
	n := b.node(name, false)
	port := b.connect(router, "", n, hostInterface)
	router.route(port, single(addrs)...)
	router.guard(port)
	n.address(hostInterface, addrs...)
	n.defaultRoute(hostInterface)
}

func (b *builder) sourceNAT(region string, a topology.App) []SourceNAT {
	var out []SourceNAT
	for _, outside := range b.w.EgressOf(region, a.Name) {
		for _, inside := range a.Addresses {
			if inside.Is4() == outside.Is4() {
				out = append(out, SourceNAT{Inside: inside, Outside: outside})
			}
		}
	}
	return out
}

// sharedHost hangs a host on the core and on its region's edge, at the same addresses. Its region, the other shared hosts
// there included, is reached by the regional interface, everything else by the Internet one.
func (b *builder) sharedHost(h topology.SharedHost) {
	n, edge := b.node(h.Name, false), b.nodes[Edge(h.Region)]
	n.Serves = true
	b.attach(n, topology.InternetInterface, single(h.Addresses)...)
	n.address(topology.InternetInterface, h.Addresses...)
	port := b.connect(edge, "", n, topology.RegionalInterface)
	edge.route(port, single(h.Addresses)...)
	edge.guard(port)
	n.route(topology.RegionalInterface, b.regional(h.Region)...)
}

// regional are the networks that shared hosts of a region reach by their regional interface: those of the region, and the addresses of
// all its shared hosts, in as few exact prefixes as there are. A host's own address is its own all the same: the local
// table comes first (ip-rule(8)).
func (b *builder) regional(region string) []netip.Prefix {
	if known, ok := b.regions[region]; ok {
		return known
	}
	r, _ := b.w.Region(region)
	var hosts []netip.Addr
	for _, h := range b.w.Hosts() {
		if h.Region == region {
			hosts = append(hosts, h.Addresses...)
		}
	}
	b.regions[region] = append(r.Networks, exact(hosts)...)
	return b.regions[region]
}

// exact turns addresses into the fewest prefixes that hold them and nothing else.
func exact(addrs []netip.Addr) []netip.Prefix {
	var set netipx.IPSetBuilder
	for _, a := range addrs {
		set.Add(a)
	}
	all, _ := set.IPSet() // its errors are of invalid addresses, which a world has none of
	return all.Prefixes()
}

// gateway hangs a gateway on the core and its nodes on the gateway. The core knows the way to the nodes' private addresses
// too: without an enforcer they are reachable from everywhere, or their being denied would mean nothing.
func (b *builder) gateway(g topology.Gateway) {
	n := b.node(g.Name, true)
	var own, behind []netip.Addr
	for _, d := range b.databasesAt(g.Name) {
		own = append(own, d.Addresses...)
		n.Filter.Destination = append(n.Filter.Destination, Destinations(d, d.Nodes[0])...)
	}
	machines := b.w.MachinesBehind(g.Name)
	for _, m := range machines {
		behind = append(behind, addressesOf(m)...)
	}
	b.attach(n, topology.InternetInterface, exact(append(own, behind...))...)
	n.own(topology.InternetInterface, own)
	for i, m := range machines {
		b.machine(n, topology.VPCInterface(i), m)
	}
	n.Filter.Hairpin, n.Filter.HairpinVia = behind, g.Canary
	for _, d := range b.databasesAt(g.Name) {
		if d.Peering != nil {
			b.peering(n, *d.Peering)
		}
	}
}

func (b *builder) machine(gateway *Node, iface string, m topology.Machine) {
	n := b.node(m.Name, false)
	n.Serves = true
	b.connect(gateway, iface, n, hostInterface)
	addrs := addressesOf(m)
	gateway.route(iface, exact(addrs)...)
	n.own(hostInterface, addrs)
	n.defaultRoute(hostInterface)
}

func addressesOf(m topology.Machine) []netip.Addr {
	var all []netip.Addr
	for _, n := range m.Nodes {
		all = append(all, n.Addresses...)
	}
	return all
}

// peering hangs a peered network on its gateway, which is its only way to anywhere. A network is peered once, and a
// gateway has one peering at most: the world's loader has seen to it.
func (b *builder) peering(gateway *Node, p topology.Peering) {
	peer, _ := b.w.Peer(p.Network)
	router := b.node(peer.Name, true)
	router.address(loInterface, routerAddresses...)
	b.connect(gateway, topology.PeeringInterface, router, topology.PeeringInterface)
	router.defaultRoute(topology.PeeringInterface)
	core, port := b.nodes[Core], b.portTo(gateway.Name)
	for _, h := range peer.Hosts {
		b.host(router, peer.Name+"/"+h.Name, h.Addresses)
		gateway.route(topology.PeeringInterface, single(h.Addresses)...)
		core.route(port, single(h.Addresses)...)
	}
	gateway.address(topology.PeeringInterface, p.Address...)
	core.route(port, single(p.Address)...)
}

// portTo names the core's interface towards a node.
func (b *builder) portTo(node string) string {
	for _, l := range b.links {
		if l.A.Node == Core && l.Z.Node == node {
			return l.A.Name
		}
	}
	return ""
}

func (b *builder) databasesAt(gateway string) []topology.Database {
	var out []topology.Database
	for _, d := range b.w.Databases() {
		if d.Gateway == gateway {
			out = append(out, d)
		}
	}
	return out
}

// Destinations says how the gateway translates the endpoints of a dedicated database while the given node is its primary. An address of
// a family that the node has no address of is not translated.
func Destinations(d topology.Database, primary topology.Node) []DestinationNAT {
	addrs := d.Addresses
	if d.Peering != nil {
		addrs = append(addrs, d.Peering.Address...)
	}
	var out []DestinationNAT
	for _, from := range addrs {
		for _, to := range primary.Addresses {
			if from.Is4() == to.Is4() {
				out = append(out, portsOf(d, primary, from, to)...)
			}
		}
	}
	return out
}

func portsOf(d topology.Database, primary topology.Node, from, to netip.Addr) []DestinationNAT {
	out := []DestinationNAT{{netip.AddrPortFrom(from, d.Port), netip.AddrPortFrom(to, primary.Port)}}
	if d.PlainPort != 0 {
		out = append(out, DestinationNAT{netip.AddrPortFrom(from, d.PlainPort), netip.AddrPortFrom(to, primary.PlainPort)})
	}
	return out
}
