package probe

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/gopacket/gopacket/layers"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"drawbridge/sim/capture"
	"drawbridge/sim/netns"
	"drawbridge/sim/ports"
	"drawbridge/topology"
)

// FloodSpec is a flood of connection attempts, over IPv4 (SPEC X-10).
type FloodSpec struct {
	From    string       // name of the vantage
	Sources netip.Prefix // of its own networks; every attempt has another address or port
	To      topology.Endpoint
	SYNs    int
}

// Flooded is what became of a flood. The zero value never began.
type Flooded struct {
	Sent int // what the lab's wires dropped is left out
	// Passed is how many of its packets were seen to leave the enforcement point towards the database, or to be answered by it.
	Passed int
	// Tracked is how many of its attempts were left in the point's connection tracking at the end.
	Tracked      int
	Began, Ended time.Time
}

// hosts is how many addresses of a network a flood comes from: those between the first and the last.
func hosts(network netip.Prefix) int {
	return max(1<<(network.Addr().BitLen()-network.Bits())-2, 1)
}

// floodMark is in the sequence number of every SYN of a flood, where those of streams have zeroes.
const floodMark = 8

// floodAhead is how many SYNs may be on their way at once. One that is let in is six packets at a gateway; a processor queues a thousand
// (net.core.netdev_max_backlog) and drops what is beyond, whosever it is; a capture ring holds eight thousand, and what it loses makes
// every verdict worthless.
const floodAhead = 64

// Flood sends SYNs as fast as the enforcement point takes them in, and returns once all have arrived there and a fence after them came
// through.
func (p *Prober) Flood(ctx context.Context, spec FloodSpec) (Flooded, error) {
	v, ok := p.vantages[spec.From]
	point, at := p.points[spec.To.Point]
	if !ok || !at || !spec.Sources.Addr().Is4() || !spec.To.Addr.Addr().Is4() || spec.SYNs <= 0 {
		return Flooded{}, fmt.Errorf("%w: a flood of %d from %s in %s to %s", ErrSpec, spec.SYNs, spec.Sources, spec.From, spec.To.Addr)
	}
	if _, err := sourceOf(v, Spec{Source: spec.Sources.Addr(), To: spec.To}); err != nil {
		return Flooded{}, err
	}
	ns, ok := p.lab.Node(v.Namespace)
	gate, here := p.lab.Node(spec.To.Point)
	if !ok || !here {
		return Flooded{}, fmt.Errorf("%w: %s or %s has no namespace", ErrSpec, v.Namespace, spec.To.Point)
	}
	sender, err := newSYNSender(ns, spec.Sources.Addr())
	if err != nil {
		return Flooded{}, err
	}
	defer func() { _ = sender.close() }() // nothing can be lost with it
	f := &flood{spec: spec, point: point, sender: sender, more: make(chan struct{}, 1), width: 1 + (spec.SYNs-1)/hosts(spec.Sources)}
	if f.width > ports.Floods.Size() {
		return Flooded{}, fmt.Errorf("%w: %d SYNs are more than a flood from %s can tell apart", ErrSpec, spec.SYNs, spec.Sources)
	}
	if f.first, err = p.lab.Ports().Floods.TakeRow(f.width); err != nil {
		return Flooded{}, err
	}
	defer p.giveBack(f)
	_, stop := p.tapOf[spec.To.Point].Subscribe(func(c capture.Packet) bool { f.see(c); return false })
	defer stop()
	defer p.lab.WatchLosses(f.lose)()
	out := Flooded{Began: time.Now()}
	if err := f.run(ctx, p.patience()); err != nil {
		return Flooded{}, err
	}
	if err := <-p.fences.pass(ctx, route{from: spec.From, point: spec.To.Point, is4: true}); err != nil {
		return Flooded{}, err
	}
	out.Ended, out.Sent, out.Passed = time.Now(), spec.SYNs-int(f.lost.Load()), int(f.passed.Load())
	out.Tracked, err = f.tracked(gate)
	return out, err
}

// giveBack ends a flood's hold on its ports. Those that were not used for the longest time are the next flood's: what this one left in
// connection tracking is not that one's.
func (p *Prober) giveBack(f *flood) {
	for i := range f.width {
		p.lab.Ports().Floods.Give(f.first + uint16(i))
	}
}

// MatchConntrackFlow reports whether a tracked connection is one of the flood's attempts (netlink.CustomConntrackFilter).
func (f *flood) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool {
	source, _ := netip.AddrFromSlice(flow.Forward.SrcIP)
	return f.ours(netip.AddrPortFrom(source.Unmap(), flow.Forward.SrcPort)) && flow.Forward.DstPort == f.spec.To.Addr.Port()
}

type flood struct {
	spec            FloodSpec
	point           *watchpoint
	sender          *synSender
	first           uint16 // of width ports
	width           int
	more            chan struct{} // room for one token: some have arrived
	entered, passed atomic.Int64
	lost            atomic.Int64 // on the lab's wires
}

// lose takes a packet that a wire dropped.
func (f *flood) lose(c capture.Packet) {
	if f.ours(c.Flow.Src) && c.Flags.Has(capture.SYN) {
		f.lost.Add(1)
		f.wake()
	}
}

func (f *flood) wake() {
	select {
	case f.more <- struct{}{}:
	default: // a token is there already
	}
}

// see takes a packet of the enforcement point's tap.
func (f *flood) see(c capture.Packet) {
	switch from, to := c.Flow.Src, c.Flow.Dst; {
	case f.ours(from) && !c.Outgoing:
		f.entered.Add(1)
	case f.ours(from) && !c.Flags.Has(capture.RST), f.ours(to) && c.Flags.Has(capture.SYN|capture.ACK) && f.point.fromDatabase(c):
		f.passed.Add(1)
		return
	default:
		return
	}
	f.wake()
}

func (f *flood) ours(a netip.AddrPort) bool {
	return a.Port() >= f.first && int(a.Port()) < int(f.first)+f.width && f.spec.Sources.Contains(a.Addr())
}

// run sends everything, never too far ahead of what has arrived. But for what a wire says that it dropped, no packet of a flood may get lost on
// the way; patience bounds the wait for one.
func (f *flood) run(ctx context.Context, patience time.Duration) error {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for sent := 0; ; {
		for ; sent < f.spec.SYNs && int64(sent)-f.entered.Load()-f.lost.Load() < floodAhead; sent++ {
			source, port := f.source(sent)
			if err := f.sender.write(source, &layers.TCP{SrcPort: layers.TCPPort(port), Seq: uint32(sent)<<4 | floodMark, SYN: true}, f.spec.To.Addr); err != nil {
				return err
			}
		}
		if f.entered.Load()+f.lost.Load() >= int64(f.spec.SYNs) {
			return nil
		}
		timer.Reset(patience)
		select {
		case <-f.more:
		case <-timer.C:
			return fmt.Errorf("%w: of %d SYNs from %s %d arrived at %s", ErrFence, sent, f.spec.From, f.entered.Load(), f.spec.To.Point)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// source is the n-th attempt's address and port.
func (f *flood) source(n int) (netip.Addr, uint16) {
	hosts := hosts(f.spec.Sources)
	base := f.spec.Sources.Masked().Addr().As4()
	var a [4]byte
	binary.BigEndian.PutUint32(a[:], binary.BigEndian.Uint32(base[:])+1+uint32(n%hosts))
	return netip.AddrFrom4(a), f.first + uint16(n/hosts)
}

// tracked counts the flood's attempts in a namespace's connection tracking (net/netfilter/nf_conntrack_netlink.c) and has them forgotten:
// they would stay for minutes, and make everything slower that looks at the table.
func (f *flood) tracked(h *netns.Handle) (n int, err error) {
	err = h.Do(func() error {
		conn, err := netlink.NewHandle(unix.NETLINK_NETFILTER) // one socket for thousands of requests
		if err != nil {
			return fmt.Errorf("conntrack socket at %s: %w", f.spec.To.Point, err)
		}
		defer conn.Close()
		forgotten, err := conn.ConntrackDeleteFilters(netlink.ConntrackTable, unix.AF_INET, f)
		if err != nil {
			return fmt.Errorf("forget tracked connections at %s: %w", f.spec.To.Point, err)
		}
		n = int(forgotten)
		return nil
	})
	return n, err
}
