//go:build !operator

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"

	"drawbridge/cmd/drawbridge/internal/control"
	"drawbridge/sim/cell"
	"drawbridge/topology"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

func (p *program) simUpCommand(name *string) *cobra.Command {
	var worldFile string
	var servers serverKind
	c := &cobra.Command{
		Use:   "up",
		Short: "Build the lab and keep it up until Ctrl-C or sim down",
		Example: `  drawbridge sim up
  drawbridge sim up --lab second --world my-world.yaml`,
		Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error { return p.simUp(c.Context(), *name, worldFile, servers) },
	}
	c.Flags().StringVar(&worldFile, "world", "", "topology `file` (default: the embedded world)")
	serversFlag(c, &servers)
	return c
}

func (p *program) simUp(ctx context.Context, name, worldFile string, servers serverKind) error {
	const verb = "sim up"
	if err := control.CheckName(name); err != nil {
		return misuse(verb+": --lab", err)
	}
	world, err := loadWorld(worldFile)
	if err != nil {
		return err
	}
	if err := checkServers(verb, servers); err != nil {
		return err
	}
	if cell.Inside() {
		return p.keepUp(ctx, name, world, servers)
	}
	doorman, err := control.Listen(os.Getuid(), name)
	if errors.Is(err, control.ErrTaken) {
		return misuse(verb, err)
	}
	if err != nil {
		return unable(verb, err)
	}
	own, inside, err := control.Pair()
	if err != nil {
		return errors.Join(unable(verb, err), doorman.Close())
	}
	served := make(chan error, 1)
	go func() { served <- doorman.Serve(own) }()
	err = p.inCell(ctx, inside)
	closing := errors.Join(doorman.Close(), inside.Close(), own.Close())
	<-served // ends with the cell: whom it could not hand inside any more has no lab to miss
	if err == nil && closing != nil {
		return unable(verb, closing)
	}
	return err
}

// keepUp holds the lab, inside the cell.
func (p *program) keepUp(ctx context.Context, name string, world *topology.World, servers serverKind) error {
	const verb = "sim up"
	ctx, stop := signal.NotifyContext(ctx, unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	defer stop()
	door, err := control.NewInside(cell.ExtraFile(0))
	if err != nil {
		return unable(verb, err)
	}
	scratch, err := mountScratch()
	if err != nil {
		return errors.Join(unable(verb, err), door.Close())
	}
	l, err := up(ctx, world, servers, scratch)
	if err != nil {
		return errors.Join(unable(verb, err), door.Close())
	}
	h := newHolder(l)
	fmt.Fprintf(p.std.out, "world %s is up: %s\nlab %s is ready; end it with Ctrl-C or: drawbridge sim down --lab %s\n",
		world.Name(), strings.Join(l.Nodes(), " "), name, name)
	err = h.serve(ctx, door)
	if err = errors.Join(err, l.Close()); err != nil {
		return unable(verb, err)
	}
	return nil
}
