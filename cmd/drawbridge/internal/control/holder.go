package control

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Holder is the process that keeps a lab up.
type Holder struct {
	// PID is its number, for people: once it has ended, another process may have it.
	PID int
	fd  int
}

// Holder returns a handle to the process that keeps the lab up, seen from the end of Dial. Dial has made sure that it is the lab's
// owner's or root's. If the process has ended, the error is ErrGone.
func (c *Conn) Holder() (*Holder, error) {
	owner, err := peer(c.unix)
	if err != nil {
		return nil, err
	}
	fd, err := unix.PidfdOpen(int(owner.Pid), 0)
	if errors.Is(err, unix.ESRCH) {
		return nil, ErrGone
	}
	if err != nil {
		return nil, fmt.Errorf("the lab's process %d: %w", owner.Pid, err)
	}
	return &Holder{PID: int(owner.Pid), fd: fd}, nil
}

// Close releases the handle.
func (h *Holder) Close() error { return unix.Close(h.fd) }

// Wait waits until the process has ended, or for the limit, and reports whether it has.
func (h *Holder) Wait(limit time.Duration) (ended bool, err error) {
	for until := time.Now().Add(limit); ; {
		left := max(time.Until(until), 0)
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(h.fd), Events: unix.POLLIN}}, int(left.Milliseconds()))
		if !errors.Is(err, unix.EINTR) {
			return n > 0, err
		}
	}
}

// Kill ends the process, and with it the lab; one that was stopped (SIGSTOP), too. One that has ended is no error.
func (h *Holder) Kill() error {
	if err := unix.PidfdSendSignal(h.fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill the lab's process %d: %w", h.PID, err)
	}
	return nil
}

// Stopped reports whether the process was stopped by a signal (proc_pid_stat(5)), and would go on with SIGCONT.
func (h *Holder) Stopped() bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", h.PID))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(text[max(0, strings.LastIndexByte(string(text), ')')):]), " ") // the name may hold anything
	return strings.HasPrefix(rest, "T") || strings.HasPrefix(rest, "t")
}
