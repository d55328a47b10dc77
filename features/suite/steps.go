package suite

import (
	"context"
	"regexp"
	"sync"

	"github.com/cucumber/godog"

	"drawbridge/features/oracle"
)

// expressions are the steps' compiled ones (*regexp.Regexp by text): every scenario registers all steps anew, and there are two hundred
// scenarios with those of the rehearsal.
var expressions sync.Map

// define registers one step.
func define(sc *godog.ScenarioContext, expression string, run any) {
	compiled, known := expressions.Load(expression)
	if !known {
		compiled, _ = expressions.LoadOrStore(expression, regexp.MustCompile(expression))
	}
	sc.Step(compiled, run)
}

// steps registers every step there is. get returns the running scenario.
func steps(sc *godog.ScenarioContext, get func() *scenario) {
	// step runs a step after the refusal that came before it, if any, has been spoken of.
	step := func(run func(ctx context.Context, s *scenario) error) func(context.Context) error {
		return func(ctx context.Context) error {
			if err := get().settleDecision(); err != nil {
				return err
			}
			return run(ctx, get())
		}
	}
	one := func(run func(ctx context.Context, s *scenario, a string) error) func(context.Context, string) error {
		return func(ctx context.Context, a string) error {
			return step(func(ctx context.Context, s *scenario) error { return run(ctx, s, a) })(ctx)
		}
	}
	registerDecisions(sc, get, step, one)
	registerPlatform(sc, get, one)
	registerVerdicts(sc, get, step, one)
	registerHeld(sc, get, one)
	registerEvasions(sc, step, one)
	registerMistakes(sc, step)
	registerTransitions(sc, step)
	registerKills(sc, step)
	registerTampering(sc, step, one)
	registerForgeries(sc, step)
	registerFloods(sc, step)
}

type stepFunc = func(func(context.Context, *scenario) error) func(context.Context) error
type oneFunc = func(func(context.Context, *scenario, string) error) func(context.Context, string) error

func registerDecisions(sc *godog.ScenarioContext, get func() *scenario, step stepFunc, one oneFunc) {
	define(sc, `^the database "([^"]+)" with its defaults$`, one(func(_ context.Context, s *scenario, name string) error {
		return s.speakOf(name)
	}))
	define(sc, `^every database with its defaults$`, step(func(_ context.Context, s *scenario) error { return s.everyDefault() }))
	define(sc, `^its owner ((?:changes|turns|adds|removes|keeps|cuts) .+)$`, one(func(ctx context.Context, s *scenario, text string) error {
		return s.owner(ctx, "", text)
	}))
	define(sc, `^the owner of "([^"]+)" ((?:changes|turns|adds|removes|keeps|cuts) .+)$`, func(ctx context.Context, name, text string) error {
		return step(func(ctx context.Context, s *scenario) error { return s.owner(ctx, name, text) })(ctx)
	})
	define(sc, `^the change is refused and nothing changed$`, func(ctx context.Context) error { return get().refused(ctx) })
	define(sc, `^its owner is (not )?warned$`, one(func(_ context.Context, s *scenario, not string) error { return s.warned(not == "") }))
	define(sc, `^the receipt names a generation of its own$`, step(func(_ context.Context, s *scenario) error { return s.generation() }))
	define(sc, `^the change was in force within ([0-9]+) ms$`, one(func(_ context.Context, s *scenario, ms string) error { return s.within(ms) }))
}

func registerPlatform(sc *godog.ScenarioContext, get func() *scenario, one oneFunc) {
	define(sc, `^"([^"]+)" fails over to its node "([^"]+)"$`, func(ctx context.Context, name, node string) error {
		return one(func(ctx context.Context, s *scenario, node string) error { return s.failover(ctx, name, node) })(ctx, node)
	})
	define(sc, `^the platform moves the egress address ([0-9a-f.:]+) of "([^"]+)" (?:to ([0-9a-f.:]+)|back)$`,
		func(ctx context.Context, from, region, to string) error {
			return one(func(ctx context.Context, s *scenario, to string) error { return s.moveEgress(ctx, region, from, to) })(ctx, to)
		})
	define(sc, `^the platform updates the managed range of "([^"]+)"$`, one(func(ctx context.Context, s *scenario, region string) error {
		return s.publish(ctx, region)
	}))
	define(sc, `^no policy is in force where "([^"]+)" is$`, one(func(ctx context.Context, s *scenario, name string) error {
		if err := s.settled(); err != nil {
			return err
		}
		return s.release(ctx, s.pointsOf(name))
	}))
	define(sc, `^a process on the host of "([^"]+)" connects to it over loopback, without TLS$`, one(func(ctx context.Context, s *scenario, name string) error {
		what, err := s.lab.Loopback(ctx, name)
		s.record.Notes = append(s.record.Notes, "loopback: "+what)
		return err
	}))
	define(sc, `^the node "([^"]+)" replicates a marker to the node "([^"]+)", without TLS if it may$`, func(ctx context.Context, from, to string) error {
		return one(func(ctx context.Context, s *scenario, to string) error { return s.replicate(ctx, from, to) })(ctx, to)
	})
}

func registerVerdicts(sc *godog.ScenarioContext, _ func() *scenario, step stepFunc, one oneFunc) {
	define(sc, `^(.+) is (served|denied)(?: by (.+?))?(?:, and (.+))?$`, func(ctx context.Context, who, class, by, also string) error {
		return step(func(ctx context.Context, s *scenario) error {
			c, err := s.claim(who, class, by, also)
			if err != nil {
				return err
			}
			return s.checkAll(ctx, []claim{c})
		})(ctx)
	})
	define(sc, `^all that was denied stays denied when its clients try again$`, step(func(ctx context.Context, s *scenario) error {
		return s.outlast(ctx)
	}))
	define(sc, `^these connections have these outcomes:$`, func(ctx context.Context, table *godog.Table) error {
		return step(func(ctx context.Context, s *scenario) error { return s.outcomes(ctx, table) })(ctx)
	})
	define(sc, `^whatever became of that is not judged$`, step(func(_ context.Context, s *scenario) error {
		if len(s.record.Notes) == 0 {
			return wrongFeature("nothing was done that is not judged")
		}
		return nil
	}))
	define(sc, `^the capture between them shows that traffic but not the marker$`, step(func(_ context.Context, s *scenario) error { return s.captured() }))
	define(sc, `^from "([^"]+)" these packets to its (IPv6 )?address are denied:$`, func(ctx context.Context, from, family string, table *godog.Table) error {
		return one(func(ctx context.Context, s *scenario, from string) error {
			return s.packets(ctx, from, family != "", table)
		})(ctx, from)
	})
}

func registerHeld(sc *godog.ScenarioContext, _ func() *scenario, one oneFunc) {
	define(sc, `^(.+) holds a connection to it (over IPv6 with TLS|over IPv6 without TLS|over TLS|without TLS)$`, func(ctx context.Context, who, how string) error {
		return one(func(ctx context.Context, s *scenario, how string) error {
			p, err := parsePhrase(who+" "+how, "")
			if err != nil {
				return wrongFeature("%v", err)
			}
			return s.hold(ctx, p)
		})(ctx, how)
	})
	define(sc, `^the connection of "([^"]+)" is cut at both ends$`, one(func(ctx context.Context, s *scenario, from string) error {
		return s.continues(ctx, from, oracle.Denied)
	}))
	define(sc, `^the connection of "([^"]+)" goes on$`, one(func(ctx context.Context, s *scenario, from string) error {
		return s.continues(ctx, from, oracle.Served)
	}))
}
