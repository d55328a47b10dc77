//go:build !operator

package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"drawbridge/features"
	"drawbridge/features/driver"
	"drawbridge/features/mutant"
	"drawbridge/features/suite"
	"drawbridge/sim/cell"
	"drawbridge/sim/probe"
	"drawbridge/topology"

	"github.com/spf13/cobra"
)

// conformOptions are the flags of conform.
type conformOptions struct {
	driver   string
	mutant   string
	resident bool
	profiles []string
	tags     string
	format   string
	report   string
	world    string
	servers  serverKind
	list     bool
	schema   string
	json     bool
	// unformatted: no format was asked for.
	unformatted bool
	known       string // file of known deviations
	mutants     bool
	all         bool // scenarios, with mutants
	lattice     bool
	seed        uint64
	patience    time.Duration
	impaired    impairmentFlags
}

var (
	formats  = []string{"pretty", "progress", "junit", "cucumber"}
	profiles = []string{driver.Core, driver.Extended}
)

func (p *program) conformCommand() *cobra.Command {
	var o conformOptions
	c := &cobra.Command{
		Use:   "conform",
		Short: "Judge an enforcer by the whole specification",
		Long: `Builds the emulated Internet, hands the enforcer one policy after the other, makes real connections with real database
clients, and says which statements of the specification hold.

Without --driver the reference enforcer is judged (drawbridge enforce). docs/DRIVERS.md says how to have your own judged.

Exit codes: 0 conformant, 1 not conformant, 2 wrong use, 3 could not be judged.`,
		Example: `  drawbridge conform
  drawbridge conform --driver ./mine --profile core
  drawbridge conform --tags @S-06 --format pretty
  drawbridge conform --servers real
  drawbridge conform --lattice --profile core
  drawbridge conform --lattice --seed 42
  drawbridge conform --patience 2s --tags @D-09
  drawbridge conform --delay 20ms
  drawbridge conform --loss 2% --seed 42
  drawbridge conform --list --tags '@extended && ~@X-02'
  drawbridge conform --driver ./mine --deviations known.yaml
  drawbridge conform --mutants
  drawbridge conform sample --dedicated 10000
  drawbridge conform --schema > policy.schema.json
  drawbridge conform --schema=report > report.schema.json`,
		Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			if err := cmp.Or(apart(c, "list", "schema"), apart(c, "format", "json"), apart(c, "driver", "mutant"), apart(c, "driver", "resident"), apart(c, "mutant", "resident"), apart(c, "patience", "loss"), mutantsApart(c)); err != nil {
				return err
			}
			if c.Flags().Changed("seed") && !o.lattice && o.impaired.loss == 0 {
				return misusef("conform: --seed", "is for --lattice and --loss")
			}
			if o.all && !o.mutants {
				return misusef("conform: --all-scenarios", "is for --mutants")
			}
			for o.seed == 0 {
				o.seed = uint64(rand.Uint32())
			}
			return p.conform(c.Context(), o)
		},
	}
	f := c.Flags()
	f.StringVar(&o.driver, "driver", "", "`program` of the enforcer to judge (default: this program's own enforce)")
	f.BoolVar(&o.resident, "resident", false, "judge the reference enforcer in its long-running form (drawbridge enforce resident)")
	f.StringVar(&o.mutant, "mutant", "", "judge one of the deliberately wrong `enforcers` that test the suite")
	f.Var(&choices{&o.profiles, profiles}, "profile", "judge on `core` or extended; may be repeated (default: all that the enforcer declares)")
	f.StringVar(&o.tags, "tags", "", "run only scenarios that an `expression` selects: @S-06, ~@S-12, \",\" is or, \"&&\" is and")
	f.StringVar(&o.format, "format", "", "what to print while running: `pretty`, progress, junit or cucumber (default progress)")
	f.StringVar(&o.report, "report", "report", "`directory` for report.html, report.json, junit.xml and cucumber.json; empty for none")
	f.StringVar(&o.world, "world", "", "topology `file`, of a world that has what the scenarios name (docs/TOPOLOGY.md; default: the embedded world)")
	f.BoolVar(&o.lattice, "lattice", false, "after the scenarios, bring every combination of settings into force and try every connection there is")
	f.Uint64Var(&o.seed, "seed", 0, "with --lattice or --loss: repeat the run that this `number` was printed for (default: a new one)")
	o.impaired.add(c, "every link to an enforcement point")
	f.DurationVar(&o.patience, "patience", 0, "judge denials by waiting for this `time`, from both ends alone, and not by what the lab sees at the enforcement point: 2s")
	f.BoolVar(&o.list, "list", false, "list the scenarios that would run, and run none")
	f.StringVar(&o.schema, "schema", "", "print the JSON Schema of the `policy` that enforcers get (the default), or with =report that of report.json")
	f.Lookup("schema").NoOptDefVal = policySchema
	f.StringVar(&o.known, "deviations", "", "`file` of known deviations, which do not fail the run before they expire (docs/DRIVERS.md)")
	f.BoolVar(&o.mutants, "mutants", false, "judge the suite itself before: by every deliberately wrong enforcer, which it must fail, and the right ones, which it must pass")
	f.BoolVar(&o.all, "all-scenarios", false, "with --mutants: judge each by all scenarios, and not only by those that must find it out")
	f.BoolVar(&o.json, "json", false, "print the report (with --list: the scenarios) as JSON on standard output, and nothing else")
	if err := f.MarkHidden("mutant"); err != nil {
		panic(err) // the flag is not defined: a mistake in this file
	}
	serversFlag(c, &o.servers)
	complete(c, "profile", profiles)
	complete(c, "format", formats)
	c.AddCommand(p.conformSampleCommand())
	return c
}

// mutantsApart: how mutants are judged is for --mutants to say.
func mutantsApart(c *cobra.Command) error {
	var all []error
	for _, other := range []string{"driver", "mutant", "tags", "profile", "world", "servers", "lattice", "patience", "delay", "loss", "list", "json", "format", "deviations"} {
		all = append(all, apart(c, "mutants", other))
	}
	return cmp.Or(all...)
}

// complete offers a flag's values to the shell.
func complete(c *cobra.Command, flag string, values []string) {
	if err := c.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err) // the flag is not defined: a mistake in this file
	}
}

// choices is a repeatable flag out of fixed values.
type choices struct {
	chosen  *[]string
	allowed []string
}

func (c *choices) Set(s string) error {
	if !slices.Contains(c.allowed, s) {
		return fmt.Errorf("must be %s", strings.Join(c.allowed, " or "))
	}
	if !slices.Contains(*c.chosen, s) {
		*c.chosen = append(*c.chosen, s)
	}
	return nil
}
func (c *choices) String() string { return "" }
func (c *choices) Type() string   { return "profile" }

// conform does what can be done without a lab, checks everything that can be wrong, and then goes where the lab can be.
func (p *program) conform(ctx context.Context, o conformOptions) error {
	if o.schema != "" {
		return p.writeSchema(o.schema)
	}
	if o.unformatted = o.format == ""; o.unformatted {
		o.format = "progress"
	}
	if !slices.Contains(formats, o.format) {
		return misusef("conform: --format", "%q: must be one of %s", o.format, strings.Join(formats, ", "))
	}
	if strings.ContainsAny(o.report, ":,") {
		return misusef("conform: --report", "%q: may hold neither colon nor comma", o.report)
	}
	chosen, err := suite.Select(features.Files, selection(o))
	if err != nil {
		return selectionError(err)
	}
	world, err := loadLabWorld(o.world)
	if err != nil {
		return err
	}
	if err := fitForScenarios(o, world); err != nil {
		return err
	}
	if o.mutants && !cell.Inside() {
		return p.judgeMutants(ctx, o)
	}
	if _, err := knownDeviations(o.known); err != nil {
		return misuse("conform: --deviations", err)
	}
	if o.driver != "" {
		if o.driver, err = exec.LookPath(o.driver); err != nil {
			return misuse("conform: --driver", err)
		}
	}
	if o.patience != 0 && o.patience <= probe.LeastPatience {
		return misusef("conform: --patience", "%s: must be more than %s, when a client that was denied tries again", o.patience, probe.LeastPatience)
	}
	if _, err := o.impaired.checkConform(o.seed); err != nil {
		return err
	}
	if o.mutant != "" {
		if _, err := mutant.Find(o.mutant); err != nil {
			return misuse("conform: --mutant", err)
		}
	}
	if o.list {
		return p.listScenarios(chosen, o.json)
	}
	if err := checkServers("conform", o.servers); err != nil {
		return err
	}
	if !cell.Inside() {
		return p.inCell(ctx)
	}
	return p.judge(ctx, world, o)
}

// fitForScenarios refuses a world that lacks what the selected scenarios name.
func fitForScenarios(o conformOptions, world *topology.World) error {
	if o.world == "" {
		return nil
	}
	missing, err := suite.Missing(features.Files, selection(o), topology.Default(), world)
	if err != nil {
		return selectionError(err)
	}
	if missing != "" {
		return misusef("conform: --world", "%s lacks what the scenarios name: %s (topology/testdata/default.yaml has it: change and add to a copy)", o.world, missing)
	}
	return nil
}

// What --schema prints.
const (
	policySchema = "policy"
	reportSchema = "report"
)

func (p *program) writeSchema(which string) error {
	schemas := map[string]func() []byte{policySchema: driver.Schema, reportSchema: suite.Schema}
	if schemas[which] == nil {
		return misusef("conform: --schema", "%q: must be policy or report", which)
	}
	_, err := p.std.out.Write(schemas[which]())
	return err
}

// knownDeviations reads the file of known deviations; none for "".
func knownDeviations(path string) ([]suite.Deviation, error) {
	if path == "" {
		return nil, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	known, err := suite.Select(features.Files, "")
	if err != nil {
		return nil, err
	}
	return suite.ReadDeviations(path, f, known)
}

// selection is the tag expression of the flags alone: which profiles the enforcer declares is not known yet.
func selection(o conformOptions) string {
	var all []string
	if len(o.profiles) > 0 {
		all = append(all, "@"+strings.Join(o.profiles, ",@"))
	}
	if o.tags != "" {
		all = append(all, o.tags)
	}
	return strings.Join(all, " && ")
}

// selectionError: an expression that selects nothing is wrong use; features that cannot be read are not the user's doing.
func selectionError(err error) error {
	if errors.Is(err, suite.ErrUsage) {
		return misuse("conform: --tags", withoutMark(err))
	}
	return unable("conform", err)
}

// withoutMark leaves out the words that mark wrong use: the place says it already.
func withoutMark(err error) error {
	return errors.New(strings.TrimPrefix(err.Error(), suite.ErrUsage.Error()+": "))
}

func (p *program) listScenarios(chosen []suite.Selected, asJSON bool) error {
	if asJSON {
		e := json.NewEncoder(p.std.out)
		e.SetIndent("", "  ")
		return e.Encode(chosen)
	}
	w := tabwriter.NewWriter(p.std.out, 0, 0, 2, ' ', 0)
	for _, s := range chosen {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", s.Profile, strings.Join(s.Statements, " "), s.File, s.Name)
	}
	return w.Flush()
}

// loadLabWorld is loadWorld for what builds a lab of it: that is done by another process, which reads the file again.
func loadLabWorld(path string) (*topology.World, error) {
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() && !info.IsDir() {
		return nil, misusef("", "%s: a lab's world is read twice, and this is no regular file: save it to one first", path)
	}
	return loadWorld(path)
}

// loadWorld reads a topology, or returns the embedded one for "".
func loadWorld(path string) (*topology.World, error) {
	if path == "" {
		return topology.Default(), nil
	}
	w, err := topology.Load(path)
	if err != nil {
		return nil, misuse("", err) // names the file, and the line where there is one
	}
	return w, nil
}
