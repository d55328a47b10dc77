package bench

import (
	"fmt"
	"slices"
	"strings"
)

// Unmeasured is the verdict on what could not be measured: no line has a value for it.
const Unmeasured Verdict = "unmeasured"

// Comparison is what became of one metric of a task.
type Comparison struct {
	Group  string   `json:"group"`
	Name   string   `json:"name"`
	Metric string   `json:"metric"`
	Unit   string   `json:"unit"`
	More   bool     `json:"more_is_better"`
	Lines  []Line   `json:"contenders"`
	Goals  []Judged `json:"goals,omitempty"`
	// Others is the share of the machine that anything else used meanwhile, the kernel's threads included.
	Others float64 `json:"others"`
}

// Line is one contender in a comparison.
type Line struct {
	Name  string  `json:"name"`
	Kind  Kind    `json:"kind"`
	Value *Spread `json:"value,omitempty"` // nil: there is none, and Note says why
	// Ratio is the value of ours divided by this one's, each pair of one round; nil for ours.
	Ratio  *Spread `json:"ours_to_it,omitempty"`
	Failed bool    `json:"failed,omitempty"`
	Note   string  `json:"note,omitempty"`
}

// Judged is an aim and whether it was reached.
type Judged struct {
	Of      string  `json:"of"`
	Against string  `json:"against,omitempty"`
	Limit   float64 `json:"limit"`
	Value   *Spread `json:"value,omitempty"`
	Verdict Verdict `json:"verdict"`
	// Excused: what is missing for a verdict is not there to be measured on this machine, and nothing failed.
	Excused bool `json:"excused,omitempty"`
}

// compare makes a comparison of each metric.
func (t Task) compare(field []*standing, rounds int, others float64) []Comparison {
	var all []Comparison
	for _, m := range t.Metrics {
		c := Comparison{Group: t.Group, Name: t.Name, Metric: m.Name, Unit: m.Unit, More: m.More, Others: others}
		var ours []float64
		for _, s := range field {
			if s.Kind == Ours {
				ours = s.of(m)
			}
		}
		for _, s := range field {
			if l := s.line(m, ours); l.Value != nil || len(s.values) == 0 { // else it tells other metrics alone
				c.Lines = append(c.Lines, l)
			}
		}
		for _, a := range t.Aims {
			if a.Metric == m.Name {
				c.Goals = append(c.Goals, c.judge(a))
			}
		}
		all = append(all, c)
	}
	return all
}

// of returns a metric's values: as many as there are from the first round on.
func (s *standing) of(m Metric) (out []float64) {
	for _, v := range s.values {
		x, ok := v[m.Name]
		if !ok {
			return out
		}
		out = append(out, x)
	}
	return out
}

func (s *standing) line(m Metric, ours []float64) Line {
	l := Line{Name: s.Name, Kind: s.Kind, Note: s.reason, Failed: s.failed}
	values := s.of(m)
	if len(values) == 0 {
		return l
	}
	l.Value = pointer(NewSpread(values))
	ratios := Ratios(ours, values)
	switch {
	case s.Kind == Ours || len(ratios) == 0:
	case slices.Min(ours) <= 0 || slices.Min(values) <= 0: // memory that the machine gave back meanwhile
		l.Note = strings.TrimPrefix(l.Note+"; no ratio of what is not positive", "; ")
	default:
		l.Ratio = pointer(NewSpread(ratios))
	}
	return l
}

func pointer[T any](v T) *T { return &v }

// find returns a contender's line; ours if it has no name.
func (c Comparison) find(name string) (Line, bool) {
	for _, l := range c.Lines {
		if l.Name == name || name == "" && l.Kind == Ours {
			return l, true
		}
	}
	return Line{}, false
}

func (c Comparison) judge(a Aim) Judged {
	of, _ := c.find(a.Of)
	j := Judged{Of: of.Name, Against: a.Against, Limit: a.Limit, Verdict: Unmeasured}
	against, known := c.find(a.Against)
	switch {
	case of.Value == nil:
		return j
	case a.Against == "":
		j.Value = of.Value
	case !known || against.Value == nil:
		j.Excused = known && !against.Failed
		return j
	default:
		j.Value = pointer(NewSpread(Ratios(of.Value.Values, against.Value.Values)))
	}
	j.Verdict = judge(*j.Value, a.Limit, c.More)
	return j
}

// judge holds a value against a limit: the least that it should be if more is better, else the most.
func judge(s Spread, limit float64, more bool) Verdict {
	reached, beyond := s.Median <= limit, s.Low > limit
	if more {
		reached, beyond = s.Median >= limit, s.High < limit
	}
	switch {
	case reached:
		return Met
	case s.Confident && beyond:
		return Missed
	}
	return Noise
}

// Title is what a comparison is about, in words.
func (c Comparison) Title() string {
	if c.Metric == "" {
		return c.Name
	}
	return c.Name + ": " + c.Metric
}

// goal is a goal in words: "change one rule, 1,000 databases: netlink batch at most 1 ms".
func (c Comparison) goal(j Judged) string {
	bound := either(c.More, "at least", "at most")
	if j.Against == "" {
		return fmt.Sprintf("%s: %s %s %s %s", c.Title(), j.Of, bound, significant(j.Limit), c.Unit)
	}
	return fmt.Sprintf("%s: %s %s %s of %s", c.Title(), j.Of, bound, significant(j.Limit), j.Against)
}

// Thousands writes a number with commas.
func Thousands(n int) string {
	s := fmt.Sprint(n)
	var parts []string
	for len(s) > 3 {
		parts = append([]string{s[len(s)-3:]}, parts...)
		s = s[:len(s)-3]
	}
	return strings.Join(append([]string{s}, parts...), ",")
}

// significant writes a number with three significant digits or all before the point, and no exponent.
func significant(v float64) string {
	switch a := max(v, -v); {
	case a == 0:
		return "0"
	case a >= 99.95:
		return fmt.Sprintf("%.0f", v)
	case a >= 9.995:
		return fmt.Sprintf("%.1f", v)
	case a >= 0.9995:
		return fmt.Sprintf("%.2f", v)
	case a >= 0.09995:
		return fmt.Sprintf("%.3f", v)
	}
	return fmt.Sprintf("%.4f", v)
}
