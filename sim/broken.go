package sim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"

	"drawbridge/sim/fabric"
	"drawbridge/sim/link"
	"drawbridge/topology"
)

// CutLink takes a link down, as if its cable were pulled: at the end that is farther from the core, whose global addresses stay. Either end
// names it.
func (l *Lab) CutLink(node, iface string) error {
	p, err := l.linkAt(node, iface)
	if err != nil {
		return fmt.Errorf("cut: %w", err)
	}
	if err := l.nodes[p.Z.Node].Do(func() error { return keepAddresses(p.Z.Name) }); err != nil {
		return fmt.Errorf("cut: node %s: %w", p.Z.Node, err)
	}
	b := link.Batch{Names: map[int]string{p.Z.Index: p.Z.Name}}
	b.Down(p.Z.Index)
	if err := l.run(p.Z.Node, &b); err != nil {
		return fmt.Errorf("cut: %w", err)
	}
	return nil
}

// MendLink brings a link up again, with all that the end which was down had lost. Mending one that is up does nothing.
func (l *Lab) MendLink(ctx context.Context, node, iface string) error {
	p, err := l.linkAt(node, iface)
	if err != nil {
		return fmt.Errorf("mend: %w", err)
	}
	if err := l.redescribe(p.Z); err != nil {
		return fmt.Errorf("mend: %w", err)
	}
	for _, e := range []fabric.End{p.A, p.Z} {
		b := link.Batch{Names: map[int]string{e.Index: e.Name}}
		b.Settle(e.Index)
		if err := l.run(e.Node, &b); err != nil {
			return fmt.Errorf("mend: %w", err)
		}
	}
	if err := l.arrive(ctx, p.Z); err != nil {
		return fmt.Errorf("mend: %s of %s: %w", p.Z.Name, p.Z.Node, err)
	}
	return nil
}

// arrive returns once packets to every address of an interface are taken.
func (l *Lab) arrive(ctx context.Context, e fabric.End) (err error) {
	c, err := link.Open(l.nodes[e.Node])
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	return awaitAddresses(ctx, c, l.planned(e.Node), func(index int) bool { return index == e.Index })
}

// redescribe configures one end of a link again.
func (l *Lab) redescribe(e fabric.End) error {
	b := link.Batch{Names: map[int]string{}, Replace: true}
	describe(&b, l.planned(e.Node), func(index int) bool { return index == e.Index })
	return l.run(e.Node, &b)
}

// ErrDeleted says that somebody has deleted one of the lab's links (ip link del). It is not made again: what was bound to it, taps for instance,
// is gone with it.
var ErrDeleted = errors.New("the link was deleted by hand, and cannot be mended; build the lab anew")

// linkAt finds a link by either end, and makes sure that it is there: it goes with either of them.
func (l *Lab) linkAt(node, iface string) (fabric.Link, error) {
	for _, p := range l.plan.Links {
		if p.A.Node == node && p.A.Name == iface || p.Z.Node == node && p.Z.Name == iface {
			return p, l.there(p.Z)
		}
	}
	return fabric.Link{}, fmt.Errorf("link %s of %s: %w", iface, node, ErrUnknown)
}

// there returns ErrDeleted unless an interface is the one that the lab made.
func (l *Lab) there(e fabric.End) error {
	return l.nodes[e.Node].Do(func() error {
		found, err := net.InterfaceByName(e.Name)
		if err != nil || found.Index != e.Index {
			return fmt.Errorf("%s of %s: %w", e.Name, e.Node, ErrDeleted)
		}
		return nil
	})
}

func (l *Lab) planned(node string) fabric.Node {
	for _, n := range l.plan.Nodes {
		if n.Name == node {
			return n
		}
	}
	return fabric.Node{}
}

// run carries a batch out in a node.
func (l *Lab) run(node string, b *link.Batch) (err error) {
	c, err := link.Open(l.nodes[node])
	if err != nil {
		return fmt.Errorf("node %s: %w", node, err)
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	if err := c.Run(b); err != nil {
		return fmt.Errorf("node %s: %w", node, err)
	}
	return nil
}

// StopServer ends the servers of a database's node, with their connections. Its address is there all the same, and refuses.
// Stopping one that is down does nothing.
func (l *Lab) StopServer(node string) error {
	_, _, s, err := l.serversOf(node)
	if err != nil {
		return fmt.Errorf("stop server: %w", err)
	}
	if err := s.stop(node); err != nil {
		return fmt.Errorf("stop server %s: %w", node, err)
	}
	return nil
}

// RestartServer starts the servers of a database's node again, if they are down; real ones with the data that they had, as after a crash. One
// node is stopped and restarted by one caller at a time.
func (l *Lab) RestartServer(ctx context.Context, node string) error {
	d, n, s, err := l.serversOf(node)
	if err != nil {
		return fmt.Errorf("start server: %w", err)
	}
	if s.runs(node) {
		return nil
	}
	if err := s.startNode(ctx, l.nodes[n.Listener()], d, n, nil); err != nil {
		return errors.Join(fmt.Errorf("start server %s: %w", node, err), s.stop(node))
	}
	return nil
}

func (l *Lab) serversOf(node string) (topology.Database, topology.Node, *services, error) {
	s := l.running()
	for _, d := range l.world.Databases() {
		for _, n := range d.Nodes {
			if n.Name == node && s != nil {
				return d, n, s, nil
			}
		}
	}
	return topology.Database{}, topology.Node{}, nil, fmt.Errorf("database node %s: %w", node, ErrUnknown)
}

func (s *services) runs(node string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key := range s.servers {
		if key.node == node {
			return true
		}
	}
	return s.real[node] != nil
}

// stop ends the servers of a node and forgets them.
func (s *services) stop(node string) error {
	s.mu.Lock()
	var closers []io.Closer
	for key, c := range s.servers {
		if key.node == node {
			closers = append(closers, c)
			delete(s.servers, key)
		}
	}
	if c := s.real[node]; c != nil {
		closers = append(closers, c)
		delete(s.real, node)
	}
	s.mu.Unlock()
	var errs []error
	for _, c := range closers {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}
