package drawing

import (
	"bufio"
	"fmt"
	"html/template"
	"io"
	"slices"
	"strings"
)

// Format is a language in which a drawing can be written.
type Format string

// The formats.
const (
	Mermaid Format = "mermaid" // mermaid.js.org, flowchart
	DOT     Format = "dot"     // graphviz.org
	SVG     Format = "svg"     // needs nothing besides itself
)

// Formats lists them.
func Formats() []string { return []string{string(Mermaid), string(DOT), string(SVG)} }

// Write writes a drawing in a format.
func (d Drawing) Write(out io.Writer, f Format) error {
	w := bufio.NewWriter(out)
	var err error
	switch f {
	case Mermaid:
		d.mermaid(w)
	case DOT:
		d.dot(w)
	case SVG:
		err = picture.Execute(w, d)
	default:
		err = fmt.Errorf("unknown format %q: must be one of %s", f, strings.Join(Formats(), ", "))
	}
	if err != nil {
		return fmt.Errorf("draw: %w", err)
	}
	return w.Flush()
}

// mermaid writes a group for each box. Names are quoted, and mean the same nodes by numbers: some are words of the language.
func (d Drawing) mermaid(w io.Writer) {
	fmt.Fprintln(w, "flowchart LR")
	for i, b := range d.Boxes {
		fmt.Fprintf(w, "  subgraph b%d[\"%s, %s\"]\n", i, b.Title, b.Note)
		for j, it := range b.Items {
			fmt.Fprintf(w, "    b%di%d[\"%s\"]\n", i, j, it.Text)
		}
		if len(b.Items) == 0 {
			fmt.Fprintf(w, "    b%di0[\"no database\"]\n", i)
		}
		fmt.Fprintln(w, "  end")
	}
	for _, l := range d.Wires {
		fmt.Fprintf(w, "  b%d --- b%d\n", d.index(l.From), d.index(l.To))
	}
}

// dot writes a record for each box: clusters cannot be joined to each other.
func (d Drawing) dot(w io.Writer) {
	fmt.Fprint(w, "graph world {\n  rankdir=LR;\n  node [shape=box];\n")
	for i, b := range d.Boxes {
		lines := []string{b.Title, b.Note}
		for _, it := range b.Items {
			lines = append(lines, it.Text)
		}
		fmt.Fprintf(w, "  b%d [label=\"%s\\l\"];\n", i, strings.Join(lines, `\l`))
	}
	for _, l := range d.Wires {
		fmt.Fprintf(w, "  b%d -- b%d;\n", d.index(l.From), d.index(l.To))
	}
	fmt.Fprintln(w, "}")
}

// index finds a box: titles are names of a world, or Internet, which no name is.
func (d Drawing) index(title string) int {
	return slices.IndexFunc(d.Boxes, func(b Box) bool { return b.Title == title })
}

// picture is a file of its own: its colours are inside, for light and dark backgrounds.
var picture = template.Must(template.New("svg").Parse(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {{.Width}} {{.Height}}" width="{{.Width}}" height="{{.Height}}" role="img" aria-label="The lab">
<desc>{{.Words}}</desc>
<style>
rect { fill: #fff; stroke: #8a8f98; stroke-width: 1.5; rx: 9; } text { fill: #1d2129; font: 14px system-ui, sans-serif; }
.title { font-weight: 650; font-size: 15px; } .note { fill: #5b616b; font-size: 12.5px; } path { fill: none; stroke-width: 2; opacity: .75; }
rect.internet, path.internet { stroke: #b4540a; } rect.region, path.region { stroke: #0a6fb4; } rect.peer, path.peer { stroke: #6b3fa0; }
.wrong { stroke: #b3261e; }
@media (prefers-color-scheme: dark) { rect { fill: #1b1e24; } text { fill: #e6e8eb; } .note { fill: #a4abb6; } }
</style>
{{range .Wires}}<path class="{{.Class}}" d="{{.Path}}"/>
{{end}}{{range .Boxes}}<g><rect class="{{.Class}}" x="{{.X}}" y="{{.Y}}" width="{{.W}}" height="{{.H}}"/>
<text class="title" x="{{.TextX}}" y="{{.TitleY}}">{{.Title}}</text><text class="note" x="{{.TextX}}" y="{{.NoteY}}">{{.Note}}</text>
{{range .Items}}<text class="{{.Class}}" x="{{.X}}" y="{{.Y}}">{{.Text}}</text>
{{end}}</g>
{{end}}</svg>
`))
