package mutant

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// Run is what the suite said of a mutant.
type Run struct {
	Result   string   // of the whole run, in the words of suite.Result
	Error    string   // what kept the run as a whole from being judged, or failed it
	Failed   []string // statements
	Killers  []string // scenarios that failed
	Executed int
	Unjudged int // scenarios
}

// Trial is what became of one mutant.
type Trial struct {
	Mutant     string   `json:"mutant"`
	Breaks     string   `json:"breaks"`
	Equivalent bool     `json:"equivalent"` // it is right after all, and Breaks says why
	Statement  string   `json:"statement,omitempty"`
	Verdict    string   `json:"verdict"` // one of the constants below
	Killers    []string `json:"killers"` // scenarios that failed
	Statements []string `json:"statements"`
	Detail     string   `json:"detail,omitempty"`
	Seconds    float64  `json:"seconds"`
}

// Verdicts on a mutant. Only the first two are as they must be.
const (
	Killed     = "killed"            // it failed, by the statement that it breaks
	Equivalent = "equivalent passed" // it is right, and passed
	Survived   = "survived"          // it is wrong, and passed; or failed, but not by what it breaks
	Accused    = "equivalent failed" // it is right, and failed
	Unjudged   = "unjudged"
)

// OK reports whether the suite did with the mutant as it must.
func (t Trial) OK() bool { return t.Verdict == Killed || t.Verdict == Equivalent }

// canaryFailed is in the error of a run that ends before any scenario, since the enforcer lets nobody in.
const canaryFailed = "a canary must be served"

// Judge says what follows from a run.
func (m Mutant) Judge(r Run) Trial {
	t := Trial{
		Mutant: m.Name, Breaks: m.Breaks, Equivalent: m.Conforms, Statement: m.Statement, Verdict: Survived,
		Killers: append([]string{}, r.Killers...), Statements: append([]string{}, r.Failed...),
	}
	early := m.Statement == "" && r.Executed == 0 && strings.Contains(r.Error, canaryFailed)
	switch {
	case r.Result != "passed" && r.Result != "failed" || r.Unjudged > 0:
		t.Verdict, t.Detail = Unjudged, r.Error
	case m.Conforms && r.Result == "passed":
		t.Verdict = Equivalent
	case m.Conforms:
		t.Verdict, t.Detail = Accused, r.Error
	case r.Result == "failed" && (early || slices.Contains(r.Failed, m.Statement)):
		t.Verdict = Killed
		if early {
			t.Detail = r.Error
		}
	case r.Result == "failed":
		t.Detail = fmt.Sprintf("it failed, but not by %s", m.Statement)
	}
	return t
}

// Score is what became of all mutants.
type Score struct {
	Suite       string  `json:"suite"` // digest of the features
	Mutants     int     `json:"mutants"`
	Killed      int     `json:"killed"`
	Equivalents int     `json:"equivalents"` // that passed, as they must
	Score       float64 `json:"score"`       // killed out of those that are wrong; 1 is all
	OK          bool    `json:"ok"`
	Unjudged    int     `json:"unjudged"`
	Seconds     float64 `json:"seconds"`
	Trials      []Trial `json:"trials"`
}

// Count completes a score from its trials.
func (s *Score) Count() {
	wrong := 0
	s.Mutants, s.OK = len(s.Trials), len(s.Trials) > 0
	for _, t := range s.Trials {
		s.OK = s.OK && t.OK()
		if !t.Equivalent {
			wrong++
		}
		switch t.Verdict {
		case Killed:
			s.Killed++
		case Equivalent:
			s.Equivalents++
		case Unjudged:
			s.Unjudged++
		}
	}
	if wrong > 0 {
		s.Score = float64(s.Killed) / float64(wrong)
	}
}

// killersShown bounds a row of the matrix; the JSON has all.
const killersShown = 3

// Write writes the kill matrix, one mutant after the other with the scenarios that killed it, and the score.
func (s *Score) Write(w io.Writer) error {
	tab := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tab, "MUTANT\tVERDICT\tSTATEMENT\tSCENARIO")
	for _, t := range s.Trials {
		shown := t.Killers[:min(len(t.Killers), killersShown)]
		switch {
		case t.Equivalent:
			shown = []string{"right: " + t.Breaks}
		case len(shown) == 0 && t.Detail != "":
			first, _, _ := strings.Cut(t.Detail, "\n")
			shown = []string{first}
		case len(shown) == 0:
			shown = []string{"nothing: " + t.Breaks}
		}
		fmt.Fprintf(tab, "%s\t%s\t%s\t%s\n", t.Mutant, t.Verdict, t.Statement, shown[0])
		for _, k := range shown[1:] {
			fmt.Fprintf(tab, "\t\t\t%s\n", k)
		}
		if more := len(t.Killers) - len(shown); more > 0 && !t.Equivalent {
			fmt.Fprintf(tab, "\t\t\tand %d more\n", more)
		}
	}
	if err := tab.Flush(); err != nil {
		return err
	}
	verdict := "EVERY MUTANT WAS JUDGED AS IT MUST BE"
	if !s.OK {
		verdict = "THE SUITE IS NOT TO BE TRUSTED"
	}
	_, err := fmt.Fprintf(w, "\n%s\n%s\n", s, verdict)
	return err
}

// String is the score in one line.
func (s *Score) String() string {
	wrong := 0
	for _, t := range s.Trials {
		if !t.Equivalent {
			wrong++
		}
	}
	return fmt.Sprintf("%d of %d wrong enforcers killed (%.1f %%), %d of %d right ones passed, %d unjudged; %.0f s",
		s.Killed, wrong, 100*s.Score, s.Equivalents, s.Mutants-wrong, s.Unjudged, s.Seconds)
}
