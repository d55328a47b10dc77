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

// endGroup kills what is left of a process group whose leader has been waited for, and names it. The group's number
// cannot have been reused while a member lives, and with no member there is nothing to find.
func endGroup(pgid int) []string {
	if syscall.Kill(-pgid, 0) != nil {
		return nil
	}
	names := groupMembers(pgid)
	if err := killGroup(pgid); err != nil {
		names = append(names, err.Error())
	}
	return names
}

// groupMembers names the living processes of a group, as far as /proc shows them.
func groupMembers(pgid int) []string {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil
	}
	var names []string
	for _, path := range stats {
		data, err := os.ReadFile(path)
		if err != nil {
			continue // it ended meanwhile
		}
		if name, group, ok := parseStat(string(data)); ok && group == pgid {
			names = append(names, fmt.Sprintf("%s (%s)", name, filepath.Base(filepath.Dir(path))))
		}
	}
	return names
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
