//go:build !operator

package main

import (
	"html/template"
	"io"
	"strings"
	"sync"
)

// matrixPage is one page that needs nothing besides itself, parsed when it is asked for: most processes of this program are calls of enforce. Letters say what colours do, for those who do not see them.
var matrixPage = sync.OnceValue(func() *template.Template { return template.Must(template.New("matrix").Parse(matrixSource)) })

const matrixSource = `<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Who reaches what</title>
<style>
body { font: 14px system-ui, sans-serif; margin: 1.5em; } table { border-collapse: collapse; } th, td { padding: .25em .6em; text-align: left; }
thead th { vertical-align: bottom; } thead th span { writing-mode: vertical-rl; transform: rotate(180deg); } td { text-align: center; border: 1px solid #ccc; font-family: ui-monospace, monospace; }
.served { background: #cfe8d5; color: #10431f; } .dropped, .rejected { background: #f3d3d0; color: #5b120c; } .tls-refused { background: #f7e6bf; color: #4d3800; }
.not-tried { background: #eee; color: #333; } .leaked, .inconclusive { background: #5b120c; color: #fff; } caption { text-align: left; padding-bottom: 1em; }
</style>
<table><caption>{{.Legend}}</caption>
<thead><tr><th>Database</th><th>Address</th><th>Kind</th>{{range .Vantages}}<th scope="col"><span>{{.}}</span></th>{{end}}</tr></thead>
<tbody>{{range .Rows}}<tr><th scope="row">{{.Database}}</th><th>{{.To}}</th><th>{{.Kind}}</th>
{{range .Cells}}<td{{with .Class}} class="{{.}}"{{end}}{{with .Title}} title="{{.}}"{{end}}>{{.Text}}</td>{{end}}</tr>
{{end}}</tbody></table></html>
`

// pageCell is one vantage's connections to one endpoint.
type pageCell struct{ Text, Class, Title string }

type pageRow struct {
	seen
	Cells []pageCell
}

// writeMatrixPage writes the matrix as HTML: the table of writeMatrix, with what was seen behind each cell.
func writeMatrixPage(out io.Writer, all []seen) error {
	view := struct {
		Legend   string
		Vantages []string
		Rows     []*pageRow
	}{Legend: legend}
	column, rows := map[string]int{}, map[string]*pageRow{}
	for _, s := range all {
		if _, ok := column[columnOf(s)]; !ok {
			column[columnOf(s)] = len(view.Vantages)
			view.Vantages = append(view.Vantages, columnOf(s))
		}
	}
	for _, s := range all {
		key := s.Database + " " + s.To.String() + " " + string(s.Kind)
		row := rows[key]
		if row == nil {
			row = &pageRow{seen: s, Cells: make([]pageCell, len(view.Vantages))}
			rows[key] = row
			view.Rows = append(view.Rows, row)
		}
		c := &row.Cells[column[columnOf(s)]]
		c.Text += symbols[s.Verdict]
		c.Class = s.Verdict // the last mode's, TLS, where there are two
		c.Title = strings.TrimPrefix(c.Title+"; "+s.Mode+": "+s.Verdict+", "+s.Reason, "; ")
	}
	return matrixPage().Execute(out, view)
}
