package cell

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// runInit is the life of the cell's PID 1: prepare, start the worker, reap, hand signals on, and end when the worker or
// the outer process does. Its result is its exit status.
func runInit(r role) int {
	// A terminal signals every process of the group. Those signals are for the worker; what is meant for it reaches it
	// from the outer process. They must not be ignored instead: the worker would inherit that.
	Notify(make(chan os.Signal), stopSignals...)
	own := inherit(lifelineFile, firstExtraFile-lifelineFile)
	lifeline, status := own[0], own[1]
	worker, f := begin(r)
	if f != nil {
		_ = json.NewEncoder(status).Encode(f) // the outer process may have gone: nobody is left to tell
		return exitBroken
	}
	status.Close()
	ended := make(chan int, 2)
	go func() { ended <- listen(lifeline, worker) }()
	go func() { ended <- reap(worker) }()
	return <-ended
}

// begin prepares the cell, starts the worker and returns its PID.
func begin(r role) (int, *failure) {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return 0, failed("cut its mounts off", err)
	}
	// The old one shows the processes outside, and by their numbers.
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return 0, failed("mount /proc", err)
	}
	files := []uintptr{0, 1, 2}
	for fd := range r.extra {
		unix.CloseOnExec(firstExtraFile + fd)
		files = append(files, uintptr(firstExtraFile+fd))
	}
	own, path := roleVariable+"=", "PATH="
	env := slices.DeleteFunc(os.Environ(), func(s string) bool { return strings.HasPrefix(s, own) || strings.HasPrefix(s, path) })
	r.part = roleWorker
	env = append(env, own+r.String(), path+Path(os.Getenv("PATH")))
	pid, err := syscall.ForkExec("/proc/self/exe", os.Args, &syscall.ProcAttr{Env: env, Files: files})
	if err != nil {
		return 0, failed("start its worker", err)
	}
	return pid, nil
}

// listen hands the outer process's signals to the worker, until the outer process is gone.
func listen(lifeline *os.File, worker int) int {
	for in := bufio.NewReader(lifeline); ; {
		b, err := in.ReadByte()
		if err != nil {
			return killed + int(unix.SIGKILL)
		}
		_ = unix.Kill(worker, syscall.Signal(b)) // it may have ended meanwhile
	}
}

// reap waits for every child, the worker and whatever was orphaned inside, until the worker has ended.
func reap(worker int) int {
	for {
		var st syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &st, 0, nil)
		switch {
		case err == syscall.EINTR:
		case err != nil:
			fmt.Fprintln(os.Stderr, "cell: wait for its worker:", err)
			return exitBroken
		case pid == worker:
			return exitCode(st)
		}
	}
}
