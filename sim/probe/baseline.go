package probe

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"drawbridge/topology"

	"golang.org/x/sync/errgroup"
)

// ErrBaseline says that the lab itself keeps something from something else: nothing may be concluded in it.
var ErrBaseline = errors.New("the lab is broken: without an enforcer, every vantage must reach every endpoint")

// repetition is when a client's TCP sends a SYN again that was not answered (RFC 6298 section 2.1). In a lab that loses nothing a
// handshake takes some 50 µs. Where a wire says that it dropped a packet, repetitions are its doing.
const repetition = time.Second

// maxBaselineFailures bounds how many failures an error lists.
const maxBaselineFailures = 8

// Baseline checks that every vantage reaches every endpoint and every way round one, at the given enforcement points, or at all
// if none is given: by TCP from each, and with a query, with and without TLS, from one vantage of each kind. No enforcer may be in force.
func (p *Prober) Baseline(ctx context.Context, points ...string) error {
	targets := p.targets(points)
	var failures failureList
	var group errgroup.Group
	group.SetLimit(parallel)
	for _, v := range p.world.Vantages() {
		for _, to := range targets {
			if !p.judged(v, to) {
				continue
			}
			group.Go(func() error {
				if !failures.hopeless() {
					failures.add(p.reach(ctx, v, to))
				}
				return nil
			})
		}
	}
	_ = group.Wait() // the failures are in the list
	if failures.hopeless() {
		return failures.err()
	}
	observations, err := p.ProbeAll(ctx, p.queries(targets))
	failures.add(err)
	for _, o := range observations {
		if err == nil && o.Verdict != Served {
			failures.add(fmt.Errorf("%s: %s, %s", o.Spec, o.Verdict, o.Reason))
		}
	}
	p.Settle()
	return failures.err()
}

// targets are the endpoints and ways round at the given points.
func (p *Prober) targets(points []string) []topology.Endpoint {
	wanted := map[string]bool{}
	for _, name := range points {
		wanted[name] = true
	}
	var out []topology.Endpoint
	for _, e := range append(p.world.Endpoints(), p.world.Bypasses()...) {
		if len(points) == 0 || wanted[e.Point] {
			out = append(out, e)
		}
	}
	return out
}

// judged reports whether a connection counts: the families meet, and it is not from the host to itself (SPEC G-02).
func (p *Prober) judged(v topology.Vantage, to topology.Endpoint) bool {
	if _, err := sourceOf(v, Spec{To: to}); err != nil {
		return false
	}
	where, ok := p.receiver(to)
	return ok && v.Namespace != where
}

// reach makes a bare TCP connection and waits until the right database has accepted it.
func (p *Prober) reach(ctx context.Context, v topology.Vantage, to topology.Endpoint) error {
	t, d, err := p.prepare(Spec{From: v.Name, To: to, Mode: Plain})
	if err != nil {
		return err
	}
	defer p.done(t)
	ctx, cancel := context.WithTimeout(ctx, p.patience())
	defer cancel()
	events, stop := p.lab.Journal().Subscribe(t.port)
	defer stop()
	p.reg.add(t)
	began := time.Now()
	conn, err := d.dial(ctx)
	took := time.Since(began)
	if err != nil {
		return fmt.Errorf("%s to %s at %s: %w", v.Name, to.Database, to.Addr, err)
	}
	defer conn.Close()
	if e, _ := t.snapshot(); took >= repetition+2*p.lab.Delay() && e.Lost == 0 {
		return fmt.Errorf("%s to %s at %s: connected after %s, and its SYN came to the enforcement point %d times: packets get lost, or the machine is too busy to conclude anything",
			v.Name, to.Database, to.Addr, took.Round(time.Millisecond), e.SYNs)
	}
	if p.lab.Lossy() { // TCP repeats what it has to say, and with it the acknowledgement that the server waits for
		if _, err := conn.Write([]byte{0}); err != nil {
			return fmt.Errorf("%s to %s at %s: %w", v.Name, to.Database, to.Addr, err)
		}
	}
	for !p.look(t).Accepted {
		select {
		case <-events:
		case <-ctx.Done():
			return fmt.Errorf("%s to %s at %s: connected, but that database did not accept it (%+v)", v.Name, to.Database, to.Addr, p.look(t))
		}
	}
	return nil
}

// queries are the connections with a query: from the first vantage of every kind to every target, in every mode its port
// speaks.
func (p *Prober) queries(targets []topology.Endpoint) []Spec {
	var specs []Spec
	seen := map[topology.VantageKind]bool{}
	for _, v := range p.world.Vantages() {
		if seen[v.Kind] {
			continue
		}
		seen[v.Kind] = true
		for _, to := range targets {
			if !p.judged(v, to) {
				continue
			}
			for _, mode := range Modes(to) {
				specs = append(specs, Spec{From: v.Name, To: to, Mode: mode})
			}
		}
	}
	return specs
}

// Modes lists the modes that an endpoint's port serves when nothing is in the way.
func Modes(to topology.Endpoint) []Mode {
	switch to.TLS {
	case topology.TLSInBand, topology.TLSEither:
		return []Mode{Plain, TLS}
	case topology.TLSOnly:
		return []Mode{TLS}
	case topology.TLSNone:
		return []Mode{Plain}
	}
	return nil
}

// failureList collects errors of probes that run at once.
type failureList struct {
	mu  sync.Mutex
	all []error
}

func (f *failureList) add(err error) {
	if err == nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.all = append(f.all, err)
}

// hopeless reports whether there is no point in trying the rest, each of which may cost all of the prober's patience.
func (f *failureList) hopeless() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.all) >= parallel
}

func (f *failureList) err() error {
	if len(f.all) == 0 {
		return nil
	}
	var lines []string
	for i, err := range f.all {
		if i == maxBaselineFailures {
			lines = append(lines, fmt.Sprintf("and at least %d more", len(f.all)-i))
			break
		}
		lines = append(lines, err.Error())
	}
	return fmt.Errorf("%w\n  %s", ErrBaseline, strings.Join(lines, "\n  "))
}
