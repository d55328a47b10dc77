package bench

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// The files of a summary.
const (
	summaryJSON     = "bench.json"
	summaryMarkdown = "bench.md"
	summaryChart    = "bench.svg"
)

// Machine is where something was measured.
type Machine struct {
	Kernel     string `json:"kernel"`
	Processor  string `json:"processor"`
	Processors int    `json:"processors"`
}

// Summary is one run of comparisons.
type Summary struct {
	Machine
	Programs map[string]string `json:"programs"` // versions of those that were measured, by name
	Rounds   int               `json:"rounds"`
	Budget   float64           `json:"budget_seconds"`
	// Rootless: measured without the machine's own privileges, in a user namespace.
	Rootless    bool         `json:"rootless"`
	Verdict     Verdict      `json:"verdict"`
	Comparisons []Comparison `json:"comparisons"`
	Notes       []string     `json:"notes,omitempty"` // what the figures count, in words
	// Incomplete is what ended the run before everything was measured; empty if nothing did.
	Incomplete string `json:"incomplete,omitempty"`
}

// Conclude computes the verdict on all goals: the worst there is. A goal that was not measured, because a contender failed or the run
// ended before, is worse than noise; one that this machine has nothing to measure by says nothing.
func (s *Summary) Conclude() {
	s.Verdict = Met
	if s.Incomplete != "" {
		s.Verdict = Unmeasured
	}
	rank := map[Verdict]int{Met: 0, Noise: 1, Unmeasured: 2, Missed: 3}
	for _, c := range s.Comparisons {
		for _, j := range c.Goals {
			if !j.Excused && rank[j.Verdict] > rank[s.Verdict] {
				s.Verdict = j.Verdict
			}
		}
	}
}

// Write writes the summary's files into a directory, which is made if it is not there.
func (s *Summary) Write(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	var text, markdown strings.Builder
	err := errors.Join(s.WriteJSON(&text), s.WriteMarkdown(&markdown))
	return errors.Join(err,
		os.WriteFile(filepath.Join(dir, summaryJSON), []byte(text.String()), 0o644),
		os.WriteFile(filepath.Join(dir, summaryMarkdown), []byte(markdown.String()), 0o644),
		os.WriteFile(filepath.Join(dir, summaryChart), []byte(s.Chart()), 0o644))
}

// WriteJSON writes the summary for programs.
func (s *Summary) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(s)
}

// WriteMarkdown writes the summary for people.
func (s *Summary) WriteMarkdown(w io.Writer) error {
	var b strings.Builder
	b.WriteString("# What it costs, and what others cost\n\n")
	if s.Incomplete != "" {
		fmt.Fprintf(&b, "**Incomplete.** The run ended before everything was measured: %s\n\n", strings.ReplaceAll(s.Incomplete, "\n", " "))
	}
	s.introduce(&b)
	group := ""
	for _, c := range s.Comparisons {
		if c.Group != group {
			group = c.Group
			fmt.Fprintf(&b, "\n## %s\n", group)
		}
		fmt.Fprintf(&b, "\n%s, in %s (%s is better):\n\n", c.Title(), c.Unit, either(c.More, "more", "less"))
		writeTable(&b, c.table())
	}
	s.goals(&b)
	if n := s.disturbed(); n > 0 {
		fmt.Fprintf(&b, "\nOther work used more than %.0f %% of the machine during %d of %d rows: what they say is worth little before "+
			"it was repeated on an idle machine.\n", 100*disturbing, n, len(s.Comparisons))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (s *Summary) introduce(b *strings.Builder) {
	fmt.Fprintf(b, "* Machine: %s, %d processors, Linux %s%s\n", s.Processor, s.Processors, s.Kernel,
		either(s.Rootless, "; without privileges, in a user namespace", ""))
	var programs []string
	for _, name := range slices.Sorted(maps.Keys(s.Programs)) {
		programs = append(programs, name+": "+s.Programs[name])
	}
	fmt.Fprintf(b, "* Programs: %s\n", strings.Join(programs, "; "))
	fmt.Fprintf(b, "* Rounds: up to %d, in each of which every contender runs once; who has spent %g s on a row runs no more\n", s.Rounds, s.Budget)
	b.WriteString("* Figures are medians and, in brackets, the bounds of the true median by at least 90 % confidence (with fewer than 5 rounds, " +
		"smallest and greatest). A ratio is that of two runs of one round: below 1, ours took less, or did less\n")
	for _, n := range s.Notes {
		fmt.Fprintf(b, "* %s\n", n)
	}
}

func (c Comparison) table() [][]string {
	table := [][]string{{"who", "median", "bounds", "ours / it", "bounds", "rounds", "note"}}
	for _, l := range c.Lines {
		row := []string{l.label(), "–", "", "", "", "0", brief(l.Note)}
		if v := l.Value; v != nil {
			row[1], row[2], row[5] = significant(v.Median), boundsOf(*v), fmt.Sprint(len(v.Values))
		}
		if r := l.Ratio; r != nil {
			row[3], row[4] = significant(r.Median), boundsOf(*r)
		}
		for i := range row {
			row[i] = strings.NewReplacer("\n", " ", "|", `\|`).Replace(row[i])
		}
		table = append(table, row)
	}
	return table
}

// longestNote is how many characters of a note a table shows: programs may say thousands when they fail, and the JSON report has
// all of them.
const longestNote = 200

func brief(note string) string {
	if all := []rune(note); len(all) > longestNote {
		return string(all[:longestNote]) + "…"
	}
	return note
}

func (l Line) label() string {
	if l.Kind == Ours {
		return "**" + l.Name + "**"
	}
	return l.Name + " (" + string(l.Kind) + ")"
}

func boundsOf(s Spread) string { return "[" + significant(s.Low) + ", " + significant(s.High) + "]" }

func (s *Summary) goals(b *strings.Builder) {
	table := [][]string{{"goal", "measured", "verdict"}}
	for _, c := range s.Comparisons {
		for _, j := range c.Goals {
			measured, verdict := "–", string(j.Verdict)
			if j.Value != nil {
				measured = significant(j.Value.Median) + " " + boundsOf(*j.Value)
			}
			if j.Excused {
				verdict += ": nothing here to measure it by"
			}
			table = append(table, []string{c.goal(j), measured, verdict})
		}
	}
	if len(table) == 1 {
		return
	}
	b.WriteString("\n## Goals\n\n")
	writeTable(b, table)
	fmt.Fprintf(b, "\nAll together: %s. (noise: the median does not reach the goal, but the bounds do, or there were too few rounds to tell)\n", s.Verdict)
}

func (s *Summary) disturbed() (n int) {
	for _, c := range s.Comparisons {
		if c.Others > disturbing {
			n++
		}
	}
	return n
}
