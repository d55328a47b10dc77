package suite

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"drawbridge/features/oracle"
	"drawbridge/sim/probe"
	"drawbridge/topology"
)

// Forge lets the lab's edges pass what the vantage forges for as long as it takes.
func (l *simulated) Forge(ctx context.Context, from topology.Vantage, name netip.Addr, to topology.Endpoint) (_ Forgery, err error) {
	if err := l.letForge(from.Namespace, 1); err != nil {
		return Forgery{}, err
	}
	defer func() { err = errors.Join(err, l.letForge(from.Namespace, -1)) }()
	f, err := l.prober.Forge(ctx, probe.ForgeSpec{From: from.Name, Claims: name, To: to})
	if err != nil {
		return Forgery{}, err
	}
	return Forgery{Passed: f.Passed, Opened: f.Accepted, Bytes: f.Bytes, Careful: l.lab.RealServer(to.Node) != nil}, nil
}

// letForge counts who forges at a node: scenarios run side by side.
func (l *simulated) letForge(node string, more int) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.forging == nil {
		l.forging = map[string]int{}
	}
	l.forging[node] += more
	return l.lab.AllowForged(node, l.forging[node] > 0)
}

// Flood sends from the first IPv4 network of the vantage.
func (l *simulated) Flood(ctx context.Context, from topology.Vantage, to topology.Endpoint, syns int) (Flooded, error) {
	for _, n := range from.Networks {
		if n.Addr().Is4() {
			f, err := l.prober.Flood(ctx, probe.FloodSpec{From: from.Name, Sources: n, To: to, SYNs: syns})
			return Flooded{Passed: f.Passed, Tracked: f.Tracked, Began: f.Began, Ended: f.Ended}, err
		}
	}
	return Flooded{}, wrongFeature("%s has no IPv4 network to flood from", from.Name)
}

func (b *bounded) Forge(ctx context.Context, from topology.Vantage, name netip.Addr, to topology.Endpoint) (Forgery, error) {
	if err := b.allows(oracle.Connection{From: from, To: to}); err != nil {
		return Forgery{}, fmt.Errorf("in the name of %s: %w", name, err)
	}
	return b.Lab.Forge(ctx, from, name, to)
}

func (b *bounded) Flood(ctx context.Context, from topology.Vantage, to topology.Endpoint, syns int) (Flooded, error) {
	if err := b.allows(oracle.Connection{From: from, To: to}); err != nil {
		return Flooded{}, err
	}
	return b.Lab.Flood(ctx, from, to, syns)
}
