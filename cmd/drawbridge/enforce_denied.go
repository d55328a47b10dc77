package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"text/tabwriter"
	"time"

	"drawbridge/enforcer"
	nflog "drawbridge/enforcer/denied"

	"github.com/spf13/cobra"
)

// deniedFlags are the flags of enforce denied.
type deniedFlags struct {
	follow, json bool
	over         time.Duration
	socket       string
}

func (p *program) enforceDeniedCommand() *cobra.Command {
	var o deniedFlags
	c := &cobra.Command{
		Use:   "denied",
		Short: "Say who is denied, at which database, and why",
		Long: `Listens to what the rules tell of packets that they deny: for want of a rule, or for plaintext under Force TLS. The kernel tells some
packets a second of each reason and keeps the rest to itself, so that a flood costs nothing: what is shown is a sample. Without
--follow it listens for the time of --over and then lists sources by database. It changes nothing, and needs CAP_NET_ADMIN.

There is one listener in each network namespace. Where drawbridge enforce run listens, it is asked over its socket: the list then is
what it has heard since it started, at once, whatever --over says.`,
		Example: `  drawbridge enforce denied --over 30s
  drawbridge enforce denied --follow
  drawbridge enforce denied --socket /run/drawbridge/socket
  drawbridge enforce denied --follow --json | jq 'select(.why == "plaintext")'`,
		Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error { return p.enforceDenied(c.Context(), o) },
	}
	c.Flags().BoolVar(&o.follow, "follow", false, "show each as it comes, until interrupted")
	c.Flags().DurationVar(&o.over, "over", 10*time.Second, "listen for this `time`")
	addSocket(c, &o.socket)
	c.Flags().BoolVar(&o.json, "json", false, "print JSON; with --follow one object a line")
	return c
}

func (p *program) enforceDenied(ctx context.Context, o deniedFlags) error {
	const verb = "enforce denied"
	if !o.follow && o.over <= 0 {
		return misusef(verb+": --over", "%s: must be positive", o.over)
	}
	if r, err := p.resident(ctx, o.socket, false); err != nil || r != nil && r.status.Denied.Error == "" {
		if err == nil {
			err = p.deniedOf(ctx, r, o)
		}
		if err != nil {
			return unable(verb, err)
		}
		return nil
	}
	d, err := enforcer.ListenDenied(ctx)
	if errors.Is(err, nflog.ErrTaken) {
		return unable(verb, fmt.Errorf("%w; is `drawbridge enforce run` at work here? name its socket with --socket", err))
	}
	if err != nil {
		return unable(verb, err)
	}
	limited := ctx
	if !o.follow {
		var cancel context.CancelFunc
		limited, cancel = context.WithTimeout(ctx, o.over)
		defer cancel()
		fmt.Fprintf(p.std.err, "listening for %v\n", o.over)
	}
	err = p.listen(limited, d, o)
	if ended := limited.Err(); ended != nil && errors.Is(err, ended) {
		err = nil
	}
	if err == nil && !o.follow {
		err = writeDenied(p.std.out, d.Recent(), o.json)
	}
	if err := errors.Join(err, d.Close()); err != nil {
		return unable(verb, err)
	}
	return nil
}

// listen shows what comes, with --follow, until the context ends.
func (p *program) listen(ctx context.Context, d *enforcer.Denials, o deniedFlags) error {
	for {
		events, err := d.Next(ctx)
		if err != nil {
			return err
		}
		for _, e := range events {
			if !o.follow {
				continue
			}
			if err := p.showDenial(e, o.json); err != nil {
				return err
			}
		}
	}
}

func (p *program) showDenial(e enforcer.Denial, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(p.std.out).Encode(e)
	}
	_, err := fmt.Fprintf(p.std.out, "%s  %v to %s (%v): %s\n", e.At.UTC().Format(time.DateTime+"Z"), e.Source, oneLine(e.Database), e.To, e.Why)
	return err
}

// heardOf is what a daemon answers.
type heardOf struct {
	Since   time.Time        `json:"since"`
	Sources []nflog.Sighting `json:"sources"`
}

// deniedOf shows what a daemon has heard, or hears.
func (p *program) deniedOf(ctx context.Context, r *resident, o deniedFlags) error {
	if !o.follow {
		var all heardOf
		if err := askDaemon(ctx, r.socket, "/denied", &all); err != nil {
			return err
		}
		fmt.Fprintf(p.std.err, "heard by drawbridge enforce run since %s\n", all.Since.UTC().Format(time.DateTime+"Z"))
		return writeDenied(p.std.out, all.Sources, o.json)
	}
	body, err := callDaemon(ctx, r.socket, http.MethodGet, "/denied/follow", nil)
	if err != nil {
		return err
	}
	defer body.Close()
	for lines := json.NewDecoder(body); ; {
		var one enforcer.Denial
		switch err := lines.Decode(&one); {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return fmt.Errorf("the running program ended: %w", err)
		}
		if err := p.showDenial(one, o.json); err != nil {
			return err
		}
	}
}

func writeDenied(out io.Writer, recent []nflog.Sighting, asJSON bool) error {
	if asJSON {
		return writeIndented(out, recent)
	}
	if len(recent) == 0 {
		_, err := fmt.Fprintln(out, "nobody was denied")
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "DATABASE\tPORT\tSOURCE\tHEARD OF\tLAST\tWHY")
	for _, s := range recent {
		fmt.Fprintf(w, "%s\t%v\t%v\t%d\t%s\t%s\n", oneLine(s.Database), s.To, s.Source, s.Count, s.LastAt.UTC().Format(time.DateTime+"Z"), s.Why)
	}
	return w.Flush()
}
