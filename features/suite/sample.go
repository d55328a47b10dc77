package suite

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"drawbridge/features/confidence"
	"drawbridge/features/driver"
	"drawbridge/features/oracle"
	"drawbridge/features/platform"
	"drawbridge/topology"
)

// SampleConfig says how an enforcer is judged in a world of so many databases that not every connection can be tried.
type SampleConfig struct {
	World    *topology.World // topology.NewFleet
	Lab      Lab
	Enforcer Enforcer
	Size     int // connections of each stratum that are tried at most, at least 1
	Rules    int // of each dedicated database, 0 to oracle.MaxRules
	Changes  int // how many are made, one after the other, at least 0
	// Level is the confidence of what is said of all connections, between 0 and 1, both exclusive.
	Level float64
	Seed  uint64 // settings, samples and changes follow from it
	// PerCall is what the driver's calls may take on average.
	PerCall time.Duration
	// Verify has an enforcer prove by itself that a point's policy is in force; nil: it cannot. What it says is no finding of the judge's.
	Verify   func(ctx context.Context, doc driver.Document) error
	Progress func(SampleProgress) // called by one goroutine at a time; nil: nobody wants to know
	Kernel   string               // release of the kernel that carries the lab, for the report
	Command  string               // what repeats the run, for the report
	Now      func() time.Time     // nil: time.Now
}

// SampleProgress is how far a phase is.
type SampleProgress struct {
	Phase     string
	Done, All int // connections, or changes
}

// Check returns an ErrUsage for what no run can be made of.
func (c SampleConfig) Check() error {
	for _, wrong := range []struct {
		is  bool
		how string
	}{
		{c.Size < 1, fmt.Sprintf("a sample of %d: must be at least 1", c.Size)},
		{c.Rules < 0 || c.Rules > oracle.MaxRules, fmt.Sprintf("%d rules: must be 0 to %d", c.Rules, oracle.MaxRules)},
		{c.Changes < 0, fmt.Sprintf("%d changes: must be at least 0", c.Changes)},
		{!(c.Level > 0 && c.Level < 1), fmt.Sprintf("confidence %v: must be between 0 and 1", c.Level)},
	} {
		if wrong.is {
			return fmt.Errorf("%w: %s", ErrUsage, wrong.how)
		}
	}
	return nil
}

// batch is how many connections are tried at once: those that are denied stay open until all of them are judged.
const batch = 1000

// sampler is one run.
type sampler struct {
	*conductor
	SampleConfig
	people *population
	owners *owners
	draws  *rand.Rand
	report *SampleReport
	plan   samplePlan
}

// samplePlan is everything that will be tried, drawn before anything is in force.
type samplePlan struct {
	installed, closed drawn
	changes           []plannedChange
}

// drawn is a platform, and what is tried on it.
type drawn struct {
	state  *platform.State
	strata []drawnStratum
}

type drawnStratum struct {
	stratum
	of      int // how many there are
	numbers []int
}

type plannedChange struct {
	database string
	what     string
	settings platform.Settings // of the database from then on
	own      []int             // every connection to the database
	others   []int             // some to others
}

// RunSample judges an enforcer by random samples: of everything once random settings are in force at all databases, of the changed database and the others
// after each of some changes, and of everything once all settings are gone. The error is ErrUsage; everything else is in the report.
func RunSample(ctx context.Context, cfg SampleConfig) (*SampleReport, error) {
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Progress == nil {
		cfg.Progress = func(SampleProgress) {}
	}
	s := &sampler{
		conductor: newConductor(cfg.World, cfg.Lab, cfg.Enforcer), SampleConfig: cfg,
		draws: rand.New(rand.NewPCG(cfg.Seed, 2)), report: newSampleReport(cfg),
	}
	s.books.patience = cfg.PerCall
	err := s.run(ctx)
	if errors.Is(err, errEnough) {
		err = nil
	}
	if broken := cfg.Lab.Sound(); broken != nil && s.report.Baseline.Connections > 0 {
		err = errors.Join(broken, err)
		s.report.conclude(err, false)
	} else {
		s.report.conclude(err, true)
	}
	s.report.Seconds = cfg.Now().Sub(s.report.Started).Seconds()
	return s.report, nil
}

func (s *sampler) run(ctx context.Context) error {
	points := s.points()
	if len(points) == 0 {
		return wrongFeature("world %s has no enforcement point", s.world.Name())
	}
	about, err := s.enforcer.Describe(ctx, points[0])
	if err != nil {
		return err
	}
	s.driver, s.report.Implementation = about, implementation(about)
	for _, phase := range []func(context.Context) error{s.prepare, s.baseline, s.install, s.change1by1, s.close, s.reset} {
		if err := phase(ctx); err != nil {
			return err
		}
	}
	return s.Lab.Err()
}

// prepare decides on everything.
func (s *sampler) prepare(ctx context.Context) (err error) {
	s.Progress(SampleProgress{Phase: "planning"})
	s.people = newPopulation(s.world)
	s.owners = newOwners(s.world, s.people, s.Seed, s.Rules)
	s.report.Connections = s.people.size()
	state := s.defaults.Clone()
	for _, d := range s.people.databases {
		state.Set(d.Name, s.owners.decide(d.Model))
	}
	if s.plan.installed, err = s.draw(ctx, state); err != nil {
		return err
	}
	later := state.Clone()
	for range s.Changes {
		i := s.draws.IntN(len(s.people.databases))
		d := s.people.databases[i]
		set, what := s.owners.change(d.Model, later.Of(d.Name))
		later.Set(d.Name, set)
		s.plan.changes = append(s.plan.changes, plannedChange{
			database: d.Name, what: what, settings: set, own: s.everyOf(i), others: s.othersThan(i, (s.Size+s.Changes-1)/s.Changes),
		})
	}
	s.plan.closed, err = s.draw(ctx, s.defaults.Clone())
	return err
}

func (s *sampler) everyOf(database int) []int {
	var all []int
	for n := s.people.first[database]; n < s.people.first[database+1]; n++ {
		all = append(all, n)
	}
	return all
}

// othersThan draws connections to other databases than one.
func (s *sampler) othersThan(database, count int) []int {
	from, to := s.people.first[database], s.people.first[database+1]
	rest := s.people.size() - (to - from)
	seen := map[int]bool{}
	for len(seen) < min(count, rest) {
		n := s.draws.IntN(rest)
		if n >= from {
			n += to - from
		}
		seen[n] = true
	}
	return slices.Sorted(maps.Keys(seen))
}

// draw draws from each stratum of a platform.
func (s *sampler) draw(ctx context.Context, state *platform.State) (drawn, error) {
	sorted, unspecified, err := s.people.strata(ctx, state)
	if err != nil {
		return drawn{}, err
	}
	s.report.Unspecified += unspecified
	out := drawn{state: state}
	for _, model := range []topology.Model{topology.Dedicated, topology.Shared} {
		for d := mustServe; d <= mustGuard; d++ {
			all := sorted[stratum{model, d}]
			if len(all) == 0 {
				continue
			}
			size := min(s.Size, len(all))
			for i := range size { // Fisher and Yates, as far as needed
				j := i + s.draws.IntN(len(all)-i)
				all[i], all[j] = all[j], all[i]
			}
			out.strata = append(out.strata, drawnStratum{stratum{model, d}, len(all), slices.Clone(all[:size])})
		}
	}
	return out, nil
}

// numbers are all that will be tried, each once.
func (p samplePlan) numbers() []int {
	all := map[int]bool{}
	note := func(numbers []int) {
		for _, n := range numbers {
			all[n] = true
		}
	}
	for _, d := range []drawn{p.installed, p.closed} {
		for _, st := range d.strata {
			note(st.numbers)
		}
	}
	for _, c := range p.changes {
		note(c.own)
		note(c.others)
	}
	return slices.Sorted(maps.Keys(all))
}

// baseline makes every connection that will be tried while nothing is in force: a denial is only worth something where there would have been a
// connection.
func (s *sampler) baseline(ctx context.Context) error {
	began := s.Now()
	numbers := s.plan.numbers()
	var broken []error
	err := s.try(ctx, "baseline", numbers, func(c oracle.Connection, o Outcome) error {
		if o.Finding != Served {
			broken = append(broken, fmt.Errorf("%s: %s, %s", describe(c), o.Verdict, o.Detail))
		}
		return nil
	})
	s.report.Baseline = PhaseReport{Name: "baseline", Connections: len(numbers), Seconds: s.Now().Sub(began).Seconds(), Strata: []StratumReport{}}
	if err != nil {
		return err
	}
	if len(broken) > 0 {
		return fmt.Errorf("%w: without an enforcer not every connection is served:\n%w", errBlind, limited(broken))
	}
	return s.Lab.TakeStock()
}

// try makes connections in batches and hands each outcome on. Denied ones that got through afterwards are mismatches.
func (s *sampler) try(ctx context.Context, phase string, numbers []int, each func(c oracle.Connection, o Outcome) error) error {
	for from := 0; from < len(numbers); from += batch {
		s.Progress(SampleProgress{phase, from, len(numbers)})
		connections := s.people.connections(numbers[from:min(from+batch, len(numbers))])
		outcomes, err := s.Lab.Connect(ctx, connections)
		if err != nil {
			return err
		}
		var enough error
		for i, o := range outcomes {
			enough = errors.Join(enough, each(connections[i], o))
		}
		for _, late := range s.Lab.Settle(s.points()) {
			enough = errors.Join(enough, s.report.mismatch(Mismatch{Phase: phase, What: late, Must: oracle.Denied.String(), Was: "served later"}))
		}
		if enough != nil {
			return enough
		}
		if err := s.Lab.Err(); err != nil {
			return err
		}
	}
	s.Progress(SampleProgress{phase, len(numbers), len(numbers)})
	return nil
}

// compare tries connections and compares what became of them with the oracle.
func (s *sampler) compare(ctx context.Context, phase string, numbers []int, tally *confidence.Sample) error {
	var unclear []error
	err := s.try(ctx, phase, numbers, func(c oracle.Connection, got Outcome) error {
		want, err := oracle.Expect(s.state, c)
		if err != nil {
			return wrongFeature("sample: %v", err)
		}
		if want.Class == oracle.Unspecified {
			tally.Of--
			return nil
		}
		tally.Tried++
		switch err := judge(c, want, got); {
		case isFinding(err):
			tally.Wrong++
			m := mismatchOf(c, want, got, fmt.Sprintf("%s: %s", c.To.Database, s.state.Of(c.To.Database)))
			m.Phase = phase
			return s.report.mismatch(m)
		case err != nil:
			unclear = append(unclear, err)
		}
		return nil
	})
	return errors.Join(err, limited(unclear))
}

// judgeAll compares every stratum's sample.
func (s *sampler) judgeAll(ctx context.Context, phase string, d drawn) error {
	began := s.Now()
	p := PhaseReport{Name: phase, Strata: []StratumReport{}}
	var err error
	for _, st := range d.strata {
		tally := confidence.Sample{Of: st.of}
		if err = s.compare(ctx, phase, st.numbers, &tally); err != nil && !errors.Is(err, errEnough) {
			break
		}
		p.add(st.words(), tally, s.Level)
		if err != nil {
			break
		}
	}
	p.Seconds = s.Now().Sub(began).Seconds()
	s.report.Phases = append(s.report.Phases, p)
	return err
}

// words name a stratum.
func (s stratum) words() string {
	return fmt.Sprintf("%s: %s", s.model, [...]string{
		"connections that must be served", "connections that must be denied for their source", "connections that must be denied for want of TLS",
		"ways round an endpoint that must be denied",
	}[s.duty])
}

// install brings the random settings into force everywhere.
func (s *sampler) install(ctx context.Context) error {
	s.Progress(SampleProgress{Phase: "installing"})
	if err := s.into(ctx, &s.report.Install, s.plan.installed.state, s.everyDatabase()); err != nil {
		return err
	}
	if err := s.canaries(ctx, s.points()); err != nil {
		return err
	}
	for _, p := range s.points() {
		text, err := s.inForce[p].Encode()
		if err != nil {
			return err
		}
		s.report.PolicyBytes = max(s.report.PolicyBytes, len(text))
	}
	return s.judgeAll(ctx, "installed", s.plan.installed)
}

func (s *sampler) everyDatabase() []string {
	var names []string
	for _, d := range s.people.databases {
		names = append(names, d.Name)
	}
	return names
}

// into changes the platform, which no enforcer may refuse, and notes how long each call took.
func (s *sampler) into(ctx context.Context, took *Durations, next *platform.State, databases []string) error {
	before := len(s.durations)
	err := s.change(ctx, next, databases...)
	if errors.Is(err, driver.ErrRefused) {
		err = notConformant("refused what must be accepted: %v", err)
	}
	s.report.took[took] = append(s.report.took[took], s.durations[before:]...)
	*took = percentiles(s.report.took[took])
	return err
}

// verify has the enforcer prove what it can. What it says is reported, and judged by nobody: samples are what counts here.
func (s *sampler) verify(ctx context.Context, after string) error {
	if s.Verify == nil {
		return nil
	}
	s.Progress(SampleProgress{Phase: "verifying"})
	for _, p := range s.points() {
		began := s.Now()
		proof := ProofReport{After: after, Point: p, Proven: true}
		if err := s.Verify(ctx, s.inForce[p]); err != nil {
			proof.Proven, proof.Detail = false, err.Error()
		}
		proof.Seconds = s.Now().Sub(began).Seconds()
		s.report.Proofs = append(s.report.Proofs, proof)
	}
	return ctx.Err()
}

// change1by1 makes the changes, and after each tries everything at the changed database and some connections to others.
func (s *sampler) change1by1(ctx context.Context) error {
	if len(s.plan.changes) == 0 {
		return s.verify(ctx, "installed")
	}
	began := s.Now()
	var own, others confidence.Sample
	finish := func() {
		p := PhaseReport{Name: "changed", Strata: []StratumReport{}, Seconds: s.Now().Sub(began).Seconds()}
		p.add("connections to the changed database", own, s.Level)
		p.add("connections to others, after each change", others, s.Level)
		s.report.Phases = append(s.report.Phases, p)
	}
	for i, c := range s.plan.changes {
		s.Progress(SampleProgress{"changing", i, len(s.plan.changes)})
		phase := fmt.Sprintf("change %d, %s: %s", i+1, c.database, c.what)
		next := s.state.Clone()
		next.Set(c.database, c.settings)
		err := s.into(ctx, &s.report.Changes, next, []string{c.database})
		if err == nil {
			own.Of, others.Of = own.Of+len(c.own), others.Of+s.people.size()-len(c.own)
			err = errors.Join(s.compare(ctx, phase, c.own, &own), s.compare(ctx, phase, c.others, &others))
		}
		if err != nil {
			finish()
			return err
		}
	}
	finish()
	return s.verify(ctx, "changed")
}

// close takes every setting back.
func (s *sampler) close(ctx context.Context) error {
	s.Progress(SampleProgress{Phase: "closing"})
	if err := s.into(ctx, &s.report.Closing, s.plan.closed.state, s.everyDatabase()); err != nil {
		return err
	}
	return s.judgeAll(ctx, "closed", s.plan.closed)
}

// mostAfterReset is how many connections are tried when nothing is in force any more: an enforcer that leaves something behind leaves it everywhere.
const mostAfterReset = 200

// reset takes the enforcer out of force and checks that what it denied is served again.
func (s *sampler) reset(ctx context.Context) error {
	if err := s.release(ctx, s.points()); err != nil {
		return err
	}
	var numbers []int
	for _, st := range s.plan.closed.strata {
		if st.duty != mustServe {
			numbers = append(numbers, st.numbers[:min(len(st.numbers), mostAfterReset/len(s.plan.closed.strata))]...)
		}
	}
	return s.try(ctx, "reset", numbers, func(c oracle.Connection, o Outcome) error {
		if o.Finding == Served {
			return nil
		}
		return s.report.mismatch(Mismatch{
			Phase: "reset", What: describe(c), Must: strings.ToLower(Served.String()), Reason: "nothing is in force after a reset", Was: o.Verdict, Detail: o.Detail, Evidence: o.Evidence,
		})
	})
}
