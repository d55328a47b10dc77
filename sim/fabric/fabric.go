// Package fabric plans the network of a world: which nodes there are, how they are linked, and what each of them knows.
// It is pure: the same world gives the same plan, and nothing here touches the kernel.
//
// The fabric is a tree of routed point-to-point links, with one more link from each shared host to its region's edge:
//
//	Internet hosts ── internet ── edge-<region> ── apps
//	                   │   │          │
//	                   │   └── shared hosts
//	                   └── gateways ── dedicated nodes
//	                          └── <peer network> ── its hosts
package fabric

import (
	"fmt"
	"net"
	"net/netip"

	"drawbridge/topology"
)

// Names of nodes that a world does not name itself.
const (
	Core       = "internet" // the router in the middle
	edgePrefix = "edge-"
)

// Interface names that a topology.Point does not fix.
const (
	hostInterface = "eth0" // the only link of a host that is no enforcement point
	loInterface   = "lo"
)

// Edge names the router between a region's network and the Internet.
func Edge(region string) string { return edgePrefix + region }

// Plan is everything there is to build.
type Plan struct {
	Nodes []Node
	Links []Link
}

// Node is one network namespace.
type Node struct {
	Name      string
	Router    bool // forwards packets
	Serves    bool // databases' servers listen here
	Ends      []NodeEnd
	Addresses []Address
	Owned     []netip.Prefix // whole networks whose every address is the node's own
	Routes    []Route
	Filter    Filter
	ifaces    map[string]int // index by name
	last      int            // highest index used
}

// NodeEnd is a node's own side of a link, and who is at the other.
type NodeEnd struct {
	Index int
	Name  string
	Peer  net.HardwareAddr
}

// Address is an address that an interface has.
type Address struct {
	Index int // of the interface
	Addr  netip.Addr
}

// Route sends a destination into a link.
type Route struct {
	To    netip.Prefix
	Index int // of the interface
}

// Link is a veth pair. A is the side nearer to the core.
type Link struct {
	A, Z End
}

// End is one side of a link.
type End struct {
	Node  string
	Name  string // of the interface
	Index int
	MAC   net.HardwareAddr
}

// Filter is what the fabric's own packet filter does at a node: translate addresses and drop forged sources. It never drops
// anything else, and drops nothing at all at an enforcement point.
type Filter struct {
	// Guarded are the interfaces on which a source is only accepted if the node would route answers to it back the same way
	// (RFC 3704 section 2.2, strict reverse path forwarding).
	Guarded []string
	// Lenient starts with the guards off.
	Lenient bool
	// Destination says where connections to the databases' own addresses go.
	Destination []DestinationNAT
	// Uplink is the interface at which Source holds.
	Uplink string
	Source []SourceNAT
	// Hairpin are nodes that may be reached through their own database's address: the connection then comes from one of HairpinVia,
	// for the node would answer itself otherwise.
	Hairpin    []netip.Addr
	HairpinVia []netip.Addr
}

// DestinationNAT translates TCP connections to From, and nothing else at that address.
type DestinationNAT struct {
	From, To netip.AddrPort
}

// SourceNAT gives what leaves from Inside the source address Outside. Ports stay as they are.
type SourceNAT struct {
	Inside, Outside netip.Addr
}

// Active reports whether the node needs a packet filter.
func (f Filter) Active() bool {
	return len(f.Guarded)+len(f.Destination)+len(f.Source)+len(f.Hairpin) > 0
}

// New plans the fabric of a world.
func New(w *topology.World) Plan {
	b := &builder{w: w, nodes: make(map[string]*Node), regions: make(map[string][]netip.Prefix)}
	b.core()
	for _, h := range w.Internet() {
		b.internetHost(h)
	}
	for _, r := range w.Regions() {
		b.region(r)
	}
	for _, h := range w.Hosts() {
		b.sharedHost(h)
	}
	for _, g := range w.Gateways() {
		b.gateway(g)
	}
	return b.plan()
}

// builder grows a plan. Names are unique: the world's loader has seen to it.
type builder struct {
	w     *topology.World
	nodes map[string]*Node
	order []string
	links []Link
	// regions are what regional returned, by region.
	regions map[string][]netip.Prefix
}

func (b *builder) plan() Plan {
	p := Plan{Links: b.links}
	for _, name := range b.order {
		p.Nodes = append(p.Nodes, *b.nodes[name])
	}
	return p
}

func (b *builder) node(name string, router bool) *Node {
	n := &Node{Name: name, Router: router, ifaces: map[string]int{loInterface: 1}, last: 1}
	b.nodes[name] = n
	b.order = append(b.order, name)
	return n
}

// connect links two nodes. An empty name for the near side takes the next port of a router. It returns that name.
func (b *builder) connect(a *Node, aName string, z *Node, zName string) string {
	if aName == "" {
		aName = fmt.Sprintf("port%d", a.last-1)
	}
	number := len(b.links)
	l := Link{A: a.end(aName, number, 0), Z: z.end(zName, number, 1)}
	a.Ends = append(a.Ends, NodeEnd{Index: l.A.Index, Name: l.A.Name, Peer: l.Z.MAC})
	z.Ends = append(z.Ends, NodeEnd{Index: l.Z.Index, Name: l.Z.Name, Peer: l.A.MAC})
	b.links = append(b.links, l)
	return aName
}

func (n *Node) end(name string, link, side int) End {
	n.last++
	n.ifaces[name] = n.last
	return End{Node: n.Name, Name: name, Index: n.last, MAC: mac(link, side)}
}

// mac makes the hardware address of one side of a link: locally administered, unicast (IEEE 802, section 8.4).
func mac(link, side int) net.HardwareAddr {
	return net.HardwareAddr{0x02, 0xdb, byte(link >> 16), byte(link >> 8), byte(link), byte(side)}
}

func (n *Node) address(iface string, addrs ...netip.Addr) {
	for _, a := range addrs {
		n.Addresses = append(n.Addresses, Address{Index: n.ifaces[iface], Addr: a})
	}
}

// onInterface is how many addresses an interface is given. More of them are the node's own by routes: the kernel compares every new address
// of an interface with all it has, and ten thousand take minutes.
const onInterface = 256

// own gives a node any number of addresses.
func (n *Node) own(iface string, addrs []netip.Addr) {
	few := min(len(addrs), onInterface)
	n.address(iface, addrs[:few]...)
	n.Owned = append(n.Owned, exact(addrs[few:])...)
}

func (n *Node) route(iface string, to ...netip.Prefix) {
	for _, p := range to {
		n.Routes = append(n.Routes, Route{To: p, Index: n.ifaces[iface]})
	}
}

func (n *Node) defaultRoute(iface string) { n.route(iface, everywhere...) }

func (n *Node) guard(iface string) { n.Filter.Guarded = append(n.Filter.Guarded, iface) }

var everywhere = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}

// single turns addresses into the prefixes that hold nothing else.
func single(addrs []netip.Addr) []netip.Prefix {
	out := make([]netip.Prefix, len(addrs))
	for i, a := range addrs {
		out[i] = netip.PrefixFrom(a, a.BitLen())
	}
	return out
}
