package page

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"html/template"
	"slices"
	"strings"

	"drawbridge/features/suite"
	"drawbridge/sim/capture"
	"drawbridge/topology"
	"drawbridge/topology/drawing"
)

// view is what the template shows.
type view struct {
	*suite.Report
	Banner     string
	Verdict    string // the result, as a class
	Started    string
	Statements []statement
	Glance     []glanceRow
	Matrix     matrix
	Drawing    drawing.Drawing
	Troubles   []trouble
}

var banners = map[suite.Result]string{
	suite.Passed: "Conformant", suite.Failed: "Not conformant", suite.Unjudged: "Could not be judged",
	suite.Deviating: "Conformant but for known deviations",
}

func newView(w *topology.World, r *suite.Report) (*view, error) {
	v := &view{
		Report: r, Banner: banners[r.Result], Verdict: r.Result.String(), Started: r.Started.UTC().Format("2006-01-02 15:04:05 UTC"),
		Statements: statements(r), Glance: glance(r), Matrix: newMatrix(w, r), Drawing: drawing.Of(w, wrongAt(r)),
	}
	var err error
	v.Troubles, err = troubles(r)
	return v, err
}

// statement is one row of the trace.
type statement struct {
	suite.StatementReport
	Class string // its result, or open
	Held  []suite.ScenarioReport
}

func statements(r *suite.Report) []statement {
	var all []statement
	for _, s := range r.Statements {
		row := statement{StatementReport: s, Class: s.Result.String()}
		if s.Open && s.Result != suite.Failed {
			row.Class = "open"
		}
		for _, sc := range r.Scenarios {
			if slices.Contains(sc.Statements, s.ID) {
				row.Held = append(row.Held, *sc)
			}
		}
		all = append(all, row)
	}
	return all
}

// glanceRow is one row of the at-a-glance table.
type glanceRow struct {
	Name              string
	Shared, Dedicated glanceCell
}

type glanceCell struct {
	Text, Class       string
	Scenarios, Passed int
	Attempts          int
}

// glance is empty if none of the table's scenarios were run.
func glance(r *suite.Report) []glanceRow {
	var rows []glanceRow
	for _, s := range r.Scenarios {
		name, column, text, ok := suite.GlanceCell(s.Name)
		if s.File != suite.GlanceFile || !ok {
			continue
		}
		i := slices.IndexFunc(rows, func(g glanceRow) bool { return g.Name == name })
		if i < 0 {
			i = len(rows)
			rows = append(rows, glanceRow{Name: name})
		}
		c := &rows[i].Shared
		if column == "Dedicated" {
			c = &rows[i].Dedicated
		}
		c.add(text, s)
	}
	return rows
}

func (c *glanceCell) add(text string, s *suite.ScenarioReport) {
	c.Text = text
	c.Scenarios++
	c.Attempts += len(s.Attempts)
	if s.Result == suite.Passed {
		c.Passed++
	}
	switch {
	case c.Class == "" || s.Result == suite.Failed:
		c.Class = s.Result.String()
	case c.Class == suite.Passed.String():
		c.Class = s.Result.String()
	}
}

// trouble is one scenario that did not pass.
type trouble struct {
	*suite.ScenarioReport
	Class    string
	Repeat   string
	Failed   []attempt
	Hidden   int // failed attempts that are not shown
	Attempts int
}

// attempt is one that did not end as it must.
type attempt struct {
	suite.AttemptLine
	Ends []end
	File template.URL // its packets, as a pcapng file
	Name string
}

// Bounds of a page: what a wholly wrong enforcer does wrong is not all to be read.
const (
	maxAttempts = 12      // of one scenario
	maxCaptures = 4 << 20 // bytes of all captures together
)

func troubles(r *suite.Report) ([]trouble, error) {
	var all []trouble
	room := maxCaptures
	for i, s := range r.Scenarios {
		if s.Result == suite.Passed {
			continue
		}
		t := trouble{ScenarioReport: s, Class: s.Result.String(), Repeat: repeat(r, s), Attempts: len(s.Attempts)}
		for _, a := range s.Attempts {
			switch {
			case a.OK:
				continue
			case len(t.Failed) == maxAttempts:
				t.Hidden++
				continue
			}
			shown := attempt{AttemptLine: a, Ends: ends(a), Name: fmt.Sprintf("%03d-%d.pcapng", i+1, len(t.Failed)+1)}
			file, err := pcapng(a)
			if err != nil {
				return nil, err
			}
			if len(file) > 0 && len(file) <= room {
				room -= len(file)
				shown.File = template.URL("data:application/x-pcapng;base64," + base64.StdEncoding.EncodeToString(file))
			}
			t.Failed = append(t.Failed, shown)
		}
		all = append(all, t)
	}
	return all, nil
}

// repeat is the line that runs a scenario again: with all others of exactly the same statements, if there are any.
func repeat(r *suite.Report, s *suite.ScenarioReport) string {
	tags := []string{"@" + s.Profile}
	for _, id := range s.Statements {
		tags = append(tags, "@"+id)
	}
	command := r.Command
	if command == "" {
		command = "drawbridge conform"
	}
	return fmt.Sprintf("%s --tags '%s'", command, strings.Join(tags, " && "))
}

// pcapng is the file of an attempt's packets; empty if there are none.
func pcapng(a suite.AttemptLine) ([]byte, error) {
	if a.Proof == nil || len(a.Proof.Raw()) == 0 {
		return nil, nil
	}
	var file bytes.Buffer
	w := capture.NewWriter(&file)
	for _, p := range a.Proof.Raw() {
		if err := w.Write(a.Point, p, fmt.Sprintf("%s: must be %s, was %s", a.What, a.Must, a.Was)); err != nil {
			return nil, err
		}
	}
	err := w.Flush()
	return file.Bytes(), err
}
