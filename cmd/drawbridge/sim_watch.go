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

	"drawbridge/cmd/drawbridge/internal/control"

	"github.com/spf13/cobra"
)

// change is one connection that fares otherwise than before.
type change struct {
	At     time.Time `json:"at"`
	Before string    `json:"before"`
	seen
}

func (p *program) simWatchCommand(name *string) *cobra.Command {
	var o watchOrder
	var asJSON, each bool
	c := &cobra.Command{
		Use:   "watch",
		Short: "Show who reaches what, and redraw it when that changes",
		Long: `Connects from every vantage to every endpoint, or between those that --from and --to name, and then again wherever something has
changed, until Ctrl-C. On a terminal the matrix is redrawn with every look, and says when each line was last looked at; elsewhere it is
printed once, and then a line for each change.

Looked at at once is what passes an enforcement point whose nftables ruleset somebody has changed, or what sim break breaks or mends, or
a driver that is not the reference enforcer was at. Everything else is looked at in turn, one enforcement point after the other: what
nothing tells of, a server that died for instance, shows within the time of a round (--round) and of the looks that are under way.`,
		Example: `  drawbridge sim watch
  drawbridge sim watch --round 10s
  drawbridge sim watch --every 5s --json | jq -r '.to'`,
		Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			if o.Every <= 0 {
				return misusef("sim watch: --every", "must be above 0")
			}
			if o.Round <= 0 {
				return misusef("sim watch: --round", "must be above 0")
			}
			w := watching{out: p.std.out, screen: isTerminal(p.std.out) && !p.isDumb(), json: asJSON, each: each, now: time.Now, round: o.Round}
			w.line = p.counting("first look")
			defer w.looked()
			return w.run(c.Context(), *name, o)
		},
	}
	o.add(c)
	c.Flags().DurationVar(&o.Every, "every", time.Second, "how long from one look at what has changed to the next, at least")
	c.Flags().DurationVar(&o.Round, "round", time.Minute, "how long it takes to look at everything in turn, whatever has changed")
	c.Flags().BoolVar(&each, "all", false, "give each vantage a column and each endpoint a line, however many there are")
	c.Flags().BoolVar(&asJSON, "json", false, "print each change as a line of JSON, and no matrix")
	return c
}

// watching compares what one look finds with what was there before.
type watching struct {
	out    io.Writer
	screen bool
	json   bool
	each   bool // see writeMatrix
	now    func() time.Time
	round  time.Duration

	all    []seen      // the whole as it was last seen
	at     []time.Time // when each of all was
	recent []change    // the last ones
	shown  bool
	line   *progress // of the first look
	far    tried     // the first look is
}

// looked takes the progress of the first look away.
func (w *watching) looked() {
	w.line.close()
	w.line = nil
}

func (w *watching) run(ctx context.Context, lab string, o watchOrder) error {
	const verb = "sim watch"
	ctx, stop := untilSignal(ctx)
	defer stop()
	c, err := reach(ctx, verb, lab)
	if err != nil {
		return err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { _ = c.Close() })()
	if err := c.Send(order{Watch: &o}); err != nil {
		return unable(verb, err)
	}
	for {
		a, err := receive(verb, c)
		switch {
		case ctx.Err() != nil && w.all != nil:
			return nil
		case ctx.Err() != nil:
			return endedEarly(verb, ctx, fmt.Sprintf("nothing is known before the first look is complete, and %d of %d connections of it were tried", w.far.Done, w.far.All))
		case err != nil:
			return err
		case a.Tried != nil:
			if w.far = *a.Tried; w.line != nil {
				w.line.count(w.far)
			}
			continue
		case a.Look == nil:
			return unable(verb, control.ErrMessage)
		}
		if err := w.take(*a.Look); err != nil {
			return unable(verb, err)
		}
	}
}

// take merges a look into the whole, and tells what is new.
func (w *watching) take(k look) error {
	if w.line != nil {
		w.looked()
	}
	before := w.all
	now := slices.Clone(before)
	if before == nil {
		now, w.at = make([]seen, len(k.Which)), make([]time.Time, len(k.Which))
	}
	if len(k.Which) != len(k.Seen) {
		return control.ErrMessage
	}
	for i, n := range k.Which {
		if n < 0 || n >= len(now) {
			return control.ErrMessage
		}
		now[n], w.at[n] = k.Seen[i], k.At
	}
	w.all = now
	return w.show(changed(before, now, w.now()), k)
}

func (w *watching) show(changes []change, k look) error {
	first := !w.shown
	w.shown = true
	if len(changes) > 0 {
		w.recent = changes
	}
	switch {
	case w.json:
		for _, c := range changes {
			if err := json.NewEncoder(w.out).Encode(c); err != nil {
				return err
			}
		}
		return nil
	case w.screen:
		return w.draw(k)
	case first:
		return writeMatrix(w.out, w.all, w.each)
	}
	return writeChanges(w.out, changes)
}

// clearScreen is the terminal's order to begin again from the top (ECMA-48, ED and CUP).
const clearScreen = "\x1b[2J\x1b[H"

// draw writes the whole picture at once, so that nobody sees half of it. What is news comes last, where a small terminal shows it.
func (w *watching) draw(k look) error {
	text := bytes.NewBufferString(clearScreen)
	if err := writeTable(text, w.all, w.each, w.ages(k)); err != nil {
		return err
	}
	text.WriteString("\n")
	if err := writeChanges(text, w.recent); err != nil {
		return err
	}
	oldest := slices.MinFunc(append(w.at, k.At), time.Time.Compare)
	fmt.Fprintf(text, "%s  %s: looked at %d of %d in %s. Nothing here is older than %s; all is looked at within %s.\n",
		k.At.Format(time.TimeOnly), k.Why, len(k.Which), len(w.all), k.Took.Round(time.Millisecond), oldest.Format(time.TimeOnly), w.round)
	_, err := w.out.Write(text.Bytes())
	return err
}

// ages says of each line of the matrix when its oldest part was seen. A star marks what the latest look saw all of.
func (w *watching) ages(k look) *column {
	oldest := map[string]time.Time{}
	for i, s := range w.all {
		if t, ok := oldest[rowOf(s)]; !ok || w.at[i].Before(t) {
			oldest[rowOf(s)] = w.at[i]
		}
	}
	c := &column{"LOOKED AT", map[string]string{}}
	for row, at := range oldest {
		c.cells[row] = at.Format(time.TimeOnly)
		if at.Equal(k.At) {
			c.cells[row] += " *"
		}
	}
	return c
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
		same := func(b seen) bool { return b.From == s.From && b.Source == s.Source && b.To == s.To && b.Mode == s.Mode }
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
