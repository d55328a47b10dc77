package driver

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Times that a long-running enforcer has (docs/DRIVERS.md, section 2).
const (
	readyLimit   = 10 * time.Second
	leavingLimit = 5 * time.Second
)

// readyLine is what it prints once it can take policies.
const readyLine = "ready"

// residents are the programs that run at points, of an enforcer that has such. The zero value is ready.
type residents struct {
	declared atomic.Bool
	mu       sync.Mutex
	at       map[string]*resident
}

// resident is DRIVER run at one point.
type resident struct {
	point  string
	cmd    *exec.Cmd
	stderr capture
	ended  chan struct{} // closed once it has been waited for
}

func (r *residents) of(point string) *resident {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.at[point]
}

func (r *residents) set(point string, to *resident) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.at == nil {
		r.at = map[string]*resident{}
	}
	r.at[point] = to
}

func (r *resident) broken(why Reason, detail string) error {
	return &Broken{Point: r.point, Call: "run", Reason: why, Detail: detail, Stderr: r.stderr.text()}
}

// resident sees to it that the enforcer runs at a point, if it has such a program. One that ended by itself is broken.
func (e *Exec) resident(ctx context.Context, point string) error {
	if !e.residents.declared.Load() {
		return nil
	}
	if r := e.residents.of(point); r != nil {
		select {
		case <-r.ended:
			return r.broken(OtherStatus, "it ended by itself: "+r.cmd.ProcessState.String())
		default:
			return nil
		}
	}
	r, err := e.run(ctx, point)
	if err != nil {
		return err
	}
	e.residents.set(point, r)
	return nil
}

// run starts DRIVER run in a process group of its own and waits until it says that it is ready.
func (e *Exec) run(ctx context.Context, point string) (*resident, error) {
	at, err := e.At(point)
	if err != nil {
		return nil, fmt.Errorf("point %s: %w", point, err)
	}
	r := &resident{point: point, ended: make(chan struct{})}
	r.cmd = exec.Command(e.Path, append(append([]string(nil), e.Args...), "run")...)
	r.cmd.Env, r.cmd.Stderr = e.Env, &r.stderr
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if r.cmd.Dir, err = e.dir(point); err != nil {
		return nil, err
	}
	out, err := r.cmd.StdoutPipe()
	if err != nil {
		return nil, r.broken(CannotStart, err.Error())
	}
	if err := at.Start(r.cmd); err != nil {
		return nil, r.broken(CannotStart, err.Error())
	}
	said := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(out).ReadString('\n') // what it is, is looked at
		said <- line
		_, _ = io.Copy(io.Discard, out)
		_ = r.cmd.Wait() // its status is in ProcessState
		close(r.ended)
	}()
	limit := time.NewTimer(readyLimit)
	defer limit.Stop()
	select {
	case line := <-said:
		if line == readyLine+"\n" {
			return r, nil
		}
		err = r.broken(NonsenseOutput, fmt.Sprintf("it said %q, not %q", line, readyLine))
	case <-limit.C:
		err = r.broken(Hang, fmt.Sprintf("not ready within %s", readyLimit))
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	return nil, errors.Join(err, r.end(syscall.SIGKILL))
}

// end ends the program by a signal, and by force what then still lives.
func (r *resident) end(how syscall.Signal) error {
	if how == syscall.SIGKILL {
		_ = killGroup(r.cmd.Process.Pid) // it may have ended
	} else {
		_ = r.cmd.Process.Signal(how) // likewise
	}
	limit := time.NewTimer(leavingLimit)
	defer limit.Stop()
	select {
	case <-r.ended:
		left := endGroup(r.cmd.Process.Pid)
		if len(left) == 0 || how == syscall.SIGKILL { // which kills what is left, too
			return nil
		}
		return &Broken{
			Point: r.point, Call: "run", Reason: LeftBehind, Detail: "it ended, but not everything that it had started", Stderr: r.stderr.text(), Leftover: left,
		}
	case <-limit.C:
	}
	return errors.Join(r.broken(Hang, fmt.Sprintf("it did not end within %s of signal %s", leavingLimit, how)), killGroup(r.cmd.Process.Pid))
}

// dismiss ends what runs at a point, if anything does.
func (e *Exec) dismiss(_ context.Context, point string, how syscall.Signal) error {
	r := e.residents.of(point)
	if r == nil {
		return nil
	}
	e.residents.set(point, nil)
	return r.end(how)
}

// Crash kills what runs at a point by SIGKILL and starts it again (SPEC X-07). It returns false if the enforcer has no such program.
func (e *Exec) Crash(ctx context.Context, point string) (bool, error) {
	if !e.residents.declared.Load() {
		return false, nil
	}
	if err := e.dismiss(ctx, point, syscall.SIGKILL); err != nil {
		return true, err
	}
	return true, e.resident(ctx, point)
}
