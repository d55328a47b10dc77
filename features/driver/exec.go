package driver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	// CallLimit is the time a driver has for one call (docs/DRIVERS.md, section 2).
	CallLimit = 30 * time.Second
	// PerDatabase is what it has for each database besides, in a world of thousands.
	PerDatabase = 10 * time.Millisecond
	// outputLimit bounds what is kept of each of the driver's two outputs; more is counted and thrown away.
	outputLimit = 1 << 20
	// drainLimit is how long the outputs may stay open after the program has ended, before whoever holds them is broken.
	drainLimit = 2 * time.Second
	// leaveLimit is how long what is left of a call's process group may take to end by itself: the last of a pipeline may be a
	// moment behind the shell that started it.
	leaveLimit = 100 * time.Millisecond
	// refusedStatus is the exit status by which a driver refuses a policy.
	refusedStatus = 2
)

// Starter starts a process, for instance inside a network namespace (sim/netns.Handle).
type Starter interface{ Start(cmd *exec.Cmd) error }

// Exec calls one driver program. It is safe for concurrent use as long as calls for one point do not overlap.
type Exec struct {
	// Path and Args are the program and what precedes the verb. Path is absolute.
	Path string
	Args []string
	// Env replaces the caller's environment; nil: it is passed on.
	Env []string
	// Dir holds the private working directories of the points; it exists and belongs to the caller.
	Dir string
	// At returns where a point's calls run.
	At func(point string) (Starter, error)
	// Limit is the time for one call; 0: CallLimit.
	Limit time.Duration

	residents residents
}

// New returns an Exec for a program given as a path or as a name in PATH.
func New(program string, args []string, dir string, at func(point string) (Starter, error)) (*Exec, error) {
	found, err := exec.LookPath(program)
	if err != nil {
		return nil, fmt.Errorf("driver %s: %w; give the path of an executable file", program, err)
	}
	if found, err = filepath.Abs(found); err != nil {
		return nil, fmt.Errorf("driver %s: %w", program, err)
	}
	return &Exec{Path: found, Args: args, Dir: dir, At: at}, nil
}

// Describe asks the driver, at any point, what it is.
func (e *Exec) Describe(ctx context.Context, point string) (Description, error) {
	run, err := e.call(ctx, point, "describe", nil)
	if err != nil {
		return Description{}, err
	}
	if err := run.mustSucceed(); err != nil {
		return Description{}, err
	}
	d, err := parseDescription(run.stdout.kept())
	if err != nil {
		return Description{}, run.broken(NonsenseOutput, err.Error())
	}
	e.residents.declared.Store(d.Run)
	return d, nil
}

// Apply gives the driver a point's whole policy. The error is a *Refused if the policy is refused and what was in force
// still is, a *Broken if nothing can be concluded.
func (e *Exec) Apply(ctx context.Context, doc Document) (Receipt, error) {
	body, err := doc.Encode()
	if err != nil {
		return Receipt{}, err
	}
	return e.Submit(ctx, doc.Point.Name, body)
}

// Submit is Apply for a text that may be no policy at all (SPEC X-11).
func (e *Exec) Submit(ctx context.Context, point string, text []byte) (Receipt, error) {
	if err := e.resident(ctx, point); err != nil {
		return Receipt{}, err
	}
	run, err := e.call(ctx, point, "apply", text)
	if err != nil {
		return Receipt{}, err
	}
	if run.exited == refusedStatus && run.signal == 0 {
		return Receipt{}, &Refused{Point: run.point, Stderr: run.stderr.text(), Duration: run.duration}
	}
	if err := run.mustSucceed(); err != nil {
		return Receipt{}, err
	}
	r, err := parseReceipt(run.stdout.kept())
	if err != nil {
		return Receipt{}, run.broken(NonsenseOutput, err.Error())
	}
	r.Point, r.Duration, r.Warnings = run.point, run.duration, warnings(run.stderr.text())
	return r, nil
}

// errKilled ends a call that Interrupt kills.
var errKilled = errors.New("killed on purpose")

// Interrupt is Apply by a program that is killed, with everything that it started in its process group, after some time, unless it
// has ended before (SPEC X-07). If it was killed, nobody knows what is in force, and the error is nil.
func (e *Exec) Interrupt(ctx context.Context, doc Document, after time.Duration) (r Receipt, killed bool, err error) {
	limited, cancel := context.WithTimeoutCause(ctx, after, errKilled)
	defer cancel()
	r, err = e.Apply(limited, doc)
	if errors.Is(err, errKilled) {
		return Receipt{}, true, nil
	}
	return r, false, err
}

// Reset takes everything out of force at a point, and ends what runs there first.
func (e *Exec) Reset(ctx context.Context, point string) error {
	if err := e.dismiss(ctx, point, syscall.SIGTERM); err != nil {
		return err
	}
	run, err := e.call(ctx, point, "reset", nil)
	if err != nil {
		return err
	}
	return run.mustSucceed()
}

// call runs the driver once in a process group of its own, and leaves nothing of that group behind.
func (e *Exec) call(ctx context.Context, point, verb string, stdin []byte) (*run, error) {
	at, err := e.At(point)
	if err != nil {
		return nil, fmt.Errorf("point %s: %w", point, err)
	}
	dir, err := e.dir(point)
	if err != nil {
		return nil, err
	}
	limit := e.Limit
	if limit == 0 {
		limit = CallLimit
	}
	callCtx, cancel := context.WithTimeoutCause(ctx, limit, errHang)
	defer cancel()

	r := &run{point: point, verb: verb, limit: limit}
	cmd := exec.CommandContext(callCtx, e.Path, append(append([]string(nil), e.Args...), verb)...)
	cmd.Dir, cmd.Env = dir, e.Env
	cmd.Stdin = bytes.NewReader(stdin)
	cmd.Stdout, cmd.Stderr = &r.stdout, &r.stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return killGroup(cmd.Process.Pid) }
	cmd.WaitDelay = drainLimit

	began := time.Now()
	if err := at.Start(cmd); err != nil && ctx.Err() != nil { // it was to end before it could begin
		return nil, fmt.Errorf("driver %s at %s: %w", verb, point, context.Cause(ctx))
	} else if err != nil {
		return nil, r.broken(CannotStart, err.Error())
	}
	err = cmd.Wait()
	r.duration = time.Since(began)
	r.leftover = endGroup(cmd.Process.Pid)
	if cause := context.Cause(callCtx); errors.Is(cause, errHang) && errors.As(err, new(*exec.ExitError)) {
		return nil, r.broken(Hang, fmt.Sprintf("no answer within %s", limit))
	}
	if ctx.Err() != nil {
		return nil, fmt.Errorf("driver %s at %s: %w", verb, point, context.Cause(ctx))
	}
	if err := r.settle(cmd, err); err != nil {
		return r, err
	}
	if len(r.leftover) > 0 && r.answered() {
		return r, r.broken(LeftBehind, "it ended, but not everything that it had started; a daemon needs a session of its own")
	}
	return r, nil
}

// dir is the working directory of a point.
func (e *Exec) dir(point string) (string, error) {
	dir := filepath.Join(e.Dir, point)
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", fmt.Errorf("point %s: working directory: %w", point, err)
	}
	return dir, nil
}

// answered reports whether the call ended as the protocol has it. What else went wrong is told by other means.
func (r *run) answered() bool { return r.signal == 0 && (r.exited == 0 || r.exited == refusedStatus) }

// settle notes how the program ended. A program that ended by itself is no error, whatever its status.
func (r *run) settle(cmd *exec.Cmd, err error) error {
	var exit *exec.ExitError
	switch {
	case errors.Is(err, exec.ErrWaitDelay):
		return r.broken(Hang, "it ended, but something it started keeps its output open")
	case err != nil && !errors.As(err, &exit) && !errors.Is(err, syscall.EPIPE):
		return r.broken(CannotStart, err.Error())
	}
	status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if !ok {
		return r.broken(OtherStatus, "its exit status is unknown")
	}
	if status.Signaled() {
		r.signal = status.Signal()
	}
	r.exited = status.ExitStatus()
	return nil
}

// run is one finished call.
type run struct {
	point, verb    string
	limit          time.Duration
	duration       time.Duration
	exited         int
	signal         syscall.Signal
	stdout, stderr capture
	leftover       []string
}

func (r *run) mustSucceed() error {
	switch {
	case r.signal != 0:
		return r.broken(Signalled, "ended by signal: "+r.signal.String())
	case r.exited != 0:
		return r.broken(OtherStatus, fmt.Sprintf("exit status %d", r.exited))
	}
	return nil
}

func (r *run) broken(why Reason, detail string) error {
	return &Broken{Point: r.point, Call: r.verb, Reason: why, Detail: detail, Stderr: r.stderr.text(), Leftover: r.leftover}
}

// warnings returns the lines that begin with "warning: ", without those words.
func warnings(stderr string) []string {
	var out []string
	for line := range strings.Lines(stderr) {
		if w, ok := strings.CutPrefix(strings.TrimRight(line, "\r\n"), "warning: "); ok {
			out = append(out, w)
		}
	}
	return out
}
