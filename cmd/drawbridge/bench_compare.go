//go:build !operator

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"drawbridge/cmd/drawbridge/internal/bench"
	"drawbridge/sim/cell"
	"drawbridge/sim/netns"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// compareOptions are the flags of the comparisons.
type compareOptions struct {
	rounds    int
	budget    time.Duration
	databases []int
	hosts     []int
	tools     labTools
	report    string
	json      bool
}

func (p *program) benchCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "bench",
		Short: "Measure what drawbridge costs, beside what others cost",
		Long: `Measures, in namespaces of its own, what drawbridge does beside what other programs do for the same end. In each round every
contender runs once, in another order each time; what is told are medians with bounds, and the ratio of ours to each.

A program that is not installed has a row that says so: make bench installs what the distribution has.

Exit codes: 0 the goals are met or not missed beyond noise, 1 one is missed, 2 wrong use, 3 something could not be measured.`,
		Example: `  drawbridge bench all                              everything, some minutes; writes report/bench
  drawbridge bench rules --databases 100,1000       one kind alone
  drawbridge bench lab --hosts 50 --rounds 11 --json
  drawbridge bench tls --rows 'redis .* new tls'    the gate under the load of real clients`,
	}
	return group(c, p.benchAllCommand(), p.benchLabCommand(), p.benchLabOnceCommand(), p.benchPacketsCommand(), p.benchRulesCommand(),
		p.benchSuiteCommand(), p.benchTLSCommand())
}

func (p *program) benchAllCommand() *cobra.Command {
	return p.compareCommand("all", "Everything below but tls, in one run", `Runs the comparisons rules, packets, lab and suite, one after the other, into one report.`,
		withRules|withPackets|withLab|withSuite)
}

func (p *program) benchRulesCommand() *cobra.Command {
	return p.compareCommand("rules", "Install a ruleset, and change one rule of it", `Installs one policy, and then lets one more network in to one of its databases: by the enforcer, by nft -f with the
ruleset that the enforcer would install, by iptables with one rule after the other, and by ipset with one set for each database.

Ours is told twice: enforce apply, from its start to its end, with reading back what it has written; and the netlink transaction alone. For a
change ours is what a daemon (enforce run) does.`,
		withRules)
}

func (p *program) benchPacketsCommand() *cobra.Command {
	return p.compareCommand("packets", "Connections and packets through the rules", `Connects and closes, and sends requests and answers over connections that stand, from one namespace to another: without a
firewall, behind the enforcer, and behind the same policy as a linear chain whose last rules let the client in. Address translation
of a gateway is everywhere.

One policy is enough: that of the largest number of databases up to 1,000. Rounds are short, and there are five for each of --rounds.`,
		withPackets)
}

func (p *program) benchLabCommand() *cobra.Command {
	return p.compareCommand("lab", "Build a network of many hosts, and take it down", `Builds, tries and takes down a network of many hosts in both families: by drawbridge, by ip -batch, and by mininet; and says what
creating the namespaces and links alone takes, what a host costs in memory, what it takes without privileges, and how long after
SIGKILL the last host is there.

With --tool NAME=COMMAND any other tool stands beside them: --tool 'mine=./mylab --hosts $1'. COMMAND is the shell's, where $1 is the number
of hosts. It builds them in the network namespace in which it finds itself, prints a line, waits for a line on its standard input, takes them
down, and prints another. A line that is a number is the seconds that it took; otherwise it is timed from outside, its start included.`,
		withLab)
}

func (p *program) benchSuiteCommand() *cobra.Command {
	return p.compareCommand("suite", "Judge a denied connection, and everything", `Runs the whole suite once (drawbridge conform) and compares what a denial takes with waiting for a time-out of one second.`,
		withSuite)
}

// part is a set of comparisons.
type part int

const (
	withRules part = 1 << iota
	withPackets
	withLab
	withSuite
)

func (p *program) compareCommand(verb, short, long string, parts part) *cobra.Command {
	o := compareOptions{databases: []int{100, 1000, 10_000}, hosts: []int{50, 200, 1000}}
	c := &cobra.Command{
		Use: verb, Short: short, Long: long, Args: exactly(),
		Example: "  drawbridge bench " + verb + "\n  drawbridge bench " + verb + " --rounds 11 --report '' --json",
		RunE:    func(c *cobra.Command, _ []string) error { return p.compare(c.Context(), "bench "+verb, parts, o) },
	}
	f := c.Flags()
	f.IntVar(&o.rounds, "rounds", 7, "`number` of rounds; fewer than 5 tell nothing about noise")
	f.DurationVar(&o.budget, "budget", 20*time.Second, "`time` that one contender may spend on one row: who has spent it is measured in fewer rounds")
	if parts&(withRules|withPackets) != 0 {
		f.IntSliceVar(&o.databases, "databases", o.databases, fmt.Sprintf("how many databases of %d rules a policy has, `numbers` with commas", bench.RulesEach))
	}
	if parts&withLab != 0 {
		f.IntSliceVar(&o.hosts, "hosts", o.hosts, "how many hosts a network has, `numbers` with commas")
		f.Var(&o.tools, "tool", "another tool that builds labs (see bench lab --help); may be given again")
	}
	f.StringVar(&o.report, "report", "report/bench", "`directory` for bench.json, bench.md and bench.svg; empty for none")
	f.BoolVar(&o.json, "json", false, "print the report as JSON")
	return c
}

func (o compareOptions) check(verb string) error {
	if o.rounds < 1 {
		return misusef(verb+": --rounds", "%d: must be at least 1", o.rounds)
	}
	if o.budget <= 0 {
		return misusef(verb+": --budget", "%v: must be positive", o.budget)
	}
	for _, l := range []struct {
		flag    string
		numbers []int
		most    int
	}{{"databases", o.databases, bench.MostDatabases}, {"hosts", o.hosts, bench.MostHosts}} {
		if len(l.numbers) == 0 {
			return misusef(verb+": --"+l.flag, "no number")
		}
		for _, n := range l.numbers {
			if n < 1 || n > l.most {
				return misusef(verb+": --"+l.flag, "%d: must be from 1 to %d", n, l.most)
			}
		}
	}
	return nil
}

// compare checks everything that can be wrong, goes where namespaces can be made, and measures.
func (p *program) compare(ctx context.Context, verb string, parts part, o compareOptions) error {
	if err := o.check(verb); err != nil {
		return err
	}
	if !cell.Inside() {
		return p.inCell(ctx)
	}
	ctx, stop := signal.NotifyContext(ctx, unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	defer stop()
	b, err := p.newComparer(ctx, o)
	if err != nil {
		return unable(verb, err)
	}
	err = b.run(ctx, parts)
	if err != nil && len(b.summary.Comparisons) == 0 {
		return unable(verb, err)
	}
	return p.conclude(verb, &b.summary, o, err)
}

// conclude tells what was measured, also if an error ended the run before all was.
func (p *program) conclude(verb string, s *bench.Summary, o compareOptions, ended error) error {
	if ended == nil {
		return p.tellComparisons(verb, s, o)
	}
	s.Incomplete = ended.Error()
	told := p.tellComparisons(verb, s, o)
	if _, judged := errors.AsType[*quiet](told); judged {
		told = nil // there is more to say than that
	}
	return unable(verb, errors.Join(ended, told))
}

// errUnmeasured ends a run whose report has already said what could not be measured.
var errUnmeasured = &quiet{exitUnjudged}

func (p *program) tellComparisons(verb string, s *bench.Summary, o compareOptions) error {
	s.Conclude()
	if o.report != "" {
		if err := s.Write(o.report); err != nil {
			return unable(verb+": --report", err)
		}
	}
	tell := s.WriteMarkdown
	if o.json {
		tell = s.WriteJSON
	}
	if err := tell(p.std.out); err != nil {
		return unable(verb, err)
	}
	switch s.Verdict {
	case bench.Missed:
		return errGoalMissed
	case bench.Unmeasured:
		return errUnmeasured
	}
	return nil
}

// comparer measures one task after the other.
type comparer struct {
	compareOptions
	plan     bench.Plan
	summary  bench.Summary
	programs map[string]string // paths
	dir      string            // for files; only the cell sees it
	progress io.Writer
}

// comparedPrograms are those of others, each with what makes it print its version.
var comparedPrograms = map[string][]string{
	"nft": {"--version"}, "iptables-nft": {"--version"}, "iptables-nft-restore": nil, "iptables-legacy": {"--version"},
	"iptables-legacy-restore": nil, "ipset": {"--version"}, "ip": {"-V"}, "mn": {"--version"}, "brctl": {"--version"},
}

func (p *program) newComparer(ctx context.Context, o compareOptions) (*comparer, error) {
	dir, err := mountScratch()
	if err != nil {
		return nil, err
	}
	// ip netns and others keep names and locks here, which are none of the machine's.
	if err := unix.Mount("tmpfs", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755"); err != nil {
		return nil, fmt.Errorf("mount a private file system at /run: %w", err)
	}
	b := &comparer{compareOptions: o, dir: dir, progress: p.std.err, programs: map[string]string{}}
	b.plan = bench.Plan{Rounds: o.rounds, Budget: o.budget, Processors: runtime.NumCPU(), Now: time.Now,
		Usage: func() (bench.Usage, error) { return bench.ReadUsage("/proc") }}
	b.summary = bench.Summary{Rounds: o.rounds, Budget: o.budget.Seconds(), Programs: map[string]string{"drawbridge": currentVersion()}}
	if b.summary.Machine, err = thisMachine(); err != nil {
		return nil, err
	}
	if b.summary.Rootless, err = rootless(); err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	b.programs[byEnforcer] = operatorBeside(self) // as on a host: one run of a program, like everybody's
	b.findPrograms(ctx)
	return b, nil
}

// rootless tells whether this cell has a user namespace, in which root is somebody else outside (user_namespaces(7)).
func rootless() (bool, error) {
	text, err := os.ReadFile("/proc/self/uid_map")
	const all = "4294967295" // the whole range: the initial namespace
	return !bytes.Contains(text, []byte(all)), err
}

// findPrograms looks for what others do it with. One that does not tell its version may still do its work.
func (b *comparer) findPrograms(ctx context.Context) {
	for name, version := range comparedPrograms {
		path, ok := bench.Locate(name)
		if !ok {
			continue
		}
		b.programs[name] = path
		if version == nil {
			continue
		}
		out, err := exec.CommandContext(ctx, path, version...).CombinedOutput() // mn says it on standard error
		first, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
		if err != nil {
			first = "does not tell its version: " + err.Error()
		}
		b.summary.Programs[name] = first
	}
}

// absent is why programs cannot be measured; empty if all are there.
func (b *comparer) absent(names ...string) string {
	var missing []string
	for _, name := range names {
		if b.programs[name] == "" {
			missing = append(missing, name)
		}
	}
	if missing == nil {
		return ""
	}
	return "not installed: " + strings.Join(missing, ", ")
}

func (b *comparer) run(ctx context.Context, parts part) error {
	for _, s := range []struct {
		part part
		run  func(context.Context) error
	}{{withRules, b.rules}, {withPackets, b.packets}, {withLab, b.lab}, {withSuite, b.suite}} {
		if parts&s.part == 0 {
			continue
		}
		if err := s.run(ctx); err != nil {
			return err
		}
	}
	return nil
}

// measure measures one task, and says so.
func (b *comparer) measure(ctx context.Context, plan bench.Plan, t bench.Task) error {
	fmt.Fprintf(b.progress, "bench: %-66s ", t.Name)
	began := time.Now()
	done, err := plan.Measure(ctx, t)
	if err != nil {
		fmt.Fprintln(b.progress)
		return err
	}
	b.summary.Comparisons = append(b.summary.Comparisons, done...)
	fmt.Fprintf(b.progress, "%v\n", time.Since(began).Round(100*time.Millisecond))
	return nil
}

// peerLimit is for one run of somebody else's program, beyond which little is learned.
const peerLimit = 3 * time.Minute

// errTooLong: a run was ended at peerLimit.
var errTooLong = fmt.Errorf("it took more than %v", peerLimit)

// spent is what something took.
type spent struct {
	elapsed, processor time.Duration // of the processor in user mode and in the kernel, by all threads
}

func (s spent) values() bench.Values {
	return bench.Values{metricTime: millis(s.elapsed), metricProcessor: millis(s.processor)}
}

// spending runs something in this process.
func spending(f func() error) (s spent, err error) {
	var before, after unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &before); err != nil {
		return s, os.NewSyscallError("getrusage", err)
	}
	began := time.Now()
	err = f()
	s.elapsed = time.Since(began)
	if err := unix.Getrusage(unix.RUSAGE_SELF, &after); err != nil {
		return s, os.NewSyscallError("getrusage", err)
	}
	s.processor = processorTime(after) - processorTime(before)
	return s, err
}

func processorTime(u unix.Rusage) time.Duration {
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// exec runs a program in a namespace, and returns what that took from start to end.
func (b *comparer) exec(ctx context.Context, ns *netns.Handle, input, name string, args ...string) (s spent, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, peerLimit, errTooLong)
	defer cancel()
	if b.programs[name] == "" {
		return s, errors.New(b.absent(name))
	}
	cmd := exec.CommandContext(ctx, b.programs[name], args...)
	var says bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.Stdin = &says, &says, strings.NewReader(input)
	cmd.Env = b.environment()
	began := time.Now()
	if err = ns.Start(cmd); err == nil {
		err = cmd.Wait()
	}
	s.elapsed = time.Since(began)
	switch {
	case ctx.Err() != nil:
		return s, fmt.Errorf("%s: %w", name, context.Cause(ctx))
	case err != nil:
		return s, fmt.Errorf("%s: %w: %s", name, err, strings.TrimSpace(says.String()))
	}
	s.processor = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	return s, nil
}

// file writes a file for a program to read.
func (b *comparer) file(name, text string) (string, error) {
	path := filepath.Join(b.dir, name)
	return path, os.WriteFile(path, []byte(text), 0o600)
}

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
