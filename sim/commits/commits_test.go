package commits_test

import (
	"encoding/binary"
	"os"
	"testing"
	"time"

	"drawbridge/sim/commits"
	"drawbridge/sim/netns"
	"drawbridge/sim/netns/netnstest"

	"github.com/google/nftables"
	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

// patience bounds what comes at once where it comes at all.
const patience = 10 * time.Second

// ear tells what a Watcher hears.
type ear struct {
	*commits.Watcher
	heard chan struct{} // closed at the end
	err   error         // of the end
}

func listen(t *testing.T, h *netns.Handle) *ear {
	t.Helper()
	w, err := commits.Watch(h)
	require.NoError(t, err)
	e := &ear{Watcher: w, heard: make(chan struct{})}
	go func() {
		defer close(e.heard)
		for {
			if e.err = w.Next(); e.err != nil {
				return
			}
			e.heard <- struct{}{}
		}
	}()
	t.Cleanup(func() {
		_ = w.Close()
		for range e.heard {
		}
	})
	return e
}

// await returns once something was heard.
func (e *ear) await(t *testing.T) {
	t.Helper()
	select {
	case _, open := <-e.heard:
		require.True(t, open, "%v", e.err)
	case <-time.After(patience):
		require.FailNow(t, "a commit was not heard")
	}
}

// writer is somebody who changes a node's ruleset.
func writer(t *testing.T, h *netns.Handle) *nftables.Conn {
	t.Helper()
	var c *nftables.Conn
	require.NoError(t, h.Do(func() (err error) { c, err = nftables.New(nftables.AsLasting()); return err }))
	t.Cleanup(func() { require.NoError(t, c.CloseLasting()) })
	return c
}

var table = &nftables.Table{Name: "anybody", Family: nftables.TableFamilyINet}

func TestEveryCommitIsHeard(t *testing.T) {
	h, elsewhere := netnstest.New(t), netnstest.New(t)
	here, there := writer(t, h), writer(t, elsewhere)
	e := listen(t, h)
	there.AddTable(table)
	require.NoError(t, there.Flush())
	select {
	case <-e.heard:
		require.FailNow(t, "another node's commit was heard")
	default:
	}
	here.AddTable(table)
	require.NoError(t, here.Flush())
	e.await(t)
	here.DelTable(table)
	require.NoError(t, here.Flush())
	e.await(t)
}

// TestLargeCommitsAreHeard: the kernel has more to say of one than the socket holds, and after that it is heard as before.
func TestLargeCommitsAreHeard(t *testing.T) {
	h := netnstest.New(t)
	c := writer(t, h)
	e := listen(t, h)
	set := &nftables.Set{Table: c.AddTable(table), Name: "many", KeyType: nftables.TypeMark}
	require.NoError(t, c.AddSet(set, nil))
	var all []nftables.SetElement
	for i := range 200 {
		all = append(all, nftables.SetElement{Key: binary.NativeEndian.AppendUint32(nil, uint32(i))})
	}
	for _, some := range [][]nftables.SetElement{all[:100], all[100:]} {
		require.NoError(t, c.SetAddElements(set, some))
	}
	require.NoError(t, c.Flush())
	e.await(t)
	for quiet := false; !quiet; { // of one commit more than one message may be heard
		select {
		case <-e.heard:
		case <-time.After(100 * time.Millisecond):
			quiet = true
		}
	}
	c.DelTable(table)
	require.NoError(t, c.Flush())
	e.await(t)
}

func TestCloseEndsNext(t *testing.T) {
	e := listen(t, netnstest.New(t))
	require.NoError(t, e.Close())
	for range e.heard {
	}
	require.ErrorIs(t, e.err, os.ErrClosed)
}
