//go:build !operator

package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"drawbridge/cmd/drawbridge/internal/control"
	"drawbridge/sim/netns/netnstest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// nothingOf waits until no process has a lab's name on its command line, and checks that nobody lists it.
func nothingOf(t *testing.T, lab string) {
	t.Helper()
	has := func(pid int) bool {
		line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		return err == nil && slices.Contains(strings.Split(string(line), "\x00"), lab)
	}
	watch(t, processes(t, has))()
	require.Empty(t, processes(t, has))
	labs, err := control.Labs(os.Getuid())
	require.NoError(t, err)
	require.NotContains(t, labs, lab)
}

func TestAHolderThatDied(t *testing.T) {
	netnstest.Require(t)
	t.Setenv(asProgram, "1")
	lab := fmt.Sprintf("died-%d", os.Getpid())
	up := start(t, "is ready", "sim", "up", "--lab", lab)
	require.NoError(t, unix.Kill(up.Process.Pid, unix.SIGKILL))
	_ = up.Wait()
	nothingOf(t, lab)
	for _, verb := range []string{"down", "matrix", "watch", "graph"} {
		got := invoke(t, nil, "sim", verb, "--lab", lab)
		require.Equal(t, result{code: exitUsage, err: "drawbridge: sim " + verb + ": lab " + lab +
			": no such lab is up; start it with: drawbridge sim up --lab " + lab + "\n"}, got)
	}
	require.NotContains(t, invoke(t, nil, "sim", "ls").out, lab)
	again := start(t, "is ready", "sim", "up", "--lab", lab) // its name is free
	require.Equal(t, result{}, invoke(t, nil, "sim", "down", "--lab", lab))
	require.NoError(t, again.Wait(), again.complaints)
}

// TestAHolderThatWasStopped: nobody waits for it for ever, it is named, and a lab can be ended all the same.
func TestAHolderThatWasStopped(t *testing.T) {
	netnstest.Require(t)
	t.Setenv(asProgram, "1")
	lab := fmt.Sprintf("stopped-%d", os.Getpid())
	other := detach(t)
	up := start(t, "is ready", "sim", "up", "--lab", lab)
	program := exec.Command("/proc/self/exe", "sim", "exec", "--lab", lab, "office", "--", "cat")
	typed, err := program.StdinPipe()
	require.NoError(t, err)
	echoed, err := program.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, program.Start())
	_, err = io.WriteString(typed, "it runs\n")
	require.NoError(t, err)
	lines := bufio.NewScanner(echoed)
	require.True(t, lines.Scan())
	require.NoError(t, unix.Kill(up.Process.Pid, unix.SIGSTOP))
	require.NoError(t, unix.Waitid(unix.P_PID, up.Process.Pid, nil, unix.WSTOPPED|unix.WNOWAIT, nil), "until its last thread has stopped")
	var waiting sync.WaitGroup
	for _, args := range [][]string{{"probe", "office", "pg-shared"}, {"exec", "office", "--", "true"}, {"matrix"}, {"watch"}, {"break", "server", "pg-shared"}} {
		said, err := os.Create(filepath.Join(t.TempDir(), args[0])) // of a pipe the end would not come: the one that exec hands on waits with the holder
		require.NoError(t, err)
		defer said.Close()
		waiting.Go(func() {
			code := run(t.Context(), append([]string{"sim", args[0], "--lab", lab}, args[1:]...), streams{in: said, out: said, err: said}, os.LookupEnv)
			assert.Equal(t, exitUnjudged, code)
			text, err := os.ReadFile(said.Name())
			assert.NoError(t, err)
			assert.Contains(t, string(text), fmt.Sprintf(": lab %s: does not answer within 5s: its process %d was stopped, and goes on with kill -CONT %[2]d", lab, up.Process.Pid))
		})
	}
	waiting.Wait()
	require.NoError(t, typed.Close())
	require.False(t, lines.Scan())
	require.NoError(t, program.Wait(), "what runs needs no holder to end")
	got := invoke(t, nil, "sim", "ls")
	require.Equal(t, exitUnjudged, got.code, got.err)
	require.Contains(t, got.out, other.name, "the others are listed")
	require.Equal(t, fmt.Sprintf("drawbridge: sim ls: lab %s: does not answer within 5s: its process %d was stopped, and goes on with kill -CONT %[2]d; "+
		"drawbridge sim down --lab %[1]s ends it\n", lab, up.Process.Pid), got.err)
	require.Equal(t, result{err: fmt.Sprintf("lab %s: its process %d was stopped; it was killed\n", lab, up.Process.Pid)}, invoke(t, nil, "sim", "down", "--lab", lab))
	_ = up.Wait()
	nothingOf(t, lab)
}

// TestManyEndOneLab: it is gone for each of those who asked for that at the same time.
func TestManyEndOneLab(t *testing.T) {
	netnstest.Require(t)
	t.Setenv(asProgram, "1")
	lab := fmt.Sprintf("ended-%d", os.Getpid())
	for range 3 {
		up := start(t, "is ready", "sim", "up", "--lab", lab)
		const many = 12
		var conns []*control.Conn
		for range many {
			c, err := control.Dial(t.Context(), os.Getuid(), lab)
			require.NoError(t, err)
			conns = append(conns, c)
		}
		results := make(chan error, many)
		p := &program{std: streams{err: io.Discard}}
		for _, c := range conns {
			go func() { results <- p.endLab(t.Context(), lab, c) }()
		}
		for range many {
			require.NoError(t, <-results)
		}
		require.NoError(t, up.Wait(), up.complaints)
	}
}

// TestWorldsThatDoNotFit: one clear error for each place, and nothing left half-built, in the foreground and detached.
func TestWorldsThatDoNotFit(t *testing.T) {
	netnstest.Require(t)
	t.Setenv(asProgram, "1")
	overlapping := filepath.Join(t.TempDir(), "overlapping.yaml")
	text, err := os.ReadFile("../../topology/testdata/examples/one-office.yaml")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(overlapping, []byte(strings.Replace(string(text), "203.0.113.0/25", "203.0.113.0/24", 1)), 0o600))
	lab := fmt.Sprintf("unfit-%d", os.Getpid())
	for _, c := range []struct {
		name, world, limit string
		code               int
		want               string
		errors             int // one for each place
	}{
		{"overlapping", overlapping, "ulimit -n", exitUsage, "the address 203.0.113.129 is inside 203.0.113.0/24 of internet[1].networks[0]", 2},
		{"missing", "nowhere.yaml", "ulimit -n", exitUsage, "nowhere.yaml: no such file or directory", 1},
		{"more than the kernel allows", "../../topology/testdata/examples/thousand-tenants.yaml", "ulimit -n 500", exitUnjudged,
			"more than the kernel allows: open files: 500, the world needs ", 1},
	} {
		for _, how := range []string{"", " --detach"} {
			t.Run(c.name+how, func(t *testing.T) {
				cmd := exec.Command("sh", "-c", c.limit+` >/dev/null; exec "$0" sim up --lab "$1" "$2"`+how, "/proc/self/exe", lab, c.world)
				self, err := os.Executable()
				require.NoError(t, err)
				cmd.Args[3] = self
				var out, complaints strings.Builder
				cmd.Stdout, cmd.Stderr = &out, &complaints
				require.Error(t, cmd.Run())
				require.Equal(t, c.code, cmd.ProcessState.ExitCode(), &complaints)
				require.Contains(t, complaints.String(), c.want)
				require.Empty(t, out.String())
				require.Equal(t, c.errors, strings.Count(complaints.String(), "drawbridge: "), &complaints)
				nothingOf(t, lab)
			})
		}
	}
}

// TestALabThatCannotSayWhatIsWrong: where nothing may be written to files, its complaints are lost, but not that it failed.
func TestALabThatCannotSayWhatIsWrong(t *testing.T) {
	netnstest.Require(t)
	t.Setenv(asProgram, "1")
	self, err := os.Executable()
	require.NoError(t, err)
	out, err := exec.Command("sh", "-c", `ulimit -f 0; exec "$0" sim up --lab mute --detach`, self).CombinedOutput()
	require.Error(t, err)
	require.Contains(t, string(out), "drawbridge: sim up --detach: could not say why it failed: ")
}
