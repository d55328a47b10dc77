package sim_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"drawbridge/sim"
	"drawbridge/sim/link"
	"drawbridge/sim/netns"
	"drawbridge/sim/netns/netnstest"
	"drawbridge/topology"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// firstSentinel is the index of the first sentinel interface, far from those of any node.
const firstSentinel = 1000

// sentinels ties an interface of this process's namespace to each of the lab's: it is there exactly as long as that namespace.
func sentinels(l *sim.Lab) error {
	own, err := netns.Current()
	if err != nil {
		return err
	}
	defer own.Close()
	conn, err := link.Open(own)
	if err != nil {
		return err
	}
	defer conn.Close()
	var b link.Batch
	for i, name := range l.Nodes() {
		h, _ := l.Node(name)
		end := func(ns int, side byte) link.Device {
			return link.Device{Namespace: ns, Name: fmt.Sprintf("sentinel%d", i), Index: firstSentinel + i, MAC: net.HardwareAddr{2, 0, 0, 0, byte(i), side}}
		}
		b.Veth(end(own.Fd(), 0), end(h.Fd(), 1))
	}
	return conn.Run(&b)
}

// allGone waits until no sentinel is left: the kernel tells of each.
func allGone(t *testing.T) {
	t.Helper()
	updates, done := make(chan netlink.LinkUpdate, 1000), make(chan struct{})
	defer close(done)
	require.NoError(t, netlink.LinkSubscribeWithOptions(updates, done, netlink.LinkSubscribeOptions{ListExisting: false}))
	timeout := time.After(10 * time.Second)
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
			t.Fatalf("%d namespaces are still there", left)
		}
	}
}

func TestCloseReleasesEverything(t *testing.T) {
	netnstest.NoLeaks(t)
	l, err := sim.Up(t.Context(), topology.Default(), sim.Options{})
	require.NoError(t, err)
	require.NoError(t, l.StartServers(t.Context()))
	require.ErrorIs(t, l.StartServers(t.Context()), sim.ErrStarted)
	require.NoError(t, sentinels(l))
	require.NoError(t, l.Close())
	require.NoError(t, l.Close())
	require.Error(t, l.StartServers(t.Context()))
	h, ok := l.Node("office")
	require.True(t, ok)
	require.ErrorIs(t, h.Do(func() error { return nil }), netns.ErrClosed)
	allGone(t)
}

func TestCancelledUpCleansUp(t *testing.T) {
	netnstest.NoLeaks(t)
	w := topology.Default()
	cancelled := 0
	for i := range 20 { // at any stage, whichever that is on this machine
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*3*time.Millisecond)
		l, err := sim.Up(ctx, w, sim.Options{})
		if err == nil {
			require.NoError(t, l.Close())
		} else {
			require.ErrorIs(t, err, context.DeadlineExceeded)
			cancelled++
		}
		cancel()
	}
	require.Positive(t, cancelled)
}

const killedChild = "DRAWBRIDGE_TEST_KILLED_LAB"

// TestKilledProcessLeavesNothing runs itself once more, as a process that builds a lab and is then killed.
func TestKilledProcessLeavesNothing(t *testing.T) {
	netnstest.Require(t)
	if os.Getenv(killedChild) != "" {
		l, err := sim.Up(t.Context(), topology.Default(), sim.Options{})
		require.NoError(t, err)
		require.NoError(t, l.StartServers(t.Context()))
		require.NoError(t, sentinels(l))
		fmt.Println("up")
		select {} // until killed
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestKilledProcessLeavesNothing$")
	cmd.Env = append(os.Environ(), killedChild+"=1")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	lines := bufio.NewScanner(out)
	require.True(t, lines.Scan(), "the child must come up")
	require.Equal(t, "up", lines.Text())
	links, err := net.Interfaces()
	require.NoError(t, err)
	require.Greater(t, len(links), 20, "the sentinels must be there while the child lives")
	require.NoError(t, cmd.Process.Signal(unix.SIGKILL))
	require.Error(t, cmd.Wait())
	allGone(t)
}
