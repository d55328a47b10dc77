package suite

import (
	"context"
	"fmt"
	"time"

	"github.com/cucumber/godog"

	"drawbridge/features/oracle"
	"drawbridge/features/platform"
)

// Trial is a connection that is tried again and again while something changes (SPEC X-06). Says: its client also says what it
// begins with, over TLS or not; otherwise it is a SYN alone.
type Trial struct {
	oracle.Connection
	Says bool
}

// Shot is what became of one try. The zero value got nowhere.
type Shot struct {
	Trial          int // its place among the trials
	Began, Ended   time.Time
	Passed, Served bool
	// Lost: the lab's own wires dropped some of its packets: that it was not served need be nobody's decision.
	Lost bool
}

// Stream tries connections all the time, until it is stopped.
type Stream interface {
	// Rounds returns after every connection has been tried some more times.
	Rounds(ctx context.Context, more int64) error
	// Stop ends it, and returns what became of all tries.
	Stop(ctx context.Context) ([]Shot, error)
}

// window is a change: from the call of the enforcer to its answer, either state may be in force; afterwards, the later one is.
type window struct {
	began, ended  time.Time
	before, after *platform.State
	// killed: nobody knows which of both is in force until the next change, but one of them is, as a whole.
	killed bool
	// lasting: the enforcer runs all the time, and who asked it for the change was killed.
	lasting bool
	// tampered: somebody else changed the rules. Until the end of the window nothing is expected; without a program that runs, not
	// before the next change is in force.
	tampered, helpless bool
	// flood: nothing changed, but somebody sent a flood.
	flood bool
}

// transition is a stream under way, and what was changed meanwhile.
type transition struct {
	trials  []Trial
	stream  Stream
	start   *platform.State
	windows []window
}

// during notes a window if a stream is under way.
func (t *transition) during(w window) {
	if t != nil {
		t.windows = append(t.windows, w)
	}
}

func registerTransitions(sc *godog.ScenarioContext, step stepFunc) {
	define(sc, `^these are tried all the time:$`, func(ctx context.Context, table *godog.Table) error {
		return step(func(ctx context.Context, s *scenario) error { return s.tries(ctx, table) })(ctx)
	})
	define(sc, `^each of them fared as the policy before or after a change has it$`, step(func(ctx context.Context, s *scenario) error {
		return s.fared(ctx)
	}))
}

// tries starts a stream. Column "tries" says what each client does: its SYN alone, or what it says too.
func (s *scenario) tries(ctx context.Context, table *godog.Table) error {
	if s.under != nil {
		return wrongFeature("something is tried all the time already")
	}
	rows, err := records(table, []string{"who", "how", "tries"}, nil)
	if err != nil {
		return err
	}
	t := &transition{start: s.state.Clone()}
	for _, r := range rows {
		p, err := parsePhrase(r["who"]+" "+r["how"], "")
		if err != nil {
			return wrongFeature("%v", err)
		}
		attempts, err := p.attempts(s.world, s.about)
		if err != nil {
			return wrongFeature("%v", err)
		}
		if r["tries"] != "its SYN" && r["tries"] != "its first words" {
			return wrongFeature(`%q: a client tries "its SYN" or "its first words"`, r["tries"])
		}
		for _, a := range attempts {
			if a.To.Addr.Addr().Is4() {
				t.trials = append(t.trials, Trial{Connection: a, Says: r["tries"] == "its first words"})
			}
		}
	}
	if t.stream, err = s.lab.Stream(ctx, t.trials); err != nil {
		return err
	}
	s.under = t
	return nil
}

// fared ends the stream and judges every single try.
func (s *scenario) fared(ctx context.Context) error {
	t := s.under
	if t == nil || len(t.windows) == 0 {
		return wrongFeature("nothing was tried while something changed")
	}
	s.under = nil
	shots, err := t.stream.Stop(ctx)
	if err != nil {
		return err
	}
	j, err := t.judge(shots)
	if err != nil {
		return err
	}
	s.record.windows = j.windows
	s.waits = t.waitsOf(shots)
	var findings []error
	for i, trial := range t.trials {
		err := j.finding(trial, i)
		s.record.noteTrial(trial, j.tries[i], err)
		findings = append(findings, err)
	}
	return worst(append(findings, j.halves...))
}

// phase is a time in which one of some states is in force.
type phase struct {
	from, to time.Time         // to: zero, it goes on
	states   []*platform.State // none: whatever happens is not judged
	changes  int               // the window's index, or -1 between two
	helpless bool
}

// phases are the windows and what lies between them.
func (t *transition) phases() []phase {
	all := []phase{{states: []*platform.State{t.start}, changes: -1}}
	for i, w := range t.windows {
		last := &all[len(all)-1]
		last.to = w.began
		possible := append([]*platform.State{w.after}, last.states...)
		after := []*platform.State{w.after}
		if w.killed {
			after = possible
		}
		if w.tampered || last.helpless {
			possible = nil
		}
		all = append(all, phase{w.began, w.ended, possible, i, false}, phase{from: w.ended, states: after, changes: -1, helpless: w.helpless})
		if w.helpless {
			all[len(all)-1].states = nil
		}
	}
	return all
}

func (p phase) meets(s Shot) bool {
	return (p.to.IsZero() || s.Began.Before(p.to)) && !s.Ended.Before(p.from)
}

// WindowsReport is what was measured while policies changed under connections that were tried all the time (SPEC X-06).
type WindowsReport struct {
	Changes int `json:"changes"`
	Tries   int `json:"tries"`
	Wrong   int `json:"wrong"` // tries that fared as neither policy has it; must be 0
	// Cut: conversations that Force TLS ended as it came on in the middle of them, which SPEC X-05 allows.
	Cut int `json:"cut_at_their_beginning"`
	// Gap is the longest time in which a connection was not tried: nothing is known of what happened in less.
	Gap float64 `json:"longest_gap_ms"`
	// Deny and Allow are the times from the call of the enforcer to the first try that fared by the new policy, after which none fared
	// by the old one.
	Deny  Durations `json:"time_to_deny"`
	Allow Durations `json:"time_to_allow"`
}

// windows are the same, of one scenario.
type windows struct {
	changes, tries, wrong, cut int
	gap                        time.Duration
	deny, allow                []time.Duration
}

func (r *Report) measureWindows() {
	var sum WindowsReport
	var gap time.Duration
	var deny, allow []time.Duration
	for _, s := range r.Scenarios {
		sum.Changes, sum.Tries, sum.Wrong = sum.Changes+s.windows.changes, sum.Tries+s.windows.tries, sum.Wrong+s.windows.wrong
		sum.Cut += s.windows.cut
		gap = max(gap, s.windows.gap)
		deny, allow = append(deny, s.windows.deny...), append(allow, s.windows.allow...)
	}
	if sum.Tries > 0 {
		sum.Gap, sum.Deny, sum.Allow = millis(gap), percentiles(deny), percentiles(allow)
		r.Windows = &sum
	}
}

// String is the summary's line.
func (w *WindowsReport) String() string {
	return fmt.Sprintf("changes under fire: %d, %d tries, %d wrong, longest gap %.1f ms; time to deny p50 %.1f, p99 %.1f, max %.1f ms; "+
		"time to allow p50 %.1f, p99 %.1f, max %.1f ms\n", w.Changes, w.Tries, w.Wrong, w.Gap,
		w.Deny.P50, w.Deny.P99, w.Deny.Max, w.Allow.P50, w.Allow.P99, w.Allow.Max)
}

func (r *ScenarioReport) noteTrial(t Trial, tries string, err error) {
	line := AttemptLine{
		What: "all the time: " + describe(t.Connection), Must: "as before or after the change", Because: []string{"X-06"}, Was: tries, OK: err == nil,
	}
	if err != nil {
		line.Detail = err.Error()
	}
	r.Attempts = append(r.Attempts, line)
}
