//go:build !operator

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"
)

// change is one connection that fares otherwise than before.
type change struct {
	At     time.Time `json:"at"`
	Before string    `json:"before"`
	seen
}

func (p *program) simWatchCommand(name *string) *cobra.Command {
	var o matrixOrder
	var every time.Duration
	var asJSON bool
	c := &cobra.Command{
		Use:   "watch",
		Short: "Show who reaches what, and redraw it when that changes",
		Long: `Connects from every vantage to every endpoint again and again, until Ctrl-C. On a terminal the matrix is redrawn when something
has changed; elsewhere it is printed once, and then a line for each change.`,
		Example: `  drawbridge sim watch
  drawbridge sim watch --every 5s --json | jq -r '.to'`,
		Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			if every <= 0 {
				return misusef("sim watch: --every", "must be above 0")
			}
			w := watching{out: p.std.out, screen: isTerminal(p.std.out), json: asJSON, now: time.Now}
			return w.run(c.Context(), *name, o, every)
		},
	}
	c.Flags().BoolVar(&o.Bypasses, "bypasses", false, "also try the ways round the endpoints")
	c.Flags().DurationVar(&every, "every", time.Second, "how long from one look to the next, at least")
	c.Flags().BoolVar(&asJSON, "json", false, "print each change as a line of JSON, and no matrix")
	return c
}

// watching compares one matrix with the next.
type watching struct {
	out    io.Writer
	screen bool
	json   bool
	now    func() time.Time
	before []seen
	shown  bool
}

func (w *watching) run(ctx context.Context, lab string, o matrixOrder, every time.Duration) error {
	const verb = "sim watch"
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		a, err := ask(ctx, verb, lab, order{Matrix: &o})
		if err != nil {
			return err
		}
		if err := w.show(a.Seen); err != nil {
			return unable(verb, err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// show tells what is new.
func (w *watching) show(now []seen) error {
	changes := changed(w.before, now, w.now())
	first := !w.shown
	w.before, w.shown = now, true
	switch {
	case w.json:
		for _, c := range changes {
			if err := json.NewEncoder(w.out).Encode(c); err != nil {
				return err
			}
		}
		return nil
	case first || w.screen && len(changes) > 0:
		return w.draw(now, changes)
	}
	return writeChanges(w.out, changes)
}

// clear is the terminal's order to begin again from the top (ECMA-48, ED and CUP).
const clear = "\x1b[2J\x1b[H"

// draw writes the whole picture at once, so that nobody sees half of it.
func (w *watching) draw(now []seen, changes []change) error {
	var text bytes.Buffer
	if w.screen {
		text.WriteString(clear)
	}
	if err := writeMatrix(&text, now); err != nil {
		return err
	}
	if len(changes) > 0 {
		text.WriteString("\n")
	}
	if err := writeChanges(&text, changes); err != nil {
		return err
	}
	_, err := w.out.Write(text.Bytes())
	return err
}

func writeChanges(out io.Writer, changes []change) error {
	for _, c := range changes {
		_, err := fmt.Fprintf(out, "%s  %s to %s at %s, %s: %s, was %s\n", c.At.Format(time.TimeOnly), c.From, c.Database, c.To, c.Mode, c.Verdict, c.Before)
		if err != nil {
			return err
		}
	}
	return nil
}

// changed lists what fares otherwise than before. Nothing has changed where there is no before.
func changed(before, now []seen, at time.Time) []change {
	if before == nil {
		return nil
	}
	var all []change
	for i, s := range now {
		same := func(b seen) bool { return b.From == s.From && b.To == s.To && b.Mode == s.Mode }
		k := i // the order is the world's, and that does not change
		if k >= len(before) || !same(before[k]) {
			if k = slices.IndexFunc(before, same); k < 0 {
				continue
			}
		}
		if before[k].Verdict != s.Verdict {
			all = append(all, change{at, before[k].Verdict, s})
		}
	}
	return all
}
