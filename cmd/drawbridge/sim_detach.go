//go:build !operator

package main

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// backgroundFlag tells the process that keeps a detached lab up what it is.
const backgroundFlag = "background"

// readyDescriptor is the writing end of a pipe in the background process, behind the standard streams: a byte comes out when the lab is
// ready, the end of the file when it never will be.
const readyDescriptor = 3

func readyFile() *os.File {
	unix.CloseOnExec(readyDescriptor)
	return os.NewFile(readyDescriptor, "ready")
}

// tellReady says that the lab is up to whoever waits for it; f is nil if nobody does.
func tellReady(f *os.File) {
	if f != nil {
		_, _ = f.Write([]byte{1}) // who does not wait any more does not need to know
		_ = f.Close()
	}
}

// detach starts this command line again in a session of its own, waits until the lab is ready, and passes on what was said until
// then. The process writes into memory: a terminal or a pipe would hold up whoever waits for its end.
func (p *program) detach(ctx context.Context) error {
	const verb = "sim up --detach"
	ready, tell, err := os.Pipe()
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
	n, err := ready.Read(make([]byte, 1))
	said := errors.Join(spill(p.std.out, out), spill(p.std.err, complaints))
	if n == 1 && said == nil {
		return cmd.Process.Release()
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
	return &quiet{max(cmd.ProcessState.ExitCode(), exitNotConformant)}
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
