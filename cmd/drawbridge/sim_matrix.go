//go:build !operator

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"drawbridge/cmd/drawbridge/internal/control"
	"drawbridge/sim/cell"
	"drawbridge/sim/probe"
	"drawbridge/topology"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// matrixOrder asks for vantages against endpoints: all of them, unless it names some.
type matrixOrder struct {
	Bypasses bool     `json:"bypasses"` // the ways round as well
	From     []string `json:"from,omitempty"`
	To       []string `json:"to,omitempty"`
}

// add defines the flags.
func (o *matrixOrder) add(c *cobra.Command) {
	f := c.Flags()
	f.BoolVar(&o.Bypasses, "bypasses", false, "also try the ways round the endpoints")
	f.StringArrayVar(&o.From, "from", nil, "only from this `vantage`, or the one with this address; can be repeated (default: all)")
	f.StringArrayVar(&o.To, "to", nil, "only to this `database`, or this address:port; can be repeated (default: all)")
}

const matrixVerb = "sim matrix"

func (p *program) simMatrixCommand(name *string) *cobra.Command {
	var o matrixOrder
	var asJSON, asPage, each bool
	c := &cobra.Command{
		Use:   "matrix",
		Short: "Connect from every vantage to every endpoint, with and without TLS",
		Long: fmt.Sprintf(`Connects from every vantage to every endpoint, or between those that --from and --to name as sim probe does, with and without
TLS.

Of more than %d vantages, those that fare alike share a column, and of more than %d endpoints, those that are treated alike share a line.
--all gives each its own; --json and --html always do.

Ctrl-C ends it early: what was tried until then is shown, and the rest as not tried. The exit code is then 128 and the signal's number,
as 130.`, mostColumns, mostLines),
		Example: `  drawbridge sim matrix
  drawbridge sim matrix --from office --from osc-fr1/web --to pg-dedicated
  drawbridge sim matrix --bypasses --json
  drawbridge sim matrix --html > matrix.html`,
		Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			if err := apart(c, "json", "html"); err != nil {
				return err
			}
			write := func(out io.Writer, all []seen) error { return writeMatrix(out, all, each) }
			if asPage {
				write = writeMatrixPage
			}
			return p.simMatrix(c.Context(), *name, o, asJSON, write)
		},
	}
	o.add(c)
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.Flags().BoolVar(&asPage, "html", false, "print one page that needs nothing besides itself")
	c.Flags().BoolVar(&each, "all", false, "give each vantage a column and each endpoint a line, however many there are")
	return c
}

// simMatrix asks for a matrix and shows what came of it, all or as much as there was until a signal.
func (p *program) simMatrix(ctx context.Context, lab string, o matrixOrder, asJSON bool, write func(io.Writer, []seen) error) error {
	wanted, stop := untilSignal(ctx)
	defer stop()
	all, err := p.gather(ctx, wanted, lab, o)
	if err != nil {
		return err
	}
	missing := 0
	for _, s := range all {
		if s.Verdict == notTried {
			missing++
		}
	}
	shown := p.show(matrixVerb, all, asJSON, write)
	if missing == 0 {
		return shown
	}
	return endedEarly(matrixVerb, wanted, fmt.Sprintf("%d of %d connections were tried; what is shown as not tried was not denied", len(all)-missing, len(all)))
}

// gather has a lab try connections until it is done, or until wanted ends.
func (p *program) gather(ctx, wanted context.Context, lab string, o matrixOrder) ([]seen, error) {
	c, err := reach(ctx, matrixVerb, lab)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { _ = c.Close() })()
	if err := c.Send(order{Matrix: &o}); err != nil {
		return nil, unable(matrixVerb, err)
	}
	defer context.AfterFunc(wanted, func() { _ = c.Send(order{Signal: int(unix.SIGINT)}) })() // it may be at its end by itself
	line := p.counting("connecting")
	defer line.close()
	var all []seen
	for {
		a, err := receive(matrixVerb, c)
		switch {
		case err != nil:
			return nil, err
		case a.Tried != nil:
			line.count(*a.Tried)
			continue
		}
		if all = append(all, a.Seen...); !a.More {
			return all, nil
		}
	}
}

// untilSignal returns a context that ends with the first SIGINT, SIGTERM or SIGHUP, with a *cell.StopError for its cause. The next signal
// ends the process, as it does any other.
func untilSignal(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	signals := make(chan os.Signal, 1)
	cell.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	go func() {
		select {
		case s := <-signals:
			signal.Stop(signals)
			cancel(&cell.StopError{Signal: s.(syscall.Signal)}) // what package signal delivers on every Unix
		case <-ctx.Done():
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		cancel(nil)
	}
}

// endedEarly says how far a verb was when a signal ended it, and ends as shells expect it of a process that a signal ended.
func endedEarly(verb string, wanted context.Context, far string) error {
	code := exitUnjudged // the lab was told to end
	if stopped, ok := errors.AsType[*cell.StopError](context.Cause(wanted)); ok {
		code = stopped.ExitCode()
	}
	return &failure{code, verb, errors.New("incomplete, because it was interrupted: " + far)}
}

// matrix sends what it sees part by part. Once the client has enough, the rest follows as not tried.
func (h *holder) matrix(ctx context.Context, c *control.Conn, o matrixOrder) (answer, error) {
	specs, err := o.specs(h.lab.World())
	if err != nil {
		return answer{}, misuse("", err)
	}
	ctx, stop := wanted(ctx, c)
	defer stop(nil)
	return answer{}, h.observeParts(ctx, matrixVerb, specs, telling(c, len(specs)), func(part []seen) error {
		return c.Send(answer{Seen: part, More: true})
	})
}

// specs are the connections that a matrix is made of, in the world's order, or in that of the names.
func (o matrixOrder) specs(w *topology.World) ([]probe.Spec, error) {
	origins, err := o.origins(w)
	if err != nil {
		return nil, fmt.Errorf("--from: %w", err)
	}
	targets, err := o.targets(w)
	if err != nil {
		return nil, fmt.Errorf("--to: %w", err)
	}
	at := make([]string, len(targets))
	for i, to := range targets {
		at[i] = namespaceOf(w, to)
	}
	var specs []probe.Spec
	for _, s := range origins {
		for i, to := range targets {
			if !speaksFamily(s.vantage, s.source, to) || s.vantage.Namespace == at[i] {
				continue // loopback is not judged (SPEC G-02)
			}
			for _, mode := range probe.Modes(to) {
				specs = append(specs, probe.Spec{From: s.vantage.Name, Source: s.source, To: to, Mode: mode})
			}
		}
	}
	if len(specs) == 0 && len(o.From)+len(o.To) > 0 {
		return nil, errors.New("between these there is nothing to try: they have no family of addresses in common, or are on one host, where nothing is judged")
	}
	return specs, nil
}

func (o matrixOrder) origins(w *topology.World) (all []origin, err error) {
	if len(o.From) == 0 {
		for _, v := range w.Vantages() {
			all = append(all, origin{vantage: v})
		}
		return all, nil
	}
	for _, name := range o.From {
		found, err := originsNamed(w, name)
		if err != nil {
			return nil, err
		}
		for _, s := range found {
			same := func(other origin) bool { return other.vantage.Name == s.vantage.Name && other.source == s.source }
			if !slices.ContainsFunc(all, same) {
				all = append(all, s)
			}
		}
	}
	return all, nil
}

func (o matrixOrder) targets(w *topology.World) (all []topology.Endpoint, err error) {
	var bypasses []topology.Endpoint
	if o.Bypasses {
		bypasses = w.Bypasses()
	}
	if len(o.To) == 0 {
		return append(w.Endpoints(), bypasses...), nil
	}
	for _, name := range o.To {
		found, err := endpointsNamed(w, name)
		if err != nil {
			return nil, err
		}
		for _, e := range bypasses {
			if e.Database == name {
				found = append(found, e)
			}
		}
		for _, e := range found {
			if !slices.Contains(all, e) {
				all = append(all, e)
			}
		}
	}
	return all, nil
}

// namespaceOf names the node of the fabric in which an endpoint's server runs.
func namespaceOf(w *topology.World, e topology.Endpoint) string {
	d, _ := w.Database(e.Database)
	for _, n := range d.Nodes {
		if n.Name == e.Node {
			return n.Listener()
		}
	}
	return ""
}
