//go:build !operator

package main

import (
	"bufio"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"drawbridge/sim/link"
	"drawbridge/sim/netns"
	"drawbridge/sim/netns/netnstest"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// patience bounds what would otherwise hang a failing test; nothing waits for it to pass.
const patience = 20 * time.Second

// running is the program in a process group of its own, as a shell starts it in the foreground.
type running struct {
	*exec.Cmd
	worker int
	// pidNamespace is the cell's.
	pidNamespace string
	complaints   *strings.Builder
}

// start runs the program until it prints a line that contains ready.
func start(t *testing.T, ready string, args ...string) *running {
	t.Helper()
	p := &running{Cmd: exec.Command("/proc/self/exe", args...), complaints: &strings.Builder{}}
	p.Env = append(os.Environ(), asProgram+"=1")
	p.Stderr = p.complaints
	p.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := p.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, p.Start())
	t.Cleanup(func() { _ = unix.Kill(p.Process.Pid, unix.SIGKILL) })
	lines := bufio.NewScanner(out)
	for lines.Scan() && !strings.Contains(lines.Text(), ready) {
	}
	require.Contains(t, lines.Text(), ready, p.complaints)
	go func() {
		for lines.Scan() { // a full pipe would hold the program up
		}
	}()
	p.worker = onlyChild(t, onlyChild(t, p.Process.Pid))
	p.pidNamespace = namespace(t, p.worker, "pid")
	require.NotEqual(t, namespace(t, os.Getpid(), "pid"), p.pidNamespace)
	return p
}

func namespace(t *testing.T, pid int, kind string) string {
	t.Helper()
	name, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, kind))
	require.NoError(t, err)
	return name
}

// processes lists those for which match holds. Processes that end meanwhile are left out.
func processes(t *testing.T, match func(pid int) bool) []int {
	t.Helper()
	entries, err := filepath.Glob("/proc/[0-9]*")
	require.NoError(t, err)
	var found []int
	for _, e := range entries {
		if pid, err := strconv.Atoi(filepath.Base(e)); err == nil && match(pid) {
			found = append(found, pid)
		}
	}
	return found
}

func onlyChild(t *testing.T, parent int) int {
	t.Helper()
	children := processes(t, func(pid int) bool { return parentOf(pid) == parent })
	require.Len(t, children, 1)
	return children[0]
}

// inside lists the cell's processes.
func (p *running) inside(t *testing.T) []int {
	t.Helper()
	return processes(t, func(pid int) bool {
		name, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", pid))
		return err == nil && name == p.pidNamespace
	})
}

// watch returns a function that waits until processes have ended. Each is held by a descriptor, which means no other one later.
func watch(t *testing.T, pids []int) (ended func()) {
	t.Helper()
	var held []int
	for _, pid := range pids {
		fd, err := unix.PidfdOpen(pid, 0)
		if err == unix.ESRCH {
			continue // it has ended meanwhile
		}
		require.NoError(t, err)
		t.Cleanup(func() { unix.Close(fd) })
		held = append(held, fd)
	}
	return func() {
		t.Helper()
		for _, fd := range held {
			polled := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
			n, err := unix.Poll(polled, int(patience.Milliseconds()))
			for err == unix.EINTR {
				n, err = unix.Poll(polled, int(patience.Milliseconds()))
			}
			require.NoError(t, err)
			require.Equal(t, 1, n, "a process is still there")
		}
	}
}

// firstSentinel is the index of the first sentinel interface, far from those of any node.
const firstSentinel = 1000

// sentinels ties an interface of this process's network namespace to each that the worker is in or holds open: it is there
// exactly as long as that namespace. It returns how many there are.
func (p *running) sentinels(t *testing.T) int {
	t.Helper()
	held, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", p.worker))
	require.NoError(t, err)
	own, err := netns.Current()
	require.NoError(t, err)
	defer own.Close()
	conn, err := link.Open(own)
	require.NoError(t, err)
	defer conn.Close()
	var b link.Batch
	seen := map[string]bool{namespace(t, os.Getpid(), "net"): true}
	for _, path := range append(held, fmt.Sprintf("/proc/%d/ns/net", p.worker)) {
		name, err := os.Readlink(path)
		if err != nil || !strings.HasPrefix(name, "net:") || seen[name] {
			continue // a connection that is gone, or no namespace
		}
		f, err := os.Open(path)
		require.NoError(t, err)
		defer f.Close()
		i := len(seen)
		seen[name] = true
		end := func(ns int, side byte) link.Device {
			return link.Device{Namespace: ns, Name: fmt.Sprintf("sentinel%d", i), Index: firstSentinel + i, MAC: net.HardwareAddr{2, 0, 0, 0, byte(i), side}}
		}
		b.Veth(end(own.Fd(), 0), end(int(f.Fd()), 1))
	}
	require.NoError(t, conn.Run(&b))
	return len(seen) - 1
}

// namespacesGone waits until no sentinel is left: the kernel tells of each.
func namespacesGone(t *testing.T) {
	t.Helper()
	updates, done := make(chan netlink.LinkUpdate, 1000), make(chan struct{})
	defer close(done)
	require.NoError(t, netlink.LinkSubscribe(updates, done))
	timeout := time.After(patience)
	for {
		left := 0
		links, err := net.Interfaces()
		require.NoError(t, err)
		for _, l := range links {
			if strings.HasPrefix(l.Name, "sentinel") {
				left++
			}
		}
		if left == 0 {
			return
		}
		select {
		case <-updates:
		case <-timeout:
			require.FailNow(t, "namespaces are still there", "%d of them", left)
		}
	}
}

// machine is everything that the program must leave alone, of the namespaces that it is started in: links, addresses,
// routes, rules, neighbours, nftables, settings, mounts, named namespaces and temporary files.
func machine(t *testing.T) map[string]any {
	t.Helper()
	seen := map[string]any{}
	note := func(what string, value any, err error) {
		require.NoError(t, err, what)
		seen[what] = value
	}
	links, err := net.Interfaces()
	note("links", links, err)
	addresses, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	note("addresses", addresses, err)
	routes, err := netlink.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
	note("routes", routes, err)
	rules, err := netlink.RuleList(netlink.FAMILY_ALL)
	note("rules", rules, err)
	neighbours, err := netlink.NeighList(0, netlink.FAMILY_ALL)
	note("neighbours", neighbours, err)
	ruleset, err := exec.Command(netnstest.Tool(t, "nft"), "list", "ruleset").CombinedOutput()
	note("nftables", string(ruleset), err)
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	note("mounts", string(mounts), err)
	for _, dir := range []string{"/run/netns", os.TempDir(), "/dev/shm"} {
		names, err := filepath.Glob(dir + "/*")
		note(dir, names, err)
	}
	note("settings", settings(t), nil)
	return seen
}

// settings reads all of /proc/sys/net that can be read.
func settings(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	require.NoError(t, filepath.WalkDir("/proc/sys/net", func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || e.Name() == "nf_conntrack_count" { // a measurement, not a setting
			return nil
		}
		if text, err := os.ReadFile(path); err == nil {
			all[path] = string(text)
		}
		return nil
	}))
	require.NotEmpty(t, all)
	return all
}

// TestNothingIsLeftBehind ends the program in every way while its lab is up.
func TestNothingIsLeftBehind(t *testing.T) {
	netnstest.Require(t)
	to := func(who func(*running) int, s syscall.Signal) func(*running) error {
		return func(p *running) error { return unix.Kill(who(p), s) }
	}
	outer := func(p *running) int { return p.Process.Pid }
	group := func(p *running) int { return -p.Process.Pid } // whom a terminal signals
	worker := func(p *running) int { return p.worker }
	for _, c := range []struct {
		name string
		end  func(*running) error
		up   int // exit status of sim up
		run  int // and of conform
	}{
		{"SIGKILL", to(outer, unix.SIGKILL), -1, -1},
		{"Ctrl-C", to(group, unix.SIGINT), exitOK, exitUnjudged},
		{"SIGTERM", to(outer, unix.SIGTERM), exitOK, exitUnjudged},
		{"closed terminal", to(group, unix.SIGHUP), exitOK, exitUnjudged},
		{"crash", to(worker, unix.SIGQUIT), exitUnjudged, exitUnjudged}, // ends as a panic does
		{"killed worker", to(worker, unix.SIGKILL), exitUnjudged, exitUnjudged},
	} {
		t.Run("sim up, "+c.name, func(t *testing.T) {
			name := fmt.Sprintf("life-%d", os.Getpid())
			ends(t, func() *running {
				p := start(t, "is ready", "sim", "up", "--lab", name)
				p.leaveDaemon(t, name)
				return p
			}, c.end, c.up)
		})
		t.Run("conform, "+c.name, func(t *testing.T) {
			ends(t, func() *running {
				return start(t, "Scenario", "conform", "--format", "pretty", "--report=")
			}, c.end, c.run)
		})
	}
}

// ends begins something, ends it, and checks that everything is as it was, before, while, and after.
func ends(t *testing.T, begin func() *running, end func(*running) error, code int) {
	t.Helper()
	t.Setenv("TMPDIR", t.TempDir())
	before := machine(t)
	p := begin()
	require.Equal(t, before, machine(t), "while it runs")
	require.Greater(t, p.sentinels(t), 20, "the lab must be there")
	all := p.inside(t)
	require.GreaterOrEqual(t, len(all), 2, "init and worker")
	gone := watch(t, append(all, p.Process.Pid))
	begun := time.Now()
	require.NoError(t, end(p))
	_ = p.Wait() // its status is looked at below
	gone()
	processesTook := time.Since(begun)
	namespacesGone(t)
	t.Logf("%d processes gone after %v, every namespace after %v", len(all)+1, processesTook, time.Since(begun))
	require.Equal(t, before, machine(t), "afterwards")
	require.Equal(t, code, p.ProcessState.ExitCode(), p.complaints)
}

// leaveDaemon leaves a process in the lab that nothing but SIGKILL ends, in a session of its own.
func (p *running) leaveDaemon(t *testing.T, lab string) {
	t.Helper()
	t.Setenv(asProgram, "1")
	before := len(p.inside(t))
	cmd := exec.Command("/proc/self/exe", "sim", "exec", "--lab", lab, "office", "--",
		"setsid", "sh", "-c", `trap "" HUP INT TERM; echo up; read -r line`)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	var complaints strings.Builder
	cmd.Stderr = &complaints
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	t.Cleanup(func() { in.Close() })
	require.NoError(t, cmd.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err, &complaints)
	require.Equal(t, "up\n", line)
	require.Greater(t, len(p.inside(t)), before)
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
}
