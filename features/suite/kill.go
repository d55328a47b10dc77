package suite

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/cucumber/godog"

	"drawbridge/features/driver"
	"drawbridge/features/platform"
)

// killSeed makes the moments of the kills the same in every run, as far as the machine is.
const killSeed = 7

// killRounds is how often everything is tried between a kill and the next change.
const killRounds = 4

// mostlyTooLate bounds how many calls may have ended before they were killed, for each that was killed.
const mostlyTooLate = 4

func registerKills(sc *godog.ScenarioContext, step stepFunc) {
	define(sc, `^([0-9]+) times the enforcer is killed while it replaces the firewall rule "([^"]+)" by "([^"]+)" or the other way round, and does it afterwards$`,
		func(ctx context.Context, times, from, to string) error {
			return step(func(ctx context.Context, s *scenario) error { return s.kills(ctx, times, from, to) })(ctx)
		})
}

// kills has the enforcer killed in the middle of changes. Each is brought into force as a whole afterwards.
func (s *scenario) kills(ctx context.Context, times, from, to string) error {
	n, err := strconv.Atoi(times)
	if err != nil {
		return wrongFeature("%v", err)
	}
	points := s.pointsOf(s.about.Name)
	if s.under == nil || len(points) != 1 {
		return wrongFeature("nothing is tried all the time, or %s is at more points than one", s.about.Name)
	}
	random := rand.New(rand.NewPCG(killSeed, uint64(n)))
	limit := max(s.receipt(points[0]).Duration, time.Millisecond)
	killed := 0
	for calls := 0; killed < n; calls++ {
		if calls > mostlyTooLate*n {
			return fmt.Errorf("%w: of %d calls that were to be killed, %d had not ended before", errInconclusive, calls, killed)
		}
		next, err := s.replaced(from, to)
		if err != nil {
			return err
		}
		was, err := s.kill(ctx, next, points[0], time.Duration(random.Int64N(int64(limit))))
		if err != nil {
			return err
		}
		if was {
			killed++
		}
		if err := s.change(ctx, next, s.about.Name); err != nil {
			return killedBefore(err)
		}
		from, to = to, from
	}
	s.record.Notes = append(s.record.Notes, fmt.Sprintf("killed in the middle of %d changes, seed %d", killed, killSeed))
	return nil
}

func killedBefore(err error) error {
	if errors.Is(err, driver.ErrRefused) || errors.Is(err, driver.ErrBroken) {
		return notConformant("a change that was killed does not come into force afterwards: %v", err)
	}
	return err
}

func (s *scenario) replaced(from, to string) (*platform.State, error) {
	settings := s.state.Of(s.about.Name)
	for _, action := range []string{`removes the firewall rule "` + from + `"`, `adds the firewall rule "` + to + `"`} {
		if err := decide(&settings, action); err != nil {
			return nil, wrongFeature("%v", err)
		}
	}
	next := s.state.Clone()
	next.Set(s.about.Name, settings)
	return next, nil
}

// kill makes one change that is killed after some time, and tries everything a few times then.
func (s *scenario) kill(ctx context.Context, next *platform.State, point string, after time.Duration) (killed bool, err error) {
	doc, err := driver.Build(next, point)
	if err != nil {
		return false, err
	}
	s.dirty[point] = true
	w := window{began: time.Now(), before: s.state, after: next, lasting: s.driver.Run}
	_, w.killed, err = s.enforcer.Interrupt(ctx, doc, after)
	w.ended = time.Now()
	s.called(w.ended.Sub(w.began))
	if err != nil {
		return false, killedBefore(err)
	}
	s.under.during(w)
	return w.killed, s.under.stream.Rounds(ctx, killRounds)
}
