package main

import (
	"context"
	"fmt"
	"slices"

	"drawbridge/enforcer"

	"github.com/spf13/cobra"
)

// errUndermined ends a doctor that has already said what it found.
var errUndermined = &quiet{exitNotConformant}

func (p *program) enforceDoctorCommand() *cobra.Command {
	var o enforceFlags
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Look for what undermines the enforcer: other tables, flow tables, sysctls, the kernel",
		Long: `Reads all tables of this network namespace, some sysctls, and what the kernel can do, and says what has a bearing on the
enforcer: rules that write to its bits of the connection mark or exempt packets from tracking, flow tables, and settings. It
does not follow which packets a rule of another program matches.

Exit code 1 if something undermines the enforcer, so that verdicts may be wrong; else 0.`,
		Example: `  drawbridge enforce doctor
  drawbridge enforce doctor --json | jq '.[] | select(.severity == "undermines")'`,
		Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error { return p.enforceDoctor(c.Context(), o) },
	}
	o.add(c, false)
	return c
}

func (p *program) enforceDoctor(ctx context.Context, o enforceFlags) error {
	const verb = "enforce doctor"
	options, err := o.options(verb)
	if err != nil {
		return err
	}
	findings, err := enforcer.Examine(ctx, options)
	if err != nil {
		return unable(verb, err)
	}
	if o.json {
		err = writeIndented(p.std.out, findings)
	} else {
		err = p.writeFindings(findings)
	}
	if err != nil {
		return unable(verb, err)
	}
	if slices.ContainsFunc(findings, func(f enforcer.Finding) bool { return f.Severity == enforcer.Undermines }) {
		return errUndermined
	}
	return nil
}

func (p *program) writeFindings(findings []enforcer.Finding) error {
	if len(findings) == 0 {
		_, err := fmt.Fprintln(p.std.out, "nothing found")
		return err
	}
	for _, f := range findings {
		if _, err := fmt.Fprintf(p.std.out, "%s: %s\n  %s\n  way out: %s\n", f.Severity, oneLine(f.Where), oneLine(f.What), oneLine(f.WayOut)); err != nil {
			return err
		}
	}
	return nil
}
