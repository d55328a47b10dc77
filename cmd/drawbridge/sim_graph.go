//go:build !operator

package main

import (
	"fmt"
	"slices"
	"strings"

	"drawbridge/topology/drawing"

	"github.com/spf13/cobra"
)

// graphFormat is a flag's value.
type graphFormat string

// Set, String and Type make it a flag.
func (f *graphFormat) Set(s string) error {
	if !slices.Contains(drawing.Formats(), s) {
		return fmt.Errorf("must be %s", strings.Join(drawing.Formats(), ", "))
	}
	*f = graphFormat(s)
	return nil
}
func (f *graphFormat) String() string { return string(*f) }
func (f *graphFormat) Type() string   { return "format" }

// formatFlag adds --format to a command.
func formatFlag(c *cobra.Command, f *graphFormat) {
	*f = graphFormat(drawing.Mermaid)
	c.Flags().VarP(f, "format", "f", "`language` of the drawing: mermaid, dot or svg")
	complete(c, "format", drawing.Formats())
}

func (p *program) simGraphCommand(name *string) *cobra.Command {
	var f graphFormat
	c := &cobra.Command{
		Use:   "graph",
		Short: "Draw a running lab",
		Example: `  drawbridge sim graph
  drawbridge sim graph --format svg > lab.svg
  drawbridge sim graph --format dot | dot -Tpdf > lab.pdf`,
		Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			const verb = "sim graph"
			a, err := ask(c.Context(), verb, *name, order{Graph: string(f)})
			if err != nil {
				return err
			}
			return p.print(verb, a.Text)
		},
	}
	formatFlag(c, &f)
	return c
}

func (h *holder) graph(format string) (answer, error) {
	var out strings.Builder
	if err := drawing.Of(h.lab.World(), nil).Write(&out, drawing.Format(format)); err != nil {
		return answer{}, misuse("", err)
	}
	return answer{Text: out.String()}, nil
}
