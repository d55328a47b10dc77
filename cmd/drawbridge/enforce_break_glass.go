package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"drawbridge/enforcer/daemon"
	"drawbridge/enforcer/policy"

	"github.com/spf13/cobra"
)

// breakGlassFlags are the flags of enforce break-glass.
type breakGlassFlags struct {
	database, reason, socket string
	span                     time.Duration
	end, json                bool
}

func (p *program) enforceBreakGlassCommand() *cobra.Command {
	var o breakGlassFlags
	c := &cobra.Command{
		Use:   "break-glass DATABASE",
		Short: "Open one database to everybody for a stated time, loudly",
		Long: fmt.Sprintf(`Asks the running drawbridge enforce run to open one database to every source, whatever the policy says, for %g minute to %g hours. A dedicated
database gets rules for 0.0.0.0/0 and ::/0 that expire; a shared one is opened as Internet accessibility does, and needs Force TLS
for that. It opens the network and not the encryption: Force TLS stays as it is.

The end is in the kernel: it comes on time with nobody there. Until then the opening survives changes of the policy and starts of
the daemon, if that has a state directory. Connections that came in by it are ended with it. The audit log has who asked (user and
process, as the kernel says) and why; the log is reminded every minute; status, verify, explain and the metrics show it. Root
may ask, and the user that runs the daemon.

It asks the daemon that --socket names, or else the one at %s.`, daemon.MinBreakGlass.Minutes(), daemon.MaxBreakGlass.Hours(), defaultSocket),
		Example: `  drawbridge enforce break-glass orders --for 15m --reason "ticket 4711: replica cannot reach it"
  drawbridge enforce break-glass orders --end`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return misusef("enforce break-glass", "name one database")
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			o.database = args[0]
			return p.enforceBreakGlass(c.Context(), o)
		},
	}
	c.Flags().DurationVar(&o.span, "for", 0, "for this `time`, as in 15m (required)")
	c.Flags().StringVar(&o.reason, "reason", "", "`why`, in one line (required)")
	c.Flags().BoolVar(&o.end, "end", false, "end it now")
	c.Flags().BoolVar(&o.json, "json", false, "print JSON")
	addSocket(c, &o.socket)
	return c
}

// errNoDaemon: break-glass needs somebody who ends the connections, remembers the opening and reminds people of it.
var errNoDaemon = errors.New("no drawbridge enforce run answers at " + defaultSocket + ", and nobody else ends an opening for sure; " +
	"name its socket with --socket, or add a rule with \"expires\" to the policy of a dedicated database and apply it")

func (p *program) enforceBreakGlass(ctx context.Context, o breakGlassFlags) error {
	const verb = "enforce break-glass"
	switch {
	case o.end && (o.span != 0 || o.reason != ""):
		return misusef(verb, "--end goes without --for and --reason")
	case !o.end && o.span == 0:
		return misusef(verb+": --for", "say for how long, %v to %v", daemon.MinBreakGlass, daemon.MaxBreakGlass)
	case !o.end && o.reason == "":
		return misusef(verb+": --reason", "say why")
	}
	r, err := p.resident(ctx, o.socket, false)
	if err == nil && r == nil {
		err = errNoDaemon
	}
	if err != nil {
		return unable(verb, err)
	}
	if o.end {
		err = p.endBreakGlass(ctx, r, o)
	} else {
		err = p.beginBreakGlass(ctx, r, o)
	}
	if a, ok := errors.AsType[*answered](err); ok && a.refused() {
		return misuse(verb, err)
	}
	if err != nil {
		return unable(verb, err)
	}
	return nil
}

func (p *program) beginBreakGlass(ctx context.Context, r *resident, o breakGlassFlags) error {
	var open daemon.BreakGlassAnswer
	asked := daemon.BreakGlassRequest{Database: o.database, For: o.span, Reason: o.reason}
	if err := exchange(ctx, r.socket, http.MethodPost, "/break-glass", asked, &open); err != nil {
		return err
	}
	if open.Warning != "" {
		p.warn([]string{open.Warning})
	}
	if o.json {
		return writeIndented(p.std.out, open)
	}
	_, err := fmt.Fprintf(p.std.out, "%s is open to everybody until %s; end it sooner with drawbridge enforce break-glass --end %s\n",
		open.Database, open.Until.UTC().Format(time.DateTime+"Z"), open.Database)
	return err
}

func (p *program) endBreakGlass(ctx context.Context, r *resident, o breakGlassFlags) error {
	var nothing struct{}
	if err := exchange(ctx, r.socket, http.MethodDelete, "/break-glass/"+url.PathEscape(o.database), nil, &nothing); err != nil {
		return err
	}
	if o.json {
		return writeIndented(p.std.out, nothing)
	}
	_, err := fmt.Fprintf(p.std.out, "%s is what the policy says again\n", o.database)
	return err
}

// breakGlass is what the running daemon has open, for a verb that holds the kernel against a document; it warns of each.
func (p *program) breakGlass(ctx context.Context, socket string) (open []policy.Opening, err error) {
	r, err := p.resident(ctx, socket, true)
	if err != nil || r == nil {
		return nil, err
	}
	for _, b := range r.status.BreakGlass {
		open = append(open, b.Opening())
		p.warn([]string{breakGlassWords(b)})
	}
	return open, nil
}

func breakGlassWords(b daemon.BreakGlass) string {
	return fmt.Sprintf("break-glass: %s is open to everybody until %s, asked for by user %d: %s", b.Database, b.Until.UTC().Format(time.DateTime+"Z"), b.UserID, b.Reason)
}

// writeBreakGlass shows what is open.
func writeBreakGlass(out io.Writer, r *resident) error {
	if r == nil {
		return nil
	}
	for _, b := range r.status.BreakGlass {
		if _, err := fmt.Fprintln(out, "\n"+breakGlassWords(b)); err != nil {
			return err
		}
	}
	return nil
}
