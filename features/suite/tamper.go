package suite

import (
	"context"
	"time"

	"github.com/cucumber/godog"
)

// Tampering is what another program does to an enforcer's rules (SPEC X-09). The zero value is none.
type Tampering string

// What it does.
const (
	FlushRuleset Tampering = "flushes the ruleset"
	EmptySets    Tampering = "empties every set"
)

// mendLimit is how long an enforcer that runs may take to undo what somebody else did to its rules: SPEC X-09 says milliseconds, and
// the lab's machine is busy meanwhile.
const mendLimit = 100 * time.Millisecond

// mendRounds is how often everything is tried after that time, or after a crash.
const mendRounds = 20

func registerTampering(sc *godog.ScenarioContext, step stepFunc, one oneFunc) {
	define(sc, `^another program (flushes the ruleset|empties every set) where it is$`, one(func(ctx context.Context, s *scenario, how string) error {
		return s.tamper(ctx, Tampering(how))
	}))
	define(sc, `^the enforcer is killed and started again where it is$`, step(func(ctx context.Context, s *scenario) error { return s.crash(ctx) }))
}

// tamper changes the rules where the database spoken of is, and tries everything until an enforcer that runs must have undone it.
func (s *scenario) tamper(ctx context.Context, how Tampering) error {
	points := s.pointsOf(s.about.Name)
	if s.under == nil || len(points) != 1 || !s.ground.own[points[0]] {
		return wrongFeature("nothing is tried all the time, or %s is at more points than one", s.about.Name)
	}
	s.dirty[points[0]] = true
	if !s.driver.Run { // half a set of rules may do anything meanwhile; what must be repaired is that none is left
		how = FlushRuleset
	}
	w := window{began: time.Now(), before: s.state, after: s.state, tampered: true, helpless: !s.driver.Run}
	if err := s.lab.Tamper(ctx, points[0], how); err != nil {
		return err
	}
	w.ended = time.Now().Add(mendLimit)
	s.under.during(w)
	if !s.driver.Run {
		s.record.Notes = append(s.record.Notes, "nothing runs between two changes: the ruleset was flushed, and the next one must repair it")
		return nil
	}
	for time.Now().Before(w.ended) {
		if err := s.under.stream.Rounds(ctx, mendRounds); err != nil {
			return err
		}
	}
	return s.under.stream.Rounds(ctx, mendRounds)
}

// crash kills and starts what runs at the points of the database spoken of. What is in force stays, all the time.
func (s *scenario) crash(ctx context.Context) error {
	if s.under == nil {
		return wrongFeature("nothing is tried all the time")
	}
	for _, p := range s.pointsOf(s.about.Name) {
		began := time.Now()
		runs, err := s.enforcer.Crash(ctx, p)
		if err != nil {
			return err
		}
		if !runs {
			s.record.Notes = append(s.record.Notes, "nothing runs at "+p+" that could be killed")
		}
		s.under.during(window{began: began, ended: time.Now(), before: s.state, after: s.state})
	}
	return s.under.stream.Rounds(ctx, mendRounds)
}
