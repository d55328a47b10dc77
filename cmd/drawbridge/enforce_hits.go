package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"drawbridge/enforcer"

	"github.com/spf13/cobra"
)

func (p *program) enforceHitsCommand() *cobra.Command {
	var o enforceFlags
	var over time.Duration
	var socket string
	c := &cobra.Command{
		Use:   "hits",
		Short: "Say which rules of a policy are used, unused ones first",
		Long: `Reads the counts of the elements that each rule of the policy has in the kernel: packets of clients and of the answers to them.
Each rule that covers a packet counts it; what a custom range lets in does not get to a managed range. A count begins anew when
its rule, or one that overlaps it, changes. The kernel keeps no time: with --over it is looked at again after that long, and what was
used in between is said to be seen last then.

Where drawbridge enforce run is at work it is asked over its socket: it looks once a minute, less often where there are many rules, and knows when it saw a rule used last.
Its answer is about the policy that it has in force: without --policy that is shown, and with --policy if it is the same document. Of another policy than the one in force a warning says so, and its rules that are not in
force are marked: nothing counts for them.

Exit code 1 if nothing is in force.`,
		Example: `  drawbridge enforce hits --policy policy.json
  drawbridge enforce hits --policy policy.json --over 1m
  drawbridge enforce hits --json < policy.json | jq '.[] | select(.packets == 0)'`,
		Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error { return p.enforceHits(c.Context(), o, over, socket) },
	}
	o.add(c, true)
	addSocket(c, &socket)
	c.Flags().DurationVar(&over, "over", 0, "look twice, this `time` apart")
	return c
}

func (p *program) enforceHits(ctx context.Context, o enforceFlags, over time.Duration, socket string) error {
	const verb = "enforce hits"
	if over < 0 {
		return misusef(verb+": --over", "%s: must be positive", over)
	}
	r, err := p.resident(ctx, socket, false)
	if err != nil {
		return unable(verb, err)
	}
	if r != nil && o.file == "" {
		return p.hitsOf(ctx, verb, r, o.json)
	}
	document, options, err := p.policy(verb, o)
	if err != nil {
		return err
	}
	if r != nil && r.status.PolicySHA256 == fmt.Sprintf("%x", sha256.Sum256(document)) {
		return p.hitsOf(ctx, verb, r, o.json)
	}
	var memory enforcer.HitMemory
	inForce := true
	read := func() (hits []enforcer.Hit, err error) {
		hits, inForce, err = enforcer.ReadHits(ctx, document, options)
		return memory.Observe(hits, time.Now()), err
	}
	hits, err := read()
	if err == nil && over > 0 {
		select {
		case <-ctx.Done():
			err = ctx.Err()
		case <-time.After(over):
			hits, err = read()
		}
	}
	if err != nil {
		return notTold(verb, err)
	}
	if !inForce {
		p.warn([]string{options.Name + " is not the policy in force here: see drawbridge enforce plan"})
	}
	return p.showHits(verb, hits, o.json)
}

func (p *program) showHits(verb string, hits []enforcer.Hit, asJSON bool) (err error) {
	if asJSON {
		err = writeIndented(p.std.out, hits)
	} else {
		err = writeHits(p.std.out, hits)
	}
	if err != nil {
		return unable(verb, err)
	}
	return nil
}

// hitsOf shows what a daemon saw when it looked last.
func (p *program) hitsOf(ctx context.Context, verb string, r *resident, asJSON bool) error {
	var seen struct {
		At    time.Time      `json:"at"`
		Rules []enforcer.Hit `json:"rules"`
	}
	if err := askDaemon(ctx, r.socket, "/hits", &seen); err != nil {
		return unable(verb, err)
	}
	fmt.Fprintf(p.std.err, "of the policy that drawbridge enforce run has in force, as it saw it at %s\n", seen.At.UTC().Format(time.DateTime+"Z"))
	return p.showHits(verb, seen.Rules, asJSON)
}

func writeHits(out io.Writer, hits []enforcer.Hit) error {
	if len(hits) == 0 {
		_, err := fmt.Fprintln(out, "no database has a rule")
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "DATABASE\tPACKETS\tLAST SEEN\tRULE")
	for _, h := range hits {
		seen := "-"
		if !h.LastSeen.IsZero() {
			seen = h.LastSeen.UTC().Format(time.DateTime + "Z")
		}
		words := h.Words
		switch {
		case h.Expired:
			words += " (has expired)"
		case h.NotInForce:
			words += " (not in force)"
		}
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\n", oneLine(h.Database), h.Packets, seen, oneLine(words))
	}
	return w.Flush()
}
