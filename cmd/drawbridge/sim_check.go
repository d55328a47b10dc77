//go:build !operator

package main

import (
	"context"

	"drawbridge/sim"
	"drawbridge/sim/cell"
	"drawbridge/topology"

	"github.com/spf13/cobra"
)

func (p *program) simCheckCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "check",
		Short: "Say whether a lab can be built here, and if not, what forbids it",
		Long: `Builds the lab and takes it down again. Where the machine forbids it the exit code is 3, and the error names the switch
and the command that allows it.`,
		Example: "  drawbridge sim check",
		Args:    exactly(),
		RunE:    func(c *cobra.Command, _ []string) error { return p.simCheck(c.Context()) },
	}
}

func (p *program) simCheck(ctx context.Context) error {
	if !cell.Inside() {
		return p.inCell(ctx)
	}
	ctx = cell.Context() // ends with Ctrl-C
	l, err := sim.Up(ctx, topology.Default(), sim.Options{})
	if err != nil {
		return unable("sim check", err)
	}
	if err := l.Close(); err != nil {
		return unable("sim check", err)
	}
	return nil
}
