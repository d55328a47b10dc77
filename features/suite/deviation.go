package suite

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"drawbridge/features/driver"
)

// Deviation is one way in which an enforcer is known not to conform, for a time. The zero value is refused by ReadDeviations.
type Deviation struct {
	Statement string    `json:"statement,omitempty"` // either: every scenario of a statement,
	Scenario  string    `json:"scenario,omitempty"`  // or: one scenario, by its name
	Reason    string    `json:"reason"`
	Expires   time.Time `json:"expires"` // at the end of that day (UTC) it excuses nothing any more

	place string // file and line
}

// String names what deviates.
func (d Deviation) String() string {
	if d.Statement != "" {
		return d.Statement
	}
	return d.Scenario
}

func (d Deviation) covers(s *ScenarioReport) bool {
	return d.Scenario != "" && d.Scenario == s.Name || d.Statement != "" && slices.Contains(s.Statements, d.Statement)
}

func (d Deviation) expired(now time.Time) bool { return !now.Before(d.Expires.AddDate(0, 0, 1)) }

// ErrDeviations is the error for a file of known deviations that cannot be used; it names each place.
var ErrDeviations = errors.New("known deviations")

// dayLayout is how the file writes dates (ISO 8601).
const dayLayout = "2006-01-02"

// ReadDeviations reads a file of known deviations: a YAML list of mappings with statement or scenario, reason and expires (a date).
// known are the scenarios that there are. Errors are ErrDeviations and name file and line.
func ReadDeviations(file string, in io.Reader, known []Selected) ([]Deviation, error) {
	var list []yaml.Node
	if err := yaml.NewDecoder(in).Decode(&list); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w: %s: must be a list of mappings: %w", ErrDeviations, file, err)
	}
	var all []Deviation
	var wrong []error
	for _, n := range list {
		d, err := readDeviation(&n, known)
		d.place = fmt.Sprintf("%s:%d", file, n.Line)
		if err == nil && slices.ContainsFunc(all, func(o Deviation) bool { return o.String() == d.String() }) {
			err = fmt.Errorf("%q is listed twice", d)
		}
		if err != nil {
			wrong = append(wrong, fmt.Errorf("%w: %s: %w", ErrDeviations, d.place, err))
		}
		all = append(all, d)
	}
	return all, errors.Join(wrong...)
}

func readDeviation(n *yaml.Node, known []Selected) (Deviation, error) {
	members := map[string]string{}
	if n.Kind != yaml.MappingNode {
		return Deviation{}, errors.New("must be a mapping with statement or scenario, reason and expires")
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if _, twice := members[key.Value]; twice || value.Kind != yaml.ScalarNode {
			return Deviation{}, fmt.Errorf("%s: must be one text, given once", key.Value)
		}
		if !slices.Contains([]string{"statement", "scenario", "reason", "expires"}, key.Value) {
			return Deviation{}, fmt.Errorf("unknown member %q: there are statement, scenario, reason and expires", key.Value)
		}
		members[key.Value] = strings.TrimSpace(value.Value)
	}
	d := Deviation{Statement: members["statement"], Scenario: members["scenario"], Reason: members["reason"]}
	var err error
	if d.Expires, err = time.Parse(dayLayout, members["expires"]); err != nil {
		return d, fmt.Errorf("expires %q: must be a date such as 2030-12-31", members["expires"])
	}
	return d, d.check(known)
}

func (d Deviation) check(known []Selected) error {
	switch {
	case (d.Statement == "") == (d.Scenario == ""):
		return errors.New("must name either a statement or a scenario")
	case d.Reason == "":
		return fmt.Errorf("%s: the reason is missing", d)
	case d.Statement != "" && !slices.Contains(slices.Concat(statements(driver.Core), statements(driver.Extended)), d.Statement):
		return fmt.Errorf("there is no statement %q (drawbridge conform --list)", d.Statement)
	case d.Scenario != "" && !slices.ContainsFunc(known, func(s Selected) bool { return s.Name == d.Scenario }):
		return fmt.Errorf("there is no scenario %q (drawbridge conform --list)", d.Scenario)
	}
	return nil
}

// DeviationReport says what became of a known deviation.
type DeviationReport struct {
	Deviation
	Status    string   `json:"status"` // one of the constants below
	Scenarios []string `json:"scenarios"`
}

// What becomes of a known deviation.
const (
	DeviationKnown   = "known"   // its scenarios failed, and are excused
	DeviationPassed  = "passed"  // everything that it names passed: the entry must go, and the run fails
	DeviationExpired = "expired" // it excuses nothing any more, and the run fails
	DeviationUntried = "untried" // nothing that it names was judged
)

// excuse marks the failed scenarios that known deviations cover, and returns what is wrong with the deviations themselves.
func (r *Report) excuse(all []Deviation, now time.Time) error {
	var wrong []error
	for _, d := range all {
		out := r.deviation(d, now)
		switch out.Status {
		case DeviationExpired:
			wrong = append(wrong, notConformant("%s: the deviation %q has expired on %s", d.place, d, d.Expires.Format(dayLayout)))
		case DeviationPassed:
			wrong = append(wrong, notConformant("%s: unexpected pass: %q is listed as a known deviation; take it off the list", d.place, d))
		case DeviationKnown:
			r.markDeviating(d)
		}
		r.Deviations = append(r.Deviations, out)
	}
	return errors.Join(wrong...)
}

// deviation says what became of one. A statement has passed only if all of its scenarios were to run and have.
func (r *Report) deviation(d Deviation, now time.Time) DeviationReport {
	out := DeviationReport{Deviation: d, Status: DeviationUntried, Scenarios: []string{}}
	passed, unjudged := 0, d.Statement != "" && r.Tags != ""
	for _, s := range r.Scenarios {
		if !d.covers(s) {
			continue
		}
		switch s.Result {
		case Passed:
			passed++
		case Unjudged:
			unjudged = true
		default:
			out.Scenarios = append(out.Scenarios, s.Name)
		}
	}
	switch {
	case d.expired(now):
		out.Status = DeviationExpired
	case len(out.Scenarios) > 0:
		out.Status = DeviationKnown
	case passed > 0 && !unjudged:
		out.Status = DeviationPassed
	}
	return out
}

func (r *Report) markDeviating(d Deviation) {
	for _, s := range r.Scenarios {
		if d.covers(s) && s.Result == Failed {
			s.Result = Deviating
		}
	}
}
