package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"text/tabwriter"
	"time"

	"drawbridge/enforcer"
	"drawbridge/enforcer/daemon"
	nflog "drawbridge/enforcer/denied"

	"github.com/spf13/cobra"
)

func (p *program) enforceStatusCommand() *cobra.Command {
	var o enforceFlags
	var socket string
	c := &cobra.Command{
		Use:   "status",
		Short: "Say what is in force, who speaks TLS and who does not",
		Long: `Reads the kernel's table and says, for each database: whether Force TLS is on, how many connections spoke TLS, how many spoke
plaintext or were refused for it, from where and when the last one came, and what stands now. Connections are classified
whether Force TLS is on or not. Where drawbridge enforce run is at work, it adds since when the policy is in force, and who was denied
lately.

It has no policy to compare with, but chains and rules follow from which databases there are, and each protected address has its place
in several sets: whatever of the three tables is missing, more or other than this enforcer writes it is named. Exit code 1 if
nothing is in force, or if the tables were tampered with. What only the policy can tell is not looked at: sources of rules and managed
ranges, regions' networks, cluster nodes, toggles, whole databases that are gone with all that belongs to them, and what rules remember of
connections. drawbridge enforce verify proves these. A --mark-mask has to be given only to be told if the rules have another one.`,
		Example: `  drawbridge enforce status
  drawbridge enforce status --json | jq '.databases[] | select(.live.plaintext > 0)'`,
		Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error { return p.enforceStatus(c.Context(), o, socket) },
	}
	o.add(c, false)
	addSocket(c, &socket)
	return c
}

func (p *program) enforceStatus(ctx context.Context, o enforceFlags, socket string) error {
	const verb = "enforce status"
	options, err := o.options(verb)
	if err != nil {
		return err
	}
	status, err := enforcer.ReadStatus(ctx, options)
	if err != nil {
		return unable(verb, err)
	}
	if options.Compile.MarkMask == 0 {
		options.Compile.MarkMask = status.MarkMask
	}
	findings, err := enforcer.Examine(ctx, options)
	if err != nil {
		return unable(verb, err)
	}
	r, err := p.resident(ctx, socket, true)
	if err != nil {
		return unable(verb, err)
	}
	var denials heardOf
	if r != nil && r.status.Denied.Error == "" {
		if err := askDaemon(ctx, r.socket, "/denied", &denials); err != nil {
			return unable(verb, err)
		}
	}
	if o.json {
		all := statusWithFindings{Status: status, Findings: findings, Denied: denials.Sources}
		if r != nil {
			all.Daemon = &r.status
		}
		err = writeIndented(p.std.out, all)
	} else {
		err = errors.Join(writeStatus(p.std.out, status, r), writeBreakGlass(p.std.out, r), writeLately(p.std.out, denials.Sources), p.writeUndermining(findings))
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
	Findings []enforcer.Finding `json:"findings"`
	// Daemon is what drawbridge enforce run says of itself; nil: none answers.
	Daemon *daemon.Status `json:"daemon,omitempty"`
	// Denied are the sources that it heard of lately; none if none answers.
	Denied []nflog.Sighting `json:"denied"`
}

// since says since when the policy is in force, as far as anybody knows.
func since(r *resident) string {
	if r == nil {
		return "since when is not known, as no drawbridge enforce run answers"
	}
	at := r.status.InForceSince.UTC().Format(time.DateTime + "Z")
	switch {
	case r.status.InForceSince.IsZero():
		return "since when is not known: drawbridge enforce run waits for its first policy"
	case r.status.Found:
		return "since before " + at + ", when drawbridge enforce run found it in force"
	}
	return "since " + at
}

// latelyShown bounds how many sources of a database people are shown; enforce denied has all that are remembered.
const latelyShown = 3

// writeLately shows who was denied lately, at each database.
func writeLately(out io.Writer, all []nflog.Sighting) error {
	if len(all) == 0 {
		return nil
	}
	fmt.Fprintln(out, "\ndenied lately (drawbridge enforce denied)")
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	shown := map[string]int{}
	for _, s := range all {
		if shown[s.Database]++; shown[s.Database] <= latelyShown {
			fmt.Fprintf(w, "  %s\t%v\t%s\t%s\n", oneLine(s.Database), s.Source, s.LastAt.UTC().Format(time.DateTime+"Z"), s.Why)
		}
	}
	for _, database := range slices.Sorted(maps.Keys(shown)) {
		if n := shown[database]; n > latelyShown {
			fmt.Fprintf(w, "  %s\tand %d more\n", database, n-latelyShown)
		}
	}
	return w.Flush()
}

// writeUndermining names what makes verdicts doubtful; the rest is doctor's.
func (p *program) writeUndermining(findings []enforcer.Finding) error {
	for _, f := range findings {
		if f.Severity != enforcer.Undermines {
			continue
		}
		if _, err := fmt.Fprintf(p.std.out, "\nundermined by %s: %s (drawbridge enforce doctor)\n", oneLine(f.Where), oneLine(f.What)); err != nil {
			return err
		}
	}
	return nil
}

func writeStatus(out io.Writer, s enforcer.Status, r *resident) error {
	if s.Tampered != "" {
		return writeTampered(out, s)
	}
	if !s.InForce {
		_, err := fmt.Fprintln(out, "nothing is in force here")
		return err
	}
	if s.Denying {
		_, err := fmt.Fprintln(out, "no policy is in force: everybody is kept away from what the last one protected (drawbridge enforce boot)")
		return err
	}
	fmt.Fprintf(out, "in force, kernel generation %d, %s\nas this enforcer writes it; that it lets in whom the policy does is for drawbridge enforce verify to prove\n\n",
		s.Generation, since(r))
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "DATABASE\tFORCE TLS\tTLS\tPLAINTEXT\tLAST PLAINTEXT\tREFUSED\tLAST REFUSED\tLIVE: TLS\tPLAINTEXT\tBEGINNING\tUNKNOWN")
	for _, d := range s.Databases {
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%s\t%d\t%s\t%d\t%d\t%d\t%d\n", oneLine(d.Name), d.ForceTLS, d.TLS, d.Plaintext, sighted(d.LastPlaintext),
			d.Refused, sighted(d.LastRefused), d.Live.TLS, d.Live.Plaintext, d.Live.Beginning, d.Live.Unknown)
	}
	return w.Flush()
}

// objectsShown bounds how many objects people are shown; --json has all.
const objectsShown = 20

func writeTampered(out io.Writer, s enforcer.Status) error {
	fmt.Fprintf(out, "tampered with: %s\n", oneLine(s.Tampered))
	for i, d := range s.Objects {
		if i == objectsShown {
			fmt.Fprintf(out, "  and %d more (--json)\n", len(s.Objects)-objectsShown)
			break
		}
		fmt.Fprintf(out, "  %s: %s\n", oneLine(d.Object), oneLine(d.What))
	}
	_, err := fmt.Fprintln(out, "run `drawbridge enforce apply` to repair it")
	return err
}

func sighted(s *enforcer.Sighting) string {
	if s == nil {
		return "-"
	}
	return fmt.Sprintf("%s %s", s.Source, s.LastAt.UTC().Format(time.DateTime+"Z"))
}
