package daemon_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"drawbridge/enforcer/daemon"
	"drawbridge/sim/netns/netnstest"
)

// TestASecondDaemonDoesNotStart in the same network namespace, whoever owns the tables, and touches nothing. In another one it does, and when
// the first one has ended.
func TestASecondDaemonDoesNotStart(t *testing.T) {
	for _, shared := range []bool{false, true} {
		t.Run(fmt.Sprintf("no owner: %v", shared), func(t *testing.T) {
			s := newScene(t, func(_ *scene, o *daemon.Options) { o.NoOwner = shared })
			dir := t.TempDir()
			options := daemon.Options{Policy: filepath.Join(dir, "policy.json"), Audit: filepath.Join(dir, "audit"), Socket: filepath.Join(s.dir, "socket")}
			require.NoError(t, os.WriteFile(options.Policy, []byte(host("10.20.0.0/16")), 0o600))
			for _, options.NoOwner = range []bool{false, true} {
				ctx, cancel := context.WithCancel(t.Context())
				options.Ready = cancel
				err := s.ns.Do(func() error { return daemon.Run(ctx, options) })
				require.ErrorIs(t, err, daemon.ErrRunning)
				require.ErrorContains(t, err, fmt.Sprintf("process %d (", os.Getpid()))
			}
			require.NoFileExists(t, options.Audit)
			require.True(t, s.status(t).Ready, "its socket is still its own")
			s.holds(t, "10.10.0.0/16")
			options.Socket = filepath.Join(dir, "socket")
			options.Ready = nil
			start(t, netnstest.New(t), options).stop()
			s.stop()
			start(t, s.ns, options).stop()
			s.holds(t, "10.20.0.0/16")
		})
	}
}

// nobody is the user who has nothing.
const nobody = 65534

// asNobody calls a function on a thread of another user, which ends with it.
func asNobody(do func() error) error {
	ended := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: nobody else gets this thread
		if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, nobody, nobody, nobody); e != 0 {
			ended <- e
			return
		}
		ended <- do()
	}()
	return <-ended
}

// TestAStrangerKeepsNoDaemonFromStarting: anybody may take the name of the lock.
func TestAStrangerKeepsNoDaemonFromStarting(t *testing.T) {
	name := &unix.SockaddrUnix{Name: "@drawbridge-enforce"}
	for _, listens := range []bool{true, false} {
		t.Run(fmt.Sprintf("listens: %v", listens), func(t *testing.T) {
			taken := -1
			t.Cleanup(func() { require.NoError(t, unix.Close(taken)) })
			s := newScene(t, func(s *scene, _ *daemon.Options) {
				require.NoError(t, s.ns.Do(func() (err error) {
					taken, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
					return errors.Join(err, unix.Bind(taken, name))
				}))
				if listens { // whose it is is noted now
					err := asNobody(func() error { return unix.Listen(taken, 1) })
					if errors.Is(err, unix.EINVAL) {
						t.Skip("an ordinary user's namespace has one user: there are no strangers")
					}
					require.NoError(t, err)
				}
			})
			require.True(t, s.status(t).Ready)
			require.Contains(t, s.log.String(), "a stranger has the name")
			if listens {
				require.Contains(t, s.log.String(), fmt.Sprintf("uid=%d", nobody))
			}
			_, err := net.Dial("unix", filepath.Join(s.dir, "socket"))
			require.NoError(t, err)
		})
	}
}
