package nft

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"drawbridge/sim/netns"
	"drawbridge/sim/netns/netnstest"
)

// attempt runs nft(8) and returns whether it succeeded.
func attempt(t *testing.T, ns *netns.Handle, args ...string) bool {
	t.Helper()
	cmd := exec.Command(netnstest.Tool(t, "nft"), args...)
	require.NoError(t, ns.Start(cmd))
	return cmd.Wait() == nil
}

// TestAnOwnedTable: others can neither change nor flush it, it outlives its owner, and the next one adopts it as it is.
func TestAnOwnedTable(t *testing.T) {
	ns := netnstest.New(t)
	var c *Conn
	require.NoError(t, ns.Do(func() (err error) { c, err = Open("drawbridge"); return err }))
	missing, err := c.Missing(t.Context())
	require.NoError(t, err)
	for _, f := range missing {
		if f == OwnedTable {
			t.Skip("this kernel knows no owned tables that persist")
		}
	}
	require.NoError(t, c.Own(t.Context()))
	install(t, c, sampleTable())
	require.False(t, attempt(t, ns, "delete table inet drawbridge"))
	require.False(t, attempt(t, ns, "add chain inet drawbridge more"))
	require.True(t, attempt(t, ns, "flush ruleset"))
	require.Equal(t, canonical(sampleTable()), canonical(read(t, c).Table))

	second := openTable(t, ns, "drawbridge")
	require.ErrorIs(t, second.Own(t.Context()), ErrOwned)
	require.ErrorIs(t, second.Delete(t.Context(), 0), unix.EPERM)

	third := openTable(t, ns, "drawbridge")
	require.NoError(t, c.Close())
	require.NoError(t, third.Own(t.Context()))
	got := read(t, third)
	require.Equal(t, canonical(sampleTable()), canonical(got.Table))
	require.False(t, attempt(t, ns, "delete table inet drawbridge"))
}

// TestATableThatBelongsToNobody is replaced by one that is owned.
func TestATableThatBelongsToNobody(t *testing.T) {
	c, ns := open(t)
	install(t, c, sampleTable())
	owner := openTable(t, ns, "drawbridge")
	require.NoError(t, owner.Own(t.Context()))
	state := read(t, owner)
	require.ErrorIs(t, state.Foreign, ErrForeign)
	require.NoError(t, owner.Replace(t.Context(), sampleTable(), true, state.Generation))
	require.NoError(t, read(t, owner).Foreign)
	require.False(t, attempt(t, ns, "flush table inet drawbridge"))
}

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
	require.NoError(t, w.conn.SetReadBuffer(1)) // the kernel makes that its least: some messages
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
