//go:build !operator

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"

	"drawbridge/features"
	"drawbridge/features/driver"
	"drawbridge/features/page"
	"drawbridge/features/suite"
	"drawbridge/sim"
	"drawbridge/sim/impair"
	"drawbridge/sim/probe"
	"drawbridge/topology"

	"golang.org/x/sys/unix"
)

// judge runs the suite. It stands inside a cell.
func (p *program) judge(ctx context.Context, world *topology.World, o conformOptions) error {
	ctx, stop := signal.NotifyContext(ctx, unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	defer stop()
	debug.SetGCPercent(collectAt)
	dir, err := mountScratch()
	if err != nil {
		return unable("lab", err)
	}
	bad, err := o.impaired.checkConform(o.seed)
	if err != nil {
		return err
	}
	l, err := up(ctx, world, o.servers, dir, bad)
	if err != nil {
		return unable("lab", err)
	}
	report, err := p.runSuite(ctx, l, o, dir)
	if err = errors.Join(err, l.Close()); err != nil {
		if errors.Is(err, suite.ErrUsage) {
			return misuse("conform", withoutMark(err))
		}
		return unable("conform", err)
	}
	if err := p.tell(report, o); err != nil {
		return unable("conform", err)
	}
	if code := report.Result.ExitCode(); code != exitOK {
		return &quiet{code}
	}
	return nil
}

func (p *program) runSuite(ctx context.Context, l *lab, o conformOptions, dir string) (*suite.Report, error) {
	enforcer, err := enforcerOf(l.Lab, o, dir)
	if err != nil {
		return nil, err
	}
	if o.patience > 0 {
		if err := l.prober.JudgeByPatience(o.patience); err != nil {
			return nil, err
		}
	}
	deviations, err := knownDeviations(o.known)
	if err != nil {
		return nil, err
	}
	score, err := readScore(o)
	if err != nil {
		return nil, err
	}
	recorder, err := record(l)
	if err != nil {
		return nil, err
	}
	output := p.std.out
	line, alone := p.live(o)
	if o.json || alone {
		output = io.Discard
	}
	report, err := suite.Run(ctx, suite.Config{
		Kernel: kernel(), Command: commandOf(o), Recorder: recorder, Deviations: deviations, Progress: line.update,
		World: l.World(), Lab: suite.Simulated(l.Lab, l.prober), Enforcer: enforcer,
		Features: features.Files, Expected: features.Expected, Profiles: o.profiles, Tags: o.tags,
		Servers: programs(l.Lab), Format: o.format, Output: output, NoColors: !p.colour(p.std.out), ReportDir: o.report, Lanes: lanes,
		Rehearsed: o.mutant != "", // whoever judges wrong enforcers has judged the right one by the same features
		Wires:     l.wires,
		Lattice:   o.lattice, Seed: o.seed, Sequences: sequences, Patience: o.patience, Mutants: score,
	})
	line.close()
	recorder.close()
	if err != nil || o.report == "" {
		return report, err
	}
	return report, page.WriteFile(o.report, l.World(), report)
}

// kernel is the running kernel's release (uname(2)).
func kernel() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}

// commandOf is the command line that judges the same enforcer again.
func commandOf(o conformOptions) string {
	words := []string{"drawbridge", "conform"}
	flag := func(name, value string) {
		if value != "" {
			words = append(words, "--"+name, quoted(value))
		}
	}
	flag("driver", o.driver)
	flag("mutant", o.mutant)
	flag("world", o.world)
	flag("deviations", o.known)
	words = append(words, o.impaired.words(o.seed)...)
	if o.servers != "" && o.servers != embeddedServers {
		flag("servers", string(o.servers))
	}
	if o.patience > 0 {
		flag("patience", o.patience.String())
	}
	return strings.Join(words, " ")
}

// quoted writes a word for a POSIX shell.
func quoted(word string) string {
	if !strings.ContainsFunc(word, func(r rune) bool { return !strings.ContainsRune(plainRunes, r) }) {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// plainRunes mean themselves in a shell.
const plainRunes = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./-:=@%+,"

// tell prints the report where the chosen format leaves room for it: a program reads standard output of json, junit and
// cucumber, so people get the summary on standard error then.
func (p *program) tell(report *suite.Report, o conformOptions) error {
	switch {
	case o.json:
		return report.WriteJSON(p.std.out)
	case o.format == "junit" || o.format == "cucumber":
		return report.WriteSummary(p.std.err)
	}
	return report.WriteSummary(p.std.out)
}

// enforcerOf returns the driver that was asked for, or a mutant, or the reference enforcer.
func enforcerOf(l *sim.Lab, o conformOptions, dir string) (*driver.Exec, error) {
	at := func(point string) (driver.Starter, error) {
		node, ok := l.Node(point)
		if !ok {
			return nil, fmt.Errorf("%s: %w", point, sim.ErrUnknown)
		}
		return node, nil
	}
	if o.driver != "" {
		return driver.New(o.driver, nil, dir, at)
	}
	path, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program, to run its enforce: %w", err)
	}
	if o.mutant != "" {
		return driver.New(path, []string{"mutate", o.mutant}, dir, at)
	}
	args := []string{"enforce"}
	if o.resident {
		args = append(args, "resident")
	}
	reference, err := driver.New(operatorBeside(path), args, dir, at)
	if err != nil {
		return nil, err
	}
	reference.Env = append(withoutPath(os.Environ()), shortLived...)
	return reference, nil
}

// operatorBeside returns the program for hosts and gateways that `make build` puts beside the one at a path, if both were built from the
// same commit: it is the same enforcer, what operators run, and starts in a third of the time, which a run does hundreds of
// times. In any other case it returns the path.
func operatorBeside(path string) string {
	if version == "" || version == "unknown" || strings.HasSuffix(version, "-dirty") {
		return path // two programs of one name may differ
	}
	var its struct{ Version string }
	out, err := exec.Command(path+"-operator", "version", "--json").Output()
	if err != nil || json.Unmarshal(out, &its) != nil || its.Version != version {
		return path
	}
	return path + "-operator"
}

// shortLived lets a process of some milliseconds end before it collects garbage: a third of its CPU time otherwise.
var shortLived = []string{"GOGC=off", "GOMEMLIMIT=" + strconv.Itoa(shortMemory)}

// lanes is how many scenarios run at once at most. Much of a driver's call is waiting for the kernel to be done with a change
// everywhere, so that two cores keep more than two of them going.
const lanes = 6

// sequences is how many random sequences of changes follow the lattice's product.
const sequences = 3

// collectAt is the worker's garbage collection target in percent (runtime/debug.SetGCPercent): its live heap is some 20 MB, and
// collecting it at every doubling took a tenth of a run's CPU time.
const collectAt = 800

// withoutPath leaves PATH out of an environment. The reference enforcer runs no program, but a library that this program is
// linked with (godog's internal/builder) looks for the go command on the PATH whenever a process starts, runs it, and
// throws the answer away: some 6 ms for each of hundreds of calls, and a foreign program in the enforcement point.
func withoutPath(environment []string) []string {
	return slices.DeleteFunc(environment, func(v string) bool { return strings.HasPrefix(v, "PATH=") })
}

// lab is a running lab with its servers and its prober.
type lab struct {
	*sim.Lab
	prober *probe.Prober
	bad    impair.Impairment // of all its approaches
}

// up builds a lab inside a cell, with the cell's scratch directory for its servers' data.
func up(ctx context.Context, world *topology.World, servers serverKind, scratch string, i impair.Impairment) (*lab, error) {
	return upAs(ctx, world, sim.Options{Impairment: i}, servers, scratch)
}

func upAs(ctx context.Context, world *topology.World, opts sim.Options, servers serverKind, scratch string) (*lab, error) {
	l, err := sim.Up(ctx, world, opts)
	if err != nil {
		return nil, err
	}
	if err := startServers(ctx, l, servers, scratch); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	prober, err := probe.New(ctx, l)
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return &lab{l, prober, opts.Impairment}, nil
}

// Close takes the lab down. Its error may say that it lost sight of packets. There is nothing to be done for nil.
func (l *lab) Close() error {
	if l == nil {
		return nil
	}
	return errors.Join(l.prober.Close(), l.Lab.Close())
}
