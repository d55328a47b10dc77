package suite

import (
	"fmt"
	"strings"

	"drawbridge/features/oracle"
)

// LatticeReport is what the lattice found.
type LatticeReport struct {
	Result       Result     `json:"result"`
	Error        string     `json:"error,omitempty"` // why it could not be judged
	Seed         uint64     `json:"seed"`            // conform --lattice --seed repeats it
	Seconds      float64    `json:"seconds"`
	Places       int        `json:"places"`       // different connections: source, target, TLS or not
	Combinations int        `json:"combinations"` // of settings, that were to be accepted
	Refusals     int        `json:"refusals"`     // combinations that were to be refused
	Steps        int        `json:"steps"`        // changes asked for
	Sequences    int        `json:"sequences"`    // random ones, each from the defaults on
	Cells        int        `json:"cells"`        // connections made and compared, after all steps together
	Served       int        `json:"served"`
	Denied       int        `json:"denied"`
	Unspecified  int        `json:"unspecified"` // left out: no statement speaks of them
	Denials      Durations  `json:"denials"`     // time to conclude a denial
	Removals     int        `json:"removals"`    // steps that did nothing but remove rules
	Opened       []string   `json:"opened"`      // cells that opened by one of them
	Mismatched   int        `json:"mismatched"`
	Mismatches   []Mismatch `json:"mismatches"` // the first of them
	// Shortest is the shortest sequence of changes that still fails, from the defaults on, if a random one did.
	Shortest []string `json:"shortest,omitempty"`

	phase   string
	removal bool // the last step did nothing but remove rules
}

// Mismatch is one cell that was not as the oracle says, or one change that was not answered as it must be.
type Mismatch struct {
	Phase    string   `json:"phase"`
	Step     int      `json:"step"`
	What     string   `json:"what"`
	Settings string   `json:"settings,omitempty"` // of the database
	Must     string   `json:"must"`
	Because  []string `json:"because,omitempty"`
	Reason   string   `json:"reason,omitempty"`
	Was      string   `json:"was,omitempty"`
	Detail   string   `json:"detail"`
	Evidence any      `json:"evidence,omitempty"` // what was seen at both ends (sim/probe.Evidence)
}

// mismatchOf is a connection that did not fare as it must, with settings of its database.
func mismatchOf(c oracle.Connection, want oracle.Verdict, got Outcome, settings string) Mismatch {
	return Mismatch{
		What: describe(c), Settings: settings, Must: want.Class.String(), Because: want.Because, Reason: want.Reason,
		Was: got.Verdict, Detail: got.Detail, Evidence: got.Evidence,
	}
}

// String prints a mismatch on one line.
func (m Mismatch) String() string {
	return fmt.Sprintf("step %d (%s): %s", m.Step, m.Phase, m.words())
}

// words say what was wrong, and with what.
func (m Mismatch) words() string {
	s := fmt.Sprintf("%s: must be %s", m.What, strings.TrimPrefix(m.Must, "be "))
	if m.Reason != "" {
		s += fmt.Sprintf(" (%s: %s)", strings.Join(m.Because, ", "), m.Reason)
	}
	if m.Was != "" {
		s += "; was " + m.Was
	}
	s += ": " + m.Detail
	if m.Settings != "" {
		s += " [" + m.Settings + "]"
	}
	return s
}

func (r *LatticeReport) conclude(err error) {
	switch {
	case r.Mismatched > 0 || len(r.Opened) > 0 || isFinding(err):
		r.Result = Failed
	case err == nil && r.Cells > 0:
		r.Result = Passed
	}
	if err != nil {
		r.Error = err.Error()
	}
	if r.Opened == nil {
		r.Opened = []string{}
	}
}

func (r *LatticeReport) write(b *strings.Builder) {
	for _, m := range r.Mismatches {
		fmt.Fprintf(b, "\nlattice: %s\n", m)
	}
	if n := r.Mismatched - len(r.Mismatches); n > 0 {
		fmt.Fprintf(b, "  and %d more\n", n)
	}
	for i, what := range r.Opened {
		if i == maxShown {
			fmt.Fprintf(b, "  and %d more\n", len(r.Opened)-i)
			break
		}
		fmt.Fprintf(b, "\nlattice: removing a rule opened %s\n", what)
	}
	if len(r.Shortest) > 0 {
		fmt.Fprintf(b, "\nlattice: the shortest sequence that fails, from the defaults on (--lattice --seed %d repeats it):\n", r.Seed)
		for i, s := range r.Shortest {
			fmt.Fprintf(b, "  %d. %s\n", i+1, s)
		}
	}
	if r.Error != "" {
		fmt.Fprintf(b, "\nlattice: %s\n", r.Error)
	}
	fmt.Fprintf(b, "\nlattice: %s; %d cells compared, %d mismatches; %d combinations, %d to be refused, %d random sequences, seed %d; %.1f s\n",
		r.Result, r.Cells, r.Mismatched+len(r.Opened), r.Combinations, r.Refusals, r.Sequences, r.Seed, r.Seconds)
}
