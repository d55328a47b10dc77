package cell

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// Options say how a cell is started. The zero value re-executes this process as it is.
type Options struct {
	// Args replace os.Args[1:], unless nil.
	Args []string
	// Env replaces os.Environ(), unless nil.
	Env []string
	// Stdin, Stdout and Stderr replace this process's own, unless nil.
	Stdin, Stdout, Stderr *os.File
	// ExtraFiles are passed inside, where ExtraFile finds them: for instance a listener's file, whose connections then
	// come from the network outside. They stay open in this process.
	ExtraFiles []*os.File
	// UserNamespace asks for a user namespace even if this process could do without.
	UserNamespace bool
}

// killed is the status of a process that a signal ended, as shells count it: 128 and the signal's number.
const killed = 128

// stopSignals are handed inside. What the outer process ignores (nohup(1)) is ignored inside as well.
var stopSignals = []os.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM}

// Run executes the current program again, inside a new cell, and waits for it. It returns the worker's exit status, 128+n
// if signal n ended it. Once Run has returned nothing that was started inside runs any more.
//
// While it waits, SIGHUP, SIGINT, SIGQUIT and SIGTERM are handed to the worker (see Context), which may take its time to
// clean up: a second SIGINT ends the cell at once, and so does the end of ctx, whose cause is then returned along with
// the status.
//
// If this machine does not allow cells the error is a *ForbiddenError, and errors.Is(err, ErrForbidden).
func Run(ctx context.Context, opts Options) (code int, err error) {
	// The parent-death signal follows the thread that starts the child: keep the thread until the child has ended.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	signals := make(chan os.Signal, len(stopSignals))
	Notify(signals, stopSignals...)
	defer signal.Stop(signals)
	o, err := start(opts)
	if err != nil {
		return 0, err
	}
	defer o.lifeline.Close()
	defer context.AfterFunc(ctx, o.kill)()
	done := make(chan struct{})
	defer close(done)
	go o.forward(signals, done)
	failure := o.setup()
	if err := o.cmd.Wait(); o.cmd.ProcessState == nil {
		return 0, fmt.Errorf("cell: wait for its init: %w", err)
	}
	if ctx.Err() != nil {
		return o.code(), context.Cause(ctx)
	}
	return o.code(), failure
}

// Notify is signal.Notify, but leaves ignored what the process was started to ignore.
func Notify(signals chan<- os.Signal, which ...os.Signal) {
	for _, s := range which {
		if !signal.Ignored(s) {
			signal.Notify(signals, s)
		}
	}
}

// outer is the cell as the process that started it sees it.
type outer struct {
	cmd *exec.Cmd
	// lifeline is the writing end of a pipe to the cell's init: signal numbers go down it, and its end means the end.
	lifeline *os.File
	// status brings what went wrong with the cell's setup; its end without a word means that the worker runs.
	status *os.File
	opts   Options
}

// Descriptors of the init, behind the standard ones; Options.ExtraFiles follow.
const (
	lifelineFile = standardFiles + iota
	statusFile
	firstExtraFile
)

func start(opts Options) (*outer, error) {
	outside, err := networkNamespace()
	if err != nil {
		return nil, fmt.Errorf("cell: %w", err)
	}
	orders, lifeline, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("cell: %w", err)
	}
	defer orders.Close()
	status, report, err := os.Pipe()
	if err != nil {
		lifeline.Close()
		return nil, fmt.Errorf("cell: %w", err)
	}
	defer report.Close()
	opts.UserNamespace = opts.UserNamespace || !privileged()
	o := &outer{cmd: command(opts), lifeline: lifeline, status: status, opts: opts}
	o.cmd.Env = append(o.cmd.Env, fmt.Sprintf("%s=%s", roleVariable, role{roleInit, outside, len(opts.ExtraFiles)}))
	o.cmd.ExtraFiles = append([]*os.File{orders, report}, opts.ExtraFiles...)
	if err := o.cmd.Start(); err != nil {
		lifeline.Close()
		status.Close()
		return nil, explain("create its namespaces", err, opts.UserNamespace)
	}
	return o, nil
}

// command is the cell's init. The namespaces are made by clone(2), so that no thread of this process ever leaves its own.
func command(opts Options) *exec.Cmd {
	args := opts.Args
	if args == nil {
		args = os.Args[1:]
	}
	// The magic link still leads to the program when its file was replaced or, as under go run, is about to go.
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = opts.Env
	if cmd.Env == nil {
		cmd.Env = os.Environ()
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = either(opts.Stdin, os.Stdin), either(opts.Stdout, os.Stdout), either(opts.Stderr, os.Stderr)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS,
		Pdeathsig:  unix.SIGKILL,
	}
	if opts.UserNamespace {
		// One identity is all that an ordinary user may map; setgroups(2) is denied along with it (user_namespaces(7)).
		cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	return cmd
}

func either(given, own *os.File) *os.File {
	if given != nil {
		return given
	}
	return own
}

// privileged reports whether the process can make and use namespaces without a user namespace.
func privileged() bool {
	const needed = 1<<unix.CAP_SYS_ADMIN | 1<<unix.CAP_NET_ADMIN // both in the first of the two words
	var data [2]unix.CapUserData
	err := unix.Capget(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &data[0])
	return err == nil && os.Geteuid() == 0 && data[0].Effective&needed == needed
}

// kill ends the cell's init, and the kernel everything else in it (pid_namespaces(7)).
func (o *outer) kill() { _ = o.cmd.Process.Kill() } // it may have ended meanwhile

func (o *outer) forward(signals <-chan os.Signal, done <-chan struct{}) {
	interrupts := 0
	for {
		select {
		case <-done:
			return
		case s := <-signals:
			if s == unix.SIGINT {
				interrupts++
			}
			if interrupts > 1 {
				o.kill()
				return
			}
			_, _ = o.lifeline.Write([]byte{byte(s.(syscall.Signal))}) // it may have ended meanwhile
		}
	}
}

// setup waits until the worker runs, and returns why it does not.
func (o *outer) setup() error {
	defer o.status.Close()
	text, err := io.ReadAll(o.status)
	if err != nil {
		return fmt.Errorf("cell: read how its setup went: %w", err)
	}
	if len(text) == 0 {
		return nil
	}
	var f failure
	if err := json.Unmarshal(text, &f); err != nil {
		return fmt.Errorf("cell: read how its setup went: %w", err)
	}
	return explain(f.Op, f.Errno, o.opts.UserNamespace)
}

// failure is what the cell's init tells the outer process if it cannot start the worker.
type failure struct {
	Op    string
	Errno syscall.Errno
}

func failed(op string, err error) *failure {
	f := &failure{Op: op, Errno: unix.EIO}
	errors.As(err, &f.Errno)
	return f
}

func (o *outer) code() int { return exitCode(o.cmd.ProcessState.Sys().(syscall.WaitStatus)) }

func exitCode(st syscall.WaitStatus) int {
	if st.Signaled() {
		return killed + int(st.Signal())
	}
	return st.ExitStatus()
}
