package suite

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"drawbridge/features/oracle"
	"drawbridge/features/platform"
)

// judgement is what the tries of a transition amount to.
type judgement struct {
	windows windows
	wrong   [][]string // by trial
	tries   []string   // by trial, in words
	halves  []error    // changes that were killed and left a half
}

// fared says how a try fared; a denied client that says something may get as far as its connection. What of its packets the lab's wires dropped
// may have kept it from being served, and never let it pass.
func (s Shot) fared(v oracle.Verdict) bool {
	if v.Class == oracle.Served {
		return s.Served || s.Lost
	}
	return !s.Passed
}

// judge compares every try with the states that may have been in force while it lasted.
func (t *transition) judge(shots []Shot) (*judgement, error) {
	slices.SortStableFunc(shots, func(a, b Shot) int { return a.Began.Compare(b.Began) })
	j := &judgement{wrong: make([][]string, len(t.trials)), tries: make([]string, len(t.trials))}
	j.windows.changes = len(t.windows)
	phases := t.phases()
	of := make([][]Shot, len(t.trials))
	for _, s := range shots {
		of[s.Trial] = append(of[s.Trial], s)
	}
	for i, trial := range t.trials {
		verdicts, err := t.verdicts(trial)
		if err != nil {
			return nil, err
		}
		if len(of[i]) == 0 {
			return nil, fmt.Errorf("%w: %s was never tried", errInconclusive, describe(trial.Connection))
		}
		j.try(t, i, of[i], phases, verdicts)
		for w := range t.windows {
			j.measure(t, w, of[i], verdicts)
		}
	}
	return j, t.wholes(j, of)
}

// verdicts asks the oracle about a trial in every state that there was.
func (t *transition) verdicts(trial Trial) (map[*platform.State]oracle.Verdict, error) {
	all := map[*platform.State]oracle.Verdict{}
	states := []*platform.State{t.start}
	for _, w := range t.windows {
		states = append(states, w.before, w.after)
	}
	for _, state := range states {
		v, err := oracle.Expect(state, trial.Connection)
		if err != nil || v.Class == oracle.Unspecified {
			return nil, wrongFeature("no statement speaks of %s: %v", describe(trial.Connection), cmp.Or(err, fmt.Errorf("%s", v.Reason)))
		}
		if v.Class == oracle.Denied && v.Talk && !trial.Says {
			return nil, wrongFeature("%s may send its SYN: what it says is denied", describe(trial.Connection))
		}
		all[state] = v
	}
	return all, nil
}

func (j *judgement) try(t *transition, i int, shots []Shot, phases []phase, verdicts map[*platform.State]oracle.Verdict) {
	served := 0
	for n, s := range shots {
		if s.Served {
			served++
		}
		if n > 0 {
			j.windows.gap = max(j.windows.gap, s.Began.Sub(shots[n-1].Began))
		}
		var right bool
		var when string
		for _, p := range phases {
			if !p.meets(s) {
				continue
			}
			right = right || p.allows(s, verdicts)
			when = p.String(s)
		}
		if !right && t.excused(i, s) {
			j.windows.cut++
			right = true
		}
		if !right {
			j.wrong[i] = append(j.wrong[i], fmt.Sprintf("%s: passed %t, served %t, %s", s.Began.Format("15:04:05.000000"), s.Passed, s.Served, when))
		}
	}
	j.windows.tries += len(shots)
	j.windows.wrong += len(j.wrong[i])
	j.tries[i] = fmt.Sprintf("tried %d times in %s, served %d times", len(shots), shots[len(shots)-1].Began.Sub(shots[0].Began).Round(time.Millisecond), served)
}

// excused reports whether a conversation was under way while Force TLS came on. Of one that had not yet said its first bytes, an
// enforcer may not know enough to let it go on (SPEC X-05: a connection whose beginning it never saw is cut). A new one is served.
func (t *transition) excused(trial int, s Shot) bool {
	to := t.trials[trial].To
	d, ok := t.start.World().Database(to.Database)
	if trial := t.trials[trial]; !ok || !trial.Says || !trial.TLS {
		return false
	}
	for _, w := range t.windows {
		on := oracle.ForcesTLS(d.Model, w.after.Of(d.Name)) && !oracle.ForcesTLS(d.Model, w.before.Of(d.Name))
		if on && s.Began.Before(w.ended) && s.Ended.After(w.began) {
			return true
		}
	}
	return false
}

// allows reports whether a try fared as one of the states has it. Where one lets it pass and another does not, the change may
// have come between the first packet and its answer.
func (p phase) allows(s Shot, verdicts map[*platform.State]oracle.Verdict) bool {
	if len(p.states) == 0 {
		return true
	}
	var serves, denies bool
	for _, state := range p.states {
		v := verdicts[state]
		if s.fared(v) {
			return true
		}
		serves, denies = serves || v.Class == oracle.Served, denies || v.Class == oracle.Denied
	}
	return serves && denies && s.Passed
}

func (p phase) String(s Shot) string {
	switch {
	case p.from.IsZero():
		return "before the first change"
	case p.changes >= 0:
		return fmt.Sprintf("%s into change %d", s.Began.Sub(p.from).Round(10*time.Microsecond), p.changes+1)
	}
	return fmt.Sprintf("%s after a change was in force", s.Began.Sub(p.from).Round(10*time.Microsecond))
}

// measure finds how long a change took to be felt.
func (j *judgement) measure(t *transition, n int, shots []Shot, verdicts map[*platform.State]oracle.Verdict) {
	w := t.windows[n]
	was, is := verdicts[w.before], verdicts[w.after]
	if was.Class == is.Class || w.killed || n > 0 && (t.windows[n-1].killed || t.windows[n-1].helpless) {
		return
	}
	var felt time.Time
	for _, s := range shots {
		next := n+1 < len(t.windows) && s.Began.After(t.windows[n+1].began)
		switch {
		case s.Began.Before(w.began) || next:
		case s.fared(was):
			felt = time.Time{}
		case felt.IsZero():
			felt = s.Began
		}
	}
	switch {
	case felt.IsZero():
	case is.Class == oracle.Served:
		j.windows.allow = append(j.windows.allow, felt.Sub(w.began))
	default:
		j.windows.deny = append(j.windows.deny, felt.Sub(w.began))
	}
}

// wholes checks that every killed change left one of its two policies in force as a whole: what was tried between the kill and the next
// change fared by the one, or all of it by the other. Where a long-running program was only asked for the change, it goes on when who asked
// is killed, and the change may come into force a moment later, as a whole: then all fared by the one first, and from then on by the other.
func (t *transition) wholes(j *judgement, of [][]Shot) error {
	for n, w := range t.windows {
		if !w.killed {
			continue
		}
		var old, fresh Shot // the last that did not fare by the policy after, and the first that did not by the one before; zero: all did
		for i, trial := range t.trials {
			verdicts, err := t.verdicts(trial)
			if err != nil {
				return err
			}
			for _, s := range of[i] {
				if s.Began.Before(w.ended) || n+1 < len(t.windows) && !s.Ended.Before(t.windows[n+1].began) {
					continue
				}
				if !s.fared(verdicts[w.after]) && s.Began.After(old.Began) {
					old = s
				}
				if !s.fared(verdicts[w.before]) && (fresh.Began.IsZero() || s.Began.Before(fresh.Began)) {
					fresh = s
				}
			}
		}
		whole := old.Began.IsZero() || fresh.Began.IsZero() || w.lasting && old.Began.Before(fresh.Ended)
		if !whole {
			j.halves = append(j.halves, notConformant("change %d was killed, and what was in force then is neither the policy before nor the one after it", n+1))
		}
	}
	return nil
}

// shownWrong bounds how many wrong tries of one connection are printed.
const shownWrong = 3

func (j *judgement) finding(trial Trial, i int) error {
	wrong := j.wrong[i]
	if len(wrong) == 0 {
		return nil
	}
	return notConformant("%s: %s; %d of them fared as neither the policy before nor the one after has it: %q",
		describe(trial.Connection), j.tries[i], len(wrong), wrong[:min(len(wrong), shownWrong)])
}
