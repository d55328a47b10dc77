package probe

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"time"

	"drawbridge/sim/client"
	"drawbridge/sim/endpoint"
	"drawbridge/topology"

	"golang.org/x/sync/errgroup"
)

// Probe makes one connection and concludes what became of it. A denied connection stays open and watched until Settle.
// The error is ErrSpec for a probe that cannot be made; everything else is an Observation.
func (p *Prober) Probe(ctx context.Context, spec Spec) (Observation, error) {
	all, err := p.ProbeAll(ctx, []Spec{spec})
	return all[0], err
}

// probe makes one connection, and leaves the control to the caller.
func (p *Prober) probe(ctx context.Context, spec Spec) (Observation, error) {
	t, stop, o, err := p.try(ctx, spec, nil)
	if err == nil && o.Verdict == Served {
		stop()
		p.done(t)
	}
	return o, err
}

// try makes one connection. One that was served is the caller's to end, or hold's, if given; any other is watched.
func (p *Prober) try(ctx context.Context, spec Spec, hold func(client.Session)) (*track, context.CancelFunc, Observation, error) {
	t, d, err := p.prepare(spec)
	if err != nil {
		return nil, nil, Observation{}, err
	}
	clientCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
	p.reg.add(t)
	started := time.Now()
	go p.converse(clientCtx, t, d, hold)
	c, way := p.judge(ctx, t, d.local.Addr())
	o := Observation{
		Spec: spec, Verdict: c.verdict, Way: way, By: c.by, Reason: c.reason, Local: d.local,
		Evidence: p.look(t), Started: started, Took: time.Since(started),
	}
	o.SeenFrom, o.Node = p.seenFrom(t)
	if o.Verdict != Served {
		p.keep(&watch{track: t, stop: stop, observation: o})
	}
	return t, stop, o, nil
}

// judge follows a track until its verdict is final, and says in which way it was taken.
func (p *Prober) judge(ctx context.Context, t *track, source netip.Addr) (conclusion, Way) {
	way, follow := ByFence, func() conclusion { return p.await(ctx, t, source) }
	if p.waits > 0 {
		way, follow = ByPatience, func() conclusion { return p.awaitPatiently(ctx, t) }
	}
	c := follow()
	if c.verdict == Inconclusive && ctx.Err() == nil {
		if patient, ok := p.judgeUnfenced(p.look(t), t.spec.Mode); ok {
			return p.attributed(patient, t), ByPatience
		}
	}
	if c.verdict == Served || c.by == ByDatabase {
		way = ByAnswer
	}
	return p.doubtful(p.attributed(c, t)), way
}

// attributed takes a rejection back that may have been the host's own: a reset at a database's host where nothing listens. Enforcer and
// TCP are in one kernel there, and answer with the same packet.
func (p *Prober) attributed(c conclusion, t *track) conclusion {
	where, ok := p.receiver(t.spec.To)
	if c.verdict != Rejected || !p.look(t).Reset || !ok {
		return c
	}
	switch listens, err := p.lab.Listens(where, t.spec.To.Addr); {
	case err != nil:
		return conclusion{Inconclusive, ByNobody, "it was refused at the database's host, and who listens there cannot be seen: " + err.Error(), true}
	case !listens:
		return conclusion{Inconclusive, ByNobody, "the connection was refused at the database's host, and nothing listens there: " +
			"whether the enforcer would have rejected it cannot be told", true}
	}
	return c
}

// ProbeAll makes all the probes, many at a time, and then the controls of those that were denied. It returns the observations in
// the same order. The error is that of the first probe that cannot be made.
//
// When ctx ends, no more probes are begun, and those under way are given up. They were not Tried then; what was concluded before stands, and
// has its controls.
func (p *Prober) ProbeAll(ctx context.Context, specs []Spec) ([]Observation, error) {
	return p.ProbeAllTelling(ctx, specs, func(int) {})
}

// ProbeAllTelling is ProbeAll for somebody who wants to know how far it is: tell is called after each probe, one call at a time, with how many
// are done.
func (p *Prober) ProbeAllTelling(ctx context.Context, specs []Spec, tell func(done int)) ([]Observation, error) {
	out := make([]Observation, len(specs))
	var telling sync.Mutex
	done := 0
	var group errgroup.Group
	group.SetLimit(parallel)
	if p.waits > 0 {
		group.SetLimit(max(len(specs), 1)) // nearly all of it is waiting
	}
	slots := make(chan struct{}, busy)
	for i, spec := range specs {
		slots <- struct{}{}
		group.Go(func() (err error) {
			var once sync.Once
			free := func() { once.Do(func() { <-slots }) }
			defer free()
			if ctx.Err() != nil {
				out[i] = untried(spec)
				return nil
			}
			defer time.AfterFunc(idle, free).Stop() // it waits for something: another one can have the processors
			if out[i], err = p.probe(ctx, spec); err == nil && ctx.Err() != nil && out[i].Verdict == Inconclusive {
				out[i] = untried(spec)
				return nil
			}
			telling.Lock()
			defer telling.Unlock()
			done++
			tell(done)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return out, err
	}
	p.control(ctx, out)
	return out, nil
}

// untried is all there is to say of a probe that was not made, or not to its end, because nobody wanted it any more.
func untried(spec Spec) Observation {
	return Observation{Spec: spec, Reason: "it was interrupted before it was tried to the end"}
}

// control makes canary connections, with a query, through every point at which something was denied: one for each kind of vantage
// and each family. Without them the denials were no conclusions.
func (p *Prober) control(ctx context.Context, all []Observation) {
	controls := map[gate]route{}
	for _, o := range all {
		if g, needed := p.gateOf(o); needed {
			controls[g] = route{from: o.Spec.From, point: g.point, is4: g.is4} // any of them
		}
	}
	var mu sync.Mutex
	outcome := map[gate]error{}
	var group errgroup.Group
	group.SetLimit(busy)
	for g, r := range controls {
		group.Go(func() error {
			err := <-p.fences.pass(ctx, r)
			mu.Lock()
			defer mu.Unlock()
			outcome[g] = err
			return nil
		})
	}
	_ = group.Wait() // the outcomes are in the map
	for i := range all {
		g, needed := p.gateOf(all[i])
		switch err := outcome[g]; {
		case !needed:
		case err != nil:
			all[i].Verdict, all[i].By = Inconclusive, ByNobody
			all[i].Reason = "it arrived and did not leave, but the control after it failed: " + err.Error()
		default:
			all[i].Evidence.Controlled = true
		}
	}
}

// gate is what a control stands for: all clients of a kind at one point, in one family.
type gate struct {
	point string
	is4   bool
	kind  topology.VantageKind
}

// gateOf returns the gate at which a connection was denied, and false if the enforcer did not deny it, or where no canary gets through.
func (p *Prober) gateOf(o Observation) (gate, bool) {
	to := o.Spec.To
	if p.unfenced && o.Way == ByPatience {
		return gate{}, false
	}
	return gate{to.Point, to.Addr.Addr().Is4(), p.vantages[o.Spec.From].Kind},
		o.Verdict == Dropped || o.Verdict == Rejected || o.Verdict == TLSRefused && o.By == ByEnforcer
}

// await follows a track until its verdict is final, or patience or the context ends.
func (p *Prober) await(ctx context.Context, t *track, source netip.Addr) conclusion {
	whole := ctx
	ctx, cancel := context.WithTimeout(ctx, p.patience())
	defer cancel()
	journal, stop := p.lab.Journal().Subscribe(t.port)
	defer stop()
	r := route{from: t.spec.From, source: source, point: t.point.Name, is4: source.Is4()}
	var fence <-chan error      // is under way while something arrived that has not left
	var failed <-chan time.Time // runs after a fence that failed
	var mark int
	for {
		e := p.look(t)
		c := conclude(e, t.spec.Mode, false)
		if c.final {
			return c
		}
		if e.suspect() && fence == nil && failed == nil {
			// At once: what is served may be fenced for nothing, but the runtime's timers round a shorter wait up to a millisecond.
			e, mark = t.snapshot()
			r.reach = opening
			if !e.Connected && !e.reached() && e.PayloadEntered == 0 {
				r.reach = handshake
			}
			fence = p.fences.pass(ctx, r)
		}
		select {
		case <-t.changed:
		case <-journal:
		case err := <-fence:
			fence = nil
			t.fenced(mark, err)
			if err != nil {
				failed = time.After(refence)
			}
		case <-failed:
			failed = nil
		case <-ctx.Done():
			if whole.Err() != nil {
				return interrupted
			}
			return conclude(p.look(t), t.spec.Mode, true)
		}
	}
}

// interrupted is the conclusion on what nobody wants to know any more. It has not had its time, so that what is missing says nothing.
var interrupted = conclusion{Inconclusive, ByNobody, "it was interrupted", true}

// look returns the evidence as it stands now, the database's journal included.
func (p *Prober) look(t *track) Evidence {
	e, _ := t.snapshot()
	for _, event := range p.lab.Journal().Events(t.port) {
		if event.Database != t.spec.To.Database {
			continue
		}
		e.Accepted = true
		switch event.Kind {
		case endpoint.Bytes:
			e.BytesRead = len(event.First)
		case endpoint.Query:
			e.QueryAnswered = e.QueryAnswered || containsMarker(event.Query, t.marker)
		case endpoint.Refused:
			e.RefusedByTheDB = true
		}
	}
	return e
}

// seenFrom is from where the query came, and at which node, as the database saw it; zero if none came.
func (p *Prober) seenFrom(t *track) (from netip.AddrPort, node string) {
	for _, e := range p.lab.Journal().Events(t.port) {
		if e.Kind == endpoint.Query && e.Database == t.spec.To.Database {
			from, node = e.Remote, e.Node
		}
	}
	return from, node
}

// converse plays the client: connect, negotiate, one query. hold, if given, takes over the session of a client that was
// answered; otherwise it is closed.
func (p *Prober) converse(ctx context.Context, t *track, d *dialer, hold func(client.Session)) {
	session, err := client.Open(ctx, p.dialAndTell(t, d), p.target(t.spec))
	if err != nil {
		t.failed(ctx, err)
		return
	}
	if err := session.Query(ctx, t.marker); err != nil {
		t.failed(ctx, err)
		_ = session.Close() // the query's error says it all
		return
	}
	if hold != nil {
		hold(session)
	}
	t.update(func(e *Evidence) { e.Answered = true })
	if hold == nil {
		_ = session.Close() // answered: how the goodbye went is of no interest
	}
}

// failed records why the client gave up, unless it was we who ended it.
func (t *track) failed(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	t.update(func(e *Evidence) {
		e.ClientError = err.Error()
		e.Told = told(err) || t.told.Load()
		e.NotOffered = errors.Is(err, client.ErrTLSNotOffered)
	})
}

// watch is a connection that was not served: it stays open, so that what gets through later is seen.
type watch struct {
	track       *track
	stop        context.CancelFunc
	observation Observation
}

func (p *Prober) keep(w *watch) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.watched = append(p.watched, w)
}

// Late is a connection that was denied when it was judged, and got through afterwards.
type Late struct {
	Observation Observation // as it was concluded
	Evidence    Evidence    // as it is now
}

// Settle ends the connections that were kept open since the last call, at the given enforcement points or, if none is given, at
// all, and returns those that were denied and had got further by now. Call it before a policy changes and when a scenario ends.
func (p *Prober) Settle(points ...string) []Late {
	p.mu.Lock()
	var watched, rest []*watch
	for _, w := range p.watched {
		if w.at(points) {
			watched = append(watched, w)
		} else {
			rest = append(rest, w)
		}
	}
	p.watched = rest
	p.mu.Unlock()
	var late []Late
	var wg sync.WaitGroup
	for _, w := range watched {
		if e := p.look(w.track); w.gotFurther(e) {
			late = append(late, Late{Observation: w.observation, Evidence: e})
		}
		w.track.given.Store(true)
		wg.Go(w.stop)
		p.done(w.track)
	}
	wg.Wait()
	return late
}

// at reports whether the connection is one at the given points, or at any if none is given.
func (w *watch) at(points []string) bool {
	return len(points) == 0 || slices.Contains(points, w.track.point.Name)
}

// gotFurther reports whether a denied connection's later evidence shows more at the database than the verdict rested on.
func (w *watch) gotFurther(e Evidence) bool {
	was := w.observation
	switch {
	case was.By == ByDatabase:
		return e.Answered
	case was.Verdict == Dropped, was.Verdict == Rejected:
		return e.reached() || e.Answered
	case was.Verdict == TLSRefused:
		return e.heard() || e.Answered
	}
	return false
}
