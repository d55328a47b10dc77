//go:build !operator

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"sync"
	"syscall"

	"drawbridge/cmd/drawbridge/internal/control"
	"drawbridge/sim/cell"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// execOrder asks for a program inside a node.
type execOrder struct {
	Node string   `json:"node"`
	Path string   `json:"path"` // absolute
	Args []string `json:"args"` // with the program's name
	Env  []string `json:"env"`
	Dir  string   `json:"dir"`
	// Terminal says that the streams are a terminal that is to be the program's own (setsid(2), TIOCSCTTY).
	Terminal bool `json:"terminal,omitempty"`
	// Names shows the program the lab's names in the place of the machine's.
	Names bool `json:"names,omitempty"`
}

// exit is how a program ended.
type exit struct {
	// Status is its exit status, or 128 and the number of the signal that ended it, as shells count.
	Status int `json:"status"`
}

// signalled is what shells add to a signal's number.
const signalled = 128

func (p *program) simExecCommand(name *string) *cobra.Command {
	var tty, machineNames bool
	c := &cobra.Command{
		Use:   "exec NODE -- COMMAND [ARGUMENT...]",
		Short: "Run a program inside one of the lab's nodes",
		Long: `Runs a program in the network of a node, as root of the lab, with these standard streams, environment and working directory.
Signals are handed on, and the exit status is the program's; 128 and the number of the signal that ended it; 127 if there is no such
program, 126 if there is and it cannot be run. Where standard input and output are a terminal, the program gets a terminal of its own,
with job control.

The program finds the lab's names in /etc/hosts: endpoints as DATABASE.ENGINE.REGION.example (and
private.DATABASE.ENGINE.REGION.example in a peered network), nodes, hosts and Internet hosts by their names, apps as APP.REGION. No
name server can be reached. The lab's certificate authority is in the file that $DRAWBRIDGE_CA_FILE names; SSL_CERT_FILE,
CURL_CA_BUNDLE and PGSSLROOTCERT name it too. psql, mysql and redis-cli find the account of the lab's servers in PGUSER, PGPASSWORD,
MYSQL_PWD and REDISCLI_AUTH, unless these are set: user drawbridge, password draw-the-bridge. The node's name is the host name, and
root's programs (/usr/sbin) are on the PATH.

Started by an ordinary user, the lab has one user, root. A program that insists on becoming another one, as tcpdump does, is told that it
has, and stays root of the lab; a file that it gives away stays that user's.`,
		Example: `  drawbridge sim exec office -- psql 'host=pg-dedicated.postgresql.osc-fr1.example user=drawbridge sslmode=verify-full'
  drawbridge sim exec office -- nmap -Pn -p 5432 203.0.113.129
  drawbridge sim exec gw-fr1 -- nft list ruleset
  drawbridge sim exec osc-fr1/web -- sh`,
		Args: func(c *cobra.Command, args []string) error {
			switch dash := c.ArgsLenAtDash(); {
			case len(args) == 0 || dash == 0:
				return wrongUse(c, errors.New("NODE is missing"))
			case dash > 1 || dash < 0 && len(args) > 1:
				return wrongUse(c, errors.New("put -- between NODE and COMMAND"))
			case len(args) == 1:
				return wrongUse(c, errors.New("COMMAND is missing"))
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			if !c.Flags().Changed("tty") {
				tty = p.atTerminal()
			}
			o := execOrder{Node: args[0], Args: args[1:], Terminal: tty, Names: !machineNames}
			return p.simExec(c.Context(), *name, o)
		},
	}
	c.Flags().BoolVarP(&tty, "tty", "t", false, "give the program a terminal of its own (default: if standard input and output are one)")
	c.Flags().BoolVar(&machineNames, "machine-names", false, "leave /etc/hosts, resolv.conf, nsswitch.conf, host name and environment as they are on this machine")
	return c
}

func (p *program) simExec(ctx context.Context, lab string, o execOrder) error {
	const verb = "sim exec"
	var err error
	if o.Path, err = lookPath(o.Args[0]); err == nil {
		o.Path, err = filepath.Abs(o.Path)
	}
	if err != nil {
		return notRun(verb, err)
	}
	o.Dir, err = os.Getwd()
	if errors.Is(err, fs.ErrNotExist) {
		err = errors.New("working directory: it has been deleted; change to another one")
	}
	if err != nil {
		return unable(verb, err)
	}
	o.Env = append(slices.DeleteFunc(os.Environ(), named("PATH")), "PATH="+cell.Path(os.Getenv("PATH")))
	status, err := p.runWithStreams(ctx, lab, o)
	if err != nil {
		return err
	}
	if status != 0 {
		return &quiet{status}
	}
	return nil
}

// notRun classifies why a program did not start. What is not about the program is a reason outside of what was asked.
func notRun(place string, err error) error {
	sought, looked := errors.AsType[*exec.Error](err)
	tried, started := errors.AsType[*fs.PathError](err)
	switch {
	case looked && errors.Is(err, exec.ErrNotFound) && !lies(sought.Name), looked && errors.Is(err, fs.ErrNotExist):
		return &failure{exitNotFound, place, err}
	case looked && errors.Is(err, exec.ErrNotFound):
		return &failure{exitNotExecutable, place, fmt.Errorf("%q: %w", sought.Name, fs.ErrPermission)}
	case looked:
		return &failure{exitNotExecutable, place, err}
	case started && tried.Op == forkExec && errors.Is(err, fs.ErrNotExist): // a script's interpreter is missing, or it has just gone
		return &failure{exitNotFound, place, err}
	case started && tried.Op == forkExec:
		return &failure{exitNotExecutable, place, err}
	}
	return unable(place, err)
}

// forkExec is what package os calls the start of a program, in distinction from what comes before, like changing the directory.
const forkExec = "fork/exec"

// lies reports whether a directory of PATH has a file of that name. LookPath passes those over that cannot be executed, and so does execvp(3),
// which yet says what it found.
func lies(name string) bool {
	return slices.ContainsFunc(filepath.SplitList(os.Getenv("PATH")), func(dir string) bool {
		info, err := os.Stat(filepath.Join(dir, name))
		return err == nil && !info.IsDir()
	})
}

// runWithStreams has the lab run a program with this process's streams, or with a terminal of its own between.
func (p *program) runWithStreams(ctx context.Context, lab string, o execOrder) (int, error) {
	const verb = "sim exec"
	std, err := openStreams(p.std)
	if err != nil {
		return 0, unable(verb, err)
	}
	if !o.Terminal {
		status, err := runThere(ctx, lab, order{Exec: &o}, std.in, std.out, std.err)
		return status, errors.Join(err, std.close())
	}
	term, err := openTerminal(std.in, std.out)
	if err != nil {
		return 0, errors.Join(unable(verb, err), std.close())
	}
	status, err := runThere(ctx, lab, order{Exec: &o}, term.slave, term.slave, term.slave)
	return status, errors.Join(err, term.close(), std.close())
}

// runThere has the lab run a program, hands signals on, and returns its exit status.
func runThere(ctx context.Context, lab string, o order, streams ...*os.File) (int, error) {
	const verb = "sim exec"
	c, err := reach(ctx, verb, lab)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { _ = c.Close() })()
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGWINCH, unix.SIGUSR1, unix.SIGUSR2)
	defer close(signals)
	defer signal.Stop(signals)
	if err := c.Send(o, streams...); err != nil {
		return 0, unable(verb, err)
	}
	go func() {
		for s := range signals {
			_ = c.Send(order{Signal: int(s.(syscall.Signal))}) // the program may have ended
		}
	}()
	a, err := receive(verb, c)
	if err == nil && a.Running { // it takes its time, and needs nobody for that
		a, err = receiveUnwatched(verb, c)
	}
	if err != nil {
		return 0, err
	}
	if a.Exit == nil {
		return 0, unable(verb, control.ErrMessage)
	}
	return a.Exit.Status, nil
}

// passed are the files that came with an order.
type passed []*os.File

// exec runs a program with the files as its streams, until it ends, the client goes away, or ctx ends.
func (h *holder) exec(ctx context.Context, c *control.Conn, o execOrder, files passed) (answer, error) {
	if len(files) != 3 {
		return answer{}, control.ErrMessage
	}
	node, ok := h.lab.Node(o.Node)
	if !ok {
		return answer{}, misuse("", unknownNode(o.Node))
	}
	if _, err := os.Stat(o.Dir); err != nil { // execve(2) would blame the program
		return answer{}, unable("", fmt.Errorf("working directory: %w in the lab, which has the machine's files as they were mounted when it came up; change to another one", err))
	}
	cmd := &exec.Cmd{
		Path: o.Path, Args: o.Args, Env: o.Env, Dir: o.Dir, Stdin: files[0], Stdout: files[1], Stderr: files[2],
		// A session of its own: in the holder's it would be a background job of the holder's terminal, and be stopped when it
		// reads from it.
		SysProcAttr: &syscall.SysProcAttr{Setsid: true, Setctty: o.Terminal},
	}
	start := node.Start
	if o.Names {
		cmd.Env = h.names.environment(cmd.Env)
		start = func(cmd *exec.Cmd) error { return node.StartViewing(cmd, h.names.view(o.Node)) }
	}
	if err := start(cmd); err != nil {
		return answer{}, notRun("", err)
	}
	// The program's last streams must be its own, for whoever waits for their end.
	for _, f := range files {
		_ = f.Close() // closing again later is no harm
	}
	_ = c.Send(answer{Running: true}) // a client that is gone is noticed below
	g := &processGroup{pid: cmd.Process.Pid}
	defer context.AfterFunc(ctx, func() { g.signal(unix.SIGKILL) })()
	go func() {
		for {
			var o order
			if _, err := c.Receive(&o); err != nil {
				g.signal(unix.SIGKILL)
				return
			}
			if o.Signal > 0 {
				g.signal(syscall.Signal(o.Signal))
			}
		}
	}()
	err := cmd.Wait()
	g.ended()
	return ended(cmd, err)
}

// processGroup is that of a program, for as long as the program runs. What it leaves behind when it ends, a daemon for
// instance, is left alone, until the lab ends.
type processGroup struct {
	mu  sync.Mutex
	pid int // 0 once the program has ended: the number may come to mean another
}

func (g *processGroup) signal(s syscall.Signal) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.pid > 0 {
		_ = unix.Kill(-g.pid, s) // it may be ending
	}
}

func (g *processGroup) ended() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.pid = 0
}

func ended(cmd *exec.Cmd, err error) (answer, error) {
	if cmd.ProcessState == nil {
		return answer{}, unable("", err)
	}
	return answer{Exit: &exit{statusOf(cmd.ProcessState)}}, nil
}

// statusOf is how a program ended, as a shell would say it.
func statusOf(s *os.ProcessState) int {
	if w := s.Sys().(syscall.WaitStatus); w.Signaled() { // what it is on every Unix
		return signalled + int(w.Signal())
	}
	return s.ExitCode()
}
