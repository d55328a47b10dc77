//go:build !operator

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"runtime/debug"
	"time"

	"drawbridge/cmd/drawbridge/internal/bench"
	"drawbridge/sim"
	"drawbridge/sim/link"
	"drawbridge/sim/netns"
	"drawbridge/topology"

	"golang.org/x/sync/errgroup"
)

// Metrics of a lab, and the goals for it.
const (
	metricUp     = "up"
	metricVerify = "every host connects, IPv4 and IPv6"
	metricDown   = "down"
	metricMemory = "memory"

	mostMemory   = 512  // KiB a host
	mostRootless = 1.25 // of what it takes as root
	mostGone     = 1000 // ms after SIGKILL
)

// asRoot is what a lab without privileges is compared with.
const asRoot = "the same as root"

// lab measures networks of so many hosts.
func (b *comparer) lab(ctx context.Context) error {
	b.summary.Notes = append(b.summary.Notes, "Memory of a host is what slabs, per-processor data, page tables and kernel stacks of the machine "+
		"(/proc/meminfo) and the proportional set of all processes of the benchmark (/proc/PID/smaps_rollup) grew by, divided by the hosts: "+
		"what else the machine does is in it")
	for _, n := range b.hosts {
		world, err := bench.Crowd(n)
		if err != nil {
			return err
		}
		for _, t := range []bench.Task{b.buildTask(n, world), b.rootlessTask(n), b.goneTask(n)} {
			if err := b.measure(ctx, b.plan, t); err != nil {
				return err
			}
		}
	}
	return nil
}

func hosts(n int) string { return bench.Thousands(n) + " hosts" }

func (b *comparer) buildTask(n int, world *topology.World) bench.Task {
	mininet := b.absent("mn", "brctl")
	if mininet == "" && n > bench.MininetMost {
		mininet = fmt.Sprintf("a Linux bridge has %s ports at most", bench.Thousands(bench.MininetMost))
	}
	t := bench.Task{
		Group: "Lab", Name: hosts(n),
		Metrics: []bench.Metric{{Name: metricUp, Unit: "ms"}, {Name: metricVerify, Unit: "ms"}, {Name: metricDown, Unit: "ms"}, {Name: metricMemory, Unit: "KiB a host"}},
		Contenders: []bench.Contender{
			{Name: byEnforcer, Kind: bench.Ours, Run: settled(func(ctx context.Context) (bench.Values, error) { return buildLab(ctx, world, n) })},
			{Name: "namespaces and links alone", Kind: bench.Floor, Run: settled(func(ctx context.Context) (bench.Values, error) { return buildFloor(ctx, n) })},
			{Name: "ip -batch", Kind: bench.Peer, Absent: b.absent("ip"), Run: settled(func(ctx context.Context) (bench.Values, error) { return b.buildByIP(ctx, n) })},
			{Name: "mininet, one bridge, IPv4 alone", Kind: bench.Peer, Absent: mininet, Run: settled(func(ctx context.Context) (bench.Values, error) { return b.buildByMininet(ctx, n) })},
		},
		Aims: []bench.Aim{{Metric: metricMemory, Limit: mostMemory}},
	}
	for _, tool := range b.tools {
		t.Contenders = append(t.Contenders, bench.Contender{Name: tool.name, Kind: bench.Peer,
			Run: settled(func(ctx context.Context) (bench.Values, error) { return b.buildBy(ctx, n, tool) })})
	}
	return t
}

// settled waits, when a run is over, until the kernel is done with the namespaces that it left.
func settled(run func(context.Context) (bench.Values, error)) func(context.Context) (bench.Values, error) {
	return func(ctx context.Context) (bench.Values, error) {
		v, err := run(ctx)
		return v, errors.Join(err, settle(ctx))
	}
}

// built takes the times of a lab while it goes up and down, and its memory in between.
type built struct {
	values bench.Values
	began  time.Time
	memory int64
	hosts  int
}

func build(hosts int) (*built, error) {
	debug.FreeOSMemory() // what earlier measurements left is none of this one's
	memory, err := memoryInUse()
	return &built{values: bench.Values{}, memory: memory, hosts: hosts, began: time.Now()}, err
}

// done notes what a step took, and begins the next one.
func (m *built) done(metric string) error {
	m.values[metric] = millis(time.Since(m.began))
	if metric == metricUp {
		now, err := memoryInUse()
		if err != nil {
			return err
		}
		m.values[metricMemory] = float64(now-m.memory) / 1024 / float64(m.hosts)
	}
	m.began = time.Now()
	return nil
}

func buildLab(ctx context.Context, world *topology.World, n int) (bench.Values, error) {
	m, err := build(n)
	if err != nil {
		return nil, err
	}
	l, err := sim.Up(ctx, world, sim.Options{})
	if err != nil {
		return nil, err
	}
	if err := m.done(metricUp); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	connections, err := l.Verify(ctx)
	if err == nil && connections < 2*n {
		err = fmt.Errorf("%d connections for %d hosts", connections, n)
	}
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	_ = m.done(metricVerify) // takes no memory, and cannot fail
	err = l.Close()
	_ = m.done(metricDown)
	return m.values, err
}

// buildFloor creates the namespaces and one link of each to a router, in as few calls as there can be, and nothing else.
func buildFloor(ctx context.Context, n int) (bench.Values, error) {
	m, err := build(n)
	if err != nil {
		return nil, err
	}
	all, err := netns.Spawn(ctx, n+1, nil)
	if err != nil {
		return nil, err
	}
	err = star(all)
	if err == nil {
		err = m.done(metricUp)
	}
	for _, h := range all {
		err = errors.Join(err, h.Close())
	}
	_ = m.done(metricDown)
	return m.values, err
}

// star links the first namespace with each of the others.
func star(all []*netns.Handle) error {
	conn, err := link.Open(all[0])
	if err != nil {
		return err
	}
	const first = 2 // behind lo
	var b link.Batch
	for i, h := range all[1:] {
		mac := func(side byte) net.HardwareAddr { return net.HardwareAddr{2, side, 0, 0, byte(i >> 8), byte(i)} }
		b.Veth(link.Device{Namespace: all[0].Fd(), Name: fmt.Sprint("l", i), Index: first + i, MAC: mac(0)},
			link.Device{Namespace: h.Fd(), Name: "eth0", Index: first, MAC: mac(1)})
	}
	return errors.Join(conn.Run(&b), conn.Close())
}

// buildByIP runs ip -batch for the router, which creates everything, and once for what each host does itself.
func (b *comparer) buildByIP(ctx context.Context, n int) (bench.Values, error) {
	create, members, end := bench.IPLab(n)
	router, err := netns.New()
	if err != nil {
		return nil, err
	}
	defer router.Close()
	m, err := build(n)
	if err != nil {
		return nil, err
	}
	if _, err := b.exec(ctx, router, create, "ip", "-batch", "-"); err != nil {
		return nil, err
	}
	g, each := errgroup.WithContext(ctx)
	g.SetLimit(runtime.NumCPU())
	for _, h := range members {
		g.Go(func() error { _, err := b.exec(each, router, h.Batch, "ip", "-n", h.Name, "-batch", "-"); return err })
	}
	err = g.Wait()
	if err == nil {
		err = m.done(metricUp)
	}
	_, ended := b.exec(ctx, router, end, "ip", "-batch", "-")
	_ = m.done(metricDown)
	return m.values, errors.Join(err, ended)
}
