//go:build !operator

package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"drawbridge/cmd/drawbridge/internal/control"

	"github.com/spf13/cobra"
)

func (p *program) simDownCommand(name *string) *cobra.Command {
	return &cobra.Command{
		Use:   "down",
		Short: "End the lab",
		Long: `Ends the lab and every program that still runs in it, and returns once it is gone. If the lab does not answer, because its process was
stopped for instance, that is killed: nothing of a lab outlives it.`,
		Example: "  drawbridge sim down\n  drawbridge sim down --lab second",
		Args:    exactly(),
		RunE:    func(c *cobra.Command, _ []string) error { return p.simDown(c.Context(), *name) },
	}
}

// How long a lab has to answer, which takes it no time unless it is being built or was stopped, and then to end: taking ten thousand
// namespaces down is done in seconds.
const (
	answerLimit = 5 * time.Second
	endLimit    = time.Minute
)

const downVerb = "sim down"

func (p *program) simDown(ctx context.Context, lab string) error {
	c, err := reach(ctx, downVerb, lab)
	if err != nil {
		return err
	}
	return p.endLab(ctx, lab, c)
}

// endLab ends the lab at the other end of a connection, which it closes. That somebody else does so at the same time is none of its concern.
func (p *program) endLab(ctx context.Context, lab string, c *control.Conn) error {
	defer c.Close()
	holder, err := c.Holder()
	if errors.Is(err, control.ErrGone) {
		return nil // somebody else has ended it meanwhile
	}
	if err != nil {
		return unable(downVerb, err)
	}
	defer holder.Close()
	limit := endLimit
	switch answered, err := askDown(ctx, c); {
	case ctx.Err() != nil:
		return unable(downVerb, ctx.Err())
	case answered && err != nil:
		return err
	case !answered && holder.Stopped():
		return p.killHolder(lab, holder)
	case !answered: // it hangs, or has hung up because somebody else has told it to end: then that is done in a moment
		limit = answerLimit
	}
	ended, err := holder.Wait(limit)
	switch {
	case err != nil:
		return unable(downVerb, err)
	case !ended:
		return p.killHolder(lab, holder)
	}
	return nil
}

// askDown tells a lab to end. Its answer is that it will, or why not.
func askDown(ctx context.Context, c *control.Conn) (answered bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	defer context.AfterFunc(ctx, func() { _ = c.Close() })()
	if err := c.Send(order{Down: true}); err != nil {
		return false, unable(downVerb, err)
	}
	a, err := receiveUnwatched(downVerb, c) // within a limit of its own
	return err == nil || a.Error != "", err
}

// killHolder ends a lab that does not do so by itself.
func (p *program) killHolder(lab string, h *control.Holder) error {
	why := "does not end"
	if h.Stopped() {
		why = "was stopped"
	}
	if err := h.Kill(); err != nil {
		return unable(downVerb, err)
	}
	ended, err := h.Wait(answerLimit)
	if err == nil && !ended {
		err = fmt.Errorf("lab %s: its process %d %s, and cannot be killed", lab, h.PID, why)
	}
	if err != nil {
		return unable(downVerb, err)
	}
	fmt.Fprintf(p.std.err, "lab %s: its process %d %s; it was killed\n", lab, h.PID, why)
	return nil
}
