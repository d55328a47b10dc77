package probe

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"drawbridge/sim"
	"drawbridge/sim/capture"
	"drawbridge/sim/client"
	"drawbridge/sim/netns"
	"drawbridge/topology"

	"golang.org/x/sync/errgroup"
)

// Times that bound a probe. None of them is waited for where an event can decide.
const (
	// defaultPatience: how long a probe waits for evidence before it is given up as inconclusive. Longer than the first
	// retransmission of a SYN (1 s), so that one lost packet does not end a probe.
	defaultPatience = 5 * time.Second
	// lossyPatience is the same where packets do get lost: beyond a SYN-ACK's fifth repetition, after 31 s (RFC 6298 section 5.5;
	// net.ipv4.tcp_synack_retries), which is the last and the most that a client waits for that has nothing to say itself. With one packet
	// in fifty lost, six pairs in a row come to one connection in some hundred million.
	lossyPatience = 35 * time.Second
	// refence: how long after a fence that failed, which may have taken no time at all, the next one is sent.
	refence = 10 * time.Millisecond
	// idle: a probe that has not been concluded by then waits for something, and needs no processor meanwhile.
	idle = 20 * time.Millisecond
)

// How many probes run at once: busy of those that keep a processor occupied, so that none waits for its turn for longer than it
// takes, and parallel of all, those included that wait.
const (
	busy     = 3
	parallel = 48
)

// ErrSpec says that a probe cannot be made as asked: a vantage, source or target that the lab does not have.
var ErrSpec = errors.New("no such probe")

// Prober makes probes in one lab. It is safe for concurrent use.
type Prober struct {
	lab        *sim.Lab
	world      *topology.World
	points     map[string]*watchpoint
	vantages   map[string]topology.Vantage
	tapOf      map[string]*capture.Tap         // by enforcement point
	canaries   map[canaryKey]topology.Endpoint // the world is immutable: every fence needs one
	reg        registry
	fences     fences
	processors *processors
	stream     streamPorts
	taken      map[uint16]bool // ports on which servers listen: a stream's packet from one would pass for a server's
	nextMark   atomic.Uint64
	said       annals
	// least is how long a probe waits for evidence at least; see patience.
	least time.Duration
	waits time.Duration // JudgeByPatience; 0: by fence
	// unfenced: see JudgeUnfencedByPatience.
	unfenced bool
	readers  sync.WaitGroup
	unwatch  func() // ends the watching of the wires

	mu      sync.Mutex
	watched []*watch
}

// New opens the taps of every enforcement point of the lab. Close releases them.
func New(ctx context.Context, lab *sim.Lab) (*Prober, error) {
	p := &Prober{
		lab: lab, world: lab.World(), least: defaultPatience,
		points: map[string]*watchpoint{}, vantages: map[string]topology.Vantage{},
		tapOf: map[string]*capture.Tap{}, taken: map[uint16]bool{},
		reg: registry{tracks: map[uint16]*track{}},
	}
	var err error
	if p.processors, err = openProcessors(); err != nil {
		return nil, err
	}
	p.fences.run = func(ctx context.Context, r route) error {
		p.processors.sweep()
		return p.fence(ctx, r)
	}
	p.unwatch = lab.WatchLosses(p.lose)
	p.canaries = canaries(p.world)
	for _, e := range append(p.world.Endpoints(), p.world.Bypasses()...) {
		p.taken[e.Addr.Port()] = true
	}
	prepared := map[string]bool{}
	for _, v := range p.world.Vantages() {
		p.vantages[v.Name] = v
		if prepared[v.Namespace] {
			continue
		}
		prepared[v.Namespace] = true
		if err := lab.PrepareVantages(v.Namespace); err != nil {
			return nil, errors.Join(err, p.Close())
		}
	}
	if err := p.watch(ctx); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

// tapsAtOnce is how many taps are opened or closed side by side. Each waits until the kernel is done with a change everywhere, and it can
// be done with many at once.
const tapsAtOnce = 64

// watch opens the tap of every enforcement point, and starts sorting what they show.
func (p *Prober) watch(ctx context.Context) error {
	points := p.world.Points()
	taps := make([]*capture.Tap, len(points))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(tapsAtOnce)
	for i, point := range points {
		g.Go(func() (err error) {
			if err := ctx.Err(); err != nil {
				return err
			}
			taps[i], err = p.open(point.Name, len(points))
			return err
		})
	}
	err := g.Wait()
	for i, tap := range taps {
		if tap == nil {
			continue
		}
		w := newWatchpoint(points[i])
		p.points[w.Name], p.tapOf[w.Name] = w, tap
		packets, _ := tap.Subscribe(nil)
		p.readers.Go(func() { p.sort(w, packets) })
	}
	return err
}

// open opens the tap of an enforcement point, out of so many.
func (p *Prober) open(point string, of int) (*capture.Tap, error) {
	ns, ok := p.lab.Node(point)
	if !ok {
		return nil, fmt.Errorf("%w: enforcement point %q is not in the lab", ErrSpec, point)
	}
	tap, err := capture.OpenShare(ns, of)
	if err != nil {
		return nil, fmt.Errorf("watch enforcement point %s: %w", point, err)
	}
	return tap, nil
}

// Tap returns the tap of an enforcement point, for others who want to see what passes there. Close closes it.
func (p *Prober) Tap(point string) (*capture.Tap, bool) {
	tap, ok := p.tapOf[point]
	return tap, ok
}

// sort hands the packets of one tap to their tracks, until the tap is closed.
func (p *Prober) sort(w *watchpoint, packets <-chan capture.Packet) {
	for packet := range packets {
		if t := p.reg.of(packet.Flow.Src, packet.Flow.Dst); t != nil && t.point == w {
			t.see(packet)
		}
	}
}

// patience is how long a probe waits for evidence.
func (p *Prober) patience() time.Duration {
	if p.lab.Lossy() {
		return max(p.least, lossyPatience)
	}
	if d := p.lab.Delay(); 2*d < repetition { // beyond, a client's TCP gives up on answers that are under way: there is nothing to wait for
		return p.least + trips*d
	}
	return p.least
}

// lose notes that a wire dropped a packet of a probe.
func (p *Prober) lose(packet capture.Packet) {
	if t := p.reg.of(packet.Flow.Src, packet.Flow.Dst); t != nil {
		t.lost(packet)
	}
}

// Close ends all watched connections and the taps. Its error says if a tap lost packets, which makes what was concluded from
// it worthless.
func (p *Prober) Close() error {
	p.Settle()
	p.unwatch()
	taps := slices.Collect(maps.Values(p.tapOf))
	errs := make([]error, len(taps))
	var g errgroup.Group
	g.SetLimit(tapsAtOnce)
	for i, tap := range taps {
		g.Go(func() error { errs[i] = tap.Close(); return nil })
	}
	_ = g.Wait() // what went wrong is in errs
	p.readers.Wait()
	p.processors.close()
	return errors.Join(errs...)
}

// Err returns an error once a tap lost packets: denials concluded since are not to be trusted.
func (p *Prober) Err() error {
	for _, tap := range p.tapOf {
		if err := tap.Err(); err != nil {
			return fmt.Errorf("the lab lost sight of packets: %w", err)
		}
	}
	return p.lab.WiresErr()
}

// port returns a source port that is the caller's until release. The journal knows nothing of it.
func (p *Prober) port() (uint16, error) {
	port, err := p.lab.Ports().Probes.Take()
	if err == nil {
		p.lab.Journal().Forget(port)
	}
	return port, err
}

// release gives ports back. What the journal holds of them has been read.
func (p *Prober) release(ports ...uint16) { p.lab.Ports().Probes.Give(ports...) }

// done ends the observation of a track, whose port another probe may have then.
func (p *Prober) done(t *track) {
	t.over.Do(func() {
		p.reg.remove(t)
		p.release(t.port)
	})
}

// mark returns a string that occurs in no other probe's query.
func (p *Prober) mark() string { return fmt.Sprintf("%s%08d", markerText, p.nextMark.Add(1)) }

// markerText begins every marker: a capture is searched for it.
const markerText = "drawbridge-marker-"

// prepare resolves a spec to a track and the way to dial it. The caller ends the track with done.
func (p *Prober) prepare(spec Spec) (*track, *dialer, error) {
	v, ok := p.vantages[spec.From]
	if !ok {
		return nil, nil, fmt.Errorf("%w: the world has no vantage %q", ErrSpec, spec.From)
	}
	point, ok := p.points[spec.To.Point]
	if !ok {
		return nil, nil, fmt.Errorf("%w: %s is at no enforcement point of this world", ErrSpec, spec.To.Database)
	}
	if spec.Mode != Plain && spec.Mode != TLS {
		return nil, nil, fmt.Errorf("%w: neither plain nor TLS", ErrSpec)
	}
	source, err := sourceOf(v, spec)
	if err != nil {
		return nil, nil, err
	}
	ns, ok := p.lab.Node(v.Namespace)
	if !ok {
		return nil, nil, fmt.Errorf("%w: vantage %q has no namespace", ErrSpec, v.Name)
	}
	port, err := p.port()
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", spec, err)
	}
	d := &dialer{ns: ns, local: netip.AddrPortFrom(source, port), remote: spec.To.Addr}
	p.said.note(port, spec)
	return newTrack(spec, port, p.mark(), point), d, nil
}

// sourceOf picks the source address: the one asked for, if the vantage owns it, or its own of the target's family.
func sourceOf(v topology.Vantage, spec Spec) (netip.Addr, error) {
	want4 := spec.To.Addr.Addr().Is4()
	if !spec.Source.IsValid() {
		for _, a := range v.Addresses {
			if a.Is4() == want4 {
				return a, nil
			}
		}
		return netip.Addr{}, fmt.Errorf("%w: %s has no address of the family of %s", ErrSpec, v.Name, spec.To.Addr)
	}
	if spec.Source.Is4() != want4 {
		return netip.Addr{}, fmt.Errorf("%w: source %s and target %s are of different families", ErrSpec, spec.Source, spec.To.Addr)
	}
	if v.Owns(spec.Source) {
		return spec.Source, nil
	}
	return netip.Addr{}, fmt.Errorf("%w: %s is not an address of %s", ErrSpec, spec.Source, v.Name)
}

// dialer opens the one TCP connection of a probe in its vantage's namespace.
type dialer struct {
	ns            *netns.Handle
	local, remote netip.AddrPort
}

func (d *dialer) dial(ctx context.Context) (net.Conn, error) {
	return d.ns.Dial(ctx, d.local, d.remote)
}

// groups keep a probe's ClientHello in one segment: an enforcer that has to see a handshake begin may cost a longer one a
// retransmission, and hundreds of probes would wait for it.
var groups = []tls.CurveID{tls.X25519, tls.CurveP256}

// target describes the database's end for the client.
func (p *Prober) target(spec Spec) client.Target {
	return client.Target{
		Engine: spec.To.Engine, Addr: spec.To.Addr, TLS: spec.Mode == TLS, Cluster: p.clusterOnly(spec.To),
		RootCAs: p.lab.CA(), ServerName: spec.To.Addr.Addr().String(), Groups: groups, KeyLog: p.keyLog(spec.To),
	}
}

// keyLog is where the client logs its keys: nowhere, if the server does so itself and before it uses them.
func (p *Prober) keyLog(to topology.Endpoint) io.Writer {
	if p.lab.RealServer(to.Node) != nil {
		return p.lab.Keys()
	}
	return nil
}

// clusterOnly reports whether a port is one on which only the nodes of the cluster speak to each other.
func (p *Prober) clusterOnly(to topology.Endpoint) bool {
	db, ok := p.world.Database(to.Database)
	return ok && slices.ContainsFunc(db.ClusterPorts, func(c topology.ClusterPort) bool {
		return c.Port == to.Addr.Port() && !c.Shared
	})
}
