package suite

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/cucumber/godog"

	"drawbridge/features/oracle"
	"drawbridge/topology"
)

// Flooded is what became of a flood of connection attempts (SPEC X-10). The zero value never began.
type Flooded struct {
	// Passed is how many of its packets got past the enforcement point.
	Passed int
	// Tracked is how many of its attempts the enforcement point's connection tracking still holds.
	Tracked      int
	Began, Ended time.Time
}

// waits are how long the answers to SYNs took that are served, without a flood and during one.
type waits struct{ calm, flooded []time.Duration }

// How much longer the answer in the middle may take during a flood, which keeps the lab's own processors busy: so many times as long, and
// a time that may be added where that is next to nothing.
const (
	floodFactor = 10
	floodSlack  = 5 * time.Millisecond
)

func registerFloods(sc *godog.ScenarioContext, step stepFunc) {
	define(sc, `^"([^"]+)" floods (it|"[^"]+") with ([0-9]+) connection attempts that are (denied|let in)$`,
		func(ctx context.Context, from, to, syns, class string) error {
			return step(func(ctx context.Context, s *scenario) error { return s.floods(ctx, from, to, syns, class) })(ctx)
		})
	define(sc, `^none of them waited longer for it$`, step(func(_ context.Context, s *scenario) error { return s.waited() }))
}

// floods sends a flood while other connections are tried all the time. It is a change after which the same policy is in force.
func (s *scenario) floods(ctx context.Context, from, to, syns, class string) error {
	want := map[string]oracle.Class{"denied": oracle.Denied, "let in": oracle.Served}[class]
	conn, err := s.flooded(from, to, want)
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(syns)
	if err != nil || n == 0 || s.under == nil {
		return wrongFeature("a flood of %s, or nothing is tried all the time meanwhile", syns)
	}
	if err := s.under.stream.Rounds(ctx, mendRounds); err != nil {
		return err
	}
	f, err := s.lab.Flood(ctx, conn.From, conn.To, n)
	if err != nil {
		return err
	}
	s.under.during(window{began: f.Began, ended: f.Ended, before: s.state, after: s.state, flood: true})
	denied := want == oracle.Denied
	switch {
	case denied && f.Passed > 0:
		err = notConformant("of %d denied attempts from %s to %s, %d packets passed", n, from, conn.To.Addr, f.Passed)
	case denied && f.Tracked > 0:
		err = notConformant("%d denied attempts from %s to %s left %d entries in connection tracking", n, from, conn.To.Addr, f.Tracked)
	case !denied && f.Passed == 0:
		err = notConformant("of %d attempts from %s to %s that are let in, nothing passed", n, from, conn.To.Addr)
	}
	s.record.noteFlood(conn, n, want, f, err)
	if after := s.under.stream.Rounds(ctx, mendRounds); err == nil {
		err = after
	}
	return err
}

// flooded resolves who floods what, and has the oracle say the same as the feature.
func (s *scenario) flooded(from, to string, literal oracle.Class) (oracle.Connection, error) {
	d := s.about
	if to != "it" {
		var ok bool
		if d, ok = s.world.Database(to[1 : len(to)-1]); !ok {
			return oracle.Connection{}, wrongFeature("there is no database %s in world %s", to, s.world.Name())
		}
	}
	v, ok := s.world.Vantage(from)
	if !ok || v.Kind != topology.VantageInternet {
		return oracle.Connection{}, wrongFeature("%q is no Internet host of world %s", from, s.world.Name())
	}
	e, err := s.forgeable(v, d)
	if err != nil {
		return oracle.Connection{}, err
	}
	c := oracle.Connection{From: v, To: e, TLS: true}
	_, err = s.expect(c, literal)
	return c, err
}

// waited compares how long answers took during the flood and otherwise. The middle one is judged; the report has the slowest as well.
func (s *scenario) waited() error {
	w := s.waits
	if len(w.calm) == 0 || len(w.flooded) == 0 {
		return fmt.Errorf("%w: %d answers without a flood and %d during one: nothing to compare", errInconclusive, len(w.calm), len(w.flooded))
	}
	slices.Sort(w.calm)
	slices.Sort(w.flooded)
	calm, flooded := w.calm[len(w.calm)/2], w.flooded[len(w.flooded)/2]
	s.record.Notes = append(s.record.Notes, fmt.Sprintf("answers: median %s, slowest %s; during the flood: median %s, slowest %s",
		calm, w.calm[len(w.calm)-1], flooded, w.flooded[len(w.flooded)-1]))
	if flooded > floodFactor*calm+floodSlack {
		return notConformant("during the flood an answer took %s (median of %d), and %s otherwise", flooded, len(w.flooded), calm)
	}
	return nil
}

// waitsOf sorts the answers that were given by whether a flood was under way.
func (t *transition) waitsOf(shots []Shot) (w waits) {
	for _, shot := range shots {
		if !shot.Served || t.trials[shot.Trial].Says {
			continue
		}
		took := shot.Ended.Sub(shot.Began)
		during := slices.ContainsFunc(t.windows, func(w window) bool {
			return w.flood && shot.Began.After(w.began) && shot.Began.Before(w.ended)
		})
		if during {
			w.flooded = append(w.flooded, took)
		} else {
			w.calm = append(w.calm, took)
		}
	}
	return w
}

func (r *ScenarioReport) noteFlood(c oracle.Connection, syns int, want oracle.Class, f Flooded, err error) {
	line := AttemptLine{
		What: fmt.Sprintf("%d connection attempts from %s to %s at %s", syns, c.From.Name, c.To.Database, c.To.Addr), Must: want.String(),
		Because: []string{"X-10"}, Was: fmt.Sprintf("%d packets passed, %d entries tracked", f.Passed, f.Tracked), OK: err == nil,
		Millis: millis(f.Ended.Sub(f.Began)),
	}
	if err != nil {
		line.Detail = err.Error()
	}
	r.Attempts = append(r.Attempts, line)
}
