package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"drawbridge/enforcer"

	"github.com/spf13/cobra"
)

func (p *program) enforceStatusCommand() *cobra.Command {
	var o enforceFlags
	c := &cobra.Command{
		Use:   "status",
		Short: "Say what is in force, who speaks TLS and who does not",
		Long: `Reads the kernel's table and says, for each database: whether Force TLS is on, how many connections spoke TLS, how many spoke
plaintext or were refused for it, from where and when the last one came, and what stands now. Connections are classified
whether Force TLS is on or not. Exit code 1 if nothing is in force, or if the table was tampered with.`,
		Example: `  drawbridge enforce status
  drawbridge enforce status --json | jq '.databases[] | select(.live.plaintext > 0)'`,
		Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error { return p.enforceStatus(c.Context(), o) },
	}
	o.add(c, false)
	return c
}

func (p *program) enforceStatus(ctx context.Context, o enforceFlags) error {
	const verb = "enforce status"
	options, err := o.options(verb)
	if err != nil {
		return err
	}
	status, err := enforcer.ReadStatus(ctx, options)
	if err != nil {
		return unable(verb, err)
	}
	findings, err := enforcer.Examine(ctx, options)
	if err != nil {
		return unable(verb, err)
	}
	if o.json {
		err = writeIndented(p.std.out, statusWithFindings{status, findings})
	} else {
		err = errors.Join(writeStatus(p.std.out, status), p.writeUndermining(findings))
	}
	if err != nil {
		return unable(verb, err)
	}
	if !status.InForce {
		return errNothingInForce
	}
	return nil
}

// statusWithFindings is what enforce status prints as JSON.
type statusWithFindings struct {
	enforcer.Status
	// Findings are what has a bearing on the enforcer (enforce doctor).
	Findings []enforcer.Finding `json:"findings,omitempty"`
}

// writeUndermining names what makes verdicts doubtful; the rest is doctor's.
func (p *program) writeUndermining(findings []enforcer.Finding) error {
	for _, f := range findings {
		if f.Severity != enforcer.Undermines {
			continue
		}
		if _, err := fmt.Fprintf(p.std.out, "\nundermined by %s: %s (drawbridge enforce doctor)\n", f.Where, f.What); err != nil {
			return err
		}
	}
	return nil
}

func writeIndented(out io.Writer, v any) error {
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

func writeStatus(out io.Writer, s enforcer.Status) error {
	if s.Tampered != "" {
		_, err := fmt.Fprintf(out, "tampered with: %s\nrun `drawbridge enforce apply` to repair it\n", s.Tampered)
		return err
	}
	if !s.InForce {
		_, err := fmt.Fprintln(out, "nothing is in force here")
		return err
	}
	if s.Denying {
		_, err := fmt.Fprintln(out, "no policy is in force: everybody is kept away from what the last one protected (drawbridge enforce boot)")
		return err
	}
	fmt.Fprintf(out, "in force, kernel generation %d\n\n", s.Generation)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "DATABASE\tFORCE TLS\tTLS\tPLAINTEXT\tLAST PLAINTEXT\tREFUSED\tLAST REFUSED\tLIVE: TLS\tPLAINTEXT\tBEGINNING\tUNKNOWN")
	for _, d := range s.Databases {
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%s\t%d\t%s\t%d\t%d\t%d\t%d\n", d.Name, d.ForceTLS, d.TLS, d.Plaintext, sighted(d.LastPlaintext),
			d.Refused, sighted(d.LastRefused), d.Live.TLS, d.Live.Plaintext, d.Live.Beginning, d.Live.Unknown)
	}
	return w.Flush()
}

func sighted(s *enforcer.Sighting) string {
	if s == nil {
		return "-"
	}
	return fmt.Sprintf("%s %s", s.Source, s.LastAt.UTC().Format(time.DateTime+"Z"))
}
