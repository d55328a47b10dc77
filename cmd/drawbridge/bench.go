//go:build !operator

package main

import (
	"context"
	"errors"
	"os/signal"
	"regexp"
	"time"

	"drawbridge/cmd/drawbridge/internal/bench"
	"drawbridge/sim/cell"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// benchOptions are the flags of bench tls.
type benchOptions struct {
	rounds, clients int
	length          time.Duration
	rows            string
	report          string
}

func (p *program) benchTLSCommand() *cobra.Command {
	var o benchOptions
	c := &cobra.Command{
		Use:   "tls",
		Short: "Compare the gate with no firewall and with HAProxy, under load on real servers",
		Long: `Runs pgbench, mariadb-slap and redis-benchmark against the distribution's servers in a lab, round by round without firewall,
through the reference enforcer with Force TLS, and through HAProxy in TCP mode, and tells rates, latency and processor time.

A row is an engine, a placement, the kind of connections and the transport: "postgresql shared new tls". In rows of plaintext
Force TLS is off, and the rest of the enforcer is in force.

Many short rounds tell more than few long ones: what else the machine does changes slowly, and a ratio compares runs of one
round.

Exit codes: 0 the goal is met or not missed beyond noise, 1 it is missed, 2 wrong use, 3 could not be measured.`,
		Example: `  drawbridge bench tls
  drawbridge bench tls --rows 'redis .* new tls' --rounds 50
  drawbridge bench tls --rows . --rounds 5 --length 2s`,
		Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error { return p.benchTLS(c.Context(), o) },
	}
	f := c.Flags()
	f.IntVar(&o.rounds, "rounds", 11, "`number` of rounds for each row; fewer than 5 tell nothing about noise")
	f.DurationVar(&o.length, "length", 300*time.Millisecond, "`time` that a run takes without firewall, about; the other runs do the same work")
	f.IntVar(&o.clients, "clients", 4, "`number` of clients that ask at the same time")
	f.StringVar(&o.rows, "rows", "tls$", "regular `expression` of the rows to measure")
	f.StringVar(&o.report, "report", "report/bench-tls", "`directory` for bench-tls.json and bench-tls.md; empty for none")
	return c
}

// Bounds of the flags: a run shorter than the resolution of the processors' times tells nothing, and PostgreSQL admits 100
// connections, some of which are its own.
const (
	shortestRun = 100 * time.Millisecond
	mostClients = 64
)

// benchTLS checks everything that can be wrong, and then goes where the lab can be.
func (p *program) benchTLS(ctx context.Context, o benchOptions) error {
	const verb = "bench tls"
	switch {
	case o.rounds < 1:
		return misusef(verb+": --rounds", "%d: must be at least 1", o.rounds)
	case o.length < shortestRun:
		return misusef(verb+": --length", "%v: must be at least %v", o.length, shortestRun)
	case o.clients < 1 || o.clients > mostClients:
		return misusef(verb+": --clients", "%d: must be from 1 to %d", o.clients, mostClients)
	}
	rows, err := selectRows(o.rows)
	if err != nil {
		return misuse(verb+": --rows", err)
	}
	programs, err := bench.Find()
	if err != nil {
		return unable(verb, err)
	}
	if !cell.Inside() {
		return p.inCell(ctx)
	}
	ctx, stop := signal.NotifyContext(ctx, unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	defer stop()
	report, err := p.measure(ctx, o, rows, programs)
	if err != nil {
		return unable(verb, err)
	}
	return p.tellBenchmark(report, o.report)
}

func (p *program) tellBenchmark(report *bench.Report, dir string) error {
	if dir != "" {
		if err := report.Write(dir); err != nil {
			return unable("bench tls: --report", err)
		}
	}
	if err := report.WriteMarkdown(p.std.out); err != nil {
		return unable("bench tls", err)
	}
	if report.Verdict == bench.Missed {
		return errGoalMissed
	}
	return nil
}

// errGoalMissed ends a comparison whose report has already said where.
var errGoalMissed = &quiet{exitNotConformant}

func selectRows(expression string) (chosen []bench.Row, err error) {
	matches, err := regexp.Compile(expression)
	if err != nil {
		return nil, err
	}
	for _, r := range bench.Rows() {
		if matches.MatchString(r.String()) {
			chosen = append(chosen, r)
		}
	}
	if len(chosen) == 0 {
		return nil, errors.New("no row matches")
	}
	return chosen, nil
}
