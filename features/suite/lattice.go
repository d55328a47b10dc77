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

	"drawbridge/features/driver"
	"drawbridge/features/oracle"
	"drawbridge/features/platform"
	"drawbridge/topology"
)

// Bounds of the lattice.
const (
	// shownMismatches is how many mismatches the report lists; all are counted.
	shownMismatches = 20
	// enoughMismatches ends the lattice: what is wrong by then is wrong everywhere.
	enoughMismatches = 200
	// refusalsAtOnce is after how many changes that were refused every cell is compared: each must have changed nothing.
	refusalsAtOnce = 28
)

// errEnough ends the lattice early; what it found is in its report.
var errEnough = errors.New("enough has been found")

// lattice drives the product of all settings, and then random sequences of changes, and compares every cell after each.
type lattice struct {
	*conductor
	plan   *plan
	report *LatticeReport
	random *rand.Rand
	before map[string]Finding // by cell: what became of it when it was compared last
	times  []time.Duration    // of denials
}

// runLattice judges the whole lattice. The error says why it could not be judged; what is not conformant is in the report.
func (r *runner) runLattice(ctx context.Context) (*LatticeReport, error) {
	began := r.Now()
	l := &lattice{
		conductor: r.conductor, plan: newPlan(r.World), random: rand.New(rand.NewPCG(r.Seed, 0)),
		report: &LatticeReport{Seed: r.Seed, Mismatches: []Mismatch{}}, before: map[string]Finding{},
	}
	l.report.Places = len(l.plan.cells)
	err := l.run(ctx, r.Sequences)
	if errors.Is(err, errEnough) {
		err = nil
	}
	l.report.Seconds = r.Now().Sub(began).Seconds()
	l.report.Denials = percentiles(l.times)
	l.report.conclude(err)
	if broken := l.lab.Sound(); broken != nil && err == nil {
		l.report.Result, l.report.Error, err = Unjudged, broken.Error(), broken
	}
	return l.report, err
}

func (l *lattice) run(ctx context.Context, sequences int) error {
	if err := l.whyLost(); err != nil {
		return errLost
	}
	for _, phase := range []func(context.Context) error{
		l.descents, l.combinations, l.refusals,
		func(ctx context.Context) error { return l.sequences(ctx, sequences) },
	} {
		if err := phase(ctx); err != nil {
			return err
		}
	}
	return nil
}

// combinations brings every combination of settings that is allowed into force for every database, and compares every cell of
// every point at which something changed. Databases change at the same time, so that neighbours differ in all sorts of ways.
func (l *lattice) combinations(ctx context.Context) error {
	legal := map[string][]platform.Settings{}
	longest := map[string]int{} // by point
	for _, d := range l.plan.databases {
		all, _ := l.plan.product(d)
		l.random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		legal[d.Name] = all
		l.report.Combinations += len(all)
		for _, p := range l.pointsOf(d.Name) {
			longest[p] = max(longest[p], len(all))
		}
	}
	for step := range slices.Max(slices.Collect(maps.Values(longest))) {
		next := l.state.Clone()
		var changed []string
		for _, d := range l.plan.databases {
			if slices.ContainsFunc(l.pointsOf(d.Name), func(p string) bool { return step < longest[p] }) {
				next.Set(d.Name, legal[d.Name][step%len(legal[d.Name])])
				changed = append(changed, d.Name)
			}
		}
		if err := l.step(ctx, "every combination", next, changed); err != nil {
			return err
		}
		if err := l.compare(ctx, l.pointsOf(changed...)); err != nil {
			return err
		}
	}
	return nil
}

// refusals asks for every combination that must be refused. Where several points are asked at once, they have no database in common.
func (l *lattice) refusals(ctx context.Context) error {
	queues := map[string][]wish{} // by the first point of a database
	for _, d := range l.plan.databases {
		_, refused := l.plan.product(d)
		at := l.pointsOf(d.Name)[0]
		for _, s := range refused {
			queues[at] = append(queues[at], wish{d.Name, s})
		}
		l.report.Refusals += len(refused)
	}
	for round := 0; ; round++ {
		next := l.state.Clone()
		var asked []string
		for _, at := range slices.Sorted(maps.Keys(queues)) {
			if round < len(queues[at]) {
				w := queues[at][round]
				next.Set(w.database, w.settings)
				asked = append(asked, w.database)
			}
		}
		if len(asked) > 0 {
			if err := l.step(ctx, "what must be refused", next, asked); err != nil {
				return err
			}
		}
		if len(asked) == 0 || round%refusalsAtOnce == refusalsAtOnce-1 {
			if err := l.compare(ctx, l.points()); err != nil {
				return err
			}
		}
		if len(asked) == 0 {
			return nil
		}
	}
}

type wish struct {
	database string
	settings platform.Settings
}

// descents gives every dedicated database all rules at once and takes them away one by one: no cell may open.
func (l *lattice) descents(ctx context.Context) error {
	next := l.state.Clone()
	var all []string
	for _, d := range l.plan.databases {
		if d.Model == topology.Dedicated {
			rules := l.plan.rules(d)
			l.random.Shuffle(len(rules), func(i, j int) { rules[i], rules[j] = rules[j], rules[i] })
			next.Set(d.Name, platform.Settings{ForceTLS: l.state.Of(d.Name).ForceTLS, Rules: rules})
			all = append(all, d.Name)
		}
	}
	for len(all) > 0 {
		if err := l.step(ctx, "rules removed one by one", next, all); err != nil {
			return err
		}
		if err := l.compare(ctx, l.pointsOf(all...)); err != nil {
			return err
		}
		next = l.state.Clone()
		all = slices.DeleteFunc(all, func(d string) bool { return len(next.Of(d).Rules) == 0 })
		for _, d := range all {
			s := next.Of(d)
			s.Rules = s.Rules[1:]
			next.Set(d, s)
		}
	}
	return nil
}

// step asks for a change, which must be accepted or refused as the oracle says for all of the databases alike.
func (l *lattice) step(ctx context.Context, phase string, next *platform.State, databases []string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	l.report.Steps++
	l.report.phase = phase
	should := ""
	for _, name := range databases {
		d, _ := l.world.Database(name) // it is the plan's
		if why := oracle.Refusal(d.Model, next.Of(name)); why != "" {
			should = why
		}
	}
	removed := l.onlyRemoves(next)
	err := l.change(ctx, next, databases...)
	var finding error
	switch refused := errors.Is(err, driver.ErrRefused); {
	case refused && should == "":
		finding = notConformant("refused what must be accepted: %v", err)
	case refused:
		return nil
	case isFinding(err):
		finding = err
	case err != nil:
		return err
	case should != "":
		finding = notConformant("accepted what must be refused (%s)", should)
	}
	if finding != nil {
		return l.mismatch(Mismatch{What: l.settings(next, databases), Must: "be " + map[bool]string{true: "accepted", false: "refused"}[should == ""], Detail: finding.Error()})
	}
	l.report.removal = removed
	if removed {
		l.report.Removals++
	}
	return nil
}

// onlyRemoves reports whether a change takes rules away from databases and does nothing else.
func (l *lattice) onlyRemoves(next *platform.State) bool {
	removed := false
	for _, d := range l.plan.databases {
		was, is := l.state.Of(d.Name), next.Of(d.Name)
		if was.Equal(is) {
			continue
		}
		kept := !slices.ContainsFunc(is.Rules, func(r platform.Rule) bool { return !slices.Contains(was.Rules, r) })
		if !kept || was.ForceTLS != is.ForceTLS || was.InternetAccessibility != is.InternetAccessibility || len(is.Rules) >= len(was.Rules) {
			return false
		}
		removed = true
	}
	return removed
}

// settings says in words what is asked for.
func (l *lattice) settings(state *platform.State, databases []string) string {
	var all []string
	for _, d := range databases {
		all = append(all, fmt.Sprintf("%s: %s", d, state.Of(d)))
	}
	return strings.Join(all, "; ")
}

// compare tries every cell of some points and compares what became of it with the oracle; after the removal of rules also with what
// became of it before.
func (l *lattice) compare(ctx context.Context, points []string) error {
	cells, must, skipped, err := l.plan.at(l.state, points)
	if err != nil {
		return err
	}
	outcomes, err := l.lab.Connect(ctx, cells)
	if err != nil {
		return err
	}
	l.report.Unspecified += skipped
	l.report.Cells += len(cells)
	var unclear []error
	var enough error
	for i, o := range outcomes {
		err := judge(cells[i], must[i], o)
		l.count(o)
		switch {
		case isFinding(err):
			enough = errors.Join(enough, l.mismatch(mismatchOf(cells[i], must[i], o, l.settings(l.state, []string{cells[i].To.Database}))))
		case err != nil:
			unclear = append(unclear, err)
		}
		l.monotony(cells[i], o)
	}
	if len(unclear) > 0 {
		return errors.Join(enough, limited(unclear))
	}
	if err := l.lab.Err(); err != nil {
		return err
	}
	return enough
}

func (l *lattice) count(o Outcome) {
	switch o.Finding {
	case Served:
		l.report.Served++
	case Denied:
		l.report.Denied++
		l.times = append(l.times, o.Took)
	}
}

// monotony remembers what became of a cell. One that opens by the removal of a rule is a mismatch of its own, whatever the oracle
// says of it.
func (l *lattice) monotony(c oracle.Connection, o Outcome) {
	key := describe(c)
	was := l.before[key]
	l.before[key] = o.Finding
	if l.report.removal && was == Denied && o.Finding == Served {
		l.report.Opened = append(l.report.Opened, key)
	}
}

// mismatch notes one; the error is errEnough once there are too many to go on.
func (l *lattice) mismatch(m Mismatch) error {
	m.Phase, m.Step = l.report.phase, l.report.Steps
	l.report.Mismatched++
	if len(l.report.Mismatches) < shownMismatches {
		l.report.Mismatches = append(l.report.Mismatches, m)
	}
	if l.report.Mismatched >= enoughMismatches {
		return errEnough
	}
	return nil
}
