// Package sim builds the network of a world out of network namespaces, veth pairs, routes and address translation, and
// runs its database servers in there.
//
// A Lab must be built in a namespace of its own (see sim/netns/netnstest for tests): it needs CAP_NET_ADMIN, and
// leaves the calling process's namespace as it is. Nothing of it has a name outside the process; when the process ends, by
// whatever means, all of it is gone.
//
// The fabric denies nothing except forged sources: in a fresh Lab every vantage reaches every endpoint and every way round.
package sim

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"drawbridge/sim/ability"
	"drawbridge/sim/capture"
	"drawbridge/sim/fabric"
	"drawbridge/sim/impair"
	"drawbridge/sim/nat"
	"drawbridge/sim/netns"
	"drawbridge/sim/ports"
	"drawbridge/topology"

	"golang.org/x/sync/errgroup"
)

// Options of a Lab. The zero value is the ordinary lab.
type Options struct {
	// AllowForged switches the fabric's filter against forged sources off everywhere. It can be switched for each node later.
	AllowForged bool
	// Impairment holds for all of the lab's Approaches from the beginning; Impair changes it for each link later.
	Impairment impair.Impairment
	// WithoutStray leaves out the forgotten listeners of gateways (package stray): ten sockets for each dedicated database, which worlds of
	// thousands have not got. Whether more than its endpoints is open at such an address (SPEC X-02) can then not be told.
	WithoutStray bool
}

// ErrUnknown is returned for a node, database or region that the lab does not have.
var ErrUnknown = errors.New("not in this lab")

// Lab is a running world. It is safe for use by several goroutines.
type Lab struct {
	world *topology.World
	opts  Options
	plan  fabric.Plan
	nodes map[string]*netns.Handle // fixed once the lab is up
	nat   map[string]*nat.Table    // fixed once the lab is up
	ports ports.Pools

	impaired impaired

	mu       sync.Mutex
	primary  map[string]string // node by database
	services *services         // nil until StartServers
	closed   bool
}

// Up builds a world. When ctx ends before it is done, or anything fails, what was built is taken down again.
// The error wraps ability.ErrLimit for a world that needs more than the kernel gives; nothing is built of it.
func Up(ctx context.Context, w *topology.World, opts Options) (*Lab, error) {
	if err := ability.Fit(needs(w, opts)); err != nil {
		return nil, fmt.Errorf("build world %s: %w", w.Name(), err)
	}
	plan := fabric.New(w)
	for i := range plan.Nodes {
		plan.Nodes[i].Filter.Lenient = opts.AllowForged
	}
	l := &Lab{world: w, opts: opts, plan: plan, nodes: make(map[string]*netns.Handle), nat: make(map[string]*nat.Table), primary: make(map[string]string)}
	l.ports = ports.New(serves(w))
	for _, d := range w.Databases() {
		l.primary[d.Name] = d.Nodes[0].Name
	}
	err := l.build(ctx)
	if err == nil && !opts.Impairment.None() {
		err = l.ImpairApproaches(ctx, opts.Impairment)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("build world %s: %w", w.Name(), err), l.Close())
	}
	return l, nil
}

// Close takes the lab down: servers, translations, namespaces. Closing twice does nothing. The kernel dismantles the namespaces in
// the background, as soon as nothing else holds them: connections, captures and processes that are still inside do.
func (l *Lab) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	l.closed = true
	var g errgroup.Group
	for _, t := range l.nat {
		g.Go(t.Close) // the kernel waits for all processors to be done with each table; it can do so for all tables at once
	}
	errs := []error{l.services.close(), l.impaired.close(), g.Wait()}
	for _, h := range l.nodes {
		errs = append(errs, h.Close())
	}
	return errors.Join(errs...)
}

// serves says at which ports something listens in a world.
func serves(w *topology.World) func(uint16) bool {
	listening := make(map[uint16]bool)
	for _, e := range append(w.Endpoints(), w.Bypasses()...) {
		listening[e.Addr.Port()] = true
	}
	for _, d := range w.Databases() {
		for _, n := range d.Nodes {
			for _, at := range d.Listeners(n) {
				listening[at.Port] = true
			}
		}
	}
	return func(port uint16) bool { return listening[port] }
}

// Ports hands out the source ports of everything that is done in the lab and found again by its port.
func (l *Lab) Ports() ports.Pools { return l.ports }

// World returns the world that the lab realises.
func (l *Lab) World() *topology.World { return l.world }

// Node returns the namespace of a node, which is closed with the lab.
func (l *Lab) Node(name string) (*netns.Handle, bool) {
	h, ok := l.nodes[name]
	return h, ok
}

// Tap watches the packets of a node: for an enforcement point, where they enter and leave it. The tap is the caller's to close.
func (l *Lab) Tap(node string, ifaces ...string) (*capture.Tap, error) {
	h, ok := l.nodes[node]
	if !ok {
		return nil, fmt.Errorf("watch %s: %w", node, ErrUnknown)
	}
	t, err := capture.Open(h, ifaces...)
	if err != nil {
		return nil, fmt.Errorf("watch %s: %w", node, err)
	}
	return t, nil
}

// Nodes returns the names of all nodes, routers included, from the core outwards.
func (l *Lab) Nodes() []string {
	names := make([]string, len(l.plan.Nodes))
	for i, n := range l.plan.Nodes {
		names[i] = n.Name
	}
	return names
}

// Link is a link between two nodes; the first is nearer to the core.
type Link struct {
	Node, Interface         string
	PeerNode, PeerInterface string
}

// Links returns every link.
func (l *Lab) Links() []Link {
	links := make([]Link, len(l.plan.Links))
	for i, p := range l.plan.Links {
		links[i] = Link{Node: p.A.Node, Interface: p.A.Name, PeerNode: p.Z.Node, PeerInterface: p.Z.Name}
	}
	return links
}

// Primary returns the node that a database's endpoints at its gateway lead to now, or its first node if it is shared. It is empty for an unknown
// database.
func (l *Lab) Primary(database string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.primary[database]
}

// Failover makes another node of a dedicated database its primary (SPEC D-17): the gateway translates its endpoints to
// that node from now on, connections to the old one are forgotten.
func (l *Lab) Failover(database, node string) error {
	d, ok := l.world.Database(database)
	if !ok || d.Model != topology.Dedicated {
		return fmt.Errorf("fail over %s: no such dedicated database: %w", database, ErrUnknown)
	}
	i := slices.IndexFunc(d.Nodes, func(n topology.Node) bool { return n.Name == node })
	if i < 0 {
		return fmt.Errorf("fail over %s to %s: no such node of it: %w", database, node, ErrUnknown)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.nat[d.Gateway].Redirect(fabric.Destinations(d, d.Nodes[i])); err != nil {
		return fmt.Errorf("fail over %s to %s: gateway %s: %w", database, node, d.Gateway, err)
	}
	l.primary[database] = node
	return nil
}

// MoveEgress makes the platform change one of a region's egress addresses (SPEC D-13): what left as from leaves as to, one of
// the region's spare or other egress addresses. Connections that left as from are forgotten.
func (l *Lab) MoveEgress(region string, from, to netip.Addr) error {
	r, ok := l.world.Region(region)
	if !ok {
		return fmt.Errorf("move egress of %s: no such region: %w", region, ErrUnknown)
	}
	if !slices.Contains(r.Egress, to) && !slices.Contains(r.Spare, to) {
		return fmt.Errorf("move egress of %s to %s: no egress or spare address of that region: %w", region, to, ErrUnknown)
	}
	edge := fabric.Edge(region)
	if err := l.nat[edge].MoveSource(from, to); err != nil {
		return fmt.Errorf("move egress of %s: %s: %w", region, edge, err)
	}
	return nil
}

// EgressOf returns the addresses, one of each family at most, from which an app's Internet traffic leaves now.
func (l *Lab) EgressOf(region, app string) []netip.Addr {
	r, _ := l.world.Region(region)
	i := slices.IndexFunc(r.Apps, func(a topology.App) bool { return a.Name == app })
	if i < 0 {
		return nil
	}
	var out []netip.Addr
	for _, s := range l.nat[fabric.Edge(region)].Filter().Source {
		if slices.Contains(r.Apps[i].Addresses, s.Inside) {
			out = append(out, s.Outside)
		}
	}
	return out
}

// AllowForged switches the filter against forged sources off, or on again, for what a node sends into the fabric: at the
// other end of each of its links towards the core. A forged packet of an app passes its region's edge next, which is a node of its own in
// this respect.
func (l *Lab) AllowForged(node string, allowed bool) error {
	if _, ok := l.nodes[node]; !ok {
		return fmt.Errorf("allow forged sources from %s: %w", node, ErrUnknown)
	}
	for _, p := range l.plan.Links {
		t := l.nat[p.A.Node]
		if p.Z.Node != node || t == nil {
			continue
		}
		if err := t.Guard(p.A.Name, !allowed); err != nil && !errors.Is(err, nat.ErrUnknown) { // gateways guard nothing
			return fmt.Errorf("allow forged sources from %s: at %s: %w", node, p.A.Node, err)
		}
	}
	return nil
}
