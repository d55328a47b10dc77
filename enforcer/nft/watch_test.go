package nft

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"drawbridge/enforcer/ruleset"

	"drawbridge/sim/netns"
	"drawbridge/sim/netns/netnstest"
)

// TestEveryCommitIsHeardOf, with the name of whoever made it.
func TestEveryCommitIsHeardOf(t *testing.T) {
	c, ns := open(t)
	var w *Watcher
	require.NoError(t, ns.Do(func() (err error) { w, err = Watch(); return err }))
	generation := install(t, c, sampleTable()).Generation
	timer := time.AfterFunc(10*time.Second, func() { _ = w.Close() })
	defer timer.Stop()
	events, err := w.Next()
	require.NoError(t, err)
	require.Equal(t, generation, events[len(events)-1].Generation)
	require.True(t, attempt(t, ns, "add table inet other"))
	events, err = w.Next()
	require.NoError(t, err)
	require.Equal(t, "nft", events[0].ProcessName)
	require.NotZero(t, events[0].ProcessID)
	require.NoError(t, w.Close())
	_, err = w.Next()
	require.Error(t, err)
}

// watch opens a Watcher in a namespace.
func watch(t *testing.T, ns *netns.Handle) *Watcher {
	t.Helper()
	var w *Watcher
	require.NoError(t, ns.Do(func() (err error) {
		w, err = Watch()
		return err
	}))
	t.Cleanup(func() { _ = w.Close() })
	return w
}

// TestWatchTellsOfLostWords: where the socket could not hold what the kernel said, the watcher says that something was lost.
func TestWatchTellsOfLostWords(t *testing.T) {
	ns := netnstest.New(t)
	w := watch(t, ns)
	require.NoError(t, unix.SetsockoptInt(w.heard.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 1)) // the kernel makes that its least: some messages
	for i := range 64 {
		nft(t, ns, "add table ip", fmt.Sprint("t", i))
	}
	for {
		events, err := w.Next()
		require.NoError(t, err)
		if slices.Contains(events, Event{}) {
			return
		}
	}
}

// TestWatchNamesWhoeverWroteMuch: a transaction of more messages than a socket holds is told of in one word.
func TestWatchNamesWhoeverWroteMuch(t *testing.T) {
	ns := netnstest.New(t)
	nft(t, ns, "add table inet other; add set inet other many { type ipv4_addr; }")
	for part := range 15 { // nft(8) of an ordinary user cannot send much at once
		var script strings.Builder
		fmt.Fprintf(&script, "add element inet other many { 10.%d.255.255", part)
		for i := range 4000 {
			fmt.Fprintf(&script, ", 10.%d.%d.%d", part, i/256, i%256)
		}
		script.WriteString(" }\n")
		file := filepath.Join(t.TempDir(), "many.nft")
		require.NoError(t, os.WriteFile(file, []byte(script.String()), 0o600))
		nft(t, ns, "-f", file)
	}
	w := watch(t, ns)
	nft(t, ns, "flush set inet other many")
	events, err := w.Next()
	require.NoError(t, err)
	require.Len(t, events, 1)
	require.Equal(t, "nft", events[0].ProcessName)
	require.NotZero(t, events[0].ProcessID)
	require.NotZero(t, events[0].Generation)
}

// TestDeletionsAreHeardOf, wherever in a commit they stand. Who listened before hears all of it as well.
func TestDeletionsAreHeardOf(t *testing.T) {
	c, ns := open(t)
	other, err := ns.Socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_NETFILTER)
	require.NoError(t, err)
	defer unix.Close(other)
	require.NoError(t, unix.Bind(other, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}))
	require.NoError(t, unix.SetsockoptInt(other, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, unix.NFNLGRP_NFTABLES))
	var w *DeletionWatcher
	require.NoError(t, ns.Do(func() (err error) { w, err = WatchDeletions("t"); return err }))
	for command, ours := range map[string]bool{
		"flush chain ip t c": true, "delete chain ip t c": true, "delete table ip t": true, "delete table ip t; delete table ip o": true,
		// Of these the first datagram begins with something else.
		"flush ruleset": false, "delete table ip o; flush ruleset": false, "add table ip x; delete table ip t": false,
	} {
		nft(t, ns, "flush ruleset; add table ip o; add counter ip o n; add table ip t; add chain ip t c; add rule ip t c accept; add set ip t s { type ipv4_addr; }")
		deletions(t, w)
		whole(t, other)
		require.False(t, heard(t, w), "before "+command)
		before, err := c.Generation(t.Context())
		require.NoError(t, err)
		nft(t, ns, command)
		require.True(t, heard(t, w), command)
		want := Deletion{}
		if ours {
			want = Deletion{Ours: true, Generation: uint16(before + 1)}
		}
		told := deletions(t, w)
		writer := told[0].Writer
		require.NotZero(t, writer)
		require.NotEqual(t, c.Port(), writer)
		for i := range told {
			require.Equal(t, writer, told[i].Writer)
			told[i].Writer = 0
		}
		require.Contains(t, told, want, command)
		require.NotZero(t, whole(t, other), command)
	}
	nft(t, ns, "add table ip another; delete table ip another")
	for _, d := range deletions(t, w) {
		require.False(t, d.Ours)
	}
	ended := make(chan error)
	go func() { _, err := w.Next(); ended <- err }()
	require.NoError(t, w.Close())
	require.ErrorIs(t, <-ended, os.ErrClosed)
	_, err = w.Next()
	require.ErrorIs(t, err, os.ErrClosed)
	require.NoError(t, w.Close())
}

// whole takes all that a socket has heard, and counts datagrams. None of them is shorter than its first message says.
func whole(t *testing.T, fd int) (n int) {
	t.Helper()
	b := make([]byte, 64<<10)
	for {
		length, _, err := unix.Recvfrom(fd, b, unix.MSG_DONTWAIT)
		if err != nil {
			require.ErrorIs(t, err, unix.EAGAIN)
			return n
		}
		require.LessOrEqual(t, int(binary.NativeEndian.Uint32(b)), length)
		n++
	}
}

// deletions are all that a watcher has heard of.
func deletions(t *testing.T, w *DeletionWatcher) (all []Deletion) {
	t.Helper()
	for heard(t, w) {
		d, err := w.Next()
		require.NoError(t, err)
		all = append(all, d)
	}
	return all
}

// heard tells whether a watcher has something to tell.
func heard(t *testing.T, w *DeletionWatcher) bool {
	t.Helper()
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(w.heard.fd), Events: unix.POLLIN}}, 0)
	require.NoError(t, err)
	return n == 1
}

// TestAWriterIsKnownByItsPort: whoever has several Conns tells its own deletions from others'.
func TestAWriterIsKnownByItsPort(t *testing.T) {
	c, ns := open(t)
	var w *DeletionWatcher
	require.NoError(t, ns.Do(func() (err error) { w, err = WatchDeletions(sampleTable().Name); return err }))
	require.NoError(t, c.Commit(t.Context(), ruleset.Diff(ruleset.Table{}, sampleTable()), read(t, c).Generation))
	require.NoError(t, c.Delete(t.Context(), read(t, c).Generation))
	told := deletions(t, w)
	require.NotEmpty(t, told)
	for _, d := range told {
		require.Equal(t, c.Port(), d.Writer)
	}
	require.NoError(t, w.Close())
}
