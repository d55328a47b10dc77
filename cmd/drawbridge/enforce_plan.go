package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"

	"drawbridge/enforcer"

	"github.com/spf13/cobra"
)

func (p *program) enforcePlanCommand() *cobra.Command {
	var o enforceFlags
	var socket string
	c := &cobra.Command{
		Use:   "plan",
		Short: "Say what a policy would change, and which live connections it would cut",
		Long: `Compares a policy with what is in force and changes nothing. It says in words what would change and who would gain access or lose
it, as exact networks of the whole address space; which elements would come and go, in nft(8) syntax; and which of the connections that stand now would be ended, whose they are and why: of a policy that turns Force TLS on, those
that speak plaintext and those whose beginning was never seen.

What drawbridge enforce run has open by break-glass stays open whatever policy comes, and is part of what is compared.`,
		Example: `  drawbridge enforce plan < policy.json
  drawbridge enforce plan --policy policy.json --json`,
		Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error { return p.enforcePlan(c.Context(), o, socket) },
	}
	o.add(c, true)
	addSocket(c, &socket)
	return c
}

func (p *program) enforcePlan(ctx context.Context, o enforceFlags, socket string) error {
	const verb = "enforce plan"
	document, options, err := p.policy(verb, o)
	if err != nil {
		return err
	}
	if options.Openings, err = p.breakGlass(ctx, socket); err != nil {
		return unable(verb, err)
	}
	plan, err := enforcer.MakePlan(ctx, document, options)
	if errors.Is(err, enforcer.ErrRefused) {
		return misuse(verb, err)
	}
	if err != nil {
		return unable(verb, err)
	}
	p.warn(plan.Warnings)
	if o.json {
		err = writeIndented(p.std.out, plan)
	} else {
		err = writePlan(p.std.out, plan)
	}
	if err != nil {
		return unable(verb, err)
	}
	return nil
}

func writePlan(out io.Writer, plan enforcer.Plan) error {
	if plan.Repair != "" {
		fmt.Fprintf(out, "the table was tampered with and would be replaced: %s\n", oneLine(plan.Repair))
	}
	if len(plan.Commands) == 0 {
		fmt.Fprintln(out, "nothing would change")
	} else {
		fmt.Fprintf(out, "%d commands would be carried out in one transaction:\n", len(plan.Commands))
	}
	for _, c := range plan.Commands {
		fmt.Fprintf(out, "  %s\n", oneLine(c))
	}
	if len(plan.Settings)+len(plan.Access) > 0 {
		fmt.Fprintln(out, "\nin words:")
	}
	for _, s := range plan.Settings {
		fmt.Fprintf(out, "  %s\n", oneLine(s))
	}
	for _, a := range plan.Access[:min(len(plan.Access), maxShown)] {
		fmt.Fprintf(out, "  %s\n", oneLine(a.Words()))
	}
	more(out, len(plan.Access))
	fmt.Fprintf(out, "\nlive connections: %d would be cut, %d would go on\n", plan.Connections(), plan.Kept)
	if len(plan.Cut) == 0 {
		return nil
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "DATABASE\tCLIENT\tCONNECTIONS\tWHY")
	for _, d := range plan.Cut {
		fmt.Fprintf(w, "%s\t%s\t%d\t%s\n", oneLine(d.Database), d.Client, d.Connections, d.Why)
	}
	return w.Flush()
}
