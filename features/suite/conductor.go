package suite

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"drawbridge/features/driver"
	"drawbridge/features/oracle"
	"drawbridge/features/platform"
	"drawbridge/topology"
)

// conductor keeps the platform, the lab's fabric and the enforcer in step. It belongs to one goroutine; others at other points
// share its books.
type conductor struct {
	*books
	world    *topology.World
	lab      Lab
	enforcer Enforcer
	driver   driver.Description
	ground   ground // the points that are its own

	defaults *platform.State // what every scenario begins with
	state    *platform.State // what is in force now
	dirty    map[string]bool // points that differ from the defaults, or may
	free     map[string]bool // points at which no policy is in force
	under    *transition     // what is tried all the time, if anything is
}

func newConductor(w *topology.World, lab Lab, enforcer Enforcer) *conductor {
	start := platform.Start(w)
	return &conductor{
		books: &books{receipts: map[string]driver.Receipt{}, asked: map[string]driver.Document{}, inForce: map[string]driver.Document{}},
		world: w, lab: lab, enforcer: enforcer, ground: everywhere(w), defaults: start, state: start.Clone(),
		dirty: map[string]bool{}, free: map[string]bool{},
	}
}

// within returns a conductor for some points that are at their defaults.
func (c *conductor) within(g ground) *conductor {
	in := &conductor{
		books: c.books, world: c.world, lab: &bounded{c.lab, c.world, g}, enforcer: c.enforcer, driver: c.driver, ground: g,
		defaults: c.defaults, state: c.defaults.Clone(), dirty: map[string]bool{}, free: map[string]bool{},
	}
	if p, ok := c.enforcer.(*paper); ok { // what it says follows from the state of whoever asks
		p.conductor = in
	}
	return in
}

// begin asks the enforcer what it is, checks the lab without it, and brings the defaults into force everywhere.
func (c *conductor) begin(ctx context.Context) error {
	points := c.points()
	if len(points) == 0 {
		return fmt.Errorf("world %s has no enforcement point", c.world.Name())
	}
	about, err := c.enforcer.Describe(ctx, points[0])
	if err != nil {
		return err
	}
	c.driver = about
	if err := c.lab.Baseline(ctx); err != nil {
		return err
	}
	findings, err := c.applyDefaults(ctx, points)
	if err != nil {
		return err
	}
	return errors.Join(findings, c.canaries(ctx, points))
}

// end takes everything out of force, unless that is known not to work, and checks that the lab is then as it was at the
// beginning: restore looks at some connections to endpoints only.
func (c *conductor) end(ctx context.Context) error {
	if c.whyLost() != nil {
		return nil
	}
	if err := c.release(ctx, c.points()); err != nil {
		return err
	}
	if c.leftBehind(false) { // said where it happened; looking at everything would wait for every connection that is dropped
		return ctx.Err()
	}
	if err := c.lab.Baseline(ctx); err != nil && ctx.Err() == nil {
		if broken := c.lab.Sound(); broken != nil {
			return broken
		}
		return notConformant("after the last reset not everything is as it was before the first policy: %v", err)
	}
	return ctx.Err()
}

func (c *conductor) points() []string {
	var names []string
	for _, p := range c.world.Points() {
		names = append(names, p.Name)
	}
	return names
}

// pointsOf names the points at which a database has endpoints.
func (c *conductor) pointsOf(databases ...string) []string {
	wanted := map[string]bool{}
	for _, d := range databases {
		wanted[d] = true
	}
	var names []string
	for _, p := range c.world.Points() {
		if slices.ContainsFunc(p.Databases, func(d string) bool { return wanted[d] }) {
			names = append(names, p.Name)
		}
	}
	return names
}

// change brings a changed platform into force at the points of the given databases. If the enforcer refuses, everything
// stays as it was and the error is driver.ErrRefused.
func (c *conductor) change(ctx context.Context, next *platform.State, databases ...string) error {
	if err := c.settled(); err != nil {
		return err
	}
	points := c.pointsOf(databases...)
	if len(points) == 0 {
		return wrongFeature("the change of %v touches no enforcement point", databases)
	}
	for _, p := range points {
		if !c.ground.own[p] {
			return wrongFeature("the change of %v concerns %s, which the scenario does not name", databases, p)
		}
		c.dirty[p] = true
	}
	before, began := c.state, time.Now()
	given, err := c.apply(ctx, next, points)
	ended := time.Now()
	switch {
	case err != nil:
		return err
	case c.whyLost() != nil:
		return c.whyLost()
	case len(given.refused) == len(points):
		return errors.Join(given.words()...)
	case len(given.refused) > 0:
		return notConformant("one change was accepted at some points and refused at others:\n%v", errors.Join(given.words()...))
	}
	c.state = next
	c.under.during(window{began: began, ended: ended, before: before, after: next})
	for _, p := range points {
		delete(c.free, p)
	}
	return given.findings
}

// answers are what the driver answered at several points, none of which was broken.
type answers struct {
	refused  []*driver.Refused
	findings error // what is wrong with the receipts of policies that are in force
}

func (a answers) words() []error {
	var all []error
	for _, r := range a.refused {
		all = append(all, r)
	}
	return all
}

// apply hands a state to the driver at several points at once.
func (c *conductor) apply(ctx context.Context, state *platform.State, points []string) (answers, error) {
	var mu sync.Mutex
	var given answers
	err := each(ctx, points, func(ctx context.Context, point string) error {
		finding, err := c.applyOne(ctx, state, point)
		mu.Lock()
		defer mu.Unlock()
		if refused, ok := errors.AsType[*driver.Refused](err); ok {
			given.refused, err = append(given.refused, refused), nil
		}
		given.findings = errors.Join(given.findings, finding)
		return err
	})
	slices.SortFunc(given.refused, func(a, b *driver.Refused) int { return strings.Compare(a.Point, b.Point) })
	switch {
	case err != nil:
		return given, errors.Join(err, given.findings)
	case len(given.refused) > 0:
		return given, nil
	}
	return given, c.requireTLS(state, points)
}

// applyDefaults brings the defaults into force at some points, which no enforcer may refuse. Without an error they are in force,
// and the findings are about the receipts alone.
func (c *conductor) applyDefaults(ctx context.Context, points []string) (findings, err error) {
	given, err := c.apply(ctx, c.defaults, points)
	if err != nil {
		return nil, fmt.Errorf("the defaults could not be brought into force: %w", err)
	}
	if len(given.refused) == 0 {
		return given.findings, nil
	}
	var at []string
	for _, r := range given.refused {
		at = append(at, r.Point)
	}
	return nil, notConformant("the defaults, which must not be refused, were refused at %s:\n%v", strings.Join(at, ", "), limited(given.words()))
}

// applyOne hands a state to the driver at one point. A finding is about the receipt; the policy is in force nevertheless.
func (c *conductor) applyOne(ctx context.Context, state *platform.State, point string) (finding, err error) {
	doc, err := driver.Build(state, point)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	r, err := c.submit(ctx, state, doc)
	c.called(time.Since(began))
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked[point] = doc
	if err != nil {
		return nil, err
	}
	c.inForce[point] = doc
	c.durations = append(c.durations, r.Duration)
	if was, ok := c.receipts[point]; ok && was.Generation == r.Generation {
		finding = notConformant("point %s: the receipt names generation %s, as the one before did", point, r.Generation)
	}
	c.receipts[point] = r
	return finding, nil
}

// submit gives a policy to the enforcer; in a rehearsal, the state itself is answered.
func (c *conductor) submit(ctx context.Context, state *platform.State, doc driver.Document) (driver.Receipt, error) {
	if p, ok := c.enforcer.(*paper); ok {
		return p.answer(state, doc.Point.Name)
	}
	return c.enforcer.Apply(ctx, doc)
}

// requireTLS hands Force TLS to the database servers, if the enforcer leaves it to them.
func (c *conductor) requireTLS(state *platform.State, points []string) error {
	if c.driver.ForceTLS != driver.ByDatabase {
		return nil
	}
	for _, d := range c.databasesAt(points) {
		forced := oracle.ForcesTLS(d.Model, state.Of(d.Name))
		var nodes []netip.Addr
		for _, n := range d.Nodes {
			nodes = append(nodes, n.Addresses...)
		}
		cluster := len(d.Nodes) > 1
		err := c.lab.RequireTLS(d.Name, func(client netip.Addr) bool {
			return forced || cluster && slices.Contains(nodes, client.Unmap())
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *conductor) databasesAt(points []string) []topology.Database {
	here := map[string]bool{}
	for _, p := range c.world.Points() {
		if slices.Contains(points, p.Name) {
			for _, d := range p.Databases {
				here[d] = true
			}
		}
	}
	return slices.DeleteFunc(c.world.Databases(), func(d topology.Database) bool { return !here[d.Name] })
}

// release takes everything out of force at some points.
func (c *conductor) release(ctx context.Context, points []string) error {
	for _, p := range points {
		c.dirty[p], c.free[p] = true, true
		c.mu.Lock()
		delete(c.inForce, p)
		c.mu.Unlock()
	}
	if c.driver.ForceTLS == driver.ByDatabase {
		for _, d := range c.databasesAt(points) {
			if err := c.lab.RequireTLS(d.Name, nil); err != nil {
				return err
			}
		}
	}
	return each(ctx, points, func(ctx context.Context, point string) error {
		began := time.Now()
		defer func() { c.called(time.Since(began)) }()
		return c.enforcer.Reset(ctx, point)
	})
}

// restore brings every touched point back to the defaults by way of nothing in force at all, and checks that both work. What it
// finds wrong with the enforcer it returns; what keeps it from restoring at all it also remembers.
func (c *conductor) restore(ctx context.Context) error {
	if c.whyLost() != nil {
		return nil // said before; another call may hang as long as the last
	}
	findings := errors.Join(c.restoreFabric(ctx), c.settled())
	points := slices.Sorted(maps.Keys(c.dirty))
	if len(points) > 0 {
		findings = errors.Join(findings, c.restorePoints(ctx, points))
	}
	if err := c.lab.Err(); err != nil {
		c.lose(err)
	}
	return errors.Join(findings, c.whyLost())
}

// settled ends the watched connections: what was denied and got through since is a finding.
func (c *conductor) settled() error {
	return late(c.lab.Settle(slices.Sorted(maps.Keys(c.ground.own))))
}

// outlasted lets the clients that were denied try again. Without a conclusion about one of them there is none about the scenario.
func (c *conductor) outlasted(ctx context.Context) error {
	through, err := c.lab.Outlast(ctx, slices.Sorted(maps.Keys(c.ground.own)))
	return errors.Join(late(through), err)
}

func late(through []string) error {
	var all []error
	for _, l := range through {
		all = append(all, notConformant("denied at first, but it got through later: %s", l))
	}
	return errors.Join(all...)
}

func (c *conductor) restorePoints(ctx context.Context, points []string) error {
	if err := c.release(ctx, points); err != nil {
		c.lose(fmt.Errorf("reset failed: %w", err))
		return nil
	}
	c.state = c.defaults.Clone()
	left := c.everythingReaches(ctx, points)
	receipts, err := c.applyDefaults(ctx, points)
	if err != nil {
		c.lose(err)
	}
	clear(c.dirty)
	clear(c.free)
	return errors.Join(left, receipts)
}

// restoreFabric undoes fail-overs and moved egress addresses.
func (c *conductor) restoreFabric(ctx context.Context) error {
	for _, d := range c.world.Databases() {
		if start := c.defaults.Primary(d.Name); c.state.Primary(d.Name) != start {
			if err := c.lab.Failover(ctx, d.Name, start); err != nil {
				c.lose(fmt.Errorf("database %s could not be failed back: %w", d.Name, err))
			}
		}
	}
	for _, r := range c.world.Regions() {
		for _, from := range r.Egress {
			to, moved := c.state.Moves()[from]
			if !moved {
				continue
			}
			if err := c.lab.MoveEgress(ctx, r.Name, to, from); err != nil {
				c.lose(fmt.Errorf("region %s: egress could not be moved back: %w", r.Name, err))
			}
		}
	}
	return nil
}

// everythingReaches checks, while nothing is in force at some points, that a client of each sort reaches every endpoint there:
// an enforcer that ignores reset would make the next scenario's verdicts worthless.
func (c *conductor) everythingReaches(ctx context.Context, points []string) error {
	var attempts []oracle.Connection
	for _, e := range c.world.Endpoints() {
		if slices.Contains(points, e.Point) {
			attempts = append(attempts, c.samples(e)...)
		}
	}
	outcomes, err := c.lab.Connect(ctx, attempts)
	if err != nil {
		return err
	}
	left := map[string][]error{} // by point
	for i, o := range outcomes {
		if o.Finding == Inconclusive { // every further scenario would wait as long, and conclude as little
			c.lose(fmt.Errorf("%w after reset at %s: %s: %s", errInconclusive, attempts[i].To.Point, describe(attempts[i]), o.Detail))
		}
		if o.Finding != Served {
			c.leftBehind(true)
			at := attempts[i].To.Point
			left[at] = append(left[at], fmt.Errorf("%s: %s, %s", describe(attempts[i]), o.Verdict, o.Detail))
		}
	}
	var findings []error
	for _, at := range slices.Sorted(maps.Keys(left)) {
		findings = append(findings, notConformant("reset at %s left something in force; not served after it:\n%v", at, limited(left[at])))
	}
	_ = c.lab.Settle(points) // what was wrongly denied is reported above
	return errors.Join(findings...)
}

// samples are connections to an endpoint from one Internet host and one app, in every way its port speaks.
func (c *conductor) samples(e topology.Endpoint) []oracle.Connection {
	var all []oracle.Connection
	seen := map[topology.VantageKind]bool{topology.VantageNode: true, topology.VantagePeer: e.Kind != topology.PrivatePeeringRW}
	for _, v := range c.world.Vantages() {
		if seen[v.Kind] {
			continue
		}
		seen[v.Kind] = true
		for _, tls := range []bool{true, false} {
			if speaks(e.TLS, tls) {
				all = append(all, oracle.Connection{From: v, To: e, TLS: tls})
			}
		}
	}
	return all
}

// canaries checks that the canaries of some points are served: without them no denial can be concluded.
func (c *conductor) canaries(ctx context.Context, points []string) error {
	var attempts []oracle.Connection
	for _, e := range c.world.Endpoints() {
		d, ok := c.world.Database(e.Database)
		if !ok || !d.Canary || !slices.Contains(points, e.Point) || !speaks(e.TLS, true) {
			continue
		}
		for _, s := range c.samples(e) {
			if s.TLS {
				attempts = append(attempts, s)
			}
		}
	}
	outcomes, err := c.lab.Connect(ctx, attempts)
	if err != nil {
		return err
	}
	var findings []error
	for i, o := range outcomes {
		if o.Finding != Served {
			findings = append(findings, notConformant("a canary must be served at all times, but %s: %s, %s", describe(attempts[i]), o.Verdict, o.Detail))
		}
	}
	return limited(findings)
}

// describe names an attempt for people.
func describe(c oracle.Connection) string {
	from := c.From.Name
	if c.Source.IsValid() {
		from += " using " + c.Source.String()
	}
	how := "without TLS"
	if c.TLS {
		how = "over TLS"
	}
	return fmt.Sprintf("%s to %s at %s %s", from, c.To.Database, c.To.Addr, how)
}

// each calls do for every point at once and waits for all of them.
func each(ctx context.Context, points []string, do func(context.Context, string) error) error {
	var group errgroup.Group
	for _, p := range points {
		group.Go(func() error { return do(ctx, p) })
	}
	return group.Wait()
}
