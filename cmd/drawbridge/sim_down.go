//go:build !operator

package main

import (
	"context"

	"github.com/spf13/cobra"
)

func (p *program) simDownCommand(name *string) *cobra.Command {
	return &cobra.Command{
		Use:     "down",
		Short:   "End the lab",
		Long:    "Ends the lab and every program that still runs in it, and returns once it is gone.",
		Example: "  drawbridge sim down\n  drawbridge sim down --lab second",
		Args:    exactly(),
		RunE:    func(c *cobra.Command, _ []string) error { return simDown(c.Context(), *name) },
	}
}

func simDown(ctx context.Context, lab string) error {
	const verb = "sim down"
	c, err := reach(ctx, verb, lab)
	if err != nil {
		return err
	}
	defer c.Close()
	holder, err := c.Holder()
	if err != nil {
		return unable(verb, err)
	}
	if err := c.Send(order{Down: true}); err != nil {
		return unable(verb, err)
	}
	if _, err := receive(verb, c); err != nil {
		return err
	}
	if err := holder.Wait(); err != nil {
		return unable(verb, err)
	}
	return nil
}
