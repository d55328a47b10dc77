package suite

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"sync"
	"time"

	"drawbridge/features/driver"
	"drawbridge/features/oracle"
	"drawbridge/features/platform"
	"drawbridge/topology"
)

// rehearse runs the selected scenarios before any enforcer does, with an enforcer and a lab on paper in which everything comes as the
// oracle says: what the features say and the oracle contradicts, or cannot be played at all, shows here.
func (r *runner) rehearse(ctx context.Context) error {
	cfg := r.Config
	cfg.Progress, cfg.Recorder, cfg.Mutants = nil, nil, nil
	cfg.ReportDir, cfg.Output, cfg.Format, cfg.Lanes, cfg.Lattice = "", io.Discard, "progress", 0, false
	p := &paper{world: cfg.World}
	cfg.Lab, cfg.Enforcer = p, p
	play := &runner{Config: cfg, conductor: newConductor(cfg.World, p, p), lanes: newLanes(1), policies: map[string]driver.Document{}}
	p.conductor = play.conductor
	play.conductor.driver, _ = p.Describe(ctx, "") // on paper, it cannot fail
	play.report = &Report{Started: cfg.Now(), Profiles: cfg.Profiles}
	if cfg.Profiles == nil {
		play.report.Profiles = play.conductor.driver.Profiles
	}
	var err error
	if play.order, err = Select(r.Features, play.selection()); err != nil {
		return err
	}
	broken := play.godog(ctx)
	var wrong []error
	for _, s := range play.report.Scenarios {
		if s.Result != Passed {
			wrong = append(wrong, fmt.Errorf("%s: %s: %s", s.File, s.Name, s.Error))
		}
	}
	if len(wrong) > 0 && ctx.Err() == nil {
		return fmt.Errorf("%w: no enforcer was run:\n%w", errRehearsal, limited(wrong))
	}
	return broken
}

var errRehearsal = errors.New("the features and the oracle do not agree")

// paper is an enforcer and a lab in which everything is as the oracle says.
type paper struct {
	world     *topology.World
	conductor *conductor // whose state it is

	mu          sync.Mutex
	generations int
}

// Describe claims everything, so that every scenario is played.
func (p *paper) Describe(context.Context, string) (driver.Description, error) {
	return driver.Description{
		Name: "rehearsal", Version: "1", Profiles: []string{driver.Core, driver.Extended}, ForceTLS: driver.FirstBytes, Revoke: driver.Cut, Run: true,
	}, nil
}

// Apply is never called: the conductor asks the paper for its answer to a state.
func (p *paper) Apply(context.Context, driver.Document) (driver.Receipt, error) {
	return driver.Receipt{}, errors.New("a rehearsal has no enforcer")
}

// Interrupt is never answered: on paper, every change is killed before it began.
func (p *paper) Interrupt(context.Context, driver.Document, time.Duration) (driver.Receipt, bool, error) {
	return driver.Receipt{}, true, nil
}

func (p *paper) Crash(context.Context, string) (bool, error)     { return true, nil }
func (p *paper) Tamper(context.Context, string, Tampering) error { return nil }

// Submit refuses whatever it gets: scenarios hand over mistakes only.
func (p *paper) Submit(_ context.Context, point string, _ []byte) (driver.Receipt, error) {
	return driver.Receipt{}, &driver.Refused{Point: point, Stderr: everyPlace}
}

// everyPlace names the place of every mistake there is.
const everyPlace = "frobnicate engine version endpoints port databases region rule cidr internet_accessibility"

func (p *paper) answer(state *platform.State, point string) (driver.Receipt, error) {
	at, _ := p.world.Point(point)
	p.mu.Lock() // several points are asked at once
	p.generations++
	generation := p.generations
	p.mu.Unlock()
	r := driver.Receipt{Point: point, Generation: fmt.Sprint(generation)}
	for _, name := range at.Databases {
		d, _ := p.world.Database(name)
		if why := oracle.Refusal(d.Model, state.Of(name)); why != "" {
			return driver.Receipt{}, &driver.Refused{Point: point, Stderr: why}
		}
		if oracle.Warned(state.Of(name)) {
			r.Warnings = append(r.Warnings, "database "+name+" is open to everyone")
		}
	}
	return r, nil
}

func (p *paper) Reset(context.Context, string) error                 { return nil }
func (p *paper) Baseline(context.Context) error                      { return nil }
func (p *paper) TakeStock() error                                    { return nil }
func (p *paper) Err() error                                          { return nil }
func (p *paper) Sound() error                                        { return nil }
func (p *paper) Settle([]string) []string                            { return nil }
func (p *paper) Outlast(context.Context, []string) ([]string, error) { return nil, nil }

func (p *paper) Connect(_ context.Context, attempts []oracle.Connection) ([]Outcome, error) {
	out := make([]Outcome, len(attempts))
	for i, a := range attempts {
		v, err := p.expect(a)
		if err != nil {
			return nil, err
		}
		out[i] = p.outcome(a, v)
	}
	return out, nil
}

// expect is the oracle's verdict, or served where no policy is in force.
func (p *paper) expect(a oracle.Connection) (oracle.Verdict, error) {
	if p.conductor.free[a.To.Point] {
		return oracle.Verdict{Class: oracle.Served}, nil
	}
	return oracle.Expect(p.conductor.state, a)
}

// onPaper is the client's end of every connection.
var onPaper = netip.AddrPortFrom(netip.IPv4Unspecified(), 1)

func (p *paper) outcome(a oracle.Connection, v oracle.Verdict) Outcome {
	if v.Class != oracle.Served {
		return Outcome{Finding: Denied, Verdict: v.Class.String(), Arrived: true, Passed: v.Talk, Local: onPaper}
	}
	node := a.To.Node
	if d, _ := p.world.Database(a.To.Database); d.Model == topology.Dedicated && a.To.Kind != topology.WayRound {
		node = p.conductor.state.Primary(d.Name)
	}
	return Outcome{Finding: Served, Verdict: "served", Arrived: true, Passed: true, Local: onPaper, SeenFrom: onPaper, Node: node}
}

func (p *paper) Hold(_ context.Context, c oracle.Connection) (Session, Outcome, error) {
	v, err := p.expect(c)
	if err != nil || v.Class != oracle.Served {
		return nil, p.outcome(c, v), err
	}
	return &paperSession{p.conductor, c, p.conductor.free[c.To.Point]}, p.outcome(c, v), nil
}

// paperSession is a held connection.
type paperSession struct {
	conductor *conductor
	conn      oracle.Connection
	unseen    bool
}

func (s *paperSession) Exchange(context.Context) Exchange {
	if v, err := oracle.Continue(s.conductor.state, s.conn, s.unseen); err == nil && v.Class == oracle.Served {
		return Exchange{Answered: true}
	}
	return Exchange{Told: true, DatabaseClosed: true}
}

func (s *paperSession) Close() error { return nil }

func (p *paper) Replicate(context.Context, topology.Vantage, topology.Endpoint, topology.Endpoint) (Replication, error) {
	return Replication{Plain: Outcome{Finding: Denied}, TLS: Outcome{Finding: Served}, Packets: 1}, nil
}

func (p *paper) Send(_ context.Context, packets []Packet) ([]Outcome, error) {
	return slices.Repeat([]Outcome{{Finding: Denied}}, len(packets)), nil
}

func (p *paper) Loopback(context.Context, string) (string, error)                 { return "on paper", nil }
func (p *paper) Failover(context.Context, string, string) error                   { return nil }
func (p *paper) RequireTLS(string, func(netip.Addr) bool) error                   { return nil }
func (p *paper) MoveEgress(context.Context, string, netip.Addr, netip.Addr) error { return nil }

func (p *paper) Evade(_ context.Context, from topology.Vantage, to topology.Endpoint, names []string) ([]Evasion, error) {
	v, err := p.expect(oracle.Connection{From: from, To: to})
	out := make([]Evasion, len(names))
	for i, name := range names {
		out[i].Name = name
		if v.Class == oracle.Served {
			out[i].Plaintext = []byte(name)
		}
	}
	return out, err
}

func (p *paper) Endure(_ context.Context, from topology.Vantage, to []topology.Endpoint, _ bool) ([]Endured, error) {
	out := make([]Endured, len(to))
	for i, e := range to {
		v, err := p.expect(oracle.Connection{From: from, To: e, TLS: true})
		if err != nil {
			return nil, err
		}
		out[i] = Endured{What: e.Addr.String(), Served: v.Class == oracle.Served}
	}
	return out, nil
}
