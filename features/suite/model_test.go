package suite_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"drawbridge/features/driver"
	"drawbridge/features/oracle"
	"drawbridge/features/platform"
	"drawbridge/features/suite"
	"drawbridge/topology"
	"drawbridge/topology/flow"
)

// model is an enforcer and the network around it in one: it holds policies by point and decides by the documents alone what
// becomes of a connection. Its faults make it one of the wrong enforcers that the scenarios must tell from a right one.
type model struct {
	mu      sync.Mutex
	fabric  *platform.State // moved egress addresses and primaries, as the lab would have them
	force   map[string]*driver.Document
	calls   int
	faults  faults
	about   driver.Description
	byDB    map[string]func(netip.Addr) bool
	streams []*modelStream
	pending map[string][]string // by point: denied connections that will get through late
}

type faults struct {
	acceptAll, denyAll, ignoreReset, no6, unforced, wrongRegion, keepEstablished, silent, refuseNothing, refuseAll,
	defaultsOpen, ignoreTalk, plainCluster, openCluster, openBypass, openNeighbour, ignoreRemoval, firstAddressOff, staleRange,
	staleGeneration, staleDNAT, peeringEverywhere, openPorts, forgetRule30, late, blind, deadCanary, breaks, ruleByDatabase, proxies, cutsAll, lossyLab, leavesNodesClosed, applySlow,
	evaded, impatient, gap, leaksDuring, crashOpens, tampered, leavesHalves, killOpens, acceptsMistakes, namesNoPlace, mistakesOpen, removalOpens, neverForced, forgedPass, forgedOpen, floodPasses, floodTracked, floodDelays bool
}

func newModel(f faults) *model {
	return &model{
		fabric: platform.Start(topology.Default()), force: map[string]*driver.Document{}, faults: f, byDB: map[string]func(netip.Addr) bool{},
		pending: map[string][]string{},
		about: driver.Description{
			Name: "model", Version: "1", Profiles: []string{driver.Core, driver.Extended}, ForceTLS: driver.FirstBytes, Revoke: driver.Cut, Run: true,
		},
	}
}

func (m *model) Describe(context.Context, string) (driver.Description, error) { return m.about, nil }

func (m *model) Apply(_ context.Context, doc driver.Document) (driver.Receipt, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.faults.breaks && m.calls > 20 {
		return driver.Receipt{}, &driver.Broken{Reason: driver.Hang}
	}
	r := driver.Receipt{Point: doc.Point.Name, Duration: time.Millisecond}
	if m.faults.applySlow {
		r.Duration = 10 * time.Second
	}
	for _, d := range doc.Databases {
		if why := refuse(d); why != "" && !m.faults.refuseNothing {
			return driver.Receipt{}, &driver.Refused{Point: doc.Point.Name, Stderr: why}
		}
		if m.faults.refuseAll && m.calls > 20 && !strings.HasPrefix(d.Name, driver.CanaryPrefix) && len(d.FirewallRules) > 0 {
			return driver.Receipt{}, &driver.Refused{Point: doc.Point.Name, Stderr: "no"}
		}
		for _, rule := range d.FirewallRules {
			if rule.CIDR != nil && rule.CIDR.Bits() == 0 && !m.faults.silent {
				r.Warnings = append(r.Warnings, "database "+d.Name+" is open to everyone")
			}
		}
	}
	if m.faults.gap || m.faults.leaksDuring {
		for _, s := range m.streams {
			s.all(m.faults.leaksDuring)
		}
	}
	if old := m.force[doc.Point.Name]; old != nil {
		m.spoil(old, &doc)
	}
	m.force[doc.Point.Name] = &doc
	m.calls++
	r.Generation = fmt.Sprint(m.calls)
	if m.faults.staleGeneration {
		r.Generation = "1"
	}
	return r, nil
}

// spoil makes a new policy wrong in a way that needs the old one.
func (m *model) spoil(old, doc *driver.Document) {
	if m.faults.staleRange {
		doc.ManagedRanges = old.ManagedRanges
	}
	for i := range doc.Databases {
		d, o := &doc.Databases[i], old.Databases[i]
		if m.faults.ignoreRemoval && len(o.FirewallRules) > len(d.FirewallRules) {
			d.FirewallRules = o.FirewallRules
		}
		if m.faults.removalOpens && len(o.FirewallRules) > len(d.FirewallRules) {
			all := netip.MustParsePrefix("::/0")
			d.FirewallRules = append(d.FirewallRules, driver.Rule{Type: driver.CustomRange, CIDR: &all})
		}
		if m.faults.forgetRule30 && len(d.FirewallRules) >= 30 {
			d.FirewallRules = d.FirewallRules[:29]
		}
		if m.faults.staleDNAT {
			d.Endpoints = o.Endpoints
		}
	}
}

func refuse(d driver.Database) string {
	open := d.InternetAccessibility != nil && *d.InternetAccessibility
	switch {
	case d.Model == "shared" && len(d.FirewallRules) > 0:
		return "rules on a shared database"
	case d.Model == "dedicated" && open:
		return "accessibility on a dedicated database"
	case open && (d.ForceTLS == nil || !*d.ForceTLS):
		return "accessibility without Force TLS"
	case len(d.FirewallRules) > 30:
		return "too many rules"
	}
	return ""
}

func (m *model) Reset(_ context.Context, point string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.faults.ignoreReset {
		delete(m.force, point)
	}
	return nil
}

func (m *model) Baseline(ctx context.Context) error {
	began := m.calls > 0
	if m.faults.lossyLab || m.faults.leavesNodesClosed && began {
		return errors.New("the lab is broken")
	}
	return nil
}

func (m *model) TakeStock() error { return nil }

// answer is what the model decides about one connection.
type answer struct {
	allowed bool
	talk    bool // denied for what it says
}

// decide is the network's answer, and behind it the database's own.
func (m *model) decide(c oracle.Connection) (answer, error) {
	got, err := m.enforced(c)
	a, _ := oracle.Arrive(m.fabric, c) // enforced did the same
	if by := m.byDB[c.To.Database]; err == nil && got.allowed && by != nil && !c.TLS && by(a.Source) {
		return answer{talk: true}, nil
	}
	return got, err
}

func (m *model) enforced(c oracle.Connection) (answer, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	a, err := oracle.Arrive(m.fabric, c)
	if err != nil {
		return answer{}, err
	}
	doc := m.force[c.To.Point]
	switch {
	case doc == nil, m.faults.acceptAll, m.faults.no6 && c.To.Addr.Addr().Is6():
		return answer{allowed: true}, nil
	case m.faults.denyAll && !strings.HasPrefix(c.To.Database, driver.CanaryPrefix), m.faults.deadCanary && strings.HasPrefix(c.To.Database, driver.CanaryPrefix):
		return answer{}, nil
	}
	for _, d := range doc.Databases {
		if d.Name == c.To.Database {
			return m.inForce(doc, d, a, c), nil
		}
	}
	return answer{}, fmt.Errorf("no policy for %s at %s", c.To.Database, c.To.Point)
}

func (m *model) inForce(doc *driver.Document, d driver.Database, a oracle.Arrival, c oracle.Connection) answer {
	from := slices.ContainsFunc(d.Nodes, func(n driver.Node) bool { return slices.Contains(n.Addresses, a.Source) })
	at := slices.ContainsFunc(d.Nodes, func(n driver.Node) bool { return slices.Contains(n.Addresses, c.To.Addr.Addr()) })
	cluster := slices.ContainsFunc(d.ClusterPorts, func(p driver.ClusterPort) bool { return p.Port == c.To.Addr.Port() })
	if from && at {
		return answer{allowed: (cluster && c.TLS) || ((m.faults.plainCluster || m.about.ForceTLS == driver.ByDatabase) && !c.TLS), talk: true}
	}
	i := slices.IndexFunc(d.Endpoints, func(e driver.Endpoint) bool {
		return e.Address == c.To.Addr.Addr() && e.Port == c.To.Addr.Port()
	})
	if i < 0 {
		return answer{allowed: m.faults.openBypass && !cluster || m.faults.openCluster && cluster}
	}
	force := d.Model == "dedicated"
	if d.ForceTLS != nil {
		force = *d.ForceTLS
	}
	if !m.allowed(doc, d, d.Endpoints[i], a) {
		return answer{}
	}
	if force && !c.TLS && !m.faults.unforced && !(m.faults.neverForced && d.Name == "pg-shared") && m.about.ForceTLS == driver.FirstBytes {
		return answer{talk: true}
	}
	return answer{allowed: m.endpointWorks(d, d.Endpoints[i])}
}

// endpointWorks: with a stale idea of the fabric's translation, answers get nowhere.
func (m *model) endpointWorks(d driver.Database, e driver.Endpoint) bool {
	if e.DNAT == nil {
		return true
	}
	for _, n := range d.Nodes {
		if n.Name == m.fabric.Primary(d.Name) {
			return slices.Contains(n.Addresses, e.DNAT.Address)
		}
	}
	return false
}

func (m *model) allowed(doc *driver.Document, d driver.Database, e driver.Endpoint, a oracle.Arrival) bool {
	if m.faults.defaultsOpen && d.ForceTLS == nil && d.FirewallRules == nil {
		return true
	}
	if d.Model == "shared" {
		regional := a.Zone == topology.ZoneRegional && contains(doc.Region.Networks, a.Source)
		return regional || d.InternetAccessibility != nil && *d.InternetAccessibility || m.faults.openNeighbour && slices.ContainsFunc(doc.Databases, func(o driver.Database) bool {
			return !strings.HasPrefix(o.Name, driver.CanaryPrefix) && o.InternetAccessibility != nil && *o.InternetAccessibility
		})
	}
	if e.Kind == "private-peering-rw" && a.Zone != topology.ZonePeering && !m.faults.peeringEverywhere {
		return false
	}
	rules := d.FirewallRules
	if m.faults.ruleByDatabase {
		for _, o := range doc.Databases {
			if !strings.HasPrefix(o.Name, driver.CanaryPrefix) {
				rules = append(slices.Clone(rules), o.FirewallRules...)
			}
		}
	}
	return slices.ContainsFunc(rules, func(r driver.Rule) bool { return m.covers(doc, r, a.Source) })
}

func (m *model) covers(doc *driver.Document, r driver.Rule, a netip.Addr) bool {
	if r.CIDR == nil {
		name := r.Name
		if m.faults.wrongRegion {
			name = map[string]string{"osc-fr1": "osc-secnum-fr1", "osc-secnum-fr1": "osc-fr1"}[name]
		}
		return contains(doc.ManagedRanges[name], a)
	}
	if m.faults.firstAddressOff && a == r.CIDR.Addr() && !r.CIDR.IsSingleIP() {
		return false
	}
	return r.CIDR.Contains(a)
}

func contains(all []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(all, func(n netip.Prefix) bool { return n.Contains(a) })
}

func (m *model) outcome(c oracle.Connection, a answer) suite.Outcome {
	o := suite.Outcome{Finding: suite.Denied, Verdict: "dropped", Detail: "by the model", Arrived: true, Local: netip.MustParseAddrPort("192.0.2.1:20000")}
	switch {
	case m.faults.blind:
		o = suite.Outcome{Verdict: "inconclusive", Detail: "blind"}
	case a.allowed:
		o.Finding, o.Verdict, o.Passed, o.SeenFrom, o.Node = suite.Served, "served", true, o.Local, c.To.Node
		if d, ok := m.fabric.World().Database(c.To.Database); ok && d.Model == topology.Dedicated {
			m.mu.Lock()
			o.Node = m.fabric.Primary(c.To.Database)
			m.mu.Unlock()
		}
		if m.faults.proxies {
			o.SeenFrom = netip.MustParseAddrPort("198.51.100.129:4000")
		}
	case a.talk && m.faults.ignoreTalk:
		o.Finding, o.Verdict, o.Passed = suite.Leaked, "leaked", true
	case a.talk:
		o.Verdict, o.Passed = "tls-refused", true
	}
	return o
}

func (m *model) Connect(_ context.Context, attempts []oracle.Connection) ([]suite.Outcome, error) {
	out := make([]suite.Outcome, len(attempts))
	for i, c := range attempts {
		a, err := m.decide(c)
		if err != nil {
			return nil, err
		}
		out[i] = m.outcome(c, a)
		if m.faults.late && !a.allowed {
			m.mu.Lock()
			m.pending[c.To.Point] = append(m.pending[c.To.Point], c.To.Database)
			m.mu.Unlock()
		}
	}
	return out, nil
}

func (m *model) policy(point string) *driver.Document {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.force[point]
}

type session struct {
	m      *model
	c      oracle.Connection
	unseen bool
}

func (m *model) Hold(_ context.Context, c oracle.Connection) (suite.Session, suite.Outcome, error) {
	a, err := m.decide(c)
	if err != nil || !a.allowed {
		return nil, m.outcome(c, a), err
	}
	return &session{m, c, m.policy(c.To.Point) == nil}, m.outcome(c, a), nil
}

func (s *session) Exchange(context.Context) suite.Exchange {
	a, err := s.m.decide(s.c)
	doc := s.m.policy(s.c.To.Point)
	if err == nil && a.allowed && s.unseen && doc != nil {
		for _, d := range doc.Databases {
			if d.Name == s.c.To.Database && d.ForceTLS != nil && *d.ForceTLS && d.UnknownConnections != "keep" {
				a.allowed = false
			}
		}
	}
	if (err != nil || !a.allowed || s.m.faults.cutsAll) && !s.m.faults.keepEstablished {
		return suite.Exchange{Told: true, DatabaseClosed: true, Detail: "reset"}
	}
	return suite.Exchange{Answered: true, Detail: "answered"}
}

func (s *session) Close() error { return nil }

func (m *model) Replicate(_ context.Context, from topology.Vantage, plain, tls topology.Endpoint) (suite.Replication, error) {
	var r suite.Replication
	for _, c := range []oracle.Connection{{From: from, To: plain}, {From: from, To: tls, TLS: true}} {
		a, err := m.decide(c)
		if err != nil {
			return r, err
		}
		o := m.outcome(c, a)
		r.Packets += 3
		if c.TLS {
			r.TLS = o
			continue
		}
		r.Plain, r.MarkerSeen = o, a.allowed
	}
	return r, nil
}

func (m *model) Send(_ context.Context, packets []suite.Packet) ([]suite.Outcome, error) {
	out := make([]suite.Outcome, len(packets))
	for i, p := range packets {
		out[i] = suite.Outcome{Finding: suite.Denied, Verdict: "dropped"}
		if m.faults.openPorts && p.Proto == flow.SCTP {
			out[i] = suite.Outcome{Finding: suite.Leaked, Verdict: "leaked"}
		}
	}
	return out, nil
}

func (m *model) Evade(_ context.Context, from topology.Vantage, to topology.Endpoint, names []string) ([]suite.Evasion, error) {
	a, err := m.decide(oracle.Connection{From: from, To: to})
	out := make([]suite.Evasion, len(names))
	for i, name := range names {
		out[i] = suite.Evasion{Name: name, Detail: name, OnWire: a.talk && m.faults.evaded}
		if a.allowed {
			out[i].Plaintext = []byte("plaintext")
		}
	}
	return out, err
}

func (m *model) Endure(_ context.Context, from topology.Vantage, to []topology.Endpoint, _ bool) ([]suite.Endured, error) {
	var out []suite.Endured
	for _, e := range to {
		a, err := m.decide(oracle.Connection{From: from, To: e, TLS: true})
		if err != nil {
			return nil, err
		}
		calm := suite.Endured{What: "calm at " + e.Addr.String(), Served: a.allowed}
		if m.force[e.Point] != nil && m.faults.impatient {
			calm.Retransmissions = 2
		}
		lost := suite.Endured{What: "lost at " + e.Addr.String(), Served: a.allowed, Costly: true, Retransmissions: 2}
		out = append(out, calm, lost)
	}
	return out, nil
}

func (m *model) Loopback(context.Context, string) (string, error) { return "served", nil }

func (m *model) Outlast(_ context.Context, points []string) ([]string, error) {
	return m.Settle(points), nil
}

func (m *model) Settle(points []string) []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var late []string
	for _, p := range points {
		late = append(late, m.pending[p]...)
		delete(m.pending, p)
	}
	return late
}

func (m *model) Failover(_ context.Context, database, node string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.fabric.SetPrimary(database, node)
}

func (m *model) MoveEgress(_ context.Context, region string, from, to netip.Addr) error {
	for start, now := range m.fabric.Moves() {
		if now == from {
			from = start
		}
	}
	m.fabric.Move(from, to)
	return nil
}

func (m *model) RequireTLS(database string, policy func(netip.Addr) bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.byDB[database] = policy
	return nil
}

func (m *model) Err() error { return nil }

func (m *model) Sound() error { return nil }

// blindAfter is a lab that loses its sight once the canaries have been seen.
type blindAfter struct {
	*model
	calls int
}

func (b *blindAfter) Connect(ctx context.Context, attempts []oracle.Connection) ([]suite.Outcome, error) {
	b.calls++
	b.faults.blind = b.calls > 1
	return b.model.Connect(ctx, attempts)
}

// interrupting is a lab whose user loses patience in the middle; what it says from then on is nonsense.
type interrupting struct {
	*model
	cancel func()
	after  int
}

func (i *interrupting) Connect(ctx context.Context, attempts []oracle.Connection) ([]suite.Outcome, error) {
	if i.after--; i.after == 0 {
		i.cancel()
		return make([]suite.Outcome, len(attempts)), nil
	}
	out, err := i.model.Connect(ctx, attempts)
	if ctx.Err() != nil {
		for j := range out {
			out[j].Finding = suite.Leaked
		}
	}
	return out, err
}

// blindLater is a lab that loses its sight after some calls.
type blindLater struct {
	*model
	after int
}

func (b *blindLater) Connect(ctx context.Context, attempts []oracle.Connection) ([]suite.Outcome, error) {
	b.after--
	b.faults.blind = b.after < 0
	return b.model.Connect(ctx, attempts)
}
