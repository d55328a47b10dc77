package page

import (
	"fmt"
	"slices"

	"drawbridge/features/suite"
	"drawbridge/topology"
)

// matrix says of every pair of a client and a database what became of the attempts between them.
type matrix struct {
	Databases []string
	Rows      []matrixRow
	Attempts  int
}

type matrixRow struct {
	From, Kind string
	Cells      []heat // two for each database: over TLS, without
}

// heat is one cell: how many attempts were served, and how many did not end as they must.
type heat struct {
	TLS                  bool
	Tried, Served, Wrong int
	Title                string
}

// Percent is the share of attempts that were served.
func (h heat) Percent() int {
	if h.Tried == 0 {
		return 0
	}
	return 100 * h.Served / h.Tried
}

func newMatrix(w *topology.World, r *suite.Report) matrix {
	type key struct {
		from, to string
		tls      bool
	}
	cells := map[key]*heat{}
	m := matrix{}
	tried := map[string]bool{}
	for _, s := range r.Scenarios {
		for _, a := range s.Attempts {
			if a.From == "" || a.To == "" {
				continue
			}
			m.Attempts++
			tried[a.From], tried[a.To] = true, true
			k := key{a.From, a.To, a.TLS}
			if cells[k] == nil {
				cells[k] = &heat{TLS: a.TLS}
			}
			cells[k].add(a)
		}
	}
	for _, d := range w.Databases() {
		if tried[d.Name] {
			m.Databases = append(m.Databases, d.Name)
		}
	}
	for _, v := range w.Vantages() {
		if !tried[v.Name] {
			continue
		}
		row := matrixRow{From: v.Name, Kind: string(v.Kind)}
		for _, d := range m.Databases {
			for _, tls := range []bool{true, false} {
				row.Cells = append(row.Cells, cells[key{v.Name, d, tls}].titled(v.Name, d, tls))
			}
		}
		m.Rows = append(m.Rows, row)
	}
	return m
}

func (h *heat) add(a suite.AttemptLine) {
	h.Tried++
	if slices.Contains([]string{"served", "answered"}, a.Was) {
		h.Served++
	}
	if !a.OK {
		h.Wrong++
	}
}

func (h *heat) titled(from, to string, tls bool) heat {
	how := "without TLS"
	if tls {
		how = "over TLS"
	}
	if h == nil {
		return heat{TLS: tls, Title: fmt.Sprintf("%s to %s %s: not tried", from, to, how)}
	}
	h.Title = fmt.Sprintf("%s to %s %s: %d tried, %d served, %d not as they must", from, to, how, h.Tried, h.Served, h.Wrong)
	return *h
}
