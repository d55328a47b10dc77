//go:build !operator

package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"drawbridge/sim/probe"
)

// symbols of the matrix: one letter for each verdict.
var symbols = map[string]string{
	probe.Served.String(): "S", probe.Dropped.String(): "d", probe.Rejected.String(): "r",
	probe.TLSRefused.String(): "t", probe.Leaked.String(): "!", probe.Inconclusive.String(): "?", notTried: "-",
}

const legend = "S served, d dropped, r rejected, t refused for want of TLS, ! leaked, ? inconclusive, - not tried, . nothing to try; without TLS, then with TLS"

// nothing stands where there is nothing to try: a host to itself, or without a family of addresses in common.
const nothing = "."

// A table of more columns or lines than these is for programs. The vantages and endpoints of the embedded world have one each.
const (
	mostColumns = 32
	mostLines   = 64
	// mostNamed is how many people are told by name of those who share a column.
	mostNamed = 3
)

// writeMatrix prints a line for each endpoint and a column for each vantage, or for each group of them that fares alike if there are many
// and each is not set. A cell has a letter for each mode that the port speaks, plain before TLS.
func writeMatrix(out io.Writer, all []seen, each bool) error { return writeTable(out, all, each, nil) }

// column is one more of the matrix, with a cell for each row.
type column struct {
	title string
	cells map[string]string
}

// rowOf is the row of the matrix that an observation belongs to, and columnOf its column.
func rowOf(s seen) string { return fmt.Sprintf("%s\t%s\t%s", s.Database, s.To, s.Kind) }

func columnOf(s seen) string {
	if s.Source != "" {
		return fmt.Sprintf("%s (%s)", s.From, s.Source)
	}
	return s.From
}

// table is a matrix as it is printed. Groups hold numbers of vantages and rows.
type table struct {
	vantages, rows []string
	cells          [][]string // by row and vantage
	columns, lines [][]int
}

// tableOf sorts observations into cells.
func tableOf(all []seen) *table {
	t := &table{}
	vantages, rows := map[string]int{}, map[string]int{}
	number := func(of map[string]int, names *[]string, name string) int {
		n, ok := of[name]
		if !ok {
			n, of[name] = len(*names), len(*names)
			*names = append(*names, name)
		}
		return n
	}
	for _, s := range all {
		number(vantages, &t.vantages, columnOf(s))
	}
	for _, s := range all {
		row := number(rows, &t.rows, rowOf(s))
		if row == len(t.cells) {
			t.cells = append(t.cells, make([]string, len(t.vantages)))
		}
		t.cells[row][vantages[columnOf(s)]] += symbols[s.Verdict]
	}
	for _, row := range t.cells {
		for i, cell := range row {
			if cell == "" {
				row[i] = nothing
			}
		}
	}
	return t
}

// group puts together what is alike, if there is more than fits and each is not set.
func (t *table) group(each bool) {
	columns := len(t.vantages)
	if !each && columns > mostColumns {
		columns = 0
	}
	t.columns = alike(len(t.vantages), len(t.rows), columns, func(v, row int) string { return t.cells[row][v] })
	lines := len(t.rows)
	if !each && lines > mostLines {
		lines = 0
	}
	t.lines = alike(len(t.rows), len(t.columns), lines, func(row, column int) string { return t.cell(row, t.columns[column]) })
}

// alike groups the first n numbers by what each of them has in length places; the first apart of them stay by themselves. Where one has
// nothing to try, it is like any other.
func alike(n, length, apart int, has func(i, place int) string) (groups [][]int) {
	var common [][]string
	for i := range n {
		own := make([]string, length)
		for k := range own {
			own[k] = has(i, k)
		}
		g := -1
		if i >= apart {
			g = slices.IndexFunc(common, func(c []string) bool {
				for k, cell := range c {
					if cell != own[k] && cell != nothing && own[k] != nothing {
						return false
					}
				}
				return true
			})
		}
		if g < 0 {
			groups, common = append(groups, []int{i}), append(common, own)
			continue
		}
		groups[g] = append(groups[g], i)
		for k := range own {
			if common[g][k] == nothing {
				common[g][k] = own[k]
			}
		}
	}
	return groups
}

// cell is what those vantages have in a row that have anything.
func (t *table) cell(row int, vantages []int) string {
	for _, v := range vantages {
		if t.cells[row][v] != nothing {
			return t.cells[row][v]
		}
	}
	return nothing
}

// common is what the rows of a line have in a column.
func (t *table) common(line, column []int) string {
	for _, row := range line {
		if cell := t.cell(row, column); cell != nothing {
			return cell
		}
	}
	return nothing
}

// named are the vantages of a column, for people.
func (t *table) named(column []int) string {
	var names []string
	for _, v := range column[:min(len(column), mostNamed)] {
		names = append(names, t.vantages[v])
	}
	text := strings.Join(names, ", ")
	if more := len(column) - len(names); more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// writeTable is writeMatrix with one more column, if there is one. Lines that are shared have the least of what it says of their rows.
func writeTable(out io.Writer, all []seen, each bool, more *column) error {
	if len(all) == 0 {
		_, err := fmt.Fprintln(out, "There is nothing to connect to: this world has no databases.")
		return err
	}
	t := tableOf(all)
	t.group(each)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for i, c := range t.columns {
		fmt.Fprintf(w, "%d = %s\n", i+1, t.named(c))
	}
	fmt.Fprintf(w, "\n%s\n\nDATABASE\tADDRESS\tKIND", legend)
	for i := range t.columns {
		fmt.Fprintf(w, "\t%d", i+1)
	}
	if more != nil {
		fmt.Fprintf(w, "\t%s", more.title)
	}
	fmt.Fprintln(w)
	for _, line := range t.lines {
		t.writeLine(w, line, more)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, "\n%s\n", t.summary(all))
	return err
}

func (t *table) writeLine(w io.Writer, line []int, more *column) {
	database, rest, _ := strings.Cut(t.rows[line[0]], "\t")
	if len(line) > 1 {
		database += fmt.Sprintf(" and %d more", len(line)-1)
	}
	fmt.Fprintf(w, "%s\t%s", database, rest)
	for _, c := range t.columns {
		fmt.Fprintf(w, "\t%s", t.common(line, c))
	}
	if more != nil {
		var cells []string
		for _, row := range line {
			cells = append(cells, more.cells[t.rows[row]])
		}
		fmt.Fprintf(w, "\t%s", slices.Min(cells))
	}
	fmt.Fprintln(w)
}

// summary counts the verdicts.
func (t *table) summary(all []seen) string {
	counts := map[string]int{}
	for _, s := range all {
		counts[s.Verdict]++
	}
	var parts []string
	for v := range probe.Leaked + 1 {
		if n := counts[v.String()]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, v))
		}
	}
	if n := counts[notTried]; n > 0 {
		parts = append(parts, fmt.Sprintf("%d not tried", n))
	}
	text := fmt.Sprintf("%d connections, vantages: %d, endpoints: %d: %s", len(all), len(t.vantages), len(t.rows), strings.Join(parts, ", "))
	if len(t.columns) < len(t.vantages) || len(t.lines) < len(t.rows) {
		text += "; those alike are shown together (--all: each)"
	}
	return text
}
