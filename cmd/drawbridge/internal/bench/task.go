package bench

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// Kind says what a contender is to ours. The zero value is none.
type Kind string

// Kinds.
const (
	Ours  Kind = "ours"  // what this project does; a task has one
	Part  Kind = "part"  // a part of ours, measured by itself
	Peer  Kind = "peer"  // what somebody else does for the same end
	Floor Kind = "floor" // the least that it can cost
)

// own tells whether a contender that fails is this project's own failure.
func (k Kind) own() bool { return k == Ours || k == Part }

// Values are what one run of a contender took, by the name of the metric. What a contender cannot tell is left out.
type Values map[string]float64

// Contender is one way to do what a task is about.
type Contender struct {
	Name string
	Kind Kind
	// Absent is why it cannot be measured here; empty if it can.
	Absent string
	// Run does it once. What it has to prepare and to tidy up is in its own hands, and not in its values.
	Run func(context.Context) (Values, error)
}

// Metric is one thing that a task's runs tell.
type Metric struct {
	Name, Unit string
	// More is better; otherwise less is.
	More bool
}

// Aim is what a metric should reach.
type Aim struct {
	Metric string
	// Of is the contender that it is about; empty: ours.
	Of string
	// Against is the contender by whose value the value is divided; empty: the value itself is held against the limit.
	Against string
	// Limit is the most that there may be, or the least where more is better.
	Limit float64
}

// Task is something that several contenders do. One of them is ours.
type Task struct {
	Group, Name string
	Metrics     []Metric
	Contenders  []Contender
	Aims        []Aim
}

// Plan says how tasks are measured.
type Plan struct {
	Rounds int // at least 1
	// Budget is what one contender may spend on one task, preparation included. Who has spent it is left out of the rounds that
	// follow: every contender has at least one run.
	Budget time.Duration
	// Usage reads the processor time so far, and Processors is how many there are.
	Usage      func() (Usage, error)
	Processors int
	Now        func() time.Time
}

// standing is how far a contender is in a task.
type standing struct {
	Contender
	values []Values
	spent  time.Duration
	reason string // why it runs no more; empty: it does
	failed bool
}

// Measure carries out a task. In each round every contender runs once, and each round begins with another one, so that what the
// machine does besides falls on all of them alike. What a peer fails at is told in its line; what fails of ours is an error.
func (p Plan) Measure(ctx context.Context, t Task) ([]Comparison, error) {
	field := make([]*standing, len(t.Contenders))
	for i, c := range t.Contenders {
		field[i] = &standing{Contender: c, reason: c.Absent}
	}
	before, err := p.Usage()
	if err != nil {
		return nil, err
	}
	began := p.Now()
	for round := range p.Rounds {
		if err := p.round(ctx, rotated(field, round)); err != nil {
			return nil, fmt.Errorf("%s: %w", t.Name, err)
		}
	}
	after, err := p.Usage()
	if err != nil {
		return nil, err
	}
	return t.compare(field, p.Rounds, after.Since(before).others(p.Processors, p.Now().Sub(began))), nil
}

// rotated returns the contenders in the order of a round.
func rotated[T any](all []T, round int) []T {
	if len(all) == 0 {
		return nil
	}
	first := round % len(all)
	return slices.Concat(all[first:], all[:first])
}

func (p Plan) round(ctx context.Context, field []*standing) error {
	for _, s := range field {
		if s.reason != "" {
			continue
		}
		began := p.Now()
		v, err := s.Run(ctx)
		s.spent += p.Now().Sub(began)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil && s.Kind.own():
			return fmt.Errorf("%s: %w", s.Name, err)
		case err != nil:
			s.reason, s.failed = "failed: "+err.Error(), true
			continue
		}
		s.values = append(s.values, v)
		if s.spent >= p.Budget && len(s.values) < p.Rounds {
			s.reason = fmt.Sprintf("%d of %d rounds took %s", len(s.values), p.Rounds, s.spent.Round(time.Second))
		}
	}
	return nil
}

// others is the share of the machine that anything but the processes measured used meanwhile.
func (u Usage) others(processors int, elapsed time.Duration) float64 {
	if elapsed <= 0 || processors < 1 {
		return 0
	}
	return max(0, float64(u.Machine-u.Processes)/(float64(processors)*float64(elapsed)))
}
