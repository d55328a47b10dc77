package netnstest

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"drawbridge/sim/netns"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { Main(m) }

// failing is a test that keeps what it is told, and whose cleanups are run by hand.
type failing struct {
	testing.TB
	cleanups []func()
	said     string
}

func (f *failing) Cleanup(fn func())                 { f.cleanups = append(f.cleanups, fn) }
func (f *failing) Errorf(format string, args ...any) { f.said += fmt.Sprintf(format, args...) }
func (f *failing) Failed() bool                      { return f.said != "" }

// says returns what NoLeaks says of a test.
func says(t *testing.T, test func()) string {
	t.Helper()
	f := &failing{TB: t}
	noLeaks(f, 50*time.Millisecond)
	test()
	for _, fn := range slices.Backward(f.cleanups) {
		fn()
	}
	return f.said
}

func TestNoLeaksNamesWhatIsLeft(t *testing.T) {
	Require(t)
	require.Empty(t, says(t, func() {
		h, err := netns.New()
		require.NoError(t, err)
		require.NoError(t, h.Close())
	}))
	var h *netns.Handle
	require.Contains(t, says(t, func() {
		var err error
		h, err = netns.New()
		require.NoError(t, err)
	}), "1 more: open file: ")
	require.NoError(t, h.Close())

	dir := t.TempDir()
	require.Contains(t, says(t, func() { require.NoError(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "")) }), "1 more: mount: ")
	require.NoError(t, unix.Unmount(dir, 0))

	cmd := exec.Command("/proc/self/exe", "-test.run=^$")
	in, out, err := os.Pipe()
	require.NoError(t, err)
	require.Contains(t, says(t, func() { require.NoError(t, cmd.Start()) }), "1 more: child process: ")
	_ = cmd.Wait()
	_, _ = in.Close(), out.Close()

	inside, end := New(t), make(chan struct{})
	said := says(t, func() {
		entered := make(chan struct{})
		go func() { _ = inside.Do(func() error { close(entered); <-end; return nil }) }()
		<-entered
	})
	close(end)
	require.Contains(t, said, "more: goroutine")
	require.Contains(t, said, "more: thread in another namespace: net")
}

// TestPackagesThatLeaveSomethingFail: a test that forgets NoLeaks is found out in the end.
func TestPackagesThatLeaveSomethingFail(t *testing.T) {
	Require(t)
	var h *netns.Handle
	leave := func() int {
		var err error
		h, err = netns.New()
		require.NoError(t, err)
		return 0
	}
	var said strings.Builder
	require.Equal(t, 1, clean(leave, 50*time.Millisecond, &said))
	require.Contains(t, said.String(), "left behind:\n  1 more: open file: ")
	require.NoError(t, h.Close())
	said.Reset()
	require.Equal(t, 3, clean(func() int { return 3 }, time.Millisecond, &said))
	require.Zero(t, clean(func() int { return 0 }, time.Second, &said))
	require.Empty(t, said.String())
}
