package suite

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net/netip"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"drawbridge/features/driver"
	"drawbridge/features/mutant"
	"drawbridge/features/oracle"
)

// Result is how a scenario, a statement or a whole run ended. The zero value is Unjudged.
type Result int

// Results, and with them the exit statuses of a run.
const (
	Unjudged Result = iota
	Failed
	Passed
	// Deviating: it failed, and that is a known deviation (Config.Deviations); of a run, that nothing else failed.
	Deviating
)

// String returns the result in words.
func (r Result) String() string {
	switch r {
	case Failed:
		return "failed"
	case Passed:
		return "passed"
	case Deviating:
		return "known-deviation"
	}
	return "unjudged"
}

// MarshalText writes the result in words.
func (r Result) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (r *Result) UnmarshalText(text []byte) error {
	for _, known := range []Result{Unjudged, Failed, Passed, Deviating} {
		if known.String() == string(text) {
			*r = known
			return nil
		}
	}
	return fmt.Errorf("result %q: must be passed, failed, known-deviation or unjudged", text)
}

// ExitCode is the exit status of a run with this result: 0 conformant, with or without known deviations, 1 not conformant, 3 could not be judged.
func (r Result) ExitCode() int {
	switch r {
	case Passed, Deviating:
		return 0
	case Failed:
		return 1
	}
	return 3
}

// Report is what a run found.
type Report struct {
	Result         Result            `json:"result"`
	Suite          SuiteReport       `json:"suite"`
	Error          string            `json:"error,omitempty"` // what kept the run as a whole from being judged, or failed it
	World          string            `json:"world"`
	Kernel         string            `json:"kernel,omitempty"`  // release of the kernel that carried the lab
	Command        string            `json:"command,omitempty"` // what repeats the run, but for the scenarios
	Servers        []ServerReport    `json:"servers,omitempty"`
	Implementation Implementation    `json:"implementation"`
	Profiles       []string          `json:"profiles"` // judged
	Tags           string            `json:"tags,omitempty"`
	Patience       string            `json:"patience,omitempty"`   // denials were judged by waiting that long, and not by fence
	Impairment     *ImpairmentReport `json:"impairment,omitempty"` // of the lab's links; absent: they were in order
	Started        time.Time         `json:"started"`
	Seconds        float64           `json:"seconds"`
	Counts         Counts            `json:"counts"`
	Apply          Durations         `json:"apply"`
	Denials        Durations         `json:"denials"`           // time to conclude a denial, in the scenarios
	Windows        *WindowsReport    `json:"windows,omitempty"` // what was tried while policies changed
	Statements     []StatementReport `json:"statements"`        // all of the profiles; with Tags, those of the selected scenarios
	Scenarios      []*ScenarioReport `json:"scenarios"`
	Deviations     []DeviationReport `json:"deviations,omitempty"` // known ones, with --deviations
	Lattice        *LatticeReport    `json:"lattice,omitempty"`    // with --lattice
	Mutants        *mutant.Score     `json:"mutants,omitempty"`    // with --mutants: what the suite did with wrong enforcers
}

// SuiteReport names the specification that was judged by.
type SuiteReport struct {
	Digest   string `json:"digest"`   // sha256 of the feature files, see Digest
	Features int    `json:"features"` // how many files there are
}

// Implementation is what the driver says of the enforcer.
type Implementation struct {
	Name     string   `json:"name"`
	Version  string   `json:"version"`
	Profiles []string `json:"profiles"`
	ForceTLS string   `json:"force_tls"`
	Revoke   string   `json:"revoke"`
}

// ServerReport says what program played a database.
type ServerReport struct {
	Database string `json:"database"`
	Engine   string `json:"engine"`
	Program  string `json:"program"` // with its version; "embedded" for the lab's own
	Real     bool   `json:"real"`
}

// Counts of scenarios and of what was tried in them.
type Counts struct {
	Expected int `json:"expected"` // committed; 0 when tags selected some
	Selected int `json:"selected"`
	Executed int `json:"executed"`
	Passed   int `json:"passed"`
	Failed   int `json:"failed"`
	Known    int `json:"known_deviations"` // failed, and not counted there
	Unjudged int `json:"unjudged"`
	Attempts int `json:"attempts"` // connections and packets
}

// Durations of things of one sort: of successful applies, each from the call of the driver to its end; of denials, each from the
// client's first action to the conclusion.
type Durations struct {
	Count int     `json:"count"`
	P50   float64 `json:"p50_ms"`
	P99   float64 `json:"p99_ms"`
	Max   float64 `json:"max_ms"`
}

// StatementReport traces a statement to its scenarios. Open: no scenario that drove traffic was executed for it.
type StatementReport struct {
	ID        string   `json:"id"`
	Profile   string   `json:"profile"`
	Result    Result   `json:"result"`
	Open      bool     `json:"open"`
	Attempts  int      `json:"attempts"`
	Scenarios []string `json:"scenarios"`
}

// ScenarioReport is what became of one scenario, and of everything it tried.
type ScenarioReport struct {
	Name       string        `json:"name"`
	File       string        `json:"file"`
	Profile    string        `json:"profile"`
	Statements []string      `json:"statements"`
	Result     Result        `json:"result"`
	Error      string        `json:"error,omitempty"`
	Millis     float64       `json:"ms"`
	Notes      []string      `json:"notes,omitempty"`
	Policies   []string      `json:"policies,omitempty"` // unless it passed: files with the policies, in the report directory
	Attempts   []AttemptLine `json:"attempts"`

	windows windows
	number  int // its place among the selected scenarios, from 1
	denials []time.Duration
}

// AttemptLine is one attempt: what must have become of it and why, what did, and how that is known.
type AttemptLine struct {
	What    string   `json:"what"`
	From    string   `json:"from,omitempty"` // the vantage; empty where an attempt is not one connection of one client
	To      string   `json:"to,omitempty"`   // the database
	Point   string   `json:"point,omitempty"`
	TLS     bool     `json:"tls,omitempty"`
	Must    string   `json:"must"`
	Because []string `json:"because"`
	Why     string   `json:"why,omitempty"` // the same in words
	Was     string   `json:"was"`
	Way     string   `json:"way,omitempty"` // how that is known: answer, fence, patience
	Detail  string   `json:"detail"`
	OK      bool     `json:"ok"`
	Millis  float64  `json:"ms"`
	Proof   *Proof   `json:"proof,omitempty"` // of what did not end as it must

	local netip.AddrPort // the client's own end
}

func (r *ScenarioReport) note(c oracle.Connection, want oracle.Verdict, got Outcome, err error) {
	if got.Finding == Denied {
		r.denials = append(r.denials, got.Took)
	}
	line := AttemptLine{
		What: describe(c), From: c.From.Name, To: c.To.Database, Point: c.To.Point, TLS: c.TLS,
		Must: want.Class.String(), Because: want.Because, Why: want.Reason, Was: got.Verdict, Way: got.Way, Detail: got.Detail,
		OK: err == nil, Millis: millis(got.Took), local: got.Local,
	}
	if err != nil {
		line.Proof = &Proof{Seen: got.Evidence}
	}
	r.Attempts = append(r.Attempts, line)
}

func (r *ScenarioReport) noteHeld(c oracle.Connection, want oracle.Verdict, x Exchange, took time.Duration, err error) {
	was := "cut"
	if x.Answered {
		was = "answered"
	}
	r.Attempts = append(r.Attempts, AttemptLine{
		What: "held: " + describe(c), From: c.From.Name, To: c.To.Database, Point: c.To.Point, TLS: c.TLS, Why: want.Reason, Must: want.Class.String(), Because: want.Because, Was: was, Detail: x.Detail,
		OK: err == nil, Millis: millis(took),
	})
}

func (r *ScenarioReport) notePacket(p Packet, got Outcome, err error) {
	r.Attempts = append(r.Attempts, AttemptLine{
		What: fmt.Sprintf("%s from %s to %s port %d", p.Proto, p.From.Name, p.To.Addr.Addr(), p.Port), Must: oracle.Denied.String(),
		Because: []string{"X-02"}, Was: got.Verdict, Detail: got.Detail, OK: err == nil, Millis: millis(got.Took),
	})
}

func millis(d time.Duration) float64 { return math.Round(float64(d)/float64(time.Microsecond)) / 1000 }

// percentiles are nearest-rank percentiles.
func percentiles(all []time.Duration) Durations {
	if len(all) == 0 {
		return Durations{}
	}
	all = slices.Sorted(slices.Values(all))
	at := func(p float64) float64 {
		return millis(all[max(int(math.Ceil(p*float64(len(all))))-1, 0)])
	}
	return Durations{len(all), at(.50), at(.99), at(1)}
}

// trace fills in the statements and the counts from the scenarios.
func (r *Report) trace() {
	for _, profile := range r.Profiles {
		for _, id := range statements(profile) {
			if s := r.statement(id, profile); r.Tags == "" || len(s.Scenarios) > 0 {
				r.Statements = append(r.Statements, s)
			}
		}
	}
	for _, s := range r.Scenarios {
		r.Counts.Executed++
		r.Counts.Attempts += len(s.Attempts)
		switch s.Result {
		case Passed:
			r.Counts.Passed++
		case Failed:
			r.Counts.Failed++
		case Deviating:
			r.Counts.Known++
		default:
			r.Counts.Unjudged++
		}
	}
}

func (r *Report) statement(id, profile string) StatementReport {
	out := StatementReport{ID: id, Profile: profile, Result: Passed, Scenarios: []string{}}
	for _, s := range r.Scenarios {
		if !slices.Contains(s.Statements, id) {
			continue
		}
		out.Scenarios = append(out.Scenarios, s.Name)
		out.Attempts += len(s.Attempts)
		switch {
		case s.Result == Failed:
			out.Result = Failed
		case s.Result == Unjudged && out.Result != Failed:
			out.Result = Unjudged
		case s.Result == Deviating && out.Result == Passed:
			out.Result = Deviating
		}
	}
	if out.Open = out.Attempts == 0; out.Open && out.Result == Passed {
		out.Result = Unjudged
	}
	return out
}

// errMutants: what such a suite says of an enforcer is worth nothing.
var errMutants = errors.New("the suite is not to be trusted: it did not judge every mutant as it must")

// conclude sets the result: failed if anything failed, unjudged if anything could not be judged or did not run.
func (r *Report) conclude(err error) {
	c := r.Counts
	switch {
	case err == nil && c.Executed != c.Selected:
		err = fmt.Errorf("%d scenarios were selected and %d executed", c.Selected, c.Executed)
	case err == nil && c.Expected != 0 && c.Executed != c.Expected:
		err = fmt.Errorf("%d scenarios were executed; the committed number is %d (features.Expected)", c.Executed, c.Expected)
	case err == nil && r.Mutants != nil && !r.Mutants.OK:
		err = errMutants
	}
	if err != nil {
		r.Error = err.Error()
	}
	switch {
	case c.Failed > 0 || isFinding(err) || r.Lattice != nil && r.Lattice.Result == Failed:
		r.Result = Failed
	case err != nil || c.Unjudged > 0 || c.Executed == 0 || r.Lattice != nil && r.Lattice.Result != Passed:
		r.Result = Unjudged
	case c.Known > 0:
		r.Result = Deviating
	default:
		r.Result = Passed
	}
}

// WriteJSON writes the whole report.
func (r *Report) WriteJSON(w io.Writer) error { return writeJSON(w, r) }

// WriteSummary writes the statements as a table, what went wrong, and the numbers.
func (r *Report) WriteSummary(w io.Writer) error {
	var b strings.Builder
	if len(r.Statements) > 0 {
		r.writeStatements(&b)
	}
	r.writeTrouble(&b)
	r.writeDeviations(&b)
	if r.Error != "" {
		fmt.Fprintf(&b, "\nthe run as a whole:\n%s\n", indent(r.Error))
	}
	if r.Lattice != nil {
		r.Lattice.write(&b)
	}
	i := r.Implementation
	if i.Name != "" {
		fmt.Fprintf(&b, "\n%s %s", i.Name, i.Version)
		if len(r.Profiles) > 0 {
			fmt.Fprintf(&b, ", judged on %s", strings.Join(r.Profiles, " and "))
		}
		b.WriteString(": ")
	} else {
		b.WriteString("\nthe driver did not say what it is: ")
	}
	c := r.Counts
	fmt.Fprintf(&b, "%d scenarios, %d passed, %d failed, %d unjudged", c.Executed, c.Passed, c.Failed, c.Unjudged)
	if c.Known > 0 {
		fmt.Fprintf(&b, ", %d known deviations", c.Known)
	}
	fmt.Fprintf(&b, "; %d attempts\n", c.Attempts)
	fmt.Fprintf(&b, "apply: %d calls, median %.1f ms, 99th percentile %.1f ms; whole run %.1f s\n", r.Apply.Count, r.Apply.P50, r.Apply.P99, r.Seconds)
	r.writeServers(&b)
	if r.Patience != "" {
		fmt.Fprintf(&b, "denials were judged by patience (%s), not by fence\n", r.Patience)
	}
	if r.Impairment != nil {
		b.WriteString(r.Impairment.String())
	}
	fmt.Fprintf(&b, "denials: %d, concluded after a median of %.2f ms, 99th percentile %.1f ms\n", r.Denials.Count, r.Denials.P50, r.Denials.P99)
	if r.Windows != nil {
		b.WriteString(r.Windows.String())
	}
	if r.Mutants != nil {
		fmt.Fprintf(&b, "the suite itself: %s\n", r.Mutants)
	}
	fmt.Fprintf(&b, "%s\n", verdictLine[r.Result])
	_, err := io.WriteString(w, b.String())
	return err
}

// writeServers says which databases were played by a real server; of embedded ones there is nothing to say.
func (r *Report) writeServers(b *strings.Builder) {
	byProgram := map[string][]string{}
	for _, s := range r.Servers {
		if s.Real {
			byProgram[s.Program] = append(byProgram[s.Program], s.Database)
		}
	}
	for _, program := range slices.Sorted(maps.Keys(byProgram)) {
		fmt.Fprintf(b, "%s: %s\n", program, strings.Join(byProgram[program], ", "))
	}
}

// writeDeviations says of each known deviation what became of it.
func (r *Report) writeDeviations(b *strings.Builder) {
	for _, d := range r.Deviations {
		fmt.Fprintf(b, "\ndeviation, %s: %s\n  %s; until %s\n", d.Status, d, d.Reason, d.Expires.Format(dayLayout))
	}
}

func (r *Report) writeStatements(b *strings.Builder) {
	tab := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tab, "STATEMENT\tRESULT\tSCENARIOS\tATTEMPTS")
	for _, s := range r.Statements {
		result := s.Result.String()
		if len(s.Scenarios) == 0 {
			result = "open: no scenario"
		}
		fmt.Fprintf(tab, "%s\t%s\t%d\t%d\n", s.ID, result, len(s.Scenarios), s.Attempts)
	}
	_ = tab.Flush() // a strings.Builder does not fail
}

// writeTrouble writes what went wrong in which scenario. Scenarios of which there is nothing else to say than of one before
// are only counted.
func (r *Report) writeTrouble(b *strings.Builder) {
	type kind struct {
		result Result
		error  string
	}
	same := map[kind]int{}
	for _, s := range r.Scenarios {
		if s.Result != Passed {
			same[kind{s.Result, s.Error}]++
		}
	}
	for _, s := range r.Scenarios {
		k := kind{s.Result, s.Error}
		n := same[k]
		if n == 0 {
			continue // passed, or counted before
		}
		delete(same, k)
		fmt.Fprintf(b, "\n%s: %s (%s)\n%s\n", s.Result, s.Name, strings.Join(s.Statements, ", "), indent(s.Error))
		if len(s.Policies) > 0 {
			fmt.Fprintf(b, "  policies: %s\n", strings.Join(s.Policies, ", "))
		}
		if n > 1 {
			fmt.Fprintf(b, "  and %d more with the same words\n", n-1)
		}
	}
}

func indent(text string) string { return "  " + strings.ReplaceAll(text, "\n", "\n  ") }

var verdictLine = map[Result]string{
	Passed: "CONFORMANT", Failed: "NOT CONFORMANT", Unjudged: "COULD NOT BE JUDGED",
	Deviating: "CONFORMANT BUT FOR KNOWN DEVIATIONS (not everything holds, see above)",
}

func implementation(d driver.Description) Implementation {
	return Implementation{d.Name, d.Version, d.Profiles, string(d.ForceTLS), string(d.Revoke)}
}
