package sim

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"drawbridge/sim/capture"
	"drawbridge/sim/fabric"
	"drawbridge/sim/impair"
	"drawbridge/sim/netns"
	"drawbridge/topology"

	"golang.org/x/sync/errgroup"
)

// impaired are the wires of a lab. The zero value has none and is ready.
type impaired struct {
	lossy atomic.Bool // a packet may get lost, or could have

	mu     sync.Mutex
	yard   *netns.Handle        // where the wires' far ends are; nil until there is one
	wires  map[int]*impair.Wire // by the link's place in the plan
	closed bool

	watching sync.RWMutex
	next     int
	watchers map[int]func(capture.Packet)
}

// Impaired is a link with what its wire does and has done.
type Impaired struct {
	Link
	Impairment impair.Impairment
	// Outwards is what became of packets from the link's first node, Inwards of those towards it.
	Outwards, Inwards impair.Counts
}

// Approaches returns the links by which everybody comes to an enforcement point, but for the nodes behind it: each way from a client to a
// database has exactly one of them.
func (l *Lab) Approaches() []Link {
	var out []Link
	links := l.Links()
	for i, p := range l.plan.Links {
		if l.approaches(p) {
			out = append(out, links[i])
		}
	}
	return out
}

func (l *Lab) approaches(p fabric.Link) bool {
	for _, point := range l.world.Points() {
		for _, i := range point.Interfaces {
			at := func(e fabric.End) bool { return e.Node == point.Name && e.Name == i.Name }
			if i.Zone != topology.ZoneCluster && (at(p.A) || at(p.Z)) {
				return true
			}
		}
	}
	return false
}

// Impair has a link lose, delay and reorder packets from now on, in both directions; either end names it. An impairment that does nothing makes
// it an ordinary link again. Nothing changes at an enforcement point: the wire is laid at the other end.
func (l *Lab) Impair(node, iface string, i impair.Impairment) error {
	p, err := l.linkAt(node, iface)
	if err == nil {
		err = l.impair(slices.IndexFunc(l.plan.Links, func(o fabric.Link) bool { return o.A.Node == p.A.Node && o.A.Name == p.A.Name }), i)
	}
	if err != nil {
		return fmt.Errorf("impair: %w", err)
	}
	return nil
}

// ImpairApproaches is Impair for all Approaches.
func (l *Lab) ImpairApproaches(ctx context.Context, i impair.Impairment) error {
	g, ctx := errgroup.WithContext(ctx)
	for n, p := range l.plan.Links {
		if l.approaches(p) {
			g.Go(func() error { return errors.Join(context.Cause(ctx), l.impair(n, i)) })
		}
	}
	return g.Wait()
}

func (l *Lab) impair(link int, i impair.Impairment) error {
	if err := i.Check(); err != nil {
		return err
	}
	m := &l.impaired
	m.mu.Lock()
	defer m.mu.Unlock()
	w := m.wires[link]
	switch {
	case m.closed:
		return netns.ErrClosed
	case i.None() && w != nil:
		delete(m.wires, link)
		return errors.Join(w.Err(), w.Close())
	case i.None():
		return nil
	}
	if i.Loss > 0 {
		m.lossy.Store(true)
	}
	if w != nil {
		return w.Change(i)
	}
	return l.lay(link, i)
}

// lay lays the first wire of a link. The lock is held.
func (l *Lab) lay(link int, i impair.Impairment) (err error) {
	m := &l.impaired
	if m.yard == nil {
		if m.yard, err = netns.New(); err != nil {
			return err
		}
		m.wires = map[int]*impair.Wire{}
	}
	end := l.hooked(l.plan.Links[link])
	w, err := impair.Lay(m.yard, impair.End{Node: l.nodes[end.Node], Name: end.Name, Index: end.Index, MAC: end.MAC}, uint64(link), i, m.tell)
	if err != nil {
		return fmt.Errorf("node %s: %w", end.Node, err)
	}
	m.wires[link] = w
	return nil
}

// hooked is the end of a link at which its wire is laid: the one that is no enforcement point, or the first.
func (l *Lab) hooked(p fabric.Link) fabric.End {
	if _, ok := l.world.Point(p.A.Node); ok {
		return p.Z
	}
	return p.A
}

// Impaired returns the links that have a wire.
func (l *Lab) Impaired() []Impaired {
	m := &l.impaired
	m.mu.Lock()
	defer m.mu.Unlock()
	links := l.Links()
	var out []Impaired
	for _, n := range slices.Sorted(maps.Keys(m.wires)) {
		x := Impaired{Link: links[n], Impairment: m.wires[n].Impairment()}
		x.Outwards, x.Inwards = m.wires[n].Counts()
		if p := l.plan.Links[n]; l.hooked(p).Node == p.Z.Node {
			x.Outwards, x.Inwards = x.Inwards, x.Outwards
		}
		out = append(out, x)
	}
	return out
}

// Lossy reports whether the lab's wires lose packets, or did at any time: what did not arrive may never have been seen by any enforcer.
func (l *Lab) Lossy() bool { return l.impaired.lossy.Load() }

// Delay is the longest time that a packet takes on one link.
func (l *Lab) Delay() (longest time.Duration) {
	m := &l.impaired
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, w := range m.wires {
		longest = max(longest, w.Impairment().Delay)
	}
	return longest
}

// WatchLosses has a function called for every packet that a wire drops, at once and by one goroutine for each direction of each link; it must
// be quick. Outgoing is set for packets from the link's hooked end. stop ends that.
func (l *Lab) WatchLosses(lost func(capture.Packet)) (stop func()) {
	m := &l.impaired
	m.watching.Lock()
	defer m.watching.Unlock()
	if m.watchers == nil {
		m.watchers = map[int]func(capture.Packet){}
	}
	m.next++
	n := m.next
	m.watchers[n] = lost
	return func() {
		m.watching.Lock()
		defer m.watching.Unlock()
		delete(m.watchers, n)
	}
}

// tell passes on what a wire has dropped.
func (m *impaired) tell(x impair.Loss) {
	p, err := capture.Decode(slices.Clone(x.Frame))
	if err != nil {
		return // nothing that anybody waits for
	}
	p.At, p.Outgoing = time.Now(), x.Out
	m.watching.RLock()
	defer m.watching.RUnlock()
	for _, lost := range m.watchers {
		lost(p)
	}
}

// WiresErr returns an error once a wire did what it was not asked for: what is missing since proves nothing.
func (l *Lab) WiresErr() error {
	m := &l.impaired
	m.mu.Lock()
	defer m.mu.Unlock()
	var errs []error
	for _, n := range slices.Sorted(maps.Keys(m.wires)) {
		if err := m.wires[n].Err(); err != nil {
			errs = append(errs, fmt.Errorf("node %s: %w", l.hooked(l.plan.Links[n]).Node, err))
		}
	}
	return errors.Join(errs...)
}

func (m *impaired) close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	var g errgroup.Group
	for _, w := range m.wires {
		g.Go(w.Close) // the kernel waits for all processors each time; it can do so for all at once
	}
	err := g.Wait()
	m.wires = nil
	return errors.Join(err, m.yard.Close())
}
