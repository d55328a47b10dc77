//go:build !operator

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"text/tabwriter"
	"time"

	"drawbridge/cmd/drawbridge/internal/control"

	"github.com/spf13/cobra"
)

// labInfo is what there is to know of a running lab.
type labInfo struct {
	Name  string    `json:"name"`
	World string    `json:"world"`
	PID   int       `json:"pid"` // of the process that keeps it up
	Since time.Time `json:"since"`
	Nodes []string  `json:"nodes"`
}

func (p *program) simListCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "ls",
		Short: "List the labs of this user that are up",
		Long: `Lists the labs of this user that are up. A lab that does not answer, because it is still being built or its process was stopped, is named on
standard error, with the process, and the exit code is 3.`,
		Example: `  drawbridge sim ls
  drawbridge sim ls --json | jq -r '.[].nodes[]'`,
		Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error { return p.simList(c.Context(), asJSON) },
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON, with the names of all nodes")
	return c
}

func (p *program) simList(ctx context.Context, asJSON bool) error {
	const verb = "sim ls"
	running, err := control.Labs(os.Getuid())
	if err != nil {
		return unable(verb, err)
	}
	labs := []labInfo{}
	var failed []error
	for _, name := range running {
		info, err := infoOf(ctx, verb, name)
		switch {
		case errors.Is(err, control.ErrNoLab): // it ended meanwhile
		case err != nil:
			failed = append(failed, err)
		default:
			labs = append(labs, info)
		}
	}
	write := writeLabs
	if asJSON {
		write = func(out io.Writer, labs []labInfo) error { return writeIndented(out, labs) }
	}
	if err := write(p.std.out, labs); err != nil {
		failed = append(failed, unable(verb, err))
	}
	return errors.Join(failed...)
}

// errSilent: a lab's process is there, and says nothing.
var errSilent = errors.New("does not answer")

// infoOf asks a lab about itself.
func infoOf(ctx context.Context, verb, lab string) (labInfo, error) {
	c, err := reach(ctx, verb, lab)
	if err != nil {
		return labInfo{}, err
	}
	defer c.Close()
	holder, err := c.Holder()
	if errors.Is(err, control.ErrGone) {
		return labInfo{}, control.ErrNoLab
	}
	if err != nil {
		return labInfo{}, unable(verb, err)
	}
	defer holder.Close()
	limited, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	defer context.AfterFunc(limited, func() { _ = c.Close() })()
	err = c.Send(order{Info: true})
	var a answer
	if err == nil {
		a, err = receiveUnwatched(verb, c) // within a limit of its own
	}
	late := limited.Err() != nil
	switch {
	case err != nil && !late && endsSoon(holder):
		return labInfo{}, control.ErrNoLab
	case err != nil && ctx.Err() == nil && late:
		return labInfo{}, unable(verb, silence(lab, holder))
	case err != nil:
		return labInfo{}, unable(verb, err)
	case a.Info == nil:
		return labInfo{}, unable(verb, control.ErrMessage)
	}
	a.Info.PID = holder.PID
	return *a.Info, nil
}

// endsSoon waits for the process of a lab that has hung up: it ends a moment later, or hung up for another reason.
func endsSoon(h *control.Holder) bool {
	ended, err := h.Wait(answerLimit)
	return err == nil && ended
}

// silence says why a lab may not answer, and what can be done.
func silence(lab string, h *control.Holder) error {
	why := fmt.Sprintf("its process %d is still building it, or hangs", h.PID)
	if h.Stopped() {
		why = fmt.Sprintf("its process %d was stopped, and goes on with kill -CONT %d", h.PID, h.PID)
	}
	return fmt.Errorf("lab %s: %w within %s: %s; drawbridge sim down --lab %s ends it", lab, errSilent, answerLimit, why, lab)
}

func writeLabs(out io.Writer, labs []labInfo) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "LAB\tWORLD\tPID\tSINCE\tNODES")
	for _, l := range labs {
		fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%d\n", l.Name, l.World, l.PID, l.Since.Local().Format(time.DateTime), len(l.Nodes))
	}
	return w.Flush()
}
