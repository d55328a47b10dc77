//go:build !operator

package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"drawbridge/features/driver"
	"drawbridge/features/mutant"
	"drawbridge/features/oracle"
	"drawbridge/features/suite"
	"drawbridge/sim"
	"drawbridge/sim/cell"
	"drawbridge/topology"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// sampleOptions are the flags of conform sample.
type sampleOptions struct {
	fleet  topology.Fleet
	suite  suite.SampleConfig // but for what a lab brings
	who    conformOptions     // driver, mutant, resident
	limit  time.Duration      // for one call of the driver
	report string
	json   bool
	schema bool
}

func (p *program) conformSampleCommand() *cobra.Command {
	o := sampleOptions{fleet: topology.Fleet{Name: "fleet"}}
	c := &cobra.Command{
		Use:   "sample",
		Short: "Judge an enforcer in a world of thousands of databases, by random samples",
		Long: `Builds a world of many dedicated databases behind one gateway and many shared ones on one host, gives each random settings, and
tries connections drawn at random from all that there are: once everything is in force, after each of some changes, and once every
setting is gone. What it found wrong in a sample, it turns into what is wrong in all at most, at a stated confidence.

Every database has a server, and every connection that is tried was made before anything was in force. What is drawn
follows from --seed. docs/ARCHITECTURE.md, "Scale", says how to read the result.

Exit codes: 0 conformant, 1 not conformant, 2 wrong use, 3 could not be judged.`,
		Example: `  drawbridge conform sample
  drawbridge conform sample --dedicated 10000 --shared 0
  drawbridge conform sample --driver ./mine --sample 5000 --confidence 0.99
  drawbridge conform sample --dedicated 50 --shared 50 --seed 42 --json`,
		Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			if err := cmp.Or(apart(c, "driver", "mutant"), apart(c, "driver", "resident"), apart(c, "mutant", "resident")); err != nil {
				return err
			}
			return p.conformSample(c.Context(), o)
		},
	}
	f := c.Flags()
	f.IntVar(&o.fleet.Dedicated, "dedicated", 1000, "how many dedicated databases, behind one gateway")
	f.IntVar(&o.fleet.Shared, "shared", 1000, "how many shared databases, on one host")
	f.IntVar(&o.suite.Size, "sample", 2000, "how many connections of each sort are tried at most")
	f.IntVar(&o.suite.Rules, "rules", oracle.MaxRules, "how many firewall rules each dedicated database has")
	f.IntVar(&o.suite.Changes, "changes", 20, "how many changes are made, each of one rule or setting of one database")
	f.Float64Var(&o.suite.Level, "confidence", 0.95, "how sure what is said of all connections must be, between 0 and 1")
	f.Uint64Var(&o.suite.Seed, "seed", 0, "repeat the run that this `number` was printed for (default: a new one)")
	f.StringVar(&o.who.driver, "driver", "", "`program` of the enforcer to judge (default: this program's own enforce)")
	f.BoolVar(&o.who.resident, "resident", false, "judge the reference enforcer in its long-running form (drawbridge enforce resident)")
	f.StringVar(&o.who.mutant, "mutant", "", "judge one of the deliberately wrong `enforcers` that test the suite")
	f.DurationVar(&o.limit, "limit", 0, "how long one call of the driver may take (default: 30 seconds, and 10 ms for each database)")
	f.StringVar(&o.report, "report", "report", "`directory` for sample.json; empty for none")
	f.BoolVar(&o.json, "json", false, "print the report as JSON on standard output, and nothing else")
	f.BoolVar(&o.schema, "schema", false, "print the JSON Schema of the report")
	if err := f.MarkHidden("mutant"); err != nil {
		panic(err) // the flag is not defined: a mistake in this file
	}
	return c
}

// conformSample checks everything that can be wrong, and then goes where the lab can be.
func (p *program) conformSample(ctx context.Context, o sampleOptions) (err error) {
	const verb = "conform sample"
	if o.schema {
		return p.print(verb, string(suite.SampleSchema()))
	}
	text, err := topology.NewFleet(o.fleet)
	if err != nil {
		return misuse(verb, err)
	}
	world, err := topology.Parse("fleet", text)
	if err != nil {
		return unable(verb, err)
	}
	if err := o.suite.Check(); err != nil {
		return misuse(verb, withoutMark(err))
	}
	if o.limit < 0 {
		return misusef(verb+": --limit", "%s: must be more than 0", o.limit)
	}
	if o.who.driver != "" {
		if o.who.driver, err = exec.LookPath(o.who.driver); err != nil {
			return misuse(verb+": --driver", err)
		}
	}
	if o.who.mutant != "" {
		if _, err := mutant.Find(o.who.mutant); err != nil {
			return misuse(verb+": --mutant", err)
		}
	}
	if !cell.Inside() {
		return p.inCell(ctx)
	}
	for o.suite.Seed == 0 {
		o.suite.Seed = uint64(rand.Uint32())
	}
	return p.judgeSample(ctx, world, o)
}

// collectSample is the worker's garbage collection target in percent: ten thousand databases are some hundred megabytes.
const collectSample = 200

// judgeSample runs it. It stands inside a cell.
func (p *program) judgeSample(ctx context.Context, world *topology.World, o sampleOptions) error {
	const verb = "conform sample"
	ctx, stop := signal.NotifyContext(ctx, unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	defer stop()
	debug.SetGCPercent(collectSample)
	dir, err := mountScratch()
	if err != nil {
		return unable("lab", err)
	}
	began := time.Now()
	l, err := upAs(ctx, world, sim.Options{WithoutStray: true}, embeddedServers, dir)
	if err != nil {
		return unable("lab", err)
	}
	took := time.Since(began)
	report, err := p.runSample(ctx, l, o, dir)
	if err = errors.Join(err, l.Close()); err != nil {
		return unable(verb, err)
	}
	report.LabSeconds = took.Seconds()
	if err := p.tellSample(report, o); err != nil {
		return unable(verb, err)
	}
	if code := report.Result.ExitCode(); code != exitOK {
		return &quiet{code}
	}
	return nil
}

func (p *program) runSample(ctx context.Context, l *lab, o sampleOptions, dir string) (*suite.SampleReport, error) {
	enforcer, err := enforcerOf(l.Lab, o.who, dir)
	if err != nil {
		return nil, err
	}
	enforcer.Limit = cmp.Or(o.limit, driver.CallLimit+time.Duration(o.fleet.Dedicated+o.fleet.Shared)*driver.PerDatabase)
	c := o.suite
	c.PerCall = enforcer.Limit
	c.World, c.Lab, c.Enforcer, c.Kernel, c.Command = l.World(), suite.Simulated(l.Lab, l.prober), enforcer, kernel(), o.command()
	if o.who.driver == "" && o.who.mutant == "" {
		enforcer.Env = append(enforcer.Env, longLived...)
		c.Verify = verifier(l.Lab, enforcer, enforcer.Limit)
	}
	var line *progress
	if p.onTerminal(p.std.err) {
		line = showProgress(p.std.err, time.Now)
	}
	c.Progress = line.phase
	report, err := suite.RunSample(ctx, c)
	line.close()
	return report, err
}

// longLived takes back what suits processes of some milliseconds (shortLived): a call for ten thousand databases takes seconds, and its
// heap is beyond any limit that was meant for a few.
var longLived = []string{"GOGC=200", "GOMEMLIMIT=off"}

// verifier has the reference enforcer prove that a policy is in force, in a limited time.
func verifier(l *sim.Lab, reference *driver.Exec, limit time.Duration) func(context.Context, driver.Document) error {
	return func(ctx context.Context, doc driver.Document) error {
		text, err := doc.Encode()
		if err != nil {
			return err
		}
		node, ok := l.Node(doc.Point.Name)
		if !ok {
			return fmt.Errorf("%s: %w", doc.Point.Name, sim.ErrUnknown)
		}
		ctx, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		var said bytes.Buffer
		cmd := exec.CommandContext(ctx, reference.Path, "enforce", "verify")
		cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = reference.Env, bytes.NewReader(text), &said, &said
		if err := node.Start(cmd); err != nil {
			return err
		}
		if err := cmd.Wait(); ctx.Err() != nil {
			return fmt.Errorf("enforce verify: not through within %s: %w", limit, ctx.Err())
		} else if err != nil {
			return fmt.Errorf("enforce verify: %w: %s", err, strings.TrimSpace(said.String()))
		}
		return nil
	}
}

// command is the command line that repeats the run.
func (o sampleOptions) command() string {
	words := []string{"drawbridge conform sample"}
	for _, f := range []struct{ name, value string }{
		{"driver", o.who.driver}, {"mutant", o.who.mutant}, {"dedicated", strconv.Itoa(o.fleet.Dedicated)}, {"shared", strconv.Itoa(o.fleet.Shared)},
		{"sample", strconv.Itoa(o.suite.Size)}, {"rules", strconv.Itoa(o.suite.Rules)}, {"changes", strconv.Itoa(o.suite.Changes)},
		{"confidence", strconv.FormatFloat(o.suite.Level, 'g', -1, 64)}, {"seed", strconv.FormatUint(o.suite.Seed, 10)},
	} {
		if f.value != "" {
			words = append(words, "--"+f.name, quoted(f.value))
		}
	}
	if o.who.resident {
		words = append(words, "--resident")
	}
	return strings.Join(words, " ")
}

func (p *program) tellSample(report *suite.SampleReport, o sampleOptions) error {
	if o.report != "" {
		if err := writeSample(filepath.Join(o.report, "sample.json"), report); err != nil {
			return fmt.Errorf("report: %w", err)
		}
	}
	if o.json {
		return report.WriteJSON(p.std.out)
	}
	return report.WriteSummary(p.std.out)
}

func writeSample(path string, report *suite.SampleReport) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(report.WriteJSON(f), f.Close())
}
