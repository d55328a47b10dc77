//go:build !operator

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// backgroundFlag tells the process that keeps a detached lab up what it is.
const backgroundFlag = "background"

// readyDescriptor is one end of a pair of sockets in the background process, behind the standard streams: a byte comes out at the other end
// when the lab is ready, the end of the file when it never will be. A byte comes back when that was passed on; the end of the file
// says that whoever waited is gone, and that nobody knows of this lab.
const readyDescriptor = 3

func readyFile() *os.File {
	unix.CloseOnExec(readyDescriptor)
	return os.NewFile(readyDescriptor, "ready")
}

// whileAwaited calls abandoned once whoever waits for a lab is gone and has not passed on that it is ready.
func whileAwaited(waiter *os.File, abandoned func()) {
	go func() {
		if n, _ := waiter.Read(make([]byte, 1)); n == 0 {
			abandoned()
		}
	}()
}

// tellReady says that the lab is up to whoever waits for it; f is nil if nobody does.
func tellReady(f *os.File) {
	if f != nil {
		_, _ = f.Write([]byte{1}) // whileAwaited knows of one who is gone
		_ = f.Close()
	}
}

// waitingPair is what the end for whoever waits and the background process's end are of.
func waitingPair() (waiter, background *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	return os.NewFile(uintptr(fds[0]), "ready"), os.NewFile(uintptr(fds[1]), "ready"), nil
}

// detach starts this command line again in a session of its own, waits until the lab is ready, which is what people wait for, and passes
// on what was said until then. The process writes into memory: a terminal or a pipe would hold up whoever waits for its end.
func (p *program) detach(ctx context.Context, what string) error {
	const verb = "sim up --detach"
	ready, tell, err := waitingPair()
	if err != nil {
		return unable(verb, err)
	}
	defer ready.Close()
	defer tell.Close()
	out, outErr := memoryFile("output")
	complaints, complaintsErr := memoryFile("complaints")
	if err := errors.Join(outErr, complaintsErr); err != nil {
		return unable(verb, err)
	}
	defer out.Close()
	defer complaints.Close()
	cmd := exec.Command("/proc/self/exe", append(slices.DeleteFunc(slices.Clone(p.args), isDetach), "--"+backgroundFlag)...)
	cmd.Args[0] = os.Args[0]
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = out, complaints, []*os.File{tell}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return unable(verb, err)
	}
	_ = tell.Close() // so that the end of the process is the end of the file
	defer context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })()
	wanted, stop := untilSignal(ctx) // the process in the background is in a session of its own, and hears of none by itself
	defer stop()
	defer context.AfterFunc(wanted, func() { _ = cmd.Process.Signal(unix.SIGTERM) })()
	line := p.waiting(what)
	n, err := ready.Read(make([]byte, 1))
	line.close()
	if wanted.Err() != nil {
		_ = cmd.Wait() // the cell has ended with it, and how is of no interest
		return unable(verb, errInterrupted)
	}
	said := errors.Join(spill(p.std.out, out), spill(p.std.err, complaints))
	if n == 1 && said == nil {
		if _, said = ready.Write([]byte{1}); said == nil {
			return cmd.Process.Release()
		}
	}
	if n == 1 {
		return unable(verb, said)
	}
	if failed := cmd.Wait(); failed == nil { // it was ended before it was ready
		return unable(verb, errors.New("ended before the lab was ready"))
	}
	if !errors.Is(err, io.EOF) {
		return unable(verb, err)
	}
	if silent(complaints) { // what may be written to a file is limited, for instance (ulimit -f)
		return unable(verb, fmt.Errorf("could not say why it failed: %s", cmd.ProcessState))
	}
	return &quiet{max(cmd.ProcessState.ExitCode(), exitNotConformant)}
}

// silent reports whether nothing was written to a file.
func silent(f *os.File) bool {
	info, err := f.Stat()
	return err != nil || info.Size() == 0
}

// isDetach finds the flag among arguments that were parsed before.
func isDetach(arg string) bool {
	return slices.Contains([]string{"-d", "--detach", "--detach=true", "-d=true"}, arg)
}

// memoryFile is a file that is nowhere but in memory.
func memoryFile(name string) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// spill copies what was written to a file so far, without moving the writer's place in it.
func spill(to io.Writer, f *os.File) error {
	_, err := io.Copy(to, io.NewSectionReader(f, 0, 1<<20))
	return err
}
