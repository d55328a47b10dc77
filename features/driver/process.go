package driver

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// capture keeps the first outputLimit bytes written to it and counts the rest. The zero value is ready.
type capture struct {
	mu   sync.Mutex
	head []byte
	lost int
}

// Write never fails: a program must not die of its own talkativeness.
func (c *capture) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := min(len(p), outputLimit-len(c.head))
	c.head = append(c.head, p[:n]...)
	c.lost += len(p) - n
	return len(p), nil
}

func (c *capture) kept() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]byte(nil), c.head...)
}

func (c *capture) text() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lost == 0 {
		return string(c.head)
	}
	return fmt.Sprintf("%s\n(%d bytes more were thrown away)", c.head, c.lost)
}

// killGroup kills a process group. A group that is gone already is no error.
func killGroup(pgid int) error {
	if err := syscall.Kill(-pgid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("kill process group %d: %w", pgid, err)
	}
	return nil
}

// endGroup waits a moment for what is left of a process group whose leader has been waited for, kills the rest, and names it. The
// group's number cannot have been reused while a member lives, and with no member there is nothing to find.
func endGroup(pgid int) []string {
	if syscall.Kill(-pgid, 0) != nil {
		return nil
	}
	deadline := time.Now().Add(leaveLimit)
	for _, m := range groupMembers(pgid) {
		m.awaitEnd(deadline)
	}
	var names []string
	for _, m := range groupMembers(pgid) {
		names = append(names, fmt.Sprintf("%s (%d)", m.name, m.pid))
	}
	if err := killGroup(pgid); err != nil {
		names = append(names, err.Error())
	}
	return names
}

// member is a living process of a group.
type member struct {
	name string
	pid  int
}

// awaitEnd waits until the process has ended or the deadline has passed (pidfd_open(2): the descriptor is readable from then on).
func (m member) awaitEnd(deadline time.Time) {
	fd, err := unix.PidfdOpen(m.pid, 0)
	if err != nil {
		return // it has ended
	}
	defer unix.Close(fd)
	for {
		left := time.Until(deadline).Milliseconds()
		if left <= 0 {
			return
		}
		if _, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(left)); !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

// groupMembers finds the living processes of a group, as far as /proc shows them.
func groupMembers(pgid int) []member {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil
	}
	var all []member
	for _, path := range stats {
		data, err := os.ReadFile(path)
		if err != nil {
			continue // it ended meanwhile
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if name, group, ok := parseStat(string(data)); ok && err == nil && group == pgid {
			all = append(all, member{name, pid})
		}
	}
	return all
}

// parseStat reads a process's name and process group from /proc/PID/stat (proc_pid_stat(5)). It reports false for a zombie.
func parseStat(stat string) (name string, pgrp int, ok bool) {
	from, to := strings.IndexByte(stat, '('), strings.LastIndexByte(stat, ')')
	if from < 0 || to < from {
		return "", 0, false
	}
	rest := strings.Fields(stat[to+1:]) // state ppid pgrp ...
	if len(rest) < 3 || rest[0] == "Z" {
		return "", 0, false
	}
	pgrp, err := strconv.Atoi(rest[2])
	return stat[from+1 : to], pgrp, err == nil
}
