package sim

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"time"

	"drawbridge/sim/netns"
	"drawbridge/topology"

	"golang.org/x/sync/errgroup"
)

// ErrUnverified says that a node of a lab cannot connect to where every node must be able to.
var ErrUnverified = errors.New("the lab's network is broken")

// verifyPatience bounds one connection of Verify. In a lab that loses nothing a handshake takes some 50 µs, and so even a machine that is
// busy with other things does not come near.
const verifyPatience = 10 * time.Second

// Verify connects from every node that has addresses of its own to the world's first Internet host, by TCP and in each family that
// both have: links, neighbours, routes there and back, and translations work. It returns how many connections that were. No
// enforcer may be in force. Servers need not run.
func (l *Lab) Verify(ctx context.Context) (connections int, err error) {
	receiver := l.world.Internet()[0] // a world has one
	listener, err := l.nodes[receiver.Name].Listen(ctx, netip.MustParseAddrPort("[::]:0"))
	if err != nil {
		return 0, fmt.Errorf("verify the lab: %s: %w", receiver.Name, err)
	}
	defer listener.Close()
	crossings := l.crossings(receiver, listener.Addr().(*net.TCPAddr).AddrPort().Port())
	accepted := make(chan struct{}, len(crossings))
	go acceptAll(listener, accepted)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(2 * runtime.GOMAXPROCS(0))
	for _, c := range crossings {
		g.Go(func() error { return c.connect(ctx, accepted) })
	}
	return len(crossings), g.Wait()
}

// acceptAll takes connections until the listener is closed.
func acceptAll(l net.Listener, accepted chan<- struct{}) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		_ = c.Close() // nothing was said
		accepted <- struct{}{}
	}
}

// crossing is one connection of Verify.
type crossing struct {
	node     string
	handle   *netns.Handle
	from, to netip.AddrPort
}

// crossings leaves out what no packet would leave a node for.
func (l *Lab) crossings(receiver topology.InternetHost, port uint16) []crossing {
	var out []crossing
	for _, n := range l.plan.Nodes {
		if n.Router || n.Name == receiver.Name {
			continue
		}
		for _, to := range receiver.Addresses {
			for _, from := range n.Addresses {
				if from.Addr.Is4() == to.Is4() {
					out = append(out, crossing{node: n.Name, handle: l.nodes[n.Name], from: netip.AddrPortFrom(from.Addr, 0), to: netip.AddrPortFrom(to, port)})
					break // the primary address of that family
				}
			}
		}
	}
	return out
}

// connect returns when the connection, or another one for this one, was accepted.
func (c crossing) connect(ctx context.Context, accepted <-chan struct{}) error {
	ctx, cancel := context.WithTimeout(ctx, verifyPatience)
	defer cancel()
	conn, err := c.handle.Dial(ctx, c.from, c.to)
	if err != nil {
		return fmt.Errorf("verify the lab: node %s: %w: %w", c.node, ErrUnverified, err)
	}
	defer conn.Close()
	select {
	case <-accepted:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("verify the lab: node %s: not accepted at %s: %w: %w", c.node, c.to, ErrUnverified, ctx.Err())
	}
}
