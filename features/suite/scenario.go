package suite

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"drawbridge/features/driver"
	"drawbridge/features/oracle"
	"drawbridge/features/platform"
	"drawbridge/topology"
)

// scenario is the world of one scenario: which database it speaks of, what was decided last, which connections it holds.
type scenario struct {
	*conductor
	about   topology.Database // the database that "it" and "its owner" mean
	last    *decision
	held    map[string]*holding
	traffic []Replication
	trials  trials
	claims  claims
	waits   waits
	record  *ScenarioReport
}

// decision is the last change that an owner asked for.
type decision struct {
	database string
	before   platform.Settings
	asked    platform.Settings
	refused  error  // by the enforcer
	should   string // why the oracle says it must be refused; "" if it must not
	answered bool   // a step has spoken of the refusal
	receipts []driver.Receipt
}

type holding struct {
	session Session
	conn    oracle.Connection
	unseen  bool // it began while no policy was in force
}

func (c *conductor) scenario(r *ScenarioReport) *scenario {
	return &scenario{conductor: c, held: map[string]*holding{}, record: r}
}

// settleDecision is called before every step: a refusal that the feature does not speak of is a finding.
func (s *scenario) settleDecision() error {
	d := s.last
	if d == nil || d.answered {
		return nil
	}
	d.answered = true
	switch {
	case d.should != "" && d.refused != nil:
		return wrongFeature("it says nothing about the refusal: %s", d.should)
	case d.should != "":
		return notConformant("accepted what must be refused (%s)", d.should)
	case d.refused != nil:
		return notConformant("refused what must be accepted (%s, %s): %v", d.database, d.asked, d.refused)
	}
	return nil
}

// speakOf makes a database the one that the following steps mean.
func (s *scenario) speakOf(name string) error {
	d, ok := s.world.Database(name)
	if !ok {
		return wrongFeature("there is no database %q in world %s", name, s.world.Name())
	}
	s.about = d
	if !s.state.Of(name).Equal(s.defaults.Of(name)) {
		return wrongFeature("the settings of %q are no longer its defaults here", name)
	}
	return nil
}

// owner carries out what a database's owner decides; "" means the owner of the database spoken of.
func (s *scenario) owner(ctx context.Context, name, text string) error {
	if name == "" {
		name = s.about.Name
	}
	for _, actions := range changes(text) {
		if err := s.settleDecision(); err != nil {
			return err
		}
		if err := s.decide(ctx, name, actions); err != nil {
			return err
		}
	}
	return nil
}

func (s *scenario) decide(ctx context.Context, name string, actions []string) error {
	d, ok := s.world.Database(name)
	if !ok {
		return wrongFeature("there is no database %q in world %s", name, s.world.Name())
	}
	settings := s.state.Of(name)
	for _, a := range actions {
		if err := decide(&settings, a); err != nil {
			return wrongFeature("the owner of %s %s: %v", name, a, err)
		}
	}
	before := s.state.Of(name)
	if settings.Equal(before) {
		return nil
	}
	next := s.state.Clone()
	next.Set(name, settings)
	s.last = &decision{database: name, before: before, asked: settings, should: oracle.Refusal(d.Model, settings)}
	err := s.change(ctx, next, name)
	if errors.Is(err, driver.ErrRefused) {
		s.last.refused = err
		return nil
	}
	if err != nil {
		s.last.answered = true // whatever it is, it is neither a refusal nor an acceptance
		return err
	}
	for _, p := range s.pointsOf(name) {
		s.last.receipts = append(s.last.receipts, s.receipt(p))
	}
	return nil
}

// refused checks the last decision's refusal, and that nothing changed: the verdicts of a panel of clients are those of before.
func (s *scenario) refused(ctx context.Context) error {
	d := s.last
	if d == nil || d.answered {
		return wrongFeature("nothing was asked for that could be refused")
	}
	d.answered = true
	if d.should == "" {
		return wrongFeature("the oracle knows no reason to refuse %s of %s", d.asked, d.database)
	}
	if d.refused == nil {
		return notConformant("accepted what must be refused (%s)", d.should)
	}
	db, _ := s.world.Database(d.database) // decide found it
	return s.check(ctx, s.panel(db, d), oracle.Unspecified)
}

// panel are clients of every sort, and of every rule that there was or would have been.
func (s *scenario) panel(db topology.Database, d *decision) []oracle.Connection {
	var origins []origin
	for _, v := range s.world.Vantages() {
		if v.Kind == topology.VantageInternet || v.Kind == topology.VantageApp {
			origins = append(origins, origin{vantage: v})
		}
		for _, r := range ends(d.before.Rules, d.asked.Rules) {
			for _, n := range v.Networks {
				if r.CIDR.IsValid() && n.Contains(r.CIDR.Addr()) && r.CIDR.Addr().Is4() {
					origins = append(origins, origin{v, r.CIDR.Addr()})
				}
			}
		}
	}
	var all []oracle.Connection
	for _, o := range origins {
		for _, e := range (phrase{}).endpoints(db, topology.PublicRW) {
			for _, tls := range []bool{true, false} {
				if speaks(e.TLS, tls) {
					all = append(all, oracle.Connection{From: o.vantage, Source: o.source, To: e, TLS: tls})
				}
			}
		}
	}
	return all
}

// ends are the first and last rule of each list.
func ends(lists ...[]platform.Rule) []platform.Rule {
	var out []platform.Rule
	for _, l := range lists {
		for _, i := range []int{0, len(l) - 1} {
			if i < len(l) && i >= 0 && !slices.Contains(out, l[i]) {
				out = append(out, l[i])
			}
		}
	}
	return out
}

// check makes connections and compares what became of them with the oracle; and first of all, the oracle with what the
// feature says. oracle.Unspecified as literal means that the feature leaves it to the oracle.
func (s *scenario) check(ctx context.Context, attempts []oracle.Connection, literal oracle.Class) error {
	return s.checkAll(ctx, []claim{{attempts: attempts, literal: literal}})
}

// claim is one sentence about connections: what the feature says becomes of all of them, and what else it says of each.
type claim struct {
	text     string
	attempts []oracle.Connection
	literal  oracle.Class
	also     func(oracle.Connection, Outcome) error
}

// checkAll checks several sentences with all their connections at once.
func (s *scenario) checkAll(ctx context.Context, claims []claim) error {
	var attempts []oracle.Connection
	var expected []oracle.Verdict
	for _, c := range claims {
		for _, a := range c.attempts {
			v, err := s.expect(a, c.literal)
			if err != nil {
				return err
			}
			attempts, expected = append(attempts, a), append(expected, v)
		}
	}
	outcomes, err := s.lab.Connect(ctx, attempts)
	if err != nil {
		return err
	}
	var findings []error
	i := 0
	for _, c := range claims {
		for range c.attempts {
			err := judge(attempts[i], expected[i], outcomes[i])
			if err == nil && c.also != nil {
				err = c.also(attempts[i], outcomes[i])
			}
			s.record.note(attempts[i], expected[i], outcomes[i], err)
			s.explain(attempts[i], outcomes[i])
			findings = append(findings, err)
			i++
		}
	}
	return worst(findings)
}

// expect asks the oracle and makes sure that the feature says the same.
func (s *scenario) expect(a oracle.Connection, literal oracle.Class) (oracle.Verdict, error) {
	v, err := oracle.Expect(s.state, a)
	switch {
	case err != nil:
		return v, wrongFeature("%v", err)
	case v.Class == oracle.Unspecified:
		return v, wrongFeature("no statement speaks of %s: %s", describe(a), v.Reason)
	case literal != oracle.Unspecified && v.Class != literal:
		return v, wrongFeature("it says that %s is %s, but by the oracle it is %s", describe(a), literal, v)
	}
	return v, nil
}

// judge compares what became of one connection with what must.
func judge(a oracle.Connection, want oracle.Verdict, got Outcome) error {
	as := fmt.Sprintf("%s: must be %s; was %s: %s", describe(a), want, got.Verdict, got.Detail)
	switch {
	case got.Finding == Inconclusive:
		return fmt.Errorf("%w: %s", errInconclusive, as)
	case want.Class == oracle.Served && got.Finding == Served:
		return nil
	case want.Class == oracle.Denied && got.Finding == Denied && (want.Talk || !got.Passed):
		return nil
	case want.Class == oracle.Denied && got.Finding == Denied:
		return notConformant("%s (and its first packet got past the enforcement point)", as)
	}
	return notConformant("%s", as)
}

// worst joins errors: findings against the enforcer if there are any, everything else otherwise.
func worst(all []error) error {
	var findings, rest []error
	for _, err := range all {
		switch {
		case errors.Is(err, ErrNotConformant):
			findings = append(findings, err)
		case err != nil:
			rest = append(rest, err)
		}
	}
	if len(findings) > 0 {
		return limited(findings)
	}
	return limited(rest)
}

// maxShown bounds how many errors of one step are printed in full.
const maxShown = 6

func limited(all []error) error {
	if len(all) <= maxShown {
		return errors.Join(all...)
	}
	return fmt.Errorf("%w\nand %d more", errors.Join(all[:maxShown]...), len(all)-maxShown)
}

// hold opens a connection that stays.
func (s *scenario) hold(ctx context.Context, p phrase) error {
	attempts, err := p.attempts(s.world, s.about)
	if err != nil {
		return wrongFeature("%v", err)
	}
	if len(attempts) != 1 {
		return wrongFeature("%q holds %d connections; features speak of one", p.who, len(attempts))
	}
	a := attempts[0]
	unseen := s.free[a.To.Point]
	if !unseen {
		if _, err := s.expect(a, oracle.Served); err != nil {
			return err
		}
	}
	if s.held[a.From.Name] != nil {
		return wrongFeature("%s holds a connection already", a.From.Name)
	}
	session, o, err := s.lab.Hold(ctx, a)
	if err != nil {
		return err
	}
	if session == nil {
		return judge(a, oracle.Verdict{Class: oracle.Served, Because: []string{"X-04"}, Reason: "to be held"}, o)
	}
	s.held[a.From.Name] = &holding{session: session, conn: a, unseen: unseen}
	return nil
}

// continues checks what has become of a held connection.
func (s *scenario) continues(ctx context.Context, from string, literal oracle.Class) error {
	h := s.held[from]
	if h == nil {
		return wrongFeature("%s holds no connection", from)
	}
	v, err := oracle.Continue(s.state, h.conn, h.unseen)
	if err != nil || v.Class != literal {
		return wrongFeature("it says %s of the connection of %s; by the oracle it is %s (%v)", literal, from, v, err)
	}
	began := time.Now()
	x := h.session.Exchange(ctx)
	err = judgeHeld(h.conn, v, x)
	s.record.noteHeld(h.conn, v, x, time.Since(began), err)
	return err
}

func judgeHeld(c oracle.Connection, want oracle.Verdict, x Exchange) error {
	as := fmt.Sprintf("the held connection of %s: %s", describe(c), x.Detail)
	if want.Class == oracle.Served {
		if !x.Answered {
			return notConformant("%s: must go on (%s) and was not answered", as, want.Reason)
		}
		return nil
	}
	var wrong []string
	if x.Answered {
		wrong = append(wrong, "its query was answered")
	}
	if x.BytesThrough > 0 {
		wrong = append(wrong, fmt.Sprintf("%d bytes of the client got through", x.BytesThrough))
	}
	if !x.Answered && !x.Told {
		wrong = append(wrong, "the client was not told")
	}
	if !x.Answered && !x.DatabaseClosed {
		wrong = append(wrong, "the database's half is still open")
	}
	if len(wrong) > 0 {
		return notConformant("%s: must be cut at both ends (%s), but %s", as, want.Reason, strings.Join(wrong, ", "))
	}
	return nil
}

// finish ends the scenario: what it holds, and everything it changed.
func (s *scenario) finish(ctx context.Context) error {
	err := s.settleDecision()
	for _, h := range s.held {
		_ = h.session.Close() // cut connections cannot say goodbye
	}
	if s.under != nil { // a step failed in between: what was tried is not judged
		_, _ = s.under.stream.Stop(ctx)
		s.under = nil
	}
	return errors.Join(err, s.restore(ctx))
}
