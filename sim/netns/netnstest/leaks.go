package netnstest

import (
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// settleLimit is how long what ends in the background may take: goroutines end a moment after Close, threads a moment after these, and
// the kernel takes namespaces apart when it has time.
const settleLimit = 10 * time.Second

// lookAgain is how long to wait before the next look: nothing tells when a thread or a goroutine has ended.
const lookAgain = 2 * time.Millisecond

// NoLeaks fails the test, with what it is, if something is there after the test, and after the cleanups that were registered since,
// that was not there before: an open file, a thread in another namespace, a mount, a child process, a goroutine. It is for tests that
// build labs, and are not run beside others in one process.
func NoLeaks(t testing.TB) {
	t.Helper()
	Require(t)
	noLeaks(t, settleLimit)
}

func noLeaks(t testing.TB, limit time.Duration) {
	t.Helper()
	startRuntime()
	before := takeInventory()
	t.Cleanup(func() {
		if t.Failed() {
			return // what went wrong may well have left something, and is what to look at
		}
		if left := before.leaks(limit); len(left) > 0 {
			t.Errorf("left behind:\n  %s", strings.Join(left, "\n  "))
		}
	})
}

// leaks names what there is more of than before, and goes on to be for so long.
func (i inventory) leaks(limit time.Duration) (left []string) {
	tick, timeout := time.NewTicker(lookAgain), time.After(limit)
	defer tick.Stop()
	for {
		runtime.GC() // finalizers close what nobody holds any more
		if left = takeInventory().beyond(i); len(left) == 0 {
			return nil
		}
		select {
		case <-tick.C:
		case <-timeout:
			return left
		}
	}
}

// startRuntime has the Go runtime start what it keeps, and would otherwise start with a test's first socket or signal: its poller, and
// the goroutine that hands signals on.
func startRuntime() {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR1)
	signal.Stop(signals)
	if r, w, err := os.Pipe(); err == nil { // if not, the test will say so
		_, _ = r.Close(), w.Close()
	}
}

// inventory counts what a process has, by what it is.
type inventory struct {
	things     map[string]int
	goroutines int
}

func takeInventory() inventory {
	i := inventory{things: map[string]int{}, goroutines: runtime.NumGoroutine()}
	i.files()
	i.threads()
	i.lines("/proc/self/mountinfo", "mount")
	i.children()
	return i
}

// files are named by kind, without the numbers that differ each time: "socket", "net namespace", a path.
func (i inventory) files() {
	entries, _ := filepath.Glob("/proc/self/fd/*") // the pattern is well-formed
	for _, entry := range entries {
		target, err := os.Readlink(entry)
		if err != nil {
			continue // that of the listing itself
		}
		kind, number, ok := strings.Cut(target, ":")
		if ok && strings.Trim(number, "[]0123456789") == "" {
			target = kind
		}
		i.things["open file: "+target]++
	}
}

// mostListings bounds how often the threads are listed because some ended meanwhile.
const mostListings = 16

// tasks are the directories of the process's threads. Where one ends while the kernel lists them, those behind it are left out
// (fs/proc/base.c: next_tid), so the list is compared with their number.
func tasks() (list []string) {
	for range mostListings {
		list, _ = filepath.Glob("/proc/self/task/*") // the pattern is well-formed
		status, _ := os.ReadFile("/proc/self/status")
		_, rest, _ := strings.Cut(string(status), "\nThreads:")
		number, _, _ := strings.Cut(rest, "\n")
		if n, err := strconv.Atoi(strings.TrimSpace(number)); err == nil && len(list) >= n {
			return list
		}
	}
	return list
}

// threads counts those that are in another network or mount namespace than the process. How many there are is the runtime's affair.
func (i inventory) threads() {
	all := tasks()
	for _, kind := range []string{"net", "mnt"} {
		own, err := os.Readlink("/proc/self/ns/" + kind)
		if err != nil {
			continue
		}
		for _, task := range all {
			if name, err := os.Readlink(filepath.Join(task, "ns", kind)); err == nil && name != own {
				i.things["thread in another namespace: "+kind]++
			}
		}
	}
}

func (i inventory) lines(path, what string) {
	text, _ := os.ReadFile(path) // it is there on every Linux
	for line := range strings.Lines(string(text)) {
		i.things[what+": "+strings.TrimSpace(line)]++
	}
}

// children are processes whose parent is this one, those included that have ended and were not waited for.
func (i inventory) children() {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		head, tail, ok := strings.Cut(string(text), ") ") // proc_pid_stat(5): state and parent follow the name
		fields := strings.Fields(tail)
		if ok && len(fields) > 1 && fields[1] == strconv.Itoa(os.Getpid()) {
			i.things["child process: "+head+")"]++
		}
	}
}

// beyond names what there is more of than there was.
func (i inventory) beyond(before inventory) []string {
	var left []string
	for name, n := range i.things {
		if more := n - before.things[name]; more > 0 {
			left = append(left, fmt.Sprintf("%d more: %s", more, name))
		}
	}
	if more := i.goroutines - before.goroutines; more > 0 {
		stacks := make([]byte, 1<<20)
		left = append(left, fmt.Sprintf("%d more: goroutine\n%s", more, stacks[:runtime.Stack(stacks, true)]))
	}
	slices.Sort(left)
	return left
}
