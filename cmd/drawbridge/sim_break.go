//go:build !operator

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"drawbridge/sim"
	"drawbridge/sim/fabric"
	"drawbridge/sim/impair"
	"drawbridge/sim/nat"
	"drawbridge/topology"

	"github.com/spf13/cobra"
)

// breakOrder asks for something to break, or to be mended. One of the first three is set.
type breakOrder struct {
	Link   string             `json:"link,omitempty"`
	Impair *impair.Impairment `json:"impair,omitempty"` // of the link; nil: it is cut
	Server string             `json:"server,omitempty"` // a database, or one of its nodes
	Forge  string             `json:"forge,omitempty"`  // a node
	Mend   bool               `json:"mend,omitempty"`
}

func (p *program) simBreakCommand(name *string) *cobra.Command {
	return group(&cobra.Command{
		Use:   "break",
		Short: "Break something in a running lab, and mend it",
		Example: `  drawbridge sim break link office:internet
  drawbridge sim break link office:internet --mend
  drawbridge sim break link office:internet --delay 20ms --loss 2%
  drawbridge sim break server pg-dedicated-1
  drawbridge sim break forge stranger`,
	}, p.simBreakLinkCommand(name), p.simBreakServerCommand(name), p.simBreakForgeCommand(name))
}

func (p *program) simBreakLinkCommand(name *string) *cobra.Command {
	const verb = "sim break link"
	var o breakOrder
	var bad impairmentFlags
	var seed uint64
	c := &cobra.Command{
		Use:   "link LINK",
		Short: "Take a link down, as if its cable were pulled, or have it lose and delay packets",
		Long: `LINK is NODE:INTERFACE, or NODE:NODE for the link between two.

With --delay, --loss or --reorder the link stays up and does that to packets in both directions, instead of what it did to them before. --mend
makes it an ordinary link again, whatever was wrong with it.`,
		Example: `  drawbridge sim break link office:internet
  drawbridge sim break link office:internet --delay 20ms --loss 2% --reorder 1% --seed 42
  drawbridge sim break link shared-a:reg0 --mend`,
		Args: exactly("LINK"),
		RunE: func(c *cobra.Command, args []string) error {
			o.Link = args[0]
			if bad.given(c) {
				i, err := bad.impairment(seed)
				if err != nil {
					return misuse(verb, err)
				}
				if o.Mend {
					return misusef(verb, "--mend and an impairment exclude each other")
				}
				o.Impair = &i
			}
			return breakIt(c.Context(), verb, *name, o)
		},
	}
	bad.add(c, "the link")
	bad.addReorder(c)
	c.Flags().Uint64Var(&seed, "seed", 1, "the `number` that decides which packets --loss and --reorder meet")
	mendFlag(c, &o)
	return c
}

func (p *program) simBreakServerCommand(name *string) *cobra.Command {
	var o breakOrder
	c := &cobra.Command{
		Use:   "server {DATABASE | NODE}",
		Short: "End the servers of a database, or of one of its nodes",
		Long: `Ends the servers with their connections. Their addresses are there all the same, and refuse. --mend starts them again: real servers
(sim up --servers real) with the data that they had.`,
		Example: `  drawbridge sim break server pg-shared
  drawbridge sim break server pg-dedicated-1 --mend`,
		Args: exactly("NODE"),
		RunE: func(c *cobra.Command, args []string) error {
			o.Server = args[0]
			return breakIt(c.Context(), "sim break server", *name, o)
		},
	}
	mendFlag(c, &o)
	return c
}

func (p *program) simBreakForgeCommand(name *string) *cobra.Command {
	var o breakOrder
	c := &cobra.Command{
		Use:     "forge NODE",
		Short:   "Let a node's packets have forged sources, as in a network that does not look",
		Long:    "The routers next to the node drop forged sources otherwise (RFC 3704).",
		Example: "  drawbridge sim break forge stranger\n  drawbridge sim break forge stranger --mend",
		Args:    exactly("NODE"),
		RunE: func(c *cobra.Command, args []string) error {
			o.Forge = args[0]
			return breakIt(c.Context(), "sim break forge", *name, o)
		},
	}
	mendFlag(c, &o)
	return c
}

func mendFlag(c *cobra.Command, o *breakOrder) {
	c.Flags().BoolVar(&o.Mend, "mend", false, "mend it instead")
}

func breakIt(ctx context.Context, verb, lab string, o breakOrder) error {
	_, err := ask(ctx, verb, lab, order{Break: &o})
	return err
}

// disturb breaks or mends what an order names.
func (h *holder) disturb(ctx context.Context, o breakOrder) (answer, error) {
	h.breaking.Lock()
	defer h.breaking.Unlock()
	switch {
	case o.Link != "":
		link, err := findLink(h.lab.Lab, o.Link)
		if err != nil {
			return answer{}, misuse("", err)
		}
		return answer{}, h.disturbLink(ctx, link, o)
	case o.Server != "":
		return answer{}, h.disturbServer(ctx, o)
	}
	if _, ok := h.lab.Node(o.Forge); !ok {
		return answer{}, misuse("", unknownNode(o.Forge))
	}
	err := h.lab.AllowForged(o.Forge, !o.Mend)
	if errors.Is(err, nat.ErrUnknown) {
		return answer{}, misusef("", "%s: nobody looks at its sources", o.Forge)
	}
	return answer{}, err
}

func (h *holder) disturbLink(ctx context.Context, link sim.Link, o breakOrder) error {
	defer h.watched.tell(o.word(), slices.DeleteFunc([]string{link.Node, link.PeerNode}, func(n string) bool { return n == fabric.Core })...)
	switch {
	case o.Impair != nil:
		return h.lab.Impair(link.Node, link.Interface, *o.Impair)
	case o.Mend:
		if err := h.lab.MendLink(ctx, link.Node, link.Interface); err != nil {
			return err
		}
		return h.lab.Impair(link.Node, link.Interface, impair.Impairment{})
	}
	return h.lab.CutLink(link.Node, link.Interface)
}

func (h *holder) disturbServer(ctx context.Context, o breakOrder) error {
	nodes := nodesNamed(h.lab.World(), o.Server)
	if len(nodes) == 0 {
		return misusef("", "%q is neither a database of world %s nor one of its nodes", o.Server, h.lab.World().Name())
	}
	defer h.watched.tell(o.word(), dependents(h.lab.World(), nodes)...)
	var errs []error
	for _, n := range nodes {
		if o.Mend {
			errs = append(errs, h.lab.RestartServer(context.WithoutCancel(ctx), n))
		} else {
			errs = append(errs, h.lab.StopServer(n))
		}
	}
	return errors.Join(errs...)
}

// word is what happened, for those who watch.
func (o breakOrder) word() string {
	switch {
	case o.Impair != nil:
		return "link impaired"
	case o.Link != "" && o.Mend:
		return "link mended"
	case o.Link != "":
		return "link cut"
	case o.Mend:
		return "server mended"
	}
	return "server ended"
}

// dependents are the nodes of databases, and the enforcement points of those that are canaries: nothing can be concluded to be denied there
// without them.
func dependents(w *topology.World, nodes []string) []string {
	all := slices.Clone(nodes)
	for _, e := range w.Endpoints() {
		if d, _ := w.Database(e.Database); d.Canary && slices.Contains(nodes, e.Node) {
			all = append(all, e.Point)
		}
	}
	return all
}

// nodesNamed are the nodes of the database of that name, or the node.
func nodesNamed(w *topology.World, name string) []string {
	var nodes []string
	for _, d := range w.Databases() {
		for _, n := range d.Nodes {
			if d.Name == name || n.Name == name {
				nodes = append(nodes, n.Name)
			}
		}
	}
	return slices.Compact(nodes)
}

// unknownNode says that a lab has no such node.
func unknownNode(name string) error {
	return fmt.Errorf("%q: no such node in this lab; drawbridge sim ls --json lists them", name)
}
