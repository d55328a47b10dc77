// Package cell runs the program again in a cell: a child with PID, mount, network, IPC and UTS namespaces of its own,
// and without privileges a user namespace too, in which it is root. What happens inside cannot reach the machine's
// network, and ends with the program that started it, SIGKILL included.
//
//	func main() {
//		cell.Init()
//		if !cell.Inside() {
//			code, err := cell.Run(ctx, cell.Options{})
//			...
//		}
//		work(cell.Context()) // inside; the context ends with Ctrl-C
//	}
//
// There are three processes of the same program. The *outer* one, started by the user, calls Run and waits. Its child
// is the cell's *init*, PID 1 of the PID namespace: it prepares the mounts, starts the worker and reaps orphans; when it
// ends the kernel kills everything else in the cell. The *worker* is the process whose Init returns, with Inside true.
// Init and worker are two processes because PID 1 must wait for children it knows nothing about, and that would steal
// the exit status of children started by os/exec.
//
// All three stay in the process group that the user's terminal knows, so that Ctrl-C, Ctrl-Z and reading from the
// terminal work as for any program.
package cell

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// roleVariable tells a child process which part it plays. The worker removes it before anything else runs.
const roleVariable = "DRAWBRIDGE_CELL"

// The parts.
const (
	roleInit   = "init"
	roleWorker = "worker"
)

// exitBroken is the exit status of an init or worker that refuses to run; the number that env(1) and container runtimes use
// for a failure of their own.
const exitBroken = 125

// standardFiles are stdin, stdout and stderr; passed files come behind them.
const standardFiles = 3

// membership is what the worker knows of its cell. Written once, by Init.
var membership = struct {
	inside bool
	extra  []*os.File
	ctx    context.Context
}{ctx: context.Background()}

// Init must be the first call in main, and in TestMain: in a process that Run started it takes the part that Run gave
// it. In the worker and in any other process it returns; in the cell's init it does not. A process that is told to play a
// part but does not stand where that part is played ends with status 125: it must not mistake the machine for a cell.
func Init() {
	value, ok := os.LookupEnv(roleVariable)
	if !ok {
		return
	}
	r, err := parseRole(value)
	if err == nil {
		err = r.verify()
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "cell: %s=%q: %v\n", roleVariable, value, err)
		os.Exit(exitBroken)
	}
	if r.part == roleInit {
		os.Exit(runInit(r))
	}
	// Children of the worker may be the same program, and are not cells.
	_ = os.Unsetenv(roleVariable) // fails only for names that are not valid
	membership.inside = true
	membership.extra = inherit(standardFiles, r.extra)
	membership.ctx = untilSignal()
}

// Inside reports whether this process is the worker of a cell. Its children are not.
func Inside() bool { return membership.inside }

// ExtraFile returns the i-th of Options.ExtraFiles inside the cell, nil if there is none.
func ExtraFile(i int) *os.File {
	if i < 0 || i >= len(membership.extra) {
		return nil
	}
	return membership.extra[i]
}

// Context returns the context that the worker's work has to obey: it ends with the first SIGHUP, SIGINT or SIGTERM, and
// context.Cause then is a *StopError. Those signals do nothing else in a worker, whether or not it listens to them too, and
// however often they come: one sent to the whole process group, such as a terminal's Ctrl-C, reaches the worker by itself and once
// more through the outer process, which cannot tell how it was sent. SIGQUIT is left to the Go runtime, which prints every
// goroutine. In any other process it is context.Background().
func Context() context.Context { return membership.ctx }

// StopError is why a worker's context ended.
type StopError struct{ Signal syscall.Signal }

// Error names the signal.
func (e *StopError) Error() string { return "stopped: " + e.Signal.String() }

// ExitCode is the status by which a program says that the signal ended it, as shells count it.
func (e *StopError) ExitCode() int { return killed + int(e.Signal) }

func untilSignal() context.Context {
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 1)
	Notify(signals, unix.SIGHUP, unix.SIGINT, unix.SIGTERM)
	go func() { cancel(&StopError{(<-signals).(syscall.Signal)}) }()
	return ctx
}

// inherit wraps n descriptors that this process was started with, and keeps its own children from getting them.
func inherit(first, n int) []*os.File {
	var files []*os.File
	for fd := first; fd < first+n; fd++ {
		unix.CloseOnExec(fd)
		files = append(files, os.NewFile(uintptr(fd), fmt.Sprintf("cell-%d", fd-first)))
	}
	return files
}

// role is a part and what the process needs to know to play it.
type role struct {
	part string
	// outside is the inode of the network namespace that the cell was started from (nsfs, namespaces(7)).
	outside uint64
	extra   int // number of passed files
}

func (r role) String() string { return fmt.Sprintf("%s/%d/%d", r.part, r.outside, r.extra) }

func parseRole(s string) (role, error) {
	parts := strings.Split(s, "/")
	if len(parts) != 3 || parts[0] != roleInit && parts[0] != roleWorker {
		return role{}, errors.New("not a role; unset the variable")
	}
	outside, err := strconv.ParseUint(parts[1], 10, 64)
	if err != nil {
		return role{}, err
	}
	extra, err := strconv.ParseUint(parts[2], 10, 16)
	return role{parts[0], outside, int(extra)}, err
}

var errNotACell = errors.New("this process is not in a cell, refusing to act as if it were; unset the variable")

// verify proves that the process stands where its part is played.
func (r role) verify() error {
	if r.part == roleInit && os.Getpid() != 1 || r.part == roleWorker && os.Getppid() != 1 {
		return errNotACell
	}
	here, err := networkNamespace()
	if err != nil {
		return err
	}
	if here == r.outside {
		return errNotACell
	}
	return nil
}

// networkNamespace returns the inode that identifies the process's network namespace.
func networkNamespace() (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat("/proc/self/ns/net", &st); err != nil {
		return 0, fmt.Errorf("identify the network namespace: %w", err)
	}
	return st.Ino, nil
}
