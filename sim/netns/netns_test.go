package netns_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"drawbridge/sim/netns"
	"drawbridge/sim/netns/netnstest"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

func TestNewIsAnotherNamespaceAndTheCallerStays(t *testing.T) {
	h := netnstest.New(t)
	before, err := netns.Current()
	require.NoError(t, err)
	defer before.Close()
	require.False(t, h.Equal(before))

	var within *netns.Handle
	require.NoError(t, h.Do(func() (err error) { within, err = netns.Current(); return err }))
	defer within.Close()
	require.True(t, within.Equal(h))

	after, err := netns.Current()
	require.NoError(t, err)
	defer after.Close()
	require.True(t, after.Equal(before))
}

func TestDoReturnsTheFunctionsError(t *testing.T) {
	h := netnstest.New(t)
	want := errors.New("mine")
	require.ErrorIs(t, h.Do(func() error { return want }), want)
	require.ErrorIs(t, h.Do(func() error { runtime.Goexit(); return nil }), netns.ErrInterrupted)
}

func TestClosedAndZeroHandles(t *testing.T) {
	h := netnstest.New(t)
	require.GreaterOrEqual(t, h.Fd(), 0)
	require.NoError(t, h.Do(h.Close), "closing inside Do must neither hang nor fail")
	require.NoError(t, h.Close())
	for _, h := range []*netns.Handle{h, {}, nil} {
		require.ErrorIs(t, h.Do(func() error { return nil }), netns.ErrClosed)
	}
	require.Equal(t, -1, h.Fd())
}

func TestLoopbackConnectionsOfBothFamilies(t *testing.T) {
	h, other := netnstest.New(t), netnstest.New(t)
	l, err := h.Listen(t.Context(), netip.MustParseAddrPort("[::]:5432"))
	require.NoError(t, err)
	defer l.Close()
	for _, to := range []string{"127.0.0.1", "::1"} {
		local := netip.AddrPortFrom(netip.MustParseAddr(to), 20000)
		remote := netip.AddrPortFrom(netip.MustParseAddr(to), 5432)
		client, err := h.Dial(t.Context(), local, remote)
		require.NoError(t, err)
		server, err := l.Accept()
		require.NoError(t, err)
		require.Equal(t, local.String(), client.LocalAddr().String())
		require.Equal(t, uint16(20000), server.RemoteAddr().(*net.TCPAddr).AddrPort().Port())
		_, err = io.WriteString(client, "hello")
		require.NoError(t, err)
		got := make([]byte, 5)
		_, err = io.ReadFull(server, got)
		require.NoError(t, err)
		require.NoError(t, errors.Join(server.Close(), client.Close()))

		_, err = other.Dial(t.Context(), netip.AddrPort{}, remote)
		require.ErrorIs(t, err, syscall.ECONNREFUSED, "another namespace must not see the listener")
	}
}

func TestSpecificAddressesAcceptTheirFamilyOnly(t *testing.T) {
	h := netnstest.New(t)
	l, err := h.Listen(t.Context(), netip.MustParseAddrPort("0.0.0.0:5432"))
	require.NoError(t, err)
	defer l.Close()
	_, err = h.Dial(t.Context(), netip.AddrPort{}, netip.MustParseAddrPort("[::1]:5432"))
	require.ErrorIs(t, err, syscall.ECONNREFUSED)
	_, err = h.Listen(t.Context(), netip.MustParseAddrPort("127.0.0.1:5432"))
	require.ErrorIs(t, err, syscall.EADDRINUSE)
}

// A listener whose accept queue is full lets the next SYN go unanswered: the connect stays under way.
func TestDialEndsWithItsContext(t *testing.T) {
	h := netnstest.New(t)
	fd, err := h.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	require.NoError(t, err)
	defer unix.Close(fd)
	require.NoError(t, unix.Bind(fd, &unix.SockaddrInet4{Port: 5432, Addr: [4]byte{127, 0, 0, 1}}))
	require.NoError(t, unix.Listen(fd, 0))
	remote := netip.MustParseAddrPort("127.0.0.1:5432")
	first, err := h.Dial(t.Context(), netip.AddrPort{}, remote)
	require.NoError(t, err)
	defer first.Close()

	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err = h.Dial(ctx, netip.AddrPort{}, remote)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	var op *net.OpError
	require.ErrorAs(t, err, &op)
	require.Equal(t, "dial", op.Op)
}

func TestDialRefusesMixedFamilies(t *testing.T) {
	h := netnstest.New(t)
	_, err := h.Dial(t.Context(), netip.MustParseAddrPort("127.0.0.1:0"), netip.MustParseAddrPort("[::1]:1"))
	require.ErrorContains(t, err, "different families")
}

func TestDatagrams(t *testing.T) {
	h := netnstest.New(t)
	c, err := h.ListenPacket(t.Context(), netip.MustParseAddrPort("[::1]:5353"))
	require.NoError(t, err)
	defer c.Close()
	_, err = c.WriteToUDPAddrPort([]byte("x"), netip.MustParseAddrPort("[::1]:5353"))
	require.NoError(t, err)
	n, from, err := c.ReadFromUDPAddrPort(make([]byte, 10))
	require.NoError(t, err)
	require.Equal(t, 1, n)
	require.Equal(t, uint16(5353), from.Port())
}

func TestStartRunsTheProcessInside(t *testing.T) {
	h := netnstest.New(t)
	link := exec.Command("readlink", "/proc/self/ns/net")
	var name bytes.Buffer
	link.Stdout = &name
	require.NoError(t, h.Start(link))
	require.NoError(t, link.Wait())
	var want string
	require.NoError(t, h.Do(func() (err error) { want, err = os.Readlink("/proc/thread-self/ns/net"); return err }))
	require.Equal(t, want, strings.TrimSpace(name.String()))

	cmd := exec.Command("true")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	require.ErrorIs(t, h.Start(cmd), netns.ErrPdeathsig)
}

func TestSpawnSetsUpInsideAndCleansUpOnError(t *testing.T) {
	netnstest.Require(t)
	before := openDescriptors(t)
	names := make([]string, 20)
	handles, err := netns.Spawn(t.Context(), len(names), func(i int, _ *netns.Handle) (err error) {
		names[i], err = os.Readlink("/proc/thread-self/ns/net")
		return err
	})
	require.NoError(t, err)
	for i, h := range handles {
		var name string
		require.NoError(t, h.Do(func() (err error) { name, err = os.Readlink("/proc/thread-self/ns/net"); return err }))
		require.Equal(t, names[i], name)
		require.NoError(t, h.Close())
	}
	require.Equal(t, before, openDescriptors(t))

	broken := errors.New("broken")
	_, err = netns.Spawn(t.Context(), 20, func(i int, _ *netns.Handle) error {
		if i == 7 {
			return broken
		}
		return nil
	})
	require.ErrorIs(t, err, broken)
	require.Equal(t, before, openDescriptors(t))

	ctx, cancel := context.WithCancel(t.Context())
	_, err = netns.Spawn(ctx, 20, func(i int, _ *netns.Handle) error {
		if i == 7 {
			cancel()
		}
		return nil
	})
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, before, openDescriptors(t))
}

// Every thread of the process that is left after much use of namespaces is in the process's own.
func TestNoThreadStaysInside(t *testing.T) {
	netnstest.Require(t)
	own, err := os.Readlink("/proc/self/ns/net")
	require.NoError(t, err)
	for range 50 {
		h, err := netns.New()
		require.NoError(t, err)
		require.NoError(t, h.Do(func() error { return nil }))
		require.NoError(t, h.Close())
	}
	require.Eventually(t, func() bool { // a thread ends a little after the goroutine that was locked to it
		tasks, err := os.ReadDir("/proc/self/task")
		require.NoError(t, err)
		for _, task := range tasks {
			name, err := os.Readlink("/proc/self/task/" + task.Name() + "/ns/net")
			if err == nil && name != own {
				return false
			}
		}
		return true
	}, 5*time.Second, time.Millisecond)
}

func openDescriptors(t *testing.T) int {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	return len(fds)
}
