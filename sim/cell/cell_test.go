package cell

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// scenarioVariable makes the test binary an outer process, and the worker in its cell one of scenarios.
const scenarioVariable = "CELL_TEST_SCENARIO"

// userVariable asks for a user namespace even as root.
const userVariable = "CELL_TEST_USER"

// patience bounds what would otherwise hang a failing test; nothing waits for it to pass.
const patience = 30 * time.Second

func TestMain(m *testing.M) {
	Init()
	name := os.Getenv(scenarioVariable)
	switch {
	case name == "":
		// Under the race detector each process of a cell would linger for a second before it ends.
		_ = os.Setenv("GORACE", strings.TrimSpace(os.Getenv("GORACE")+" atexit_sleep_ms=0"))
		os.Exit(m.Run())
	case Inside():
		os.Exit(scenarios[name](os.Getenv("CELL_TEST_ARGUMENT")))
	}
	var report []*os.File
	if os.Getenv("CELL_TEST_REPORT") != "" {
		report = inherit(standardFiles, 1)
	}
	code, err := Run(context.Background(), Options{ExtraFiles: report, UserNamespace: os.Getenv(userVariable) != ""})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		if errors.Is(err, ErrForbidden) {
			os.Exit(forbiddenStatus)
		}
		os.Exit(exitBroken)
	}
	os.Exit(code)
}

const forbiddenStatus = 77

// process is an outer process and the reading end of what its worker reports.
type process struct {
	*exec.Cmd
	report *bufio.Reader
	stderr *strings.Builder
}

// outerProcess starts the test binary as an outer process. change may change the command beforehand.
func outerProcess(t *testing.T, scenario, argument string, change func(*exec.Cmd)) *process {
	t.Helper()
	r, w, err := os.Pipe()
	require.NoError(t, err)
	t.Cleanup(func() { r.Close() })
	require.NoError(t, r.SetReadDeadline(time.Now().Add(patience)))
	p := &process{Cmd: exec.Command("/proc/self/exe"), report: bufio.NewReader(r), stderr: &strings.Builder{}}
	p.Env = append(os.Environ(), scenarioVariable+"="+scenario, "CELL_TEST_ARGUMENT="+argument, "CELL_TEST_REPORT=1")
	p.Stderr = p.stderr
	p.ExtraFiles = []*os.File{w}
	if change != nil {
		change(p.Cmd)
	}
	require.NoError(t, p.Start())
	w.Close()
	t.Cleanup(func() {
		if p.ProcessState == nil {
			_ = p.Process.Kill()
			_ = p.Wait()
		}
	})
	return p
}

func inUserNamespace(cmd *exec.Cmd) { cmd.Env = append(cmd.Env, userVariable+"=1") }

// line returns the next line of the report.
func (p *process) line(t *testing.T) string {
	t.Helper()
	line, err := p.report.ReadString('\n')
	if err != nil && p.Wait() != nil && p.ProcessState.ExitCode() == forbiddenStatus {
		t.Skip(p.stderr)
	}
	require.NoError(t, err, p.stderr)
	return strings.TrimSuffix(line, "\n")
}

// end waits until nobody holds the report open any more, and returns what was left in it and the outer process's status.
func (p *process) end(t *testing.T) (string, int) {
	t.Helper()
	rest, err := io.ReadAll(p.report)
	require.NoError(t, err, "somebody still lives: %s", p.stderr)
	err = p.Wait()
	code := exitCode(p.ProcessState.Sys().(syscall.WaitStatus))
	if code == forbiddenStatus {
		t.Skip(p.stderr)
	}
	var exited *exec.ExitError
	require.True(t, err == nil || errors.As(err, &exited), "%v", err)
	return string(rest), code
}

func TestExitStatusPassesThrough(t *testing.T) {
	for _, c := range []struct {
		scenario, argument string
		want               int
	}{
		{"exit", "0", 0}, {"exit", "1", 1}, {"exit", "42", 42}, {"exit", "255", 255},
		{"die", "9", 137}, {"die", "15", 143},
	} {
		t.Run(c.scenario+" "+c.argument, func(t *testing.T) {
			_, code := outerProcess(t, c.scenario, c.argument, nil).end(t)
			require.Equal(t, c.want, code)
		})
	}
}

func TestInsideIsApart(t *testing.T) {
	for name, change := range map[string]func(*exec.Cmd){"as is": nil, "user namespace": inUserNamespace} {
		t.Run(name, func(t *testing.T) {
			text, code := outerProcess(t, "look", "", change).end(t)
			require.Zero(t, code)
			require.Contains(t, text, "interfaces 1 <nil>\n", "only lo")
			require.Contains(t, text, "uid 0 parent 1\n")
			require.Contains(t, text, "role false\n", "children of the worker must not take themselves for one")
			require.Contains(t, text, "processes 2\n", "init and worker")
			user := change != nil || !privileged()
			if user {
				require.Contains(t, text, fmt.Sprintf("uids 0 %d 1\n", os.Geteuid()))
				require.Contains(t, text, "setgroups deny\n")
			}
			for _, kind := range kinds {
				link := regexp.MustCompile(kind + ` (\S+) <nil>\n`).FindStringSubmatch(text)
				require.NotNil(t, link, text)
				outside, err := os.Readlink("/proc/self/ns/" + kind)
				require.NoError(t, err)
				require.Equal(t, kind != "user" || user, outside != link[1], "%s inside %s, outside %s", kind, link[1], outside)
			}
		})
	}
}

func TestNothingShowsOutside(t *testing.T) {
	outside := func() []string {
		mounts, err := os.ReadFile("/proc/self/mountinfo")
		require.NoError(t, err)
		named, _ := filepath.Glob("/run/netns/*")
		return append(named, string(mounts))
	}
	before := outside()
	p := outerProcess(t, "stay", "", nil)
	require.Equal(t, "ready", p.line(t))
	require.Equal(t, before, outside())
	require.NoError(t, p.Process.Kill())
	_, code := p.end(t)
	require.Equal(t, 137, code)
	require.Equal(t, before, outside())
}

func TestEverythingDiesWithTheOuterProcess(t *testing.T) {
	for name, change := range map[string]func(*exec.Cmd){"as is": nil, "user namespace": inUserNamespace} {
		t.Run(name, func(t *testing.T) {
			p := outerProcess(t, "daemon", "", change)
			require.Equal(t, "ready", p.line(t))
			require.NoError(t, p.Process.Kill())
			_, code := p.end(t) // the daemon holds the report open as long as it lives
			require.Equal(t, 137, code)
		})
	}
}

func TestDaemonsDieWithTheWorker(t *testing.T) {
	_, code := outerProcess(t, "daemon", "leave", nil).end(t)
	require.Zero(t, code)
}

func TestSignalsToTheOuterProcessAloneReachTheWorker(t *testing.T) {
	p := outerProcess(t, "hear", "", nil)
	require.Equal(t, "ready", p.line(t))
	require.NoError(t, p.Process.Signal(unix.SIGHUP))
	require.Equal(t, "hangup", p.line(t))
	require.NoError(t, p.Process.Signal(unix.SIGINT))
	require.Equal(t, "interrupt", p.line(t))
	require.NoError(t, p.Process.Signal(unix.SIGTERM))
	_, code := p.end(t)
	require.Equal(t, 5, code, "the worker chose its status")
}

func TestSecondInterruptEndsTheCell(t *testing.T) {
	p := outerProcess(t, "hear", "", nil)
	require.Equal(t, "ready", p.line(t))
	require.NoError(t, p.Process.Signal(unix.SIGINT))
	require.Equal(t, "interrupt", p.line(t))
	require.NoError(t, p.Process.Signal(unix.SIGINT))
	_, code := p.end(t)
	require.Equal(t, 137, code)
}

func TestIgnoredSignalsStayIgnored(t *testing.T) {
	p := outerProcess(t, "stay", "", func(cmd *exec.Cmd) {
		cmd.Args = []string{"sh", "-c", `trap "" HUP; exec "$0"`, "/proc/self/exe"}
		cmd.Args[3], _ = os.Executable()
		cmd.Path = "/bin/sh"
	})
	require.Equal(t, "ready", p.line(t))
	require.NoError(t, p.Process.Signal(unix.SIGHUP))
	require.NoError(t, p.Process.Signal(unix.SIGTERM))
	_, code := p.end(t)
	require.Equal(t, 143, code, "SIGTERM ended it, SIGHUP did not")
}

func TestCtrlCLetsTheWorkerCleanUp(t *testing.T) {
	master, slave := terminal(t)
	p := outerProcess(t, "clean", "", func(cmd *exec.Cmd) {
		cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	})
	require.Equal(t, "ready", p.line(t))
	_, err := master.Write([]byte{3}) // the terminal's default VINTR
	require.NoError(t, err)
	require.Equal(t, "cleaning up", p.line(t))
	_, err = master.WriteString("go on\n") // the worker reads from the terminal
	require.NoError(t, err)
	require.Equal(t, "cleaned up", p.line(t))
	_, code := p.end(t)
	require.Equal(t, 7, code)
}

func TestSecondCtrlCDoesNotWait(t *testing.T) {
	master, slave := terminal(t)
	p := outerProcess(t, "hear", "", func(cmd *exec.Cmd) {
		cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	})
	require.Equal(t, "ready", p.line(t))
	_, err := master.Write([]byte{3})
	require.NoError(t, err)
	require.Equal(t, "interrupt", p.line(t)) // the terminal has signalled the whole group
	// The second must not melt into the first: once this has come through, the outer process has taken the first.
	require.NoError(t, p.Process.Signal(unix.SIGQUIT))
	for line := ""; line != "quit"; line = p.line(t) {
		require.NotEqual(t, "ready", line)
	}
	_, err = master.Write([]byte{3})
	require.NoError(t, err)
	_, code := p.end(t)
	require.Equal(t, 137, code)
}

// terminal opens a new pseudo-terminal (pty(7)).
func terminal(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(t, err)
	t.Cleanup(func() { master.Close() })
	require.NoError(t, unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	require.NoError(t, err)
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(t, err)
	t.Cleanup(func() { slave.Close() })
	return master, slave
}

func TestOrphansAreReapedAndNobodyElse(t *testing.T) {
	text, code := outerProcess(t, "orphans", "", nil).end(t)
	require.Zero(t, code, text)
}

func TestEndOfContextEndsTheCell(t *testing.T) {
	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer r.Close()
	ctx, cancel := context.WithCancelCause(context.Background())
	done := errors.New("enough")
	go func() {
		_, _ = bufio.NewReader(r).ReadString('\n')
		cancel(done)
	}()
	env := append(os.Environ(), scenarioVariable+"=stay")
	code, err := Run(ctx, Options{Env: env, ExtraFiles: []*os.File{w}})
	if errors.Is(err, ErrForbidden) {
		w.Close()
		t.Skip(err)
	}
	require.ErrorIs(t, err, done)
	require.Equal(t, 137, code)
	w.Close()
	_, err = io.ReadAll(r)
	require.NoError(t, err)
}

func TestForgedRolesAreRefused(t *testing.T) {
	for _, value := range []string{
		"", "worker", "worker/1/0", "init/1/0", "init/0/0", "worker/x/0", "worker/1/-1", "worker/1/65536", "other/1/0", "worker/1/0/0",
	} {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), roleVariable+"="+value, scenarioVariable+"=exit")
		text, err := cmd.CombinedOutput()
		require.Error(t, err, value)
		require.Equal(t, exitBroken, cmd.ProcessState.ExitCode(), "%s: %s", value, text)
		require.Contains(t, string(text), roleVariable)
	}
}

func TestMachineIsNotACell(t *testing.T) {
	require.False(t, Inside())
	require.Equal(t, context.Background(), Context())
	require.Nil(t, ExtraFile(0))
	require.Nil(t, ExtraFile(-1))
	here, err := networkNamespace()
	require.NoError(t, err)
	require.ErrorIs(t, role{part: roleWorker, outside: here}.verify(), errNotACell)
	require.ErrorIs(t, role{part: roleInit, outside: here + 1}.verify(), errNotACell, "not PID 1")
}

func TestLimitOfUserNamespacesIsNamed(t *testing.T) {
	text, code := outerProcess(t, "nested", "", inUserNamespace).end(t)
	require.Zero(t, code, text)
	require.Contains(t, text, "user.max_user_namespaces=0; allow it with: sudo sysctl -w user.max_user_namespaces=")
}

// TestPathLeadsToRootsPrograms: enforcers call nft(8), which is not on every user's PATH.
func TestPathLeadsToRootsPrograms(t *testing.T) {
	require.Equal(t, "/usr/local/sbin:/usr/sbin:/sbin", Path(""))
	require.Equal(t, "/usr/sbin:/bin:/usr/local/sbin:/sbin", Path("/usr/sbin:/bin"))
	p := outerProcess(t, "path", "", func(cmd *exec.Cmd) { cmd.Env = append(cmd.Env, "PATH=/bin") })
	require.Equal(t, "/bin:/usr/local/sbin:/usr/sbin:/sbin", p.line(t))
	_, code := p.end(t)
	require.Zero(t, code)
}

func TestDiagnosis(t *testing.T) {
	for _, c := range []struct {
		name     string
		err      error
		user     bool
		settings map[string]string
		setting  string // empty: not a matter of permission
		remedy   string
	}{
		{"Debian's switch", unix.EPERM, true, map[string]string{"sys/kernel/unprivileged_userns_clone": "0"},
			"kernel.unprivileged_userns_clone=0", "sudo sysctl -w kernel.unprivileged_userns_clone=1"},
		{"Ubuntu's switch", unix.EACCES, true, map[string]string{
			"sys/kernel/unprivileged_userns_clone": "1", "sys/kernel/apparmor_restrict_unprivileged_userns": "1",
		}, "kernel.apparmor_restrict_unprivileged_userns=1", "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"},
		{"a limit of 0", unix.ENOSPC, true, map[string]string{"sys/user/max_user_namespaces": "0"},
			"user.max_user_namespaces=0", "sudo sysctl -w user.max_user_namespaces=10000"},
		{"another limit of 0", unix.ENOSPC, false, map[string]string{"sys/user/max_user_namespaces": "9", "sys/user/max_net_namespaces": "0"},
			"user.max_net_namespaces=0", "sudo sysctl -w user.max_net_namespaces=10000"},
		{"a limit used up", unix.ENOSPC, true, map[string]string{"sys/user/max_user_namespaces": "9"},
			"is reached", "sudo sysctl -w user.max_user_namespaces=10000"},
		{"a container", unix.EPERM, true, map[string]string{"self/status": "Name:\tx\nSeccomp:\t2\nSeccomp_filters:\t1"},
			"seccomp filter", "--security-opt seccomp=unconfined"},
		{"root without privileges", unix.EPERM, false, map[string]string{"sys/kernel/unprivileged_userns_clone": "0"},
			"security module", "--privileged"},
		{"nobody's switch", unix.EPERM, true, nil, "CAP_SYS_ADMIN", "root, or a container"},
		{"a small kernel", unix.EINVAL, true, nil, "lacks namespaces", "CONFIG_USER_NS"},
		{"too many processes", unix.EAGAIN, true, nil, "ulimit -u", "ulimit -u 4096"},
		{"out of memory", unix.ENOMEM, true, nil, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := diagnosis{"create its namespaces", &os.PathError{Op: "fork/exec", Path: "x", Err: c.err}, c.user,
				func(path string) string { return c.settings[path] }, ""}.error()
			require.ErrorIs(t, err, c.err)
			require.Equal(t, c.setting != "", errors.Is(err, ErrForbidden))
			var forbidden *ForbiddenError
			if errors.As(err, &forbidden) {
				require.Contains(t, forbidden.Setting, c.setting)
				require.Contains(t, forbidden.Remedy, c.remedy)
			}
		})
	}
}

func TestPassedFilesArriveInOrder(t *testing.T) {
	require.True(t, slices.IsSorted([]int{lifelineFile, statusFile, firstExtraFile}))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	file, err := l.(*net.TCPListener).File()
	require.NoError(t, err)
	defer file.Close()
	null, err := os.Open(os.DevNull)
	require.NoError(t, err)
	defer null.Close()
	greeting := make(chan string, 1)
	go func() {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			greeting <- err.Error()
			return
		}
		defer c.Close()
		text, _ := io.ReadAll(c)
		greeting <- string(text)
	}()
	env := append(os.Environ(), scenarioVariable+"=greet")
	code, err := Run(context.Background(), Options{Env: env, ExtraFiles: []*os.File{null, file}})
	if errors.Is(err, ErrForbidden) {
		l.Close()
		t.Skip(err)
	}
	require.NoError(t, err)
	require.Zero(t, code)
	require.Equal(t, "hello from inside", <-greeting)
}

func TestAProgramThatCannotBeReadIsNamed(t *testing.T) {
	nothing := func(string) string { return "" }
	err := diagnosis{"create its namespaces", unix.EACCES, true, nothing, "/opt/program"}.error()
	require.ErrorIs(t, err, ErrForbidden)
	require.EqualError(t, err, "cell: cannot create its namespaces: permission denied: this user may run /opt/program but not read it, and gets no user namespace for that; allow it with: chmod a+r /opt/program")
	require.NotContains(t, diagnosis{"create its namespaces", unix.EACCES, false, nothing, "/opt/program"}.error().Error(), "/opt/program", "root can")
	require.Empty(t, unreadable(), "this one can")
}
