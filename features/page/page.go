// Package page writes a report as one HTML page that needs nothing besides itself: no script, font or image from elsewhere.
package page

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"drawbridge/features/suite"
	"drawbridge/topology"
)

//go:embed page.html
var text string

// page is parsed when it is first needed: this program also starts hundreds of times in a run to bring a policy into force.
var page = sync.OnceValue(func() *template.Template {
	return template.Must(template.New("page").Funcs(template.FuncMap{
		"join":  func(all []string) string { return strings.Join(all, ", ") },
		"mark":  mark,
		"short": func(all []suite.PacketLine) bool { return len(all) <= shortTimeline },
		"ms":    func(v float64) string { return fmt.Sprintf("%.2f ms", v) },
	}).Parse(text))
})

// shortTimeline is how many packets of a failed attempt are shown without being asked for.
const shortTimeline = 12

// mark is a result's sign, for those who do not see its colour.
func mark(result string) string {
	switch result {
	case "passed":
		return "✓"
	case "failed":
		return "✗"
	case "known-deviation":
		return "!"
	}
	return "?"
}

// Write writes the page of a report about a world.
func Write(w io.Writer, world *topology.World, r *suite.Report) error {
	v, err := newView(world, r)
	if err != nil {
		return fmt.Errorf("report page: %w", err)
	}
	if err := page().Execute(w, v); err != nil {
		return fmt.Errorf("report page: %w", err)
	}
	return nil
}

// Name is the page's file name in a report directory.
const Name = "report.html"

// WriteFile writes the page into a report directory that exists.
func WriteFile(dir string, world *topology.World, r *suite.Report) (err error) {
	f, err := os.Create(filepath.Join(dir, Name))
	if err != nil {
		return fmt.Errorf("report page: %w", err)
	}
	defer func() {
		if closed := f.Close(); err == nil {
			err = closed
		}
	}()
	return Write(f, world, r)
}
