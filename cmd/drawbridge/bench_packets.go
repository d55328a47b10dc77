//go:build !operator

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"drawbridge/cmd/drawbridge/internal/bench"
	"drawbridge/enforcer"
	"drawbridge/sim/fabric"
	"drawbridge/sim/link"
	"drawbridge/sim/nat"
	"drawbridge/sim/netns"

	"golang.org/x/sys/unix"
)

// packetDatabases is how many databases the policy has at most that packets are measured with.
const packetDatabases = 1000

// workers is how many clients connect at the same time, each to a database of its own: an endpoint admits 10,000 connections in a
// second and no more. The databases are the last of the policy, which a linear chain comes to last.
const workers = 4

// packetLength is what a run takes without a firewall, about; the other runs do the same work.
const packetLength = 200 * time.Millisecond

// packetRounds is how many rounds of packets there are for each round of the rest: they are short, and differ by little.
const packetRounds = 5

// noFirewall is the floor of packets.
const noFirewall = "no firewall"

var clientAddr = netip.MustParseAddr("198.19.0.1") // in oneMore

// packets measures connections and round trips, through nothing, ours, and a linear chain.
func (b *comparer) packets(ctx context.Context) error {
	n := slices.Min(b.databases)
	for _, size := range b.databases {
		if size <= packetDatabases {
			n = max(n, size)
		}
	}
	g := bench.Gateway{Databases: n, Last: map[int][]netip.Prefix{}, Plaintext: true}
	for _, i := range served(n) {
		g.Last[i] = []netip.Prefix{oneMore}
	}
	roads, err := b.roads(ctx, g)
	defer func() {
		for _, r := range roads {
			_ = r.Close() // nothing is left to be measured
		}
	}()
	if err != nil {
		return err
	}
	size := fmt.Sprintf("%s databases of %d rules", bench.Thousands(n), bench.RulesEach)
	plan := b.plan
	plan.Rounds *= packetRounds
	connect := bench.Task{
		Group: "Packets", Name: "connect and close behind " + size,
		Metrics: []bench.Metric{{Name: "rate", Unit: "connections/s", More: true}, {Name: metricProcessor, Unit: "µs a connection"}},
	}
	if n == packetDatabases {
		connect.Aims = []bench.Aim{{Metric: "rate", Against: noFirewall, Limit: bench.Goal}}
	}
	exchange := bench.Task{
		Group: "Packets", Name: "a request and its answer behind " + size,
		Metrics: []bench.Metric{{Name: metricTime, Unit: "µs"}, {Name: metricProcessor, Unit: "µs"}},
	}
	if err := b.travel(ctx, plan, connect, roads, (*road).connects, connectValues); err != nil {
		return err
	}
	return b.travel(ctx, plan, exchange, roads, (*road).exchanges, exchangeValues)
}

// served are the databases that workers connect to: the last ones.
func served(n int) (all []int) {
	for i := max(0, n-workers); i < n; i++ {
		all = append(all, i)
	}
	return all
}

// reachable are the databases that have a server: the served ones, and the first, to which the policy does not let the client in.
func reachable(n int) []int {
	if n <= workers {
		return served(n)
	}
	return append(served(n), 0)
}

// trip is what n things took.
type trip struct {
	spent
	n int
}

func connectValues(t trip) bench.Values {
	return bench.Values{"rate": float64(t.n) / t.elapsed.Seconds(), metricProcessor: micros(t.processor) / float64(t.n)}
}

func exchangeValues(t trip) bench.Values {
	return bench.Values{metricTime: micros(t.elapsed) / float64(t.n), metricProcessor: micros(t.processor) / float64(t.n)}
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// travel measures a task over all roads, as much work on each as fills a run on the first, which has no firewall.
func (b *comparer) travel(ctx context.Context, plan bench.Plan, t bench.Task, roads []*road, run func(*road, int) (trip, error), values func(trip) bench.Values) error {
	n := 10 * workers
	for _, length := range []time.Duration{packetLength / 4, packetLength} { // the first warms up
		made, err := run(roads[0], n)
		if err != nil {
			return err
		}
		n = max(int(float64(n)*float64(length)/float64(made.elapsed)), workers)
	}
	for _, r := range roads {
		c := bench.Contender{Name: r.name, Kind: r.kind, Absent: r.absent}
		c.Run = func(context.Context) (bench.Values, error) {
			made, err := run(r, n)
			if err != nil {
				return nil, err
			}
			return values(made), nil
		}
		t.Contenders = append(t.Contenders, c)
	}
	return b.measure(ctx, plan, t)
}

// road is a client's namespace, a server's that is its own gateway, and one link between them.
type road struct {
	name           string
	kind           bench.Kind
	absent         string
	client, server *netns.Handle
	translation    *nat.Table
	targets        []netip.AddrPort
	listeners      []int
}

// roads builds one road for each firewall, that without one first.
func (b *comparer) roads(ctx context.Context, g bench.Gateway) (roads []*road, err error) {
	document, err := g.Document()
	if err != nil {
		return nil, err
	}
	linear, err := b.file("packets.iptables", g.Linear())
	if err != nil {
		return nil, err
	}
	restore := func(program string) func(*netns.Handle) error {
		return func(ns *netns.Handle) error { _, err := b.exec(ctx, ns, "", program, linear); return err }
	}
	for _, r := range []struct {
		road
		install func(*netns.Handle) error
	}{
		{road{name: noFirewall, kind: bench.Floor}, func(*netns.Handle) error { return nil }},
		{road{name: byEnforcer, kind: bench.Ours}, func(ns *netns.Handle) error {
			return ns.Do(func() error { _, err := enforcer.Apply(ctx, document, enforcer.Options{}); return err })
		}},
		{road{name: "iptables-nft, linear", kind: bench.Peer, absent: b.absent("iptables-nft-restore")}, restore("iptables-nft-restore")},
		{road{name: "iptables-legacy, linear", kind: bench.Peer, absent: b.absent("iptables-legacy-restore")}, restore("iptables-legacy-restore")},
	} {
		one := r.road
		roads = append(roads, &one)
		if one.absent != "" {
			continue
		}
		if err := one.build(g); err != nil {
			return roads, fmt.Errorf("%s: %w", r.name, err)
		}
		err := r.install(one.server)
		if err == nil {
			err = one.prove(ctx, g)
		}
		if err != nil && r.kind != bench.Peer {
			return roads, fmt.Errorf("%s: %w", r.name, err)
		}
		if err != nil {
			one.absent = "cannot be installed: " + err.Error()
		}
	}
	return roads, nil
}

// build makes the namespaces and the link, the translation of a gateway, and the listeners.
func (r *road) build(g bench.Gateway) (err error) {
	if r.client, err = netns.New(); err != nil {
		return err
	}
	if r.server, err = netns.New(); err != nil {
		return err
	}
	if err := r.connectEnds(g); err != nil {
		return err
	}
	var filter fabric.Filter
	for _, i := range reachable(g.Databases) {
		filter.Destination = append(filter.Destination, fabric.DestinationNAT{From: g.Endpoint(i), To: g.Node(i)})
	}
	if r.translation, err = nat.Install(r.server, filter); err != nil {
		return err
	}
	for _, i := range reachable(g.Databases) {
		fd, err := r.listen(g.Node(i))
		if err != nil {
			return err
		}
		r.listeners = append(r.listeners, fd)
	}
	for _, i := range served(g.Databases) {
		r.targets = append(r.targets, g.Endpoint(i))
	}
	return nil
}

// proofPatience is how long a connection may take that must be denied: one that is not takes some 50 µs.
const proofPatience = 300 * time.Millisecond

// errNotEnforced: what a road is said to have is not what is in force there.
var errNotEnforced = errors.New("the firewall does not do what it is measured for")

// prove connects where the policy lets the client in, and where it does not.
func (r *road) prove(ctx context.Context, g bench.Gateway) error {
	c, err := r.client.Dial(ctx, netip.AddrPort{}, r.targets[0])
	if err != nil {
		return err
	}
	if err := c.Close(); err != nil {
		return err
	}
	fd, err := accept(r.listeners[0])
	if err != nil {
		return err
	}
	if err := unix.Close(fd); err != nil || r.kind == bench.Floor || g.Databases <= workers {
		return err
	}
	denied, cancel := context.WithTimeout(ctx, proofPatience)
	defer cancel()
	if c, err = r.client.Dial(denied, netip.AddrPort{}, g.Endpoint(0)); err == nil {
		return errors.Join(errNotEnforced, c.Close())
	}
	return ctx.Err()
}

// connectEnds links both namespaces, gives each its addresses, and sends everything else to the other.
func (r *road) connectEnds(g bench.Gateway) error {
	const index = 2
	client := link.Device{Namespace: r.client.Fd(), Name: "eth0", Index: index, MAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}}
	server := link.Device{Namespace: r.server.Fd(), Name: "eth0", Index: index, MAC: net.HardwareAddr{2, 0, 0, 0, 0, 2}}
	addresses := []netip.Addr{}
	for _, i := range reachable(g.Databases) {
		addresses = append(addresses, g.Node(i).Addr())
	}
	for _, end := range []struct {
		ns        *netns.Handle
		device    link.Device
		peer      net.HardwareAddr
		addresses []netip.Addr
	}{{r.client, client, server.MAC, []netip.Addr{clientAddr}}, {r.server, server, client.MAC, addresses}} {
		conn, err := link.Open(end.ns)
		if err != nil {
			return err
		}
		var b link.Batch
		if end.ns == r.client {
			b.Veth(client, server)
		}
		b.Up(index)
		for _, a := range end.addresses {
			b.Address(index, a)
		}
		b.Neighbours(index, end.peer)
		b.Route(netip.MustParsePrefix("0.0.0.0/0"), index)
		if err := errors.Join(conn.Run(&b), conn.Close()); err != nil {
			return err
		}
	}
	return nil
}

// Close takes the road away.
func (r *road) Close() error {
	var errs []error
	for _, fd := range r.listeners {
		errs = append(errs, unix.Close(fd))
	}
	if r.translation != nil {
		errs = append(errs, r.translation.Close())
	}
	return errors.Join(append(errs, r.client.Close(), r.server.Close())...)
}
