package suite

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/cucumber/godog"

	"drawbridge/features/driver"
	"drawbridge/features/oracle"
	"drawbridge/topology"
)

// Evasion is what became of one attempt to get plaintext past Force TLS (SPEC X-08). The zero value is one that got nothing through.
type Evasion struct {
	Name string
	// Plaintext is what the database's application read of it.
	Plaintext []byte
	// OnWire: it was seen between the enforcement point and the database.
	OnWire bool
	// ByLog: the database's application is a real server, and Plaintext is what its log says of it. Not all that a server reads
	// leaves a trace there.
	ByLog  bool
	Detail string
	Took   time.Duration
}

func (e Evasion) through() bool { return len(e.Plaintext) > 0 || e.OnWire }

// Endured is what became of one handshake over a bad wire. The zero value was not served.
type Endured struct {
	What   string
	Served bool
	// Costly: the wire lost a packet or let another overtake it, which may cost a retransmission whatever is in force.
	Costly          bool
	Retransmissions int
	// Uncounted: the lab's own wires lose packets, so that retransmissions say nothing of what is in force.
	Uncounted bool
	Detail    string
	Took      time.Duration
}

// trials are what a scenario has found out without a policy, so that the same can be asked with one.
type trials struct {
	from     string
	evasions []string
	endured  map[string]Endured // by endpoint and case
	unjudged bool               // the lab cannot play evasions
}

func registerEvasions(sc *godog.ScenarioContext, step stepFunc, one oneFunc) {
	define(sc, `^from "([^"]+)" each of these evasions gets plaintext to it:$`, func(ctx context.Context, from string, table *godog.Table) error {
		return one(func(ctx context.Context, s *scenario, from string) error { return s.provesEvasions(ctx, from, table) })(ctx, from)
	})
	define(sc, `^none of them gets a byte of plaintext to it$`, step(func(ctx context.Context, s *scenario) error { return s.evades(ctx) }))
	define(sc, `^from "([^"]+)" every handshake survives ordinary trouble$`, one(func(ctx context.Context, s *scenario, from string) error {
		return s.endures(ctx, from)
	}))
	define(sc, `^every one survives it still, at the cost of one retransmission at the most$`, step(func(ctx context.Context, s *scenario) error {
		return s.enduresStill(ctx)
	}))
}

// trialEndpoints are the public endpoints that serve TLS, one of each family, of the database spoken of.
func (s *scenario) trialEndpoints(from topology.Vantage) []topology.Endpoint {
	var out []topology.Endpoint
	for _, e := range s.about.Endpoints() {
		is4 := e.Addr.Addr().Is4()
		twin := slices.ContainsFunc(out, func(o topology.Endpoint) bool { return o.Addr.Addr().Is4() == is4 })
		if e.Kind == topology.PublicRW && speaks(e.TLS, true) && !twin && (origin{vantage: from}).reaches(s.world, e, true) {
			out = append(out, e)
		}
	}
	return out
}

// unforced checks that nothing is in force at the database, and finds the vantage.
func (s *scenario) unforced(from string) (topology.Vantage, error) {
	v, ok := s.world.Vantage(from)
	if !ok || v.Kind != topology.VantageInternet {
		return v, wrongFeature("%q is no Internet host of world %s", from, s.world.Name())
	}
	for _, p := range s.pointsOf(s.about.Name) {
		if !s.free[p] {
			return v, wrongFeature("a policy is in force at %s: nothing would be proved about what gets through without one", p)
		}
	}
	return v, nil
}

// provesEvasions plays attempts where nothing is in force: each must get plaintext through, or it would try nothing later.
func (s *scenario) provesEvasions(ctx context.Context, from string, table *godog.Table) error {
	rows, err := records(table, []string{"evasion"}, nil)
	if err != nil {
		return err
	}
	v, err := s.unforced(from)
	if err != nil {
		return err
	}
	s.trials = trials{from: from}
	for _, r := range rows {
		s.trials.evasions = append(s.trials.evasions, r["evasion"])
	}
	var failures []error
	for _, e := range s.trialEndpoints(v) {
		all, err := s.lab.Evade(ctx, v, e, s.trials.evasions)
		if errors.Is(err, errLossy) {
			s.record.Notes = append(s.record.Notes, notJudged+err.Error())
			s.trials.unjudged = true
			return nil
		}
		if err != nil {
			return err
		}
		failures = append(failures, s.proved(e, all)...)
	}
	return limited(failures)
}

// tracedShare is the part of the evasions whose plaintext a real server's log has to show where nothing is in force: one in so many.
const tracedShare = 4

// proved says which evasions got nothing through. What a real server read and did not log is no proof that it read nothing: such
// evasions are named in the report, and their later silence is judged by the wire alone.
func (s *scenario) proved(to topology.Endpoint, all []Evasion) (failures []error) {
	var traceless []string
	for _, x := range all {
		switch {
		case x.through():
		case x.ByLog:
			traceless = append(traceless, x.Name)
		default:
			failures = append(failures, fmt.Errorf("%w: without a policy the evasion gets nothing through, so that it tries nothing: %s", errInconclusive, x.Detail))
		}
	}
	if len(traceless) == 0 {
		return failures
	}
	s.record.Notes = append(s.record.Notes, fmt.Sprintf("%s at %s: %d of %d evasions leave a trace in the server's log without a policy; these do not: %s",
		to.Database, to.Addr, len(all)-len(traceless), len(all), strings.Join(traceless, "; ")))
	// A real server's TLS port takes no plaintext, whatever is in force.
	if traced := len(all) - len(traceless); traced*tracedShare < len(all) && to.TLS != topology.TLSOnly {
		failures = append(failures, fmt.Errorf("%w: only %d of %d evasions leave a trace in the log of %s's server", errInconclusive, traced, len(all), to.Database))
	}
	return failures
}

// evades plays them again where TLS is required.
func (s *scenario) evades(ctx context.Context) error {
	if len(s.trials.evasions) == 0 {
		return wrongFeature("no evasion was proved to get through without a policy")
	}
	v, _ := s.world.Vantage(s.trials.from)
	if s.trials.unjudged {
		return errors.Join(s.plaintextStaysOut(ctx, v), s.servedOverTLS(ctx, v))
	}
	if s.driver.ForceTLS == driver.ByDatabase {
		s.record.Notes = append(s.record.Notes, "evasions are not judged: Force TLS is left to the database")
		return s.servedOverTLS(ctx, v)
	}
	var findings []error
	for _, e := range s.trialEndpoints(v) {
		want, err := s.plaintextDenied(v, e)
		if err != nil {
			return err
		}
		if _, err := s.expect(oracle.Connection{From: v, To: e, TLS: true}, oracle.Served); err != nil {
			return err
		}
		all, err := s.lab.Evade(ctx, v, e, s.trials.evasions)
		if err != nil {
			return err
		}
		for _, x := range all {
			var err error
			if x.through() {
				err = notConformant("evasion %q of %s: %s", x.Name, v.Name, x.Detail)
			}
			s.record.noteEvasion(v, e, want, x, err)
			findings = append(findings, err)
		}
	}
	return worst(findings)
}

// plaintextStaysOut tries what an ordinary client without TLS says.
func (s *scenario) plaintextStaysOut(ctx context.Context, from topology.Vantage) error {
	var all []oracle.Connection
	for _, e := range s.trialEndpoints(from) {
		if speaks(e.TLS, false) {
			all = append(all, oracle.Connection{From: from, To: e})
		}
	}
	return s.check(ctx, all, oracle.Denied)
}

func (s *scenario) servedOverTLS(ctx context.Context, from topology.Vantage) error {
	var all []oracle.Connection
	for _, e := range s.trialEndpoints(from) {
		all = append(all, oracle.Connection{From: from, To: e, TLS: true})
	}
	return s.check(ctx, all, oracle.Served)
}

// plaintextDenied asks the oracle about a client without TLS. A port that never speaks plaintext takes none from anybody.
func (s *scenario) plaintextDenied(from topology.Vantage, to topology.Endpoint) (oracle.Verdict, error) {
	if !speaks(to.TLS, false) {
		return oracle.Verdict{Class: oracle.Denied, Reason: "the port speaks TLS only"}, nil
	}
	return s.expect(oracle.Connection{From: from, To: to}, oracle.Denied)
}

// endures makes handshakes over a bad wire where nothing is in force: they must be served, or the wire is too bad.
func (s *scenario) endures(ctx context.Context, from string) error {
	v, err := s.unforced(from)
	if err != nil {
		return err
	}
	s.trials = trials{from: from, endured: map[string]Endured{}}
	all, err := s.lab.Endure(ctx, v, s.trialEndpoints(v), false)
	if err != nil {
		return err
	}
	var failures []error
	for _, x := range all {
		s.trials.endured[x.What] = x
		if !x.Served {
			failures = append(failures, fmt.Errorf("%w: not served although no policy is in force: %s: %s", errInconclusive, x.What, x.Detail))
		}
	}
	return limited(failures)
}

// extra is how many retransmissions an enforcer may cost a handshake.
const extra = 1

func (s *scenario) enduresStill(ctx context.Context) error {
	if len(s.trials.endured) == 0 {
		return wrongFeature("no handshake was proved to be served without a policy")
	}
	v, _ := s.world.Vantage(s.trials.from)
	endpoints := s.trialEndpoints(v)
	var want oracle.Verdict
	for _, e := range endpoints {
		var err error
		if want, err = s.expect(oracle.Connection{From: v, To: e, TLS: true}, oracle.Served); err != nil {
			return err
		}
	}
	all, err := s.lab.Endure(ctx, v, endpoints, true)
	if err != nil {
		return err
	}
	var findings []error
	for _, x := range all {
		err := judgeEndured(s.trials.endured[x.What], x)
		if x.Uncounted && !slices.Contains(s.record.Notes, uncounted) {
			s.record.Notes = append(s.record.Notes, uncounted)
		}
		s.record.noteEndured(want, x, err)
		findings = append(findings, err)
	}
	return worst(findings)
}

// judgeEndured compares a handshake with the same without a policy.
func judgeEndured(without, with Endured) error {
	own := without.Retransmissions
	if with.Costly {
		own = max(own, 1)
	}
	switch {
	case !with.Served:
		return notConformant("%s: not served: %s", with.What, with.Detail)
	case !with.Uncounted && with.Retransmissions > own+extra:
		return notConformant("%s: served after %d retransmissions, without a policy after %d", with.What, with.Retransmissions, without.Retransmissions)
	}
	return nil
}

func (r *ScenarioReport) noteEvasion(from topology.Vantage, to topology.Endpoint, want oracle.Verdict, x Evasion, err error) {
	was := "nothing got through"
	if x.through() {
		was = "plaintext got through"
	}
	r.Attempts = append(r.Attempts, AttemptLine{
		What: fmt.Sprintf("%s to %s at %s, evasion: %s", from.Name, to.Database, to.Addr, x.Name), Must: want.Class.String(),
		Because: append(slices.Clone(want.Because), "X-08"), Was: was, Detail: x.Detail, OK: err == nil, Millis: millis(x.Took),
	})
}

func (r *ScenarioReport) noteEndured(want oracle.Verdict, x Endured, err error) {
	was := "not served"
	if x.Served {
		was = fmt.Sprintf("served after %d retransmissions", x.Retransmissions)
	}
	r.Attempts = append(r.Attempts, AttemptLine{
		What: x.What, Must: want.Class.String(), Because: append(slices.Clone(want.Because), "X-08"), Was: was, Detail: x.Detail,
		OK: err == nil, Millis: millis(x.Took),
	})
}
