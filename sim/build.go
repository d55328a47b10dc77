package sim

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"drawbridge/sim/fabric"
	"drawbridge/sim/link"
	"drawbridge/sim/nat"
	"drawbridge/sim/netns"

	"golang.org/x/sync/errgroup"
)

// build brings up what is planned: all namespaces, then all links, then what each node knows, then the translations. Each step
// needs the one before to be complete: a link needs both its namespaces, an address its interface, and the filter against
// forged sources the routes.
func (l *Lab) build(ctx context.Context) error {
	if err := l.wire(ctx); err != nil {
		return err
	}
	return l.filter(ctx)
}

// wire makes the namespaces and the links, and closes what it opened for that: a socket for each node.
func (l *Lab) wire(ctx context.Context) (err error) {
	sites, err := l.spawn(ctx)
	defer func() {
		for _, s := range sites {
			err = errors.Join(err, s.close())
		}
	}()
	if err != nil {
		return err
	}
	for i, n := range l.plan.Nodes {
		l.nodes[n.Name] = sites[i].handle
	}
	links := make(map[string][]fabric.Link, len(sites))
	for _, p := range l.plan.Links {
		links[p.A.Node] = append(links[p.A.Node], p)
	}
	if err := parallel(ctx, sites, func(s site) error { return l.linkUp(s, links[s.node.Name]) }); err != nil {
		return err
	}
	if err := parallel(ctx, sites, configure); err != nil {
		return err
	}
	return parallel(ctx, sites, func(s site) error {
		if err := settle(s); err != nil {
			return err
		}
		if err := awaitAddresses(ctx, s.conn, s.node, func(int) bool { return true }); err != nil {
			return fmt.Errorf("node %s: %w", s.node.Name, err)
		}
		return nil
	})
}

// site is a node while it is being built.
type site struct {
	node   fabric.Node
	handle *netns.Handle
	conn   *link.Conn
}

func (s site) close() error {
	if s.conn == nil {
		return nil
	}
	return s.conn.Close()
}

// spawn creates the namespaces and does in each, while a thread is there anyway, what has to be done inside.
func (l *Lab) spawn(ctx context.Context) ([]site, error) {
	sites := make([]site, len(l.plan.Nodes))
	var fresh defaults
	handles, err := netns.Spawn(ctx, len(sites), func(i int, _ *netns.Handle) (err error) {
		sites[i].node = l.plan.Nodes[i]
		if err := fresh.apply(l.settingsFor(sites[i].node)); err != nil {
			return fmt.Errorf("node %s: %w", sites[i].node.Name, err)
		}
		if sites[i].conn, err = link.OpenHere(); err != nil {
			return fmt.Errorf("node %s: %w", sites[i].node.Name, err)
		}
		return nil
	})
	for i, h := range handles {
		sites[i].handle = h
	}
	return sites, err
}

// linkUp creates the links of which a node has the near side.
func (l *Lab) linkUp(s site, links []fabric.Link) error {
	if len(links) == 0 {
		return nil
	}
	var b link.Batch
	for _, p := range links {
		b.Veth(l.device(p.A), l.device(p.Z))
	}
	return s.run(&b)
}

func (l *Lab) device(e fabric.End) link.Device {
	return link.Device{Namespace: l.nodes[e.Node].Fd(), Name: e.Name, Index: e.Index, MAC: e.MAC}
}

// configure gives a node its addresses, neighbours and routes.
func configure(s site) error {
	b := link.Batch{Names: map[int]string{link.Loopback: "lo"}}
	describe(&b, s.node, func(int) bool { return true })
	for _, p := range s.node.Owned {
		b.Own(p)
	}
	return s.run(&b)
}

// settle has the interfaces that came up before their other ends carry packets.
func settle(s site) error {
	b := link.Batch{Names: map[int]string{}}
	for _, e := range s.node.Ends {
		b.Names[e.Index] = e.Name
		b.Settle(e.Index)
	}
	return s.run(&b)
}

// askAgain is how long the kernel gets for what it does in a queue of its own, before it is asked again: nothing says when it is through.
const askAgain = time.Millisecond

// awaitAddresses returns once packets to every address of those of a node's interfaces are taken for which of is true.
func awaitAddresses(ctx context.Context, c *link.Conn, n fabric.Node, of func(index int) bool) error {
	for _, a := range n.Addresses {
		if !of(a.Index) {
			continue
		}
		for {
			local, err := c.Local(a.Addr)
			if err != nil || local {
				if err != nil {
					return err
				}
				break
			}
			select {
			case <-time.After(askAgain):
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
	}
	return nil
}

// describe adds to a batch what a node knows by those of its interfaces for which of is true.
func describe(b *link.Batch, n fabric.Node, of func(index int) bool) {
	for _, e := range n.Ends {
		b.Names[e.Index] = e.Name
		if of(e.Index) {
			b.WithoutLinkLocal(e.Index)
			b.Up(e.Index)
			b.Neighbours(e.Index, e.Peer)
		}
	}
	for _, a := range n.Addresses {
		if of(a.Index) {
			b.Address(a.Index, a.Addr)
		}
	}
	for _, r := range n.Routes {
		if of(r.Index) {
			b.Route(r.To, r.Index)
		}
	}
}

func (s site) run(b *link.Batch) error {
	if err := s.conn.Run(b); err != nil {
		return fmt.Errorf("node %s: %w", s.node.Name, err)
	}
	return nil
}

// filter installs the fabric's own packet filter where there is one.
func (l *Lab) filter(ctx context.Context) error {
	tables := make([]*nat.Table, len(l.plan.Nodes))
	g, ctx := errgroup.WithContext(ctx)
	for i, n := range l.plan.Nodes {
		if !n.Filter.Active() {
			continue
		}
		g.Go(func() (err error) {
			if err := ctx.Err(); err != nil {
				return err
			}
			if tables[i], err = nat.Install(l.nodes[n.Name], n.Filter); err == nil && len(n.Filter.Source)+len(n.Filter.Destination) > 0 {
				err = l.nodes[n.Name].Do(func() error { return apply(soonForgetting) }) // the kernel has them once something is translated
			}
			if err != nil {
				return fmt.Errorf("node %s: %w", n.Name, err)
			}
			return nil
		})
	}
	err := g.Wait()
	for i, n := range l.plan.Nodes {
		if tables[i] != nil {
			l.nat[n.Name] = tables[i]
		}
	}
	return err
}

// parallel does a step at every node, on as many threads as there are processors, and stops at the first error.
func parallel(ctx context.Context, sites []site, step func(site) error) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for _, s := range sites {
		g.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			return step(s)
		})
	}
	return g.Wait()
}
