//go:build !operator

package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"drawbridge/sim"
	"drawbridge/topology"
	"drawbridge/topology/drawing"

	"github.com/spf13/cobra"
)

func (p *program) topologyCommand() *cobra.Command {
	return group(&cobra.Command{
		Use:   "topology",
		Short: "Write, check and draw worlds",
		Long:  "A world says what an emulated network contains (docs/TOPOLOGY.md). None of these verbs needs a lab.",
		Example: `  drawbridge topology new --dedicated 1 --nodes 3 > my-world.yaml
  drawbridge topology lint my-world.yaml
  drawbridge sim up my-world.yaml`,
	}, p.topologyLintCommand(), p.topologyGraphCommand(), p.topologyNewCommand(), p.topologySchemaCommand())
}

func (p *program) topologyLintCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "lint FILE...",
		Short: "Say everything that is wrong with a world, where, and what would be right",
		Long: `Reads each file as sim up and conform do. Errors name file, line, column and field. First everything that is wrong with the form is
reported; what it means is looked at once the form is sound. Exit code 2 if anything is wrong.`,
		Example: `  drawbridge topology lint my-world.yaml
  drawbridge topology lint --json worlds/*.yaml | jq -r '.[].reason'`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return wrongUse(c, errors.New("FILE is missing"))
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error { return p.lint(args, asJSON) },
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON: a list of what is wrong")
	return c
}

// problem is a topology.Error for programs.
type problem struct {
	File   string `json:"file"`
	Line   int    `json:"line,omitempty"`
	Column int    `json:"column,omitempty"`
	Field  string `json:"field,omitempty"`
	Reason string `json:"reason"`
	Hint   string `json:"hint,omitempty"`
}

func (p *program) lint(files []string, asJSON bool) error {
	const verb = "topology lint"
	all := []problem{}
	var failed []error
	for _, file := range files {
		w, err := topology.Load(file)
		found := topology.Problems(err)
		for _, e := range found {
			all = append(all, problem(*e))
		}
		switch {
		case err != nil && len(found) == 0:
			all = append(all, problem{File: file, Reason: err.Error()})
			fallthrough
		case err != nil:
			failed = append(failed, misuse("", err))
		case !asJSON:
			need := sim.Needs(w)
			fmt.Fprintf(p.std.out, "%s: world %s is valid: %d nodes, %d enforcement points, %d databases\n",
				file, w.Name(), need.Namespaces, len(w.Points()), len(w.Databases()))
		}
	}
	if !asJSON {
		return errors.Join(failed...)
	}
	if err := writeIndented(p.std.out, all); err != nil {
		return unable(verb, err)
	}
	if len(failed) > 0 {
		return &quiet{exitUsage}
	}
	return nil
}

func (p *program) topologyGraphCommand() *cobra.Command {
	var f graphFormat
	c := &cobra.Command{
		Use:   "graph [FILE]",
		Short: "Draw a world, without a lab",
		Example: `  drawbridge topology graph my-world.yaml
  drawbridge topology graph --format svg > default.svg`,
		Args: func(c *cobra.Command, args []string) error {
			return exactly(slices.Repeat([]string{"FILE"}, min(len(args), 1))...)(c, args)
		},
		RunE: func(_ *cobra.Command, args []string) error {
			w, err := loadWorld(strings.Join(args, ""))
			if err != nil {
				return err
			}
			if err := drawing.Of(w, nil).Write(p.std.out, drawing.Format(f)); err != nil {
				return unable("topology graph", err)
			}
			return nil
		},
	}
	formatFlag(c, &f)
	return c
}

func (p *program) topologyNewCommand() *cobra.Command {
	s := topology.Sketch{Engine: topology.PostgreSQL}
	var to string
	c := &cobra.Command{
		Use:   "new",
		Short: "Write a commented world file to begin with",
		Example: `  drawbridge topology new > my-world.yaml
  drawbridge topology new --name shop --regions 2 --shared 3 --dedicated 1 --nodes 3 --peering --engine redis -o shop.yaml`,
		Args: exactly(),
		RunE: func(*cobra.Command, []string) error { return p.newWorld(s, to) },
	}
	f := c.Flags()
	f.StringVar(&s.Name, "name", "my-world", "the world's name")
	f.IntVar(&s.Regions, "regions", 1, "how many regions")
	f.IntVar(&s.Apps, "apps", 2, "how many apps in each region")
	f.IntVar(&s.Internet, "internet", 2, "how many hosts on the Internet")
	f.IntVar(&s.Shared, "shared", 1, "how many shared databases, each on a host of its own")
	f.IntVar(&s.Dedicated, "dedicated", 1, "how many dedicated databases, behind one gateway")
	f.IntVar(&s.Nodes, "nodes", 1, "how many nodes each dedicated database has")
	f.BoolVar(&s.Peering, "peering", false, "peer the first dedicated database with a private network")
	f.StringVar((*string)(&s.Engine), "engine", string(topology.PostgreSQL), "what databases they are")
	f.StringVarP(&to, "output", "o", "", "`file` to write, which must not exist yet (default: standard output)")
	return c
}

func (p *program) newWorld(s topology.Sketch, to string) error {
	const verb = "topology new"
	if !slices.Contains(topology.Engines(), s.Engine) {
		return misusef(verb+": --engine", "%q: must be one of %s", s.Engine, topology.Engines())
	}
	text, err := topology.New(s)
	if err != nil {
		return misuse(verb, err)
	}
	if to == "" {
		return p.print(verb, string(text))
	}
	f, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return misuse(verb, err)
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Close()); err != nil {
		return unable(verb, err)
	}
	return nil
}

func (p *program) topologySchemaCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON Schema of world files, for editors",
		Example: `  drawbridge topology schema > world.schema.json
  # then, in the first line of a world file: # yaml-language-server: $schema=world.schema.json`,
		Args: exactly(),
		RunE: func(*cobra.Command, []string) error { return p.print("topology schema", string(topology.Schema())) },
	}
}
