package suite

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"

	"drawbridge/features/confidence"
	"drawbridge/topology"
)

// SampleReport is what a run of RunSample found.
type SampleReport struct {
	Result         Result         `json:"result"`
	Error          string         `json:"error,omitempty"` // what kept it from being judged, or failed it as a whole
	World          string         `json:"world"`
	Dedicated      int            `json:"dedicated"` // databases
	Shared         int            `json:"shared"`
	Rules          int            `json:"rules"` // of each dedicated database
	Servers        string         `json:"servers"`
	Kernel         string         `json:"kernel,omitempty"`
	Command        string         `json:"command,omitempty"`
	Implementation Implementation `json:"implementation"`
	Started        time.Time      `json:"started"`
	Seconds        float64        `json:"seconds"`
	LabSeconds     float64        `json:"lab_seconds"` // to build it, before Started
	Seed           uint64         `json:"seed"`
	Confidence     float64        `json:"confidence"`
	Connections    int            `json:"connections"` // that there are
	Unspecified    int            `json:"unspecified"` // of which no statement speaks, in all states together
	PolicyBytes    int            `json:"policy_bytes"`
	Baseline       PhaseReport    `json:"baseline"`         // what is tried later, while nothing is in force
	Install        Durations      `json:"install"`          // of the driver's calls, one for each point
	Proofs         []ProofReport  `json:"proofs,omitempty"` // the enforcer's own, which are not judged
	Changes        Durations      `json:"changes"`
	Closing        Durations      `json:"closing"`
	Phases         []PhaseReport  `json:"phases"`
	Mismatched     int            `json:"mismatched"`
	Mismatches     []Mismatch     `json:"mismatches"` // the first of them

	took map[*Durations][]time.Duration
}

// PhaseReport is what was tried on one platform, or after each of several changes.
type PhaseReport struct {
	Name        string          `json:"name"`
	Connections int             `json:"connections"` // tried
	Seconds     float64         `json:"seconds"`
	Strata      []StratumReport `json:"strata"`
}

// StratumReport is a sample of connections of one sort.
type StratumReport struct {
	Name  string `json:"name"`
	Of    int    `json:"of"` // how many there are
	Tried int    `json:"tried"`
	Wrong int    `json:"wrong"`
	// Below is the fraction of all which, with the report's confidence, are wrong at most; exact where all were tried.
	Below float64 `json:"below"`
}

// ProofReport is what the enforcer proved by itself at a point.
type ProofReport struct {
	After   string  `json:"after"` // which phase
	Point   string  `json:"point"`
	Proven  bool    `json:"proven"`
	Seconds float64 `json:"seconds"`
	Detail  string  `json:"detail,omitempty"` // why it is not
}

// serversOfSample: nothing is left out, so that what an enforcer mixes up is served, and seen.
const serversOfSample = "embedded, one for every database"

func newSampleReport(c SampleConfig) *SampleReport {
	r := &SampleReport{
		World: c.World.Name(), Rules: c.Rules, Servers: serversOfSample, Kernel: c.Kernel, Command: c.Command, Started: c.Now(), Seed: c.Seed,
		Confidence: c.Level, Phases: []PhaseReport{}, Mismatches: []Mismatch{}, took: map[*Durations][]time.Duration{},
		Baseline: PhaseReport{Name: "baseline", Strata: []StratumReport{}},
	}
	for _, d := range c.World.Databases() {
		switch {
		case d.Canary:
		case d.Model == topology.Shared:
			r.Shared++
		default:
			r.Dedicated++
		}
	}
	return r
}

func (p *PhaseReport) add(name string, s confidence.Sample, level float64) {
	p.Connections += s.Tried
	p.Strata = append(p.Strata, StratumReport{Name: name, Of: s.Of, Tried: s.Tried, Wrong: s.Wrong, Below: s.Below(level)})
}

// mismatch notes one; the error is errEnough once there are too many to go on.
func (r *SampleReport) mismatch(m Mismatch) error {
	r.Mismatched++
	if len(r.Mismatches) < shownMismatches {
		r.Mismatches = append(r.Mismatches, m)
	}
	if r.Mismatched >= enoughMismatches {
		return errEnough
	}
	return nil
}

// conclude sets the result. sound: the lab is as it was at first, or whatever was found is nobody's fault.
func (r *SampleReport) conclude(err error, sound bool) {
	if err != nil {
		r.Error = err.Error()
	}
	switch {
	case !sound:
		r.Result = Unjudged
	case r.Mismatched > 0 || isFinding(err):
		r.Result = Failed
	case err == nil && len(r.Phases) > 0:
		r.Result = Passed
	}
}

// words say what the sample means for all connections of its sort, at a level of confidence.
func (s StratumReport) words(level float64) string {
	if s.Tried == s.Of {
		return fmt.Sprintf("%s: all %s tried, %s wrong", s.Name, grouped(s.Of), grouped(s.Wrong))
	}
	return fmt.Sprintf("%s: %s of %s tried, %s wrong: with %s confidence fewer than %s are",
		s.Name, grouped(s.Tried), grouped(s.Of), grouped(s.Wrong), percent(level), percentUp(s.Below))
}

// grouped writes a number with commas between the thousands.
func grouped(n int) string {
	digits := strconv.Itoa(n)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}

func percent(fraction float64) string {
	return strconv.FormatFloat(math.Round(fraction*1e6)/1e4, 'f', -1, 64) + "%"
}

// percentUp writes a limit with two significant digits, rounded up: what is said must hold.
func percentUp(fraction float64) string {
	p := fraction * 100
	if p <= 0 {
		return "0%"
	}
	unit := math.Pow(10, math.Floor(math.Log10(p))-1)
	rounded := math.Ceil(p/unit-1e-9) * unit
	return strconv.FormatFloat(rounded, 'f', max(0, -int(math.Floor(math.Log10(unit)))), 64) + "%"
}

//go:embed sample.schema.json
var sampleSchema []byte

// SampleSchema returns the JSON Schema (draft 2020-12) of a report of RunSample as WriteJSON writes it.
func SampleSchema() []byte { return append([]byte(nil), sampleSchema...) }

// WriteJSON writes the whole report.
func (r *SampleReport) WriteJSON(w io.Writer) error { return writeJSON(w, r) }

func writeJSON(w io.Writer, report any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", " ")
	enc.SetEscapeHTML(false)
	if err := enc.Encode(report); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	return nil
}

// WriteSummary says in words what was tried, what that means for the rest, and how long things took.
func (r *SampleReport) WriteSummary(w io.Writer) error {
	var b strings.Builder
	for _, m := range r.Mismatches {
		fmt.Fprintf(&b, "wrong (%s): %s\n\n", m.Phase, m.words())
	}
	if n := r.Mismatched - len(r.Mismatches); n > 0 {
		fmt.Fprintf(&b, "and %d more\n\n", n)
	}
	fmt.Fprintf(&b, "world: %s dedicated databases of %d rules behind one gateway, %s shared ones on one host; servers: %s\n", grouped(r.Dedicated), r.Rules, grouped(r.Shared), r.Servers)
	fmt.Fprintf(&b, "%s connections there are; those tried were all served before anything was in force (%s)\n", grouped(r.Connections), r.Baseline.rate())
	for _, p := range r.Phases {
		fmt.Fprintf(&b, "\n%s (%s)\n", p.Name, p.rate())
		for _, s := range p.Strata {
			fmt.Fprintf(&b, "  %s\n", s.words(r.Confidence))
		}
	}
	r.writeTimes(&b)
	if r.Error != "" {
		fmt.Fprintf(&b, "\nthe run as a whole:\n%s\n", indent(r.Error))
	}
	fmt.Fprintf(&b, "\nseed %d\n%s\n", r.Seed, verdictLine[r.Result])
	_, err := io.WriteString(w, b.String())
	return err
}

func (p PhaseReport) rate() string {
	return fmt.Sprintf("%s connections in %.1f s, %.0f/s", grouped(p.Connections), p.Seconds, float64(p.Connections)/max(p.Seconds, 1e-3))
}

func (r *SampleReport) writeTimes(b *strings.Builder) {
	i := r.Implementation
	fmt.Fprintf(b, "\n%s %s; greatest policy %.1f MB; lab up in %.1f s, whole run %.1f s\n", i.Name, i.Version, float64(r.PolicyBytes)/1e6, r.LabSeconds, r.Seconds)
	for _, t := range []struct {
		name string
		Durations
	}{{"install", r.Install}, {"one change", r.Changes}, {"closing", r.Closing}} {
		if t.Count > 0 {
			fmt.Fprintf(b, "%s: %d calls, median %.0f ms, 99th percentile %.0f ms, longest %.0f ms\n", t.name, t.Count, t.P50, t.P99, t.Max)
		}
	}
	for _, p := range r.Proofs {
		how := "proven"
		if !p.Proven {
			how = "NOT proven:\n" + indent(p.Detail)
		}
		fmt.Fprintf(b, "the enforcer's own proof, %s, at %s, in %.1f s: %s\n", p.After, p.Point, p.Seconds, how)
	}
}
