package topology

import (
	"fmt"
	"slices"
)

// Zone says where the traffic of an enforcement point's interface comes from. The zero value is no known zone.
type Zone string

// The zones of the fabric.
const (
	ZoneInternet Zone = "internet"
	ZoneRegional Zone = "regional"
	ZonePeering  Zone = "peering"
	ZoneCluster  Zone = "cluster"
)

// Names of the interfaces at enforcement points. The lab creates exactly these, policies name them.
const (
	InternetInterface = "inet0"
	RegionalInterface = "reg0"
	PeeringInterface  = "peer0"
)

// VPCInterface names a gateway's interface towards the i-th machine behind it, counted from 0.
func VPCInterface(i int) string { return fmt.Sprintf("vpc%d", i) }

// Interface is one network interface of an enforcement point and the zone of what arrives there.
type Interface struct {
	Name string
	Zone Zone
}

// Point is an enforcement point: the one place, a shared host or a gateway, where an enforcer runs for a set of databases.
type Point struct {
	Name       string // the name of the SharedHost or Gateway
	Model      Model
	Region     string
	Interfaces []Interface
	// Databases are the names of the databases with an endpoint at this point, the canary last.
	Databases []string
}

// Points returns every enforcement point of the world: the shared hosts, then the gateways, in document order.
func (w *World) Points() []Point {
	var points []Point
	for _, h := range w.hosts {
		points = append(points, w.hostPoint(h))
	}
	for _, g := range w.gateways {
		points = append(points, w.gatewayPoint(g))
	}
	return points
}

// Point returns the enforcement point of that name.
func (w *World) Point(name string) (Point, bool) {
	if h, ok := w.Host(name); ok {
		return w.hostPoint(h), true
	}
	if g, ok := w.Gateway(name); ok {
		return w.gatewayPoint(g), true
	}
	return Point{}, false
}

func (w *World) hostPoint(h SharedHost) Point {
	return Point{
		Name: h.Name, Model: Shared, Region: h.Region,
		Interfaces: []Interface{{InternetInterface, ZoneInternet}, {RegionalInterface, ZoneRegional}},
		Databases:  w.databasesAt(func(d Database) bool { return d.onHost(h.Name) }),
	}
}

func (w *World) gatewayPoint(g Gateway) Point {
	return Point{
		Name: g.Name, Model: Dedicated, Region: g.Region,
		Interfaces: w.gatewayInterfaces(g.Name),
		Databases:  w.databasesAt(func(d Database) bool { return d.Gateway == g.Name }),
	}
}

// Machine is what stands behind a gateway at one of its VPC interfaces: one node, or several that name the same machine.
type Machine struct {
	Name  string // of the node of the fabric
	Nodes []Node
}

// MachinesBehind returns the machines behind a gateway in the order of its VPC interfaces: that in which their nodes come, databases in
// document order, the canary last, and the nodes of each in their order.
func (w *World) MachinesBehind(gateway string) []Machine {
	var machines []Machine
	at := map[string]int{}
	for _, d := range w.databases {
		if d.Gateway != gateway {
			continue
		}
		for _, n := range d.Nodes {
			i, known := at[n.Listener()]
			if !known {
				i = len(machines)
				at[n.Listener()], machines = i, append(machines, Machine{Name: n.Listener()})
			}
			machines[i].Nodes = append(machines[i].Nodes, n.clone())
		}
	}
	return machines
}

func (w *World) gatewayInterfaces(gateway string) []Interface {
	ifaces := []Interface{{InternetInterface, ZoneInternet}}
	for i := range w.MachinesBehind(gateway) {
		ifaces = append(ifaces, Interface{VPCInterface(i), ZoneCluster})
	}
	peered := func(d Database) bool { return d.Gateway == gateway && d.Peering != nil }
	if slices.ContainsFunc(w.databases, peered) {
		ifaces = append(ifaces, Interface{PeeringInterface, ZonePeering})
	}
	return ifaces
}

func (w *World) databasesAt(here func(Database) bool) []string {
	var names []string
	for _, d := range w.databases {
		if here(d) {
			names = append(names, d.Name)
		}
	}
	return names
}

func (d Database) onHost(host string) bool {
	return slices.ContainsFunc(d.Nodes, func(n Node) bool { return n.Host == host })
}
