//go:build operator

package main

import "github.com/spf13/cobra"

// root is the program for hosts and gateways, with the enforcer alone. What judges enforcers is left out: it is of no use there,
// takes most of the room, and the scenario runner starts a "go env" in every process that links it.
func (p *program) root() *cobra.Command {
	return &cobra.Command{
		Use:   "drawbridge",
		Short: "The network exposure of managed databases, enforced",
		Long: `drawbridge brings the network exposure of databases into force on the host or gateway that it runs on, and keeps it there.

Exit codes: 0 done, 1 what was asked does not hold, 2 wrong use or refused input, 3 could not be done.`,
		Example: `  drawbridge enforce run --policy /etc/drawbridge/policy.json --state /var/lib/drawbridge
  drawbridge enforce status`,
	}
}

// enterCell does nothing: there is no lab.
func enterCell() {}
