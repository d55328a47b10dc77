package daemon_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"drawbridge/enforcer/daemon"
	"drawbridge/sim/netns/netnstest"
)

// leave leaves a socket's file behind at a path, as a program that was killed does.
func leave(t *testing.T, path string) {
	t.Helper()
	l, err := net.Listen("unix", path)
	require.NoError(t, err)
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	require.NoError(t, l.Close())
}

// TestTheSocketTakesNothingAwayThatIsSomebodyElses, and what a daemon that was killed has left.
func TestTheSocketTakesNothingAwayThatIsSomebodyElses(t *testing.T) {
	for name, put := range map[string]func(t *testing.T, path string){
		"a file":      func(t *testing.T, path string) { require.NoError(t, os.WriteFile(path, []byte("precious"), 0o600)) },
		"a directory": func(t *testing.T, path string) { require.NoError(t, os.Mkdir(path, 0o700)) },
		"a link": func(t *testing.T, path string) {
			leave(t, path+".real")
			require.NoError(t, os.Symlink(path+".real", path))
		},
		"a program": func(t *testing.T, path string) {
			l, err := net.Listen("unix", path)
			require.NoError(t, err)
			t.Cleanup(func() { _ = l.Close() })
		},
		"datagrams": func(t *testing.T, path string) {
			l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
			require.NoError(t, err)
			t.Cleanup(func() { _ = l.Close() })
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path, policy := filepath.Join(dir, "socket"), filepath.Join(dir, "policy.json")
			require.NoError(t, os.WriteFile(policy, []byte(host("10.10.0.0/16")), 0o600))
			put(t, path)
			before, err := os.Lstat(path)
			require.NoError(t, err)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			options := daemon.Options{Policy: policy, Socket: path, Ready: cancel}
			err = netnstest.New(t).Do(func() error { return daemon.Run(ctx, options) })
			require.ErrorIs(t, err, daemon.ErrSocketTaken)
			require.ErrorContains(t, err, path)
			after, err := os.Lstat(path)
			require.NoError(t, err)
			require.True(t, os.SameFile(before, after))
		})
	}
	t.Run("left behind", func(t *testing.T) {
		s := newScene(t, func(s *scene, _ *daemon.Options) { leave(t, filepath.Join(s.dir, "socket")) })
		require.True(t, s.status(t).Ready)
		s.stop()
		require.NoFileExists(t, filepath.Join(s.dir, "socket"))
	})
}

// TestTheSocketIsMadeAnew where somebody took its file away; what is there in its place stays, until it is gone.
func TestTheSocketIsMadeAnew(t *testing.T) {
	s := newScene(t, nil)
	path := filepath.Join(s.dir, "socket")
	answers := func() bool {
		c, err := net.Dial("unix", path)
		if err != nil {
			return false
		}
		return c.Close() == nil
	}
	for range 2 {
		require.NoError(t, os.Remove(path))
		require.Eventually(t, answers, 20*time.Second, 10*time.Millisecond)
		require.True(t, s.status(t).Ready)
	}
	require.NoError(t, os.Remove(path))
	s.write(t, path, "precious")
	told := func() int { return strings.Count(s.log.String(), "could not be made anew") }
	require.Eventually(t, func() bool { return told() > 0 }, 20*time.Second, 10*time.Millisecond)
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "precious", string(text))
	require.NoError(t, os.Remove(path))
	require.Eventually(t, answers, 20*time.Second, 10*time.Millisecond)
	require.Equal(t, 1, told(), "once, and not each time")
	s.stop()
	require.NoFileExists(t, path)
}
