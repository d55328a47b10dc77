//go:build !operator

package main

import (
	"drawbridge/sim/cell"

	"github.com/spf13/cobra"
)

// root is the program with everything: the judge, the lab, and the enforcer.
func (p *program) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "drawbridge",
		Short: "The network exposure of managed databases, judged by real connections",
		Long: `drawbridge judges what a firewall in front of managed databases really lets through. It builds an emulated Internet
out of Linux network namespaces, hands an enforcer one policy after the other, and connects with real database clients.

Exit codes: 0 conformant or done, 1 not conformant or what was asked does not hold, 2 wrong use or refused input, 3 could not be
judged or done.`,
		Example: `  drawbridge conform                                  judge the reference enforcer
  drawbridge conform --driver ./mine --profile core   judge your own (docs/DRIVERS.md)
  drawbridge sim up                                   keep the lab up, to try things by hand`,
	}
	root.AddCommand(p.conformCommand(), p.simCommand(), p.topologyCommand(), p.mutateCommand(), p.benchCommand())
	return root
}

// enterCell makes the process what it was started as, if that is a part of a cell.
func enterCell() { cell.Init() }
