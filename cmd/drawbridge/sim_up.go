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
	"drawbridge/sim"
	"drawbridge/sim/cell"
	"drawbridge/sim/impair"
	"drawbridge/topology"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

func (p *program) simUpCommand(name *string) *cobra.Command {
	var o upOptions
	c := &cobra.Command{
		Use:   "up",
		Short: "Build the lab and keep it up until Ctrl-C or sim down",
		Long: `Builds the lab and keeps it up. With --detach a process in the background does so, and the command returns once the lab is ready.

WORLD is a topology file (docs/TOPOLOGY.md, drawbridge topology new); without it, it is the world that conform judges in.`,
		Example: `  drawbridge sim up
  drawbridge sim up --lab second my-world.yaml
  drawbridge sim up --delay 20ms --loss 2% --reorder 1% --seed 42
  drawbridge sim up --detach && drawbridge sim matrix && drawbridge sim down`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 1 && c.Flags().Changed("world") {
				return wrongUse(c, errors.New("WORLD and --world exclude each other"))
			}
			return exactly(make([]string, min(len(args), 1))...)(c, args)
		},
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 1 {
				o.world = args[0]
			}
			return p.simUp(c.Context(), *name, o)
		},
	}
	f := c.Flags()
	f.StringVar(&o.world, "world", "", "topology `file`, as WORLD")
	f.BoolVarP(&o.detach, "detach", "d", false, "return once the lab is ready, and keep it up in the background")
	f.BoolVar(&o.background, backgroundFlag, false, "be the process in the background")
	_ = f.MarkHidden(backgroundFlag) // it was added a line before
	serversFlag(c, &o.servers)
	o.impaired.add(c, "every link to an enforcement point")
	o.impaired.addReorder(c)
	f.Uint64Var(&o.seed, "seed", 1, "with --loss or --reorder: the `number` that decides which packets it meets")
	return c
}

// upOptions are what sim up was asked for.
type upOptions struct {
	world      string // file; empty: the embedded one
	servers    serverKind
	impaired   impairmentFlags
	seed       uint64
	detach     bool
	background bool
}

func (p *program) simUp(ctx context.Context, name string, o upOptions) error {
	const verb = "sim up"
	if err := control.CheckName(name); err != nil {
		return misuse(verb+": --lab", err)
	}
	world, err := loadLabWorld(o.world)
	if err != nil {
		return err
	}
	if err := checkServers(verb, o.servers); err != nil {
		return err
	}
	bad, err := o.impaired.impairment(o.seed)
	if err != nil {
		return misuse(verb, err)
	}
	if cell.Inside() {
		return p.keepUp(ctx, name, world, o.servers, bad)
	}
	if o.detach {
		return p.detach(ctx, buildingOf(world))
	}
	doorman, err := control.Listen(os.Getuid(), name)
	if errors.Is(err, control.ErrTaken) {
		return misuse(verb, fmt.Errorf("%w: give this one another name with --lab, or end that one: drawbridge sim down --lab %s", err, name))
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
	files := []*os.File{inside}
	if o.background {
		waiter := readyFile()
		whileAwaited(waiter, func() { os.Exit(exitUnjudged) }) // the cell ends with this process
		files = append(files, waiter)
	}
	err = p.inCell(ctx, files...)
	closing := errors.Join(doorman.Close(), inside.Close(), own.Close())
	<-served // ends with the cell: whom it could not hand inside any more has no lab to miss
	if err == nil && closing != nil {
		return unable(verb, closing)
	}
	return err
}

// keepUp holds the lab, inside the cell.
func (p *program) keepUp(ctx context.Context, name string, world *topology.World, servers serverKind, bad impair.Impairment) error {
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
	line := p.waiting(buildingOf(world))
	l, err := verified(ctx, world, servers, scratch, bad)
	line.close()
	if ctx.Err() != nil { // what it was about when it was interrupted is of no interest
		err = errInterrupted
	}
	if err != nil {
		return errors.Join(unable(verb, err), l.Close(), door.Close())
	}
	h, err := newHolder(l, name, scratch)
	if err != nil {
		return errors.Join(unable(verb, err), l.Close(), door.Close())
	}
	fmt.Fprintf(p.std.out, "world %s is up: %s\nlab %s is ready; end it with Ctrl-C or: drawbridge sim down --lab %s\n",
		world.Name(), shown(l.Nodes()), name, name)
	tellReady(cell.ExtraFile(1))
	err = h.serve(ctx, door)
	if err = errors.Join(err, l.Close()); err != nil {
		return unable(verb, err)
	}
	return nil
}

// verified is up, with every node's connections tried.
func verified(ctx context.Context, world *topology.World, servers serverKind, scratch string, bad impair.Impairment) (*lab, error) {
	l, err := up(ctx, world, servers, scratch, bad)
	if err != nil {
		return nil, err
	}
	if _, err := l.Verify(ctx); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	l.prober.JudgeUnfencedByPatience() // not every policy that somebody tries has a canary
	return l, nil
}

// buildingOf is what people wait for at sim up.
func buildingOf(w *topology.World) string {
	return fmt.Sprintf("building world %s, %d nodes", w.Name(), sim.Needs(w).Namespaces)
}

// shownNodes is how many nodes people are told of.
const shownNodes = 60

func shown(nodes []string) string {
	if len(nodes) <= shownNodes {
		return strings.Join(nodes, " ")
	}
	return fmt.Sprintf("%s … and %d more", strings.Join(nodes[:shownNodes], " "), len(nodes)-shownNodes)
}
