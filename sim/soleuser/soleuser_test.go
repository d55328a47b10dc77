package soleuser_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"drawbridge/sim/netns/netnstest"
	"drawbridge/sim/soleuser"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

// child is set in a copy of the test that is alone with its user.
const child = "SOLEUSER_TEST_CHILD"

// Each call is tried as the kernel has it and then as it is pretended, by a process with one identity.
func TestWhoInsistsIsToldSo(t *testing.T) {
	if dir := os.Getenv(child); dir != "" {
		insist(t, dir)
		return
	}
	netnstest.Require(t)
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), child+"="+t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}},
	}
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
}

func insist(t *testing.T, dir string) {
	runtime.LockOSThread() // and never unlocked: what is pretended to this thread is so to its end
	only, err := soleuser.Only()
	require.NoError(t, err)
	require.True(t, only)
	file := filepath.Join(dir, "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	f, err := os.Open(file)
	require.NoError(t, err)
	defer f.Close()
	attempts := map[string]func() error{
		"setgroups": func() error { return raw(unix.SYS_SETGROUPS, 0, 0, 0) },
		"setuid":    func() error { return raw(unix.SYS_SETUID, 65534, 0, 0) },
		"setgid":    func() error { return raw(unix.SYS_SETGID, 65534, 0, 0) },
		"setresuid": func() error { return raw(unix.SYS_SETRESUID, 0, 0, 65534) },
		"setregid":  func() error { return raw(unix.SYS_SETREGID, 65534, 0, 0) },
		"chown":     func() error { return os.Chown(file, 65534, -1) },
		"lchown":    func() error { return os.Lchown(file, -1, 65534) },
		"fchown":    func() error { return f.Chown(65534, 65534) },
	}
	for name, attempt := range attempts {
		require.Error(t, attempt(), name)
	}
	require.NoError(t, soleuser.Pretend())
	for name, attempt := range attempts {
		require.NoError(t, attempt(), name)
	}
	require.ErrorIs(t, os.Chown(filepath.Join(dir, "missing"), 0, 0), os.ErrNotExist, "what can be done is done")
	require.NoError(t, raw(unix.SYS_SETUID, 0, 0, 0))
	out, err := exec.Command("id", "-u").Output()
	require.NoError(t, err)
	require.Equal(t, "0", strings.TrimSpace(string(out)), "who it is it stays")
}

// raw is a system call of this thread alone; those of package syscall are made by all.
func raw(number, a, b, c uintptr) error {
	if _, _, errno := unix.RawSyscall(number, a, b, c); errno != 0 {
		return errno
	}
	return nil
}
