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

// infoOf asks a lab about itself. One that is still being built answers when it is up.
func infoOf(ctx context.Context, verb, lab string) (labInfo, error) {
	c, err := reach(ctx, verb, lab)
	if err != nil {
		return labInfo{}, err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { _ = c.Close() })()
	pid, err := c.HolderPID()
	if err != nil {
		return labInfo{}, unable(verb, err)
	}
	if err := c.Send(order{Info: true}); err != nil {
		return labInfo{}, unable(verb, err)
	}
	a, err := receive(verb, c)
	if err != nil {
		return labInfo{}, err
	}
	if a.Info == nil {
		return labInfo{}, unable(verb, control.ErrMessage)
	}
	a.Info.PID = pid
	return *a.Info, nil
}

func writeLabs(out io.Writer, labs []labInfo) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "LAB\tWORLD\tPID\tSINCE\tNODES")
	for _, l := range labs {
		fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%d\n", l.Name, l.World, l.PID, l.Since.Local().Format(time.DateTime), len(l.Nodes))
	}
	return w.Flush()
}
