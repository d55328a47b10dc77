// Command readme copies what the conformance suite said about the at-a-glance table from report.json into README.md, between
// two marks. It invents nothing: a report of a run that was not complete is refused.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"drawbridge/features/suite"
)

// The generated block of README.md stands between these lines.
const (
	beginMark = "<!-- verdicts: begin (make readme) -->\n"
	endMark   = "<!-- verdicts: end -->\n"
)

func main() {
	dir := flag.String("report", "report", "directory of report.json")
	readme := flag.String("readme", "README.md", "the file to change")
	flag.Parse()
	if err := update(filepath.Join(*dir, "report.json"), *readme); err != nil {
		fmt.Fprintln(os.Stderr, "readme:", err)
		os.Exit(1)
	}
}

func update(reportFile, readmeFile string) error {
	data, err := os.ReadFile(reportFile)
	if err != nil {
		return fmt.Errorf("%w (make conform writes it)", err)
	}
	text, err := os.ReadFile(readmeFile)
	if err != nil {
		return err
	}
	var r report
	if err := json.Unmarshal(data, &r); err != nil {
		return fmt.Errorf("%s: %w", reportFile, err)
	}
	block, err := r.block()
	if err != nil {
		return fmt.Errorf("%s: %w", reportFile, err)
	}
	changed, err := replace(string(text), block)
	if err != nil {
		return fmt.Errorf("%s: %w", readmeFile, err)
	}
	return os.WriteFile(readmeFile, []byte(changed), 0o644)
}

// replace puts block between the marks.
func replace(text, block string) (string, error) {
	before, rest, begun := strings.Cut(text, beginMark)
	_, after, ended := strings.Cut(rest, endMark)
	if !begun || !ended {
		return "", fmt.Errorf("the lines %q and %q are not there", strings.TrimSpace(beginMark), strings.TrimSpace(endMark))
	}
	return before + beginMark + block + endMark + after, nil
}

// report is what is needed of report.json (features/suite.Report).
type report struct {
	Result         string
	Tags           string
	World          string
	Profiles       []string
	Implementation struct{ Name string }
	Counts         struct{ Expected, Executed, Passed, Attempts int }
	Statements     []struct {
		ID, Result string
		Open       bool
	}
	Scenarios []scenario
}

type scenario struct {
	Name, File, Result string
	Attempts           []struct{}
}

// block is what stands between the marks.
func (r report) block() (string, error) {
	if r.Tags != "" || r.Counts.Executed != r.Counts.Expected || r.Counts.Executed == 0 {
		return "", fmt.Errorf("not a complete run: %d of %d scenarios, tags %q", r.Counts.Executed, r.Counts.Expected, r.Tags)
	}
	table, err := glance(r.Scenarios)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	b.WriteString(table)
	fmt.Fprintf(&b, "\nEnforcer `%s`, profiles %s, world `%s`: **%s**. %d of %d scenarios passed, with %d connections and packets.\n",
		r.Implementation.Name, strings.Join(r.Profiles, " and "), r.World, r.Result, r.Counts.Passed, r.Counts.Executed, r.Counts.Attempts)
	b.WriteString(r.statements())
	return b.String(), nil
}

// statements says how many statements are verified, and names the others by what keeps them from being so.
func (r report) statements() string {
	var open, others []string
	for _, s := range r.Statements {
		switch {
		case s.Open:
			open = append(open, s.ID)
		case s.Result != "passed":
			others = append(others, s.ID+" "+s.Result)
		}
	}
	text := fmt.Sprintf("Statements verified: %d of %d", len(r.Statements)-len(open)-len(others), len(r.Statements))
	if len(others) > 0 {
		text += "; " + strings.Join(others, ", ")
	}
	if len(open) > 0 {
		text += "; no scenario drives traffic yet for " + strings.Join(open, ", ")
	}
	return text + ".\n"
}

// cell is one cell of the table, and what the suite said of it.
type cell struct {
	text                  string
	scenarios, passed     int
	connections, unjudged int
}

func (c *cell) String() string {
	mark := "✗"
	switch {
	case c.passed == c.scenarios:
		mark = "✓"
	case c.unjudged > 0:
		mark = "?"
	}
	return fmt.Sprintf("%s %s (%d/%d scenarios, %d connections)", mark, c.text, c.passed, c.scenarios, c.connections)
}

// glance renders the at-a-glance table, in the order of the scenarios. Every row has both columns.
func glance(scenarios []scenario) (string, error) {
	columns := []string{"Shared", "Dedicated"}
	var rows []string
	cells := map[[2]string]*cell{}
	for _, s := range scenarios {
		if s.File != suite.GlanceFile {
			continue
		}
		row, column, text, ok := suite.GlanceCell(s.Name)
		if !ok {
			return "", fmt.Errorf("scenario %q is no cell of the table", s.Name)
		}
		if !slices.Contains(rows, row) {
			rows = append(rows, row)
		}
		c := cells[[2]string{row, column}]
		if c == nil {
			c = &cell{text: text}
			cells[[2]string{row, column}] = c
		}
		c.add(s)
	}
	if len(rows) == 0 {
		return "", errors.New("no scenario of the table was run")
	}
	var b strings.Builder
	b.WriteString("| | Shared Resources | Dedicated Resources |\n|---|---|---|\n")
	for _, row := range rows {
		fmt.Fprintf(&b, "| **%s**", row)
		for _, column := range columns {
			c := cells[[2]string{row, column}]
			if c == nil {
				return "", fmt.Errorf("the cell %s of %s Resources was not run", row, column)
			}
			fmt.Fprintf(&b, " | %s", c)
		}
		b.WriteString(" |\n")
	}
	return b.String(), nil
}

func (c *cell) add(s scenario) {
	c.scenarios++
	c.connections += len(s.Attempts)
	switch s.Result {
	case "passed":
		c.passed++
	case "failed":
	default:
		c.unjudged++
	}
}
