package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// streams are the standard streams of one run.
type streams struct {
	in  io.Reader
	out io.Writer
	err io.Writer
}

// environment looks up a variable, as os.LookupEnv does.
type environment func(name string) (string, bool)

// program is what every verb can see: where to read and write, and nothing global.
type program struct {
	args []string // without the program's name
	std  streams
	env  environment
}

// run is the whole program but the exit: it parses args, does what they say, and returns the exit code.
func run(ctx context.Context, args []string, std streams, env environment) int {
	p := &program{args: args, std: std, env: env}
	root := p.command()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	_, _ = io.WriteString(std.err, complaint(err)) // there is nowhere left to report a closed stderr to
	return exitCode(err)
}

func (p *program) command() *cobra.Command {
	root := p.root()
	root.SilenceErrors, root.SilenceUsage = true, true
	root.RunE, root.Args = missingVerb, knownVerb
	root.SetIn(p.std.in)
	root.SetOut(p.std.out)
	root.SetErr(p.std.err)
	root.SetFlagErrorFunc(wrongUse)
	root.AddCommand(p.enforceCommand(), p.versionCommand())
	p.addBuildVerbs(root)
	return root
}

// group makes a command that only holds verbs.
func group(c *cobra.Command, verbs ...*cobra.Command) *cobra.Command {
	c.Args, c.RunE = knownVerb, missingVerb
	c.AddCommand(verbs...)
	return c
}

func knownVerb(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	reason := fmt.Sprintf("unknown verb %q", args[0])
	c.SuggestionsMinimumDistance = 2 // edits; cobra's own default, which it sets elsewhere
	if near := c.SuggestionsFor(args[0]); len(near) > 0 {
		reason += fmt.Sprintf(", did you mean %q?", near[0])
	}
	return wrongUse(c, errors.New(reason))
}

func missingVerb(c *cobra.Command, _ []string) error {
	var names []string
	for _, sub := range c.Commands() {
		if sub.IsAvailableCommand() && sub.Name() != "completion" {
			names = append(names, sub.Name())
		}
	}
	return wrongUse(c, fmt.Errorf("which verb? one of %s", strings.Join(names, ", ")))
}

// wrongUse places an error at the command's verbs and says where to read on.
func wrongUse(c *cobra.Command, err error) error {
	path := c.CommandPath()
	place := strings.TrimPrefix(strings.TrimPrefix(path, "drawbridge"), " ")
	return misusef(place, "%w (see %s --help)", err, path)
}

// exactly takes as many positional arguments as it has names for.
func exactly(names ...string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		switch {
		case len(args) > len(names):
			return wrongUse(c, fmt.Errorf("unexpected argument %q", args[len(names)]))
		case len(args) < len(names):
			return wrongUse(c, fmt.Errorf("%s is missing", names[len(args)]))
		}
		return nil
	}
}

// apart returns an error if two flags that exclude each other are both set.
func apart(c *cobra.Command, one, other string) error {
	if c.Flags().Changed(one) && c.Flags().Changed(other) {
		return wrongUse(c, fmt.Errorf("--%s and --%s exclude each other", one, other))
	}
	return nil
}

// colour tells whether a stream wants colour: it is a terminal, and NO_COLOR (no-color.org) is unset or empty.
func (p *program) colour(w io.Writer) bool {
	if value, _ := p.env("NO_COLOR"); value != "" {
		return false
	}
	if p.isDumb() {
		return false
	}
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// isDumb tells whether the terminal, if it is one, says that it takes no orders.
func (p *program) isDumb() bool {
	value, _ := p.env("TERM")
	return value == "dumb"
}
