//go:build !operator

package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"drawbridge/sim/probe"
	"drawbridge/topology"

	"github.com/spf13/cobra"
)

// matrixOrder asks for every vantage against every endpoint.
type matrixOrder struct {
	Bypasses bool `json:"bypasses"` // the ways round as well
}

func (p *program) simMatrixCommand(name *string) *cobra.Command {
	var o matrixOrder
	var asJSON, asPage bool
	c := &cobra.Command{
		Use:   "matrix",
		Short: "Connect from every vantage to every endpoint, with and without TLS",
		Example: `  drawbridge sim matrix
  drawbridge sim matrix --bypasses --json
  drawbridge sim matrix --html > matrix.html`,
		Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			if err := apart(c, "json", "html"); err != nil {
				return err
			}
			write := writeMatrix
			if asPage {
				write = writeMatrixPage
			}
			return p.observe(c.Context(), "sim matrix", *name, order{Matrix: &o}, asJSON, write)
		},
	}
	c.Flags().BoolVar(&o.Bypasses, "bypasses", false, "also try the ways round the endpoints")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.Flags().BoolVar(&asPage, "html", false, "print one page that needs nothing besides itself")
	return c
}

func (h *holder) matrix(ctx context.Context, o matrixOrder) (answer, error) {
	all, err := h.observe(ctx, "sim matrix", o.specs(h.lab.World()))
	return answer{Seen: all}, err
}

// specs are the connections that a matrix is made of, in the world's order.
func (o matrixOrder) specs(w *topology.World) []probe.Spec {
	targets := w.Endpoints()
	if o.Bypasses {
		targets = append(targets, w.Bypasses()...)
	}
	var specs []probe.Spec
	for _, v := range w.Vantages() {
		for _, to := range targets {
			if !speaksFamily(v, probe.Spec{}.Source, to) || v.Namespace == namespaceOf(w, to) {
				continue // loopback is not judged (SPEC G-02)
			}
			for _, mode := range probe.Modes(to) {
				specs = append(specs, probe.Spec{From: v.Name, To: to, Mode: mode})
			}
		}
	}
	return specs
}

// namespaceOf names the node of the fabric in which an endpoint's server runs.
func namespaceOf(w *topology.World, e topology.Endpoint) string {
	d, _ := w.Database(e.Database)
	for _, n := range d.Nodes {
		if n.Name == e.Node {
			return n.Listener()
		}
	}
	return ""
}

// symbols of the matrix: one letter for each verdict.
var symbols = map[string]string{
	probe.Served.String(): "S", probe.Dropped.String(): "d", probe.Rejected.String(): "r",
	probe.TLSRefused.String(): "t", probe.Leaked.String(): "!", probe.Inconclusive.String(): "?",
}

const legend = "S served, d dropped, r rejected, t refused for want of TLS, ! leaked, ? inconclusive, . not tried; without TLS, then with TLS"

// writeMatrix prints a line for each endpoint and a column for each vantage. A cell has a letter for each mode that the port
// speaks, plain before TLS.
func writeMatrix(out io.Writer, all []seen) error { return writeTable(out, all, nil) }

// column is one more of the matrix, with a cell for each row.
type column struct {
	title string
	cells map[string]string
}

// rowOf is the row of the matrix that an observation belongs to.
func rowOf(s seen) string { return fmt.Sprintf("%s\t%s\t%s", s.Database, s.To, s.Kind) }

// writeTable is writeMatrix with one more column, if there is one.
func writeTable(out io.Writer, all []seen, more *column) error {
	var vantages, rows []string
	cells := map[[2]string]string{}
	for _, s := range all {
		row := rowOf(s)
		if !slices.Contains(vantages, s.From) {
			vantages = append(vantages, s.From)
		}
		if !slices.Contains(rows, row) {
			rows = append(rows, row)
		}
		cells[[2]string{row, s.From}] += symbols[s.Verdict]
	}
	if len(all) == 0 {
		_, err := fmt.Fprintln(out, "There is nothing to connect to: this world has no databases.")
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for i, v := range vantages {
		fmt.Fprintf(w, "%d = %s\n", i+1, v)
	}
	fmt.Fprintf(w, "\n%s\n\n", legend)
	fmt.Fprint(w, "DATABASE\tADDRESS\tKIND")
	for i := range vantages {
		fmt.Fprintf(w, "\t%d", i+1)
	}
	if more != nil {
		fmt.Fprintf(w, "\t%s", more.title)
	}
	fmt.Fprintln(w)
	for _, row := range rows {
		fmt.Fprint(w, row)
		for _, v := range vantages {
			cell := cells[[2]string{row, v}]
			if cell == "" {
				cell = "."
			}
			fmt.Fprintf(w, "\t%s", strings.TrimSpace(cell))
		}
		if more != nil {
			fmt.Fprintf(w, "\t%s", more.cells[row])
		}
		fmt.Fprintln(w)
	}
	return w.Flush()
}
