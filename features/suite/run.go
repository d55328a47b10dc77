package suite

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cucumber/godog"

	"drawbridge/features/driver"
	"drawbridge/features/mutant"
	"drawbridge/topology"
)

// Config says what is run, against what, and where the results go.
type Config struct {
	World    *topology.World
	Lab      Lab
	Enforcer Enforcer
	// Servers says what plays the databases, for the report.
	Servers []ServerReport
	// Features holds the .feature files (features.Files).
	Features fs.FS
	// Expected is the committed number of scenarios by profile; it is compared unless Tags select some.
	Expected map[string]int
	// Profiles to judge; nil: all that the enforcer declares.
	Profiles []string
	// Tags selects scenarios in godog's notation: "@S-06", "@D-09,@D-10", "~@S-12".
	Tags string
	// Format is one of godog's formatters for Output: pretty, progress, junit, cucumber.
	Format string
	Output io.Writer
	// NoColors keeps colour out of Output.
	NoColors bool
	// ReportDir gets report.json, junit.xml, cucumber.json and the policies of failed scenarios; "" writes none.
	ReportDir string
	// Lanes is how many scenarios may run at once, where they have no enforcement point in common; 0: one after the other.
	Lanes int
	// Lattice: judge by the lattice as well, which Seed makes repeatable. Sequences is how many random sequences of changes follow.
	Lattice   bool
	Seed      uint64
	Sequences int
	// Patience is how long the Lab waits before it calls a connection denied, for the report; 0: it does not wait.
	Patience time.Duration
	// Wires tells, at the end, what impaired the lab's links; nil: nothing did.
	Wires func() Wires
	// Mutants is what the suite did with wrong enforcers a moment ago, for the report; nil: nobody looked.
	Mutants *mutant.Score
	// Rehearsed leaves out the rehearsal: whoever sets it has rehearsed the same features in the same world before.
	Rehearsed bool
	// Kernel is the release of the kernel that carries the lab, for the report.
	Kernel string
	// Deviations are known ones (ReadDeviations): failures that they name fail no run before they expire.
	Deviations []Deviation
	// Command is what repeats the run, but for the selection of scenarios, for the report.
	Command string
	// Recorder shows what passed an enforcement point a moment ago, for the report; nil: the report has no packets.
	Recorder Recorder
	// Progress is called when a scenario has ended, by one goroutine at a time; nil: nobody wants to know.
	Progress func(Progress)
	// Now is the clock; nil: time.Now.
	Now func() time.Time
}

// ErrUsage marks what is wrong with a Config.
var ErrUsage = errors.New("wrong use")

// runner is one run.
type runner struct {
	Config
	conductor *conductor
	report    *Report
	lanes     *lanes
	order     []Selected // as in the features

	mu       sync.Mutex // guards report.Scenarios, policies and done while scenarios run
	done     Progress
	policies map[string]driver.Document // of failed scenarios, by the file's name
}

// Run judges an enforcer. The error is ErrUsage, or that of writing the report; everything else is in the Report.
func Run(ctx context.Context, cfg Config) (*Report, error) {
	err := cfg.check()
	if err != nil {
		return nil, err
	}
	r := &runner{
		Config: cfg, conductor: newConductor(cfg.World, cfg.Lab, cfg.Enforcer), lanes: newLanes(cfg.Lanes), policies: map[string]driver.Document{},
	}
	r.report = &Report{World: cfg.World.Name(), Kernel: cfg.Kernel, Command: cfg.Command, Servers: cfg.Servers, Tags: cfg.Tags, Mutants: cfg.Mutants, Started: cfg.Now(), Scenarios: []*ScenarioReport{}}
	if r.report.Suite, err = digest(cfg.Features); err != nil {
		return nil, err
	}
	if cfg.Patience > 0 {
		r.report.Patience = cfg.Patience.String()
	}
	err = r.judge(ctx)
	r.report.Seconds = cfg.Now().Sub(r.report.Started).Seconds()
	r.report.Apply = percentiles(r.conductor.durations)
	r.report.Denials = percentiles(r.denials())
	r.report.measureWindows()
	if cfg.Wires != nil {
		r.report.noteWires(cfg.Wires())
	}
	if wrong := r.report.excuse(cfg.Deviations, cfg.Now()); err == nil || isFinding(err) {
		err = errors.Join(err, wrong)
	}
	r.report.trace()
	r.report.conclude(err)
	if errors.Is(err, ErrUsage) {
		return nil, err
	}
	return r.report, r.write()
}

func (c *Config) check() error {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Output == nil {
		c.Output = io.Discard
	}
	if !slices.Contains([]string{"pretty", "progress", "junit", "cucumber"}, c.Format) {
		return fmt.Errorf("%w: format %q: must be pretty, progress, junit or cucumber", ErrUsage, c.Format)
	}
	if strings.ContainsAny(c.ReportDir, ":,") {
		return fmt.Errorf("%w: report directory %q: godog cannot write to a path with a colon or comma", ErrUsage, c.ReportDir)
	}
	if err := checkTags(c.Tags); err != nil {
		return fmt.Errorf("%w: %w", ErrUsage, err)
	}
	return nil
}

// judge runs everything that is selected.
func (r *runner) judge(ctx context.Context) error {
	if !r.Rehearsed {
		if err := r.rehearse(ctx); err != nil {
			return err
		}
	}
	if err := r.conductor.begin(ctx); err != nil {
		r.report.Implementation = implementation(r.conductor.driver)
		return err
	}
	r.report.Implementation = implementation(r.conductor.driver)
	if err := r.choose(); err != nil {
		return err
	}
	selected, err := Select(r.Features, r.selection())
	if err != nil {
		return err
	}
	r.order = selected
	r.report.Counts.Selected = len(selected)
	if r.Tags == "" {
		for _, p := range r.report.Profiles {
			r.report.Counts.Expected += r.Expected[p]
		}
	}
	runErr := r.godog(ctx)
	if r.Lattice && runErr == nil {
		r.report.Lattice, runErr = r.runLattice(ctx)
	}
	return errors.Join(runErr, r.conductor.end(ctx), r.diagnosis())
}

// diagnosis says why a run was lost, if it was, and what is wrong with the lab, if that was the reason.
func (r *runner) diagnosis() error {
	lost := r.conductor.whyLost()
	if lost == nil {
		return nil
	}
	if broken := r.Lab.Sound(); broken != nil && broken.Error() != lost.Error() {
		return errors.Join(lost, broken)
	}
	return lost
}

// choose settles which profiles are judged.
func (r *runner) choose() error {
	declared := r.conductor.driver.Profiles
	r.report.Profiles = declared
	if r.Profiles == nil {
		return nil
	}
	for _, p := range r.Profiles {
		if !slices.Contains(declared, p) {
			return fmt.Errorf("%w: profile %q: the enforcer declares %v only", ErrUsage, p, declared)
		}
	}
	r.report.Profiles = r.Profiles
	return nil
}

func (r *runner) selection() string {
	tags := "@" + strings.Join(r.report.Profiles, ",@")
	if r.Tags != "" {
		tags += " && " + r.Tags
	}
	return tags
}

// godog runs the selected scenarios. An error means that godog itself did not do as it should.
func (r *runner) godog(ctx context.Context) error {
	format := r.Format
	if r.ReportDir != "" {
		if err := os.MkdirAll(r.ReportDir, 0o755); err != nil {
			return fmt.Errorf("report directory: %w", err)
		}
		format += ",junit:" + filepath.Join(r.ReportDir, "junit.xml") + ",cucumber:" + filepath.Join(r.ReportDir, "cucumber.json")
	}
	concurrency := 1
	if r.Lanes > 1 {
		concurrency = len(r.order) // all wait for their lanes
	}
	status := godog.TestSuite{
		Name:                "drawbridge",
		ScenarioInitializer: r.initialize,
		Options: &godog.Options{
			FS: r.Features, Paths: []string{"."}, Tags: r.selection(), Strict: true, Concurrency: concurrency,
			Format: format, Output: r.Output, NoColors: r.NoColors, DefaultContext: ctx,
		},
	}.Run()
	slices.SortStableFunc(r.report.Scenarios, func(a, b *ScenarioReport) int { return a.number - b.number })
	allPassed := !slices.ContainsFunc(r.report.Scenarios, func(s *ScenarioReport) bool { return s.Result != Passed })
	if (status == 0) != allPassed {
		return fmt.Errorf("godog ended with status %d, which does not fit the scenarios' results", status)
	}
	return ctx.Err()
}

// initialize is called once for each scenario.
func (r *runner) initialize(sc *godog.ScenarioContext) {
	var t turn
	sc.Before(func(ctx context.Context, p *godog.Scenario) (context.Context, error) {
		return ctx, r.before(ctx, p, &t)
	})
	sc.After(func(ctx context.Context, _ *godog.Scenario, err error) (context.Context, error) {
		return ctx, r.after(ctx, &t, err)
	})
	steps(sc, func() *scenario { return t.running })
}

// turn is one scenario under way.
type turn struct {
	running *scenario
	began   time.Time
	inside  bool // its lane
}

func (r *runner) before(ctx context.Context, p *godog.Scenario, t *turn) error {
	profile, ids, err := classify(p)
	record := &ScenarioReport{Name: p.Name, File: p.Uri, Profile: profile, Statements: ids, Attempts: []AttemptLine{}}
	g := groundOf(r.World, p)
	t.running = r.conductor.within(g).scenario(record)
	entered := r.lanes.enter(ctx, g)
	t.inside = entered == nil
	t.began = r.Now()
	r.enlist(record)
	if r.conductor.whyLost() != nil { // said in full where it happened, and no finding against the enforcer here
		err = errors.Join(err, errLost)
	}
	return errors.Join(err, entered, ctx.Err())
}

// enlist puts a scenario that begins into the report.
func (r *runner) enlist(record *ScenarioReport) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, s := range r.order {
		taken := func(other *ScenarioReport) bool { return other.number == i+1 }
		if s.Name == record.Name && s.File == record.File && !slices.ContainsFunc(r.report.Scenarios, taken) {
			record.number = i + 1
			break
		}
	}
	r.report.Scenarios = append(r.report.Scenarios, record)
}

// after ends a scenario: err is that of its steps. What finish finds is returned, so that godog's own reports have it too.
func (r *runner) after(ctx context.Context, t *turn, err error) error {
	record := t.running.record
	if !t.inside { // interrupted: nothing was done, and the points are somebody else's
		record.Error = err.Error()
		return nil
	}
	defer r.lanes.leave(t.running.ground)
	defer r.tellProgress(record)
	r.prove(record)                  // before other packets take the place of these
	policies := t.running.policies() // finish brings others into force
	finish := t.running.finish(ctx)
	all := errors.Join(err, finish)
	if isFinding(all) {
		if broken := r.Lab.Sound(); broken != nil { // what happened in such a lab is nobody's fault
			r.conductor.lose(broken)
			all = fmt.Errorf("%w\nwhat would have been found is not to be trusted: %s", broken, all.Error())
			finish = all
		}
	}
	if all == nil && len(record.Attempts) == 0 {
		finish = wrongFeature("the scenario drove no traffic")
		all = finish
	}
	record.Millis = millis(r.Now().Sub(t.began))
	switch {
	case all == nil:
		record.Result = Passed
		return nil
	case ctx.Err() != nil: // what was interrupted proves nothing
	case isFinding(all):
		record.Result = Failed
	}
	record.Error = all.Error()
	if !errors.Is(all, errLost) {
		r.keep(record, policies)
	}
	return finish
}

// denials are the times that the denials of all scenarios took.
func (r *runner) denials() []time.Duration {
	var all []time.Duration
	for _, s := range r.report.Scenarios {
		all = append(all, s.denials...)
	}
	return all
}

func isFinding(err error) bool { return errors.Is(err, ErrNotConformant) }

// Selected is one scenario of a selection.
type Selected struct {
	Name       string   `json:"name"`
	File       string   `json:"file"`
	Profile    string   `json:"profile"`
	Statements []string `json:"statements"`
}

// Select lists the scenarios that a tag expression selects, in the order in which they run. It is an error if there are
// none, if a feature has none at all, or if a scenario's tags are not a profile and statements.
func Select(features fs.FS, tags string) ([]Selected, error) {
	if err := checkTags(tags); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUsage, err)
	}
	all, err := retrieve(features, "")
	if err != nil {
		return nil, err
	}
	files, err := fs.Glob(features, "*.feature")
	if err != nil || len(files) == 0 || len(all) == 0 {
		return nil, wrongFeature("there are no features (%v)", err)
	}
	for _, f := range files {
		if !slices.ContainsFunc(all, func(s Selected) bool { return s.File == f }) {
			return nil, wrongFeature("%s holds no scenario", f)
		}
	}
	chosen, err := retrieve(features, tags)
	if err == nil && len(chosen) == 0 {
		err = fmt.Errorf("%w: tags %q select no scenario", ErrUsage, tags)
	}
	return chosen, err
}

func retrieve(features fs.FS, tags string) ([]Selected, error) {
	var out []Selected
	err := eachScenario(features, tags, func(file string, p *godog.Scenario) error {
		profile, ids, err := classify(p)
		out = append(out, Selected{p.Name, file, profile, ids})
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

func eachScenario(features fs.FS, tags string, visit func(file string, p *godog.Scenario) error) error {
	found, err := godog.TestSuite{Options: &godog.Options{FS: features, Paths: []string{"."}, Tags: tags}}.RetrieveFeatures()
	if err != nil {
		return wrongFeature("%v", err)
	}
	for _, f := range found {
		for _, p := range f.Pickles {
			if err := visit(f.Uri, p); err != nil {
				return err
			}
		}
	}
	return nil
}
