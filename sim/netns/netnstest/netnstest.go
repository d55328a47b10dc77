// Package netnstest lets a package's tests make network namespaces, with root and without, away from the machine's own
// network.
//
// A package that uses it hands its TestMain over:
//
//	func TestMain(m *testing.M) { netnstest.Main(m) }
package netnstest

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"drawbridge/sim/netns"

	"golang.org/x/sys/unix"
)

// inside is set for the copy of the test binary that already runs in namespaces of its own.
const inside = "DRAWBRIDGE_TEST_NAMESPACES"

// errForbidden is why namespaces cannot be made here; nil if they can. Main writes it once, before any test runs.
var errForbidden = errors.New("the package's TestMain does not call netnstest.Main")

// Main runs the package's tests in a copy of the test binary that has a network and a mount namespace of its own, and
// without privileges a user namespace as well, in which it is root. It does not return. Where the machine forbids
// namespaces the tests run as they are, and those that call New are skipped with the reason.
func Main(m *testing.M) {
	if os.Getenv(inside) != "" {
		errForbidden = settle()
		os.Exit(clean(m.Run, settleLimit, os.Stderr))
	}
	code, err := reexec()
	if err != nil {
		errForbidden = err
		code = m.Run()
	}
	os.Exit(code)
}

// clean runs tests, and fails those that leave something behind. It is the last resort, for tests that forget NoLeaks, which tells
// whose it is.
func clean(run func() int, limit time.Duration, out io.Writer) int {
	startRuntime()
	before := takeInventory()
	code := run()
	if code != 0 {
		return code
	}
	if left := before.leaks(limit); len(left) > 0 {
		fmt.Fprintf(out, "FAIL: the package's tests left behind:\n  %s\n", strings.Join(left, "\n  "))
		return 1
	}
	return 0
}

// New returns a fresh namespace that is closed when the test ends. It skips the test if the machine forbids namespaces.
func New(t testing.TB) *netns.Handle {
	t.Helper()
	Require(t)
	h, err := netns.New()
	if err != nil {
		t.Fatalf("new network namespace: %v", err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Errorf("close network namespace: %v", err)
		}
	})
	return h
}

// Require skips the test, naming the missing privilege, if the machine forbids namespaces.
func Require(t testing.TB) {
	t.Helper()
	if errForbidden != nil {
		t.Skipf("no network namespaces: %v", errForbidden)
	}
}

// settle cuts the copy's mounts off from the machine's and proves that it really has the privileges: AppArmor lets
// user namespaces be created and takes their capabilities away.
func settle() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("private mounts: %w%s", err, advice(err))
	}
	h, err := netns.New()
	if err != nil {
		return fmt.Errorf("%w%s", err, advice(err))
	}
	return h.Close()
}

// reexec runs the copy and returns its exit status. An error means that it could not be started.
func reexec() (int, error) {
	if os.Geteuid() == 0 {
		if code, err := run(unix.CLONE_NEWNET | unix.CLONE_NEWNS); err == nil {
			return code, nil
		}
		// Root of a container without CAP_SYS_ADMIN: a user namespace may still be allowed.
	}
	return run(unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWUSER)
}

func run(flags uintptr) (int, error) {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags, Pdeathsig: syscall.SIGKILL}
	if flags&unix.CLONE_NEWUSER != 0 {
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	// The parent-death signal follows the thread that starts the copy: keep it until the copy has ended.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("clone(2) into new namespaces: %w%s", err, advice(err))
	}
	forward := make(chan os.Signal, 1)
	signal.Notify(forward, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT)
	go func() {
		for s := range forward {
			_ = cmd.Process.Signal(s) // it may have ended meanwhile
		}
	}()
	err := cmd.Wait()
	signal.Stop(forward)
	close(forward)
	if cmd.ProcessState == nil {
		return 0, err
	}
	return max(cmd.ProcessState.ExitCode(), intOf(!cmd.ProcessState.Success())), nil
}

func advice(err error) string {
	if !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EACCES) && !errors.Is(err, unix.ENOSPC) {
		return ""
	}
	return " (needs CAP_SYS_ADMIN, or unprivileged user namespaces: user.max_user_namespaces above 0," +
		" kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0 where those exist)"
}

func intOf(b bool) int {
	if b {
		return 1
	}
	return 0
}
