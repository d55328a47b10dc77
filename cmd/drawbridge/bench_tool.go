//go:build !operator

package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"drawbridge/cmd/drawbridge/internal/bench"
	"drawbridge/sim/netns"

	"golang.org/x/sys/unix"
)

// labTool is another tool that builds labs, and how it is run: with the number of hosts as its last argument. It builds them, prints a line,
// waits for a line on its standard input, takes all down and prints another line. A line that is a number says how many seconds that
// took by the tool's own clock; otherwise it is timed from outside, the program's start included.
type labTool struct {
	name string
	argv []string
}

// labTools is a flag that may be given again: NAME=COMMAND, of which COMMAND is the shell's, where the argument is $1.
type labTools []labTool

func (t *labTools) String() string { return "" }

// Type is what help calls the value.
func (t *labTools) Type() string { return "NAME=COMMAND" }

// Set adds a tool.
func (t *labTools) Set(value string) error {
	name, command, ok := strings.Cut(value, "=")
	if !ok || strings.TrimSpace(name) == "" || strings.TrimSpace(command) == "" {
		return errors.New("want NAME=COMMAND")
	}
	*t = append(*t, labTool{name: name, argv: []string{"sh", "-c", command, "sh"}})
	return nil
}

func (b *comparer) buildByMininet(ctx context.Context, n int) (bench.Values, error) {
	interpreter, err := bench.Interpreter(b.programs["mn"])
	if err != nil {
		return nil, err
	}
	return b.buildBy(ctx, n, labTool{name: "mininet", argv: []string{interpreter, "-c", bench.Mininet}})
}

// buildBy has a tool build a lab, in a network namespace of its own.
func (b *comparer) buildBy(ctx context.Context, n int, tool labTool) (bench.Values, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, 2*peerLimit, errTooLong) // up and down
	defer cancel()
	ns, err := netns.New()
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	m, err := build(n)
	if err != nil {
		return nil, err
	}
	run, err := b.startTool(ctx, ns, tool, n)
	if err != nil {
		return nil, err
	}
	upErr := run.step(m, metricUp)
	_, sent := io.WriteString(run.stdin, "\n")
	downErr := run.step(m, metricDown)
	sent = cmp.Or(sent, run.stdin.Close()) // who did not wait for a line may wait for the end
	ended := run.cmd.Wait()
	if err := cmp.Or(context.Cause(ctx), ended, upErr, downErr, sent); err != nil { // who ended has said why
		return nil, fmt.Errorf("%s: %w: %s", tool.name, err, lastLines(run.complaints.String()))
	}
	return m.values, nil
}

// toolRun is a tool at work.
type toolRun struct {
	cmd        *exec.Cmd
	stdin      io.WriteCloser
	said       *bufio.Reader
	complaints strings.Builder
}

// startTool starts a tool in a namespace. With the context all of it ends that did not leave its process group.
func (b *comparer) startTool(ctx context.Context, ns *netns.Handle, tool labTool, n int) (*toolRun, error) {
	r := &toolRun{cmd: exec.CommandContext(ctx, tool.argv[0], append(tool.argv[1:len(tool.argv):len(tool.argv)], strconv.Itoa(n))...)}
	r.cmd.Stderr, r.cmd.Env = &r.complaints, b.environment()
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	r.cmd.Cancel = func() error { return unix.Kill(-r.cmd.Process.Pid, unix.SIGKILL) }
	r.cmd.WaitDelay = time.Second // who left it may hold its output
	stdin, inErr := r.cmd.StdinPipe()
	stdout, outErr := r.cmd.StdoutPipe()
	if err := cmp.Or(inErr, outErr); err != nil {
		return nil, err
	}
	context.AfterFunc(ctx, func() { _ = stdout.Close() }) // ends who waits for a line
	r.stdin, r.said = stdin, bufio.NewReader(stdout)
	return r, ns.Start(r.cmd)
}

// step waits for the tool's word that a step is done.
func (r *toolRun) step(m *built, metric string) error {
	line, err := r.said.ReadString('\n')
	if err != nil {
		return fmt.Errorf("no line says that it is %s: %w", metric, err)
	}
	if err := m.done(metric); err != nil {
		return err
	}
	if s, err := strconv.ParseFloat(strings.TrimSpace(line), 64); err == nil && s >= 0 && !math.IsInf(s, 0) {
		m.values[metric] = millis(time.Duration(s * float64(time.Second)))
	}
	return nil
}

// lastLines are the end of what a program complained of, where the reason is.
func lastLines(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-2):], " ")
}

// environment is what programs of others get.
func (b *comparer) environment() []string {
	return append(os.Environ(), "XTABLES_LOCKFILE="+b.dir+"/xtables.lock", "PATH="+os.Getenv("PATH")+":/usr/local/sbin:/usr/sbin:/sbin")
}
