package suite

import (
	"context"
	"flag"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"drawbridge/features/platform"
	"drawbridge/topology"

	"pgregory.net/rapid"
)

// Bounds of the random sequences.
const (
	longestSequence = 6
	// shrinkLimit bounds the search for the shortest sequence that fails: each attempt is some steps in the lab.
	shrinkLimit = 20 * time.Second
)

// act is one random change of one database: a setting turned, or a rule added or, if it is there, removed.
type act struct {
	database string
	setting  string // "force", "internet" or "rule"
	toggle   platform.Toggle
	rule     platform.Rule
}

func (a act) String() string {
	switch a.setting {
	case "force":
		return fmt.Sprintf("%s: Force TLS %s", a.database, a.toggle)
	case "internet":
		return fmt.Sprintf("%s: Internet accessibility %s", a.database, a.toggle)
	}
	return fmt.Sprintf("%s: rule %s added, or removed if it is there", a.database, a.rule)
}

// on carries an act out.
func (a act) on(state *platform.State) *platform.State {
	next := state.Clone()
	s := next.Of(a.database)
	switch a.setting {
	case "force":
		s.ForceTLS = a.toggle
	case "internet":
		s.InternetAccessibility = a.toggle
	default:
		if i := slices.Index(s.Rules, a.rule); i >= 0 {
			s.Rules = slices.Delete(s.Rules, i, i+1)
		} else {
			s.Rules = append(s.Rules, a.rule)
		}
	}
	next.Set(a.database, s)
	return next
}

// acts generates changes: mostly of what a database's model lets its owner decide, at times of something else.
func (p *plan) acts() *rapid.Generator[act] {
	return rapid.Custom(func(t *rapid.T) act {
		d := rapid.SampledFrom(p.databases).Draw(t, "database")
		settings := []string{"force", "force", "internet", "internet", "internet", "rule"}
		if d.Model == topology.Dedicated {
			settings = []string{"force", "rule", "rule", "rule", "rule", "internet"}
		}
		a := act{database: d.Name, setting: rapid.SampledFrom(settings).Draw(t, "setting")}
		if a.setting == "rule" {
			a.rule = p.anyRule(d).Draw(t, "rule")
			return a
		}
		a.toggle = rapid.SampledFrom([]platform.Toggle{platform.On, platform.Off}).Draw(t, "toggle")
		return a
	})
}

// anyRule generates the product's rules, and networks of any size around the addresses that cells come from.
func (p *plan) anyRule(d topology.Database) *rapid.Generator[platform.Rule] {
	known := p.rules(d)
	return rapid.OneOf(rapid.SampledFrom(known), rapid.Custom(func(t *rapid.T) platform.Rule {
		c := rapid.SampledFrom(p.cells).Draw(t, "cell")
		a := c.Source
		if !a.IsValid() {
			a = rapid.SampledFrom(c.From.Addresses).Draw(t, "address")
		}
		bits := rapid.IntRange(0, a.BitLen()).Draw(t, "bits")
		n, err := a.Prefix(bits)
		if err != nil {
			t.Fatalf("%v", err) // bits are in range
		}
		return platform.Rule{CIDR: n}
	}))
}

// sequences drives random sequences of changes, each from the defaults on, and compares every cell of the world after each change. Of the
// first that fails, the shortest that still does is looked for.
func (l *lattice) sequences(ctx context.Context, count int) error {
	if count == 0 {
		return nil
	}
	var broken error // why no more could be judged
	prepareRapid(l.report.Seed, count)
	watcher := &verdictOnly{}
	rapid.Check(watcher, func(t *rapid.T) {
		acts := rapid.SliceOfN(l.plan.acts(), 1, longestSequence).Draw(t, "acts")
		if broken != nil || ctx.Err() != nil {
			return // nothing that is tried now says anything
		}
		l.report.Sequences++
		before := l.report.Mismatched + len(l.report.Opened)
		if broken = l.sequence(ctx, acts); broken != nil {
			return
		}
		if l.report.Mismatched+len(l.report.Opened) > before {
			l.report.Shortest = nil
			for _, a := range acts {
				l.report.Shortest = append(l.report.Shortest, a.String())
			}
			t.Fatal("not conformant") // always the same words: the same failure, as far as shrinking is concerned
		}
	})
	if broken != nil {
		return broken
	}
	return ctx.Err()
}

// sequence drives one sequence, up to the first step after which something is wrong.
func (l *lattice) sequence(ctx context.Context, acts []act) error {
	var all []string
	for _, d := range l.plan.databases {
		all = append(all, d.Name)
	}
	if err := l.step(ctx, "back to the defaults", l.defaults.Clone(), all); err != nil {
		return err
	}
	before := l.report.Mismatched + len(l.report.Opened)
	for _, a := range acts {
		if err := l.step(ctx, "random changes", a.on(l.state), []string{a.database}); err != nil {
			return err
		}
		if err := l.compare(ctx, l.points()); err != nil {
			return err
		}
		if l.report.Mismatched+len(l.report.Opened) > before {
			return nil
		}
	}
	return nil
}

var initTesting sync.Once

// prepareRapid sets what rapid takes from the command line of a test. It asks package testing for one more flag, which
// outside of a test has to be there first.
func prepareRapid(seed uint64, checks int) {
	initTesting.Do(func() {
		testing.Init()
		if !flag.Parsed() {
			_ = flag.CommandLine.Parse(nil) // of nothing
		}
	})
	for name, value := range map[string]string{
		"rapid.seed": strconv.FormatUint(seed, 10), "rapid.checks": strconv.Itoa(checks), "rapid.nofailfile": "true",
		"rapid.shrinktime": shrinkLimit.String(),
	} {
		if err := flag.Set(name, value); err != nil {
			panic(err) // rapid has no such flag: a mistake in this file
		}
	}
}

// verdictOnly is the test that rapid believes to be in. What failed is in the lattice's report.
type verdictOnly struct{ failed bool }

func (v *verdictOnly) Helper()               {}
func (v *verdictOnly) Name() string          { return "lattice" }
func (v *verdictOnly) Logf(string, ...any)   {}
func (v *verdictOnly) Log(...any)            {}
func (v *verdictOnly) Skipf(string, ...any)  {}
func (v *verdictOnly) Skip(...any)           {}
func (v *verdictOnly) SkipNow()              {}
func (v *verdictOnly) Errorf(string, ...any) { v.failed = true }
func (v *verdictOnly) Error(...any)          { v.failed = true }
func (v *verdictOnly) Fatalf(string, ...any) { v.failed = true }
func (v *verdictOnly) Fatal(...any)          { v.failed = true }
func (v *verdictOnly) FailNow()              { v.failed = true }
func (v *verdictOnly) Fail()                 { v.failed = true }
func (v *verdictOnly) Failed() bool          { return v.failed }
