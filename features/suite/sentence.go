package suite

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/cucumber/godog"

	"drawbridge/features/oracle"
)

var nodeRE = regexp.MustCompile(`^the node "([^"]+)"$`)

func (s *scenario) everyDefault() error {
	for _, d := range s.world.Databases() {
		if d.Canary {
			continue
		}
		if err := s.speakOf(d.Name); err != nil {
			return err
		}
	}
	return nil
}

// claim reads one sentence about connections.
func (s *scenario) claim(who, class, by, also string) (claim, error) {
	literal, err := oracle.ParseClass(class)
	if err != nil {
		return claim{}, wrongFeature("%v", err)
	}
	c := claim{text: who + " is " + class, literal: literal}
	if m := nodeRE.FindStringSubmatch(by); m != nil {
		by, c.also = "", servedBy(m[1])
	}
	p, err := parsePhrase(who, by)
	if err != nil {
		return claim{}, wrongFeature("%v", err)
	}
	if c.attempts, err = p.attempts(s.world, s.about); err != nil {
		return claim{}, wrongFeature("%v", err)
	}
	switch also {
	case "":
	case "its packets were seen at the gateway":
		c.also = arrived
	case "the database sees the app's own address":
		c.also = direct
	default:
		return claim{}, wrongFeature("%q: not something that features can add", also)
	}
	return c, nil
}

// outlast lets the clients that were denied try again. Where nobody was, it would prove nothing.
func (s *scenario) outlast(ctx context.Context) error {
	if !slices.ContainsFunc(s.record.Attempts, func(a AttemptLine) bool { return a.Must == oracle.Denied.String() }) {
		return wrongFeature("nobody was denied who could try again")
	}
	return s.outlasted(ctx)
}

func arrived(c oracle.Connection, o Outcome) error {
	if !o.Arrived {
		return fmt.Errorf("%w: %s: it was not seen at the gateway", errInconclusive, describe(c))
	}
	return nil
}

// direct checks that nothing stands between client and database that speaks for either (SPEC S-11).
func direct(c oracle.Connection, o Outcome) error {
	if o.SeenFrom != o.Local {
		return notConformant("%s: the client connected from %s, but the database was connected to from %s", describe(c), o.Local, o.SeenFrom)
	}
	return nil
}

func servedBy(node string) func(oracle.Connection, Outcome) error {
	return func(c oracle.Connection, o Outcome) error {
		if o.Node != node {
			return fmt.Errorf("%w: %s: answered by node %s, not by %s: the lab did not fail over", errInconclusive, describe(c), o.Node, node)
		}
		return nil
	}
}

// outcomes reads a table of sentences: who, how, outcome, and optionally by.
func (s *scenario) outcomes(ctx context.Context, table *godog.Table) error {
	rows, err := records(table, []string{"who", "how", "outcome"}, []string{"by"})
	if err != nil {
		return err
	}
	var claims []claim
	for _, r := range rows {
		who := r["who"]
		if r["how"] != "" {
			who += " " + r["how"]
		}
		by, ok := cutBy(r["by"])
		if !ok {
			return wrongFeature(`%q: column "by" begins with by`, r["by"])
		}
		c, err := s.claim(who, r["outcome"], by, "")
		if err != nil {
			return err
		}
		claims = append(claims, c)
	}
	return s.checkAll(ctx, claims)
}

// records reads a table with a header into one map per row.
func records(table *godog.Table, required, optional []string) ([]map[string]string, error) {
	if table == nil || len(table.Rows) < 2 {
		return nil, wrongFeature("the table has no rows")
	}
	var header []string
	for _, c := range table.Rows[0].Cells {
		if !slices.Contains(required, c.Value) && !slices.Contains(optional, c.Value) {
			return nil, wrongFeature("the table has an unknown column %q", c.Value)
		}
		header = append(header, c.Value)
	}
	for _, name := range required {
		if !slices.Contains(header, name) {
			return nil, wrongFeature("the table has no column %q", name)
		}
	}
	var out []map[string]string
	for _, row := range table.Rows[1:] {
		r := map[string]string{}
		for i, c := range row.Cells {
			r[header[i]] = c.Value
		}
		out = append(out, r)
	}
	return out, nil
}

// cutBy takes the word "by" off a table's cell.
func cutBy(cell string) (string, bool) {
	if cell == "" {
		return "", true
	}
	return strings.CutPrefix(cell, "by ")
}
