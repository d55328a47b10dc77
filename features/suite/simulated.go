package suite

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"drawbridge/features/oracle"
	"drawbridge/sim"
	"drawbridge/sim/client"
	"drawbridge/sim/probe"
	"drawbridge/topology"

	"golang.org/x/sync/errgroup"
)

// loopbackLimit bounds a connection whose outcome is not judged, and which an enforcer may well drop.
const loopbackLimit = time.Second

// errBlind says that an observer of the lab does not see what is there.
var errBlind = errors.New("the lab is broken")

// errRealServer: which clients need TLS depends on where they come from (SPEC C-03), and Redis has no setting for that.
var errRealServer = errors.New("an enforcer that leaves Force TLS to the databases cannot be judged with real servers, " +
	"which do not all tell nodes from clients: judge it with embedded ones")

// simulated is a Lab made of network namespaces.
type simulated struct {
	lab    *sim.Lab
	prober *probe.Prober

	mu      sync.Mutex
	whole   sim.Inventory  // at the first Baseline
	forging map[string]int // by node: how many are at it
}

// Simulated returns the Lab of a running sim.Lab whose servers have been started.
func Simulated(lab *sim.Lab, prober *probe.Prober) Lab { return &simulated{lab: lab, prober: prober} }

func spec(c oracle.Connection) probe.Spec {
	s := probe.Spec{From: c.From.Name, Source: c.Source, To: c.To, Mode: probe.Plain}
	if c.TLS {
		s.Mode = probe.TLS
	}
	return s
}

var findings = map[probe.Verdict]Finding{
	probe.Served: Served, probe.Dropped: Denied, probe.Rejected: Denied, probe.TLSRefused: Denied, probe.Leaked: Leaked,
}

// outcome adds to a probe's conclusion what the database's journal knows of the client.
func (l *simulated) outcome(o probe.Observation) Outcome {
	out := Outcome{
		Finding: findings[o.Verdict], Verdict: o.Verdict.String(), Way: string(o.Way), Detail: o.Reason, Local: o.Local, Took: o.Took, Evidence: o.Evidence,
		Arrived: o.Evidence.SYNEntered, Passed: o.Evidence.SYNLeft || o.Evidence.Accepted,
	}
	if o.Verdict == probe.Served {
		out.SeenFrom, out.Node = o.SeenFrom, o.Node
	}
	return out
}

// Baseline also proves that the capture between two nodes shows a marker that travels in the clear: a blind one would show
// that everything is encrypted.
func (l *simulated) Baseline(ctx context.Context) error {
	if err := l.prober.Baseline(ctx); err != nil {
		return err
	}
	if err := l.TakeStock(); err != nil {
		return err
	}
	var group errgroup.Group
	for _, d := range l.lab.World().Databases() {
		if len(d.Nodes) > 1 {
			group.Go(func() error { return l.seesMarker(ctx, d) })
		}
	}
	return group.Wait()
}

func (l *simulated) TakeStock() (err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.whole != nil {
		return nil
	}
	if l.whole, err = l.lab.Inventory(); err != nil {
		return err
	}
	for _, p := range l.lab.World().Points() { // the routes there are the enforcer's to break, and then its fault
		l.whole[p.Name] = slices.DeleteFunc(l.whole[p.Name], func(entry string) bool { return !strings.HasPrefix(entry, "tcp") })
	}
	return nil
}

func (l *simulated) Sound() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	now, err := l.lab.Inventory()
	if err != nil {
		return err
	}
	if missing := l.whole.Missing(now); len(missing) > 0 {
		return fmt.Errorf("%w: %s", errBlind, strings.Join(missing[:min(len(missing), maxShown)], "; "))
	}
	return nil
}

func (l *simulated) seesMarker(ctx context.Context, d topology.Database) error {
	plain, tls, err := replicationPorts(d, d.Nodes[0].Name)
	if err != nil {
		return err
	}
	r, err := l.prober.Replicate(ctx, d.Nodes[1].Name, plain, tls)
	switch {
	case err != nil:
		return err
	case r.Plain.Verdict != probe.Served || r.TLS.Verdict != probe.Served:
		return fmt.Errorf("%w: without an enforcer the nodes of %s do not reach each other: without TLS %s (%s), over TLS %s (%s)",
			errBlind, d.Name, r.Plain.Verdict, r.Plain.Reason, r.TLS.Verdict, r.TLS.Reason)
	case !r.MarkerSeen:
		return fmt.Errorf("%w: the capture between the nodes of %s does not show a marker that was sent in the clear", errBlind, d.Name)
	}
	return nil
}

func (l *simulated) Connect(ctx context.Context, attempts []oracle.Connection) ([]Outcome, error) {
	specs := make([]probe.Spec, len(attempts))
	for i, c := range attempts {
		specs[i] = spec(c)
	}
	observations, err := l.prober.ProbeAll(ctx, specs)
	if err != nil {
		return nil, err
	}
	out := make([]Outcome, len(observations))
	for i, o := range observations {
		out[i] = l.outcome(o)
	}
	return out, ctx.Err()
}

func (l *simulated) Hold(ctx context.Context, c oracle.Connection) (Session, Outcome, error) {
	held, o, err := l.prober.Hold(ctx, spec(c))
	if err != nil || held == nil {
		return nil, l.outcome(o), err
	}
	return session{held}, l.outcome(o), nil
}

type session struct{ *probe.Held }

func (s session) Exchange(ctx context.Context) Exchange {
	x := s.Query(ctx)
	detail := x.Error
	if x.Answered {
		detail = "answered"
	}
	return Exchange{
		Answered: x.Answered, BytesThrough: x.BytesThrough, Told: x.Told, DatabaseClosed: x.DatabaseClosed,
		Detail: fmt.Sprintf("%s, after %s", detail, x.Took),
	}
}

func (l *simulated) Replicate(ctx context.Context, from topology.Vantage, plain, tls topology.Endpoint) (Replication, error) {
	r, err := l.prober.Replicate(ctx, from.Name, plain, tls)
	if err != nil {
		return Replication{}, err
	}
	return Replication{Plain: l.outcome(r.Plain), TLS: l.outcome(r.TLS), Packets: r.Packets, MarkerSeen: r.MarkerSeen}, nil
}

func (l *simulated) Send(ctx context.Context, packets []Packet) ([]Outcome, error) {
	out := make([]Outcome, len(packets))
	var group errgroup.Group
	for i, p := range packets {
		group.Go(func() error {
			o, err := l.prober.Send(ctx, probe.PacketSpec{
				From: p.From.Name, Point: p.To.Point, To: p.To.Addr.Addr(), Proto: p.Proto, Port: p.Port,
			})
			out[i] = Outcome{Finding: deliveries[o.Delivery], Verdict: o.Delivery.String(), Detail: o.Reason, Took: o.Took}
			return err
		})
	}
	return out, group.Wait()
}

var deliveries = map[probe.Delivery]Finding{probe.Delivered: Leaked, probe.Stopped: Denied}

func (l *simulated) Loopback(ctx context.Context, database string) (string, error) {
	d, ok := l.lab.World().Database(database)
	if !ok {
		return "", fmt.Errorf("database %q: %w", database, sim.ErrUnknown)
	}
	n := d.Nodes[0]
	ns, ok := l.lab.Node(n.Listener())
	if !ok {
		return "", fmt.Errorf("node %q: %w", n.Name, sim.ErrUnknown)
	}
	lo := netip.MustParseAddr("127.0.0.1")
	to := netip.AddrPortFrom(lo, n.Port)
	limited, cancel := context.WithTimeout(ctx, loopbackLimit)
	defer cancel()
	dial := func(ctx context.Context) (net.Conn, error) { return ns.Dial(ctx, netip.AddrPortFrom(lo, 0), to) }
	s, err := client.Open(limited, dial, client.Target{Engine: d.Engine, Addr: to})
	if err == nil {
		err = errors.Join(s.Query(limited, "loopback"), s.Close())
	}
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	if err != nil {
		return "not served: " + err.Error(), nil
	}
	return "served", nil
}

func (l *simulated) Settle(points []string) []string {
	if len(points) == 0 {
		return nil // to the prober, it would mean all
	}
	return inWords(l.prober.Settle(points...))
}

func (l *simulated) Outlast(ctx context.Context, points []string) ([]string, error) {
	if len(points) == 0 {
		return nil, nil
	}
	late, err := l.prober.Outlast(ctx, points...)
	return inWords(late), err
}

func inWords(all []probe.Late) []string {
	var out []string
	for _, late := range all {
		out = append(out, fmt.Sprintf("%s: was %s (%s), then %+v", late.Observation.Spec, late.Observation.Verdict, late.Observation.Reason, late.Evidence))
	}
	return out
}

func (l *simulated) Failover(_ context.Context, database, node string) error {
	return l.lab.Failover(database, node)
}

func (l *simulated) MoveEgress(_ context.Context, region string, from, to netip.Addr) error {
	return l.lab.MoveEgress(region, from, to)
}

// RequireTLS configures every client port of every node. Ports for the cluster alone speak TLS anyway.
func (l *simulated) RequireTLS(database string, policy func(client netip.Addr) bool) error {
	d, ok := l.lab.World().Database(database)
	if !ok {
		return fmt.Errorf("database %q: %w", database, sim.ErrUnknown)
	}
	for _, n := range d.Nodes {
		if l.lab.RealServer(n.Name) != nil {
			return fmt.Errorf("%s: %w", n.Name, errRealServer)
		}
		for _, port := range d.Listeners(n) {
			server := l.lab.Server(n.Name, port.Port)
			if server == nil {
				return fmt.Errorf("node %s, port %d: no server: %w", n.Name, port.Port, sim.ErrUnknown)
			}
			server.RequireTLS(policy)
		}
	}
	return nil
}

func (l *simulated) Err() error { return l.prober.Err() }
