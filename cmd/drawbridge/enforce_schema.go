package main

import (
	"drawbridge/enforcer/policy"

	"github.com/spf13/cobra"
)

func (p *program) enforceSchemaCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print the policy's JSON Schema, for editors",
		Long: `Prints the JSON Schema (draft 2020-12) of a policy. What it refuses is no policy; what it takes may still be refused, for what only
a look at the whole document shows: enforce plan says that, with the place.`,
		Example: `  drawbridge enforce schema > policy.schema.json`,
		Args:    exactly(),
		RunE: func(*cobra.Command, []string) error {
			_, err := p.std.out.Write(policy.Schema())
			return err
		},
	}
}
