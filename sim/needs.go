package sim

import (
	"drawbridge/sim/ability"
	"drawbridge/sim/fabric"
	"drawbridge/sim/stray"
	"drawbridge/topology"
)

// What a lab opens.
const (
	perNode     = 3   // the namespace, a routing socket while it is built, a netlink socket for its translation
	perListener = 1   // a port of a database's node
	perPoint    = 3   // a tap, one for a capture, and an ear for its ruleset
	forItself   = 256 // what a process needs anyway, and connections
)

// Needs returns what a lab of the world takes at most, its embedded servers and a prober included.
func Needs(w *topology.World) ability.Needs { return needs(w, Options{}) }

func needs(w *topology.World, opts Options) ability.Needs {
	plan := fabric.New(w)
	n := ability.Needs{Namespaces: len(plan.Nodes), Descriptors: forItself + perNode*len(plan.Nodes) + perPoint*len(w.Points())}
	sockets := map[serverKey]bool{}
	for _, d := range w.Databases() {
		for _, node := range d.Nodes {
			for _, l := range d.Listeners(node) {
				sockets[serverKey{node.Listener(), l.Port}] = true
			}
		}
	}
	n.Descriptors += perListener * len(sockets)
	for _, p := range w.Points() {
		if p.Model == topology.Dedicated && !opts.WithoutStray {
			n.Descriptors += stray.Sockets(strayAt(w, p.Name))
		}
	}
	return n
}
