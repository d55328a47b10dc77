package endpoint

import (
	"context"
	"errors"
	"net/netip"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func from(port uint16, query string) Event {
	return Event{Kind: Query, Remote: netip.AddrPortFrom(netip.IPv4Unspecified(), port), Query: query}
}

func TestJournalKeepsPortsApart(t *testing.T) {
	j := NewJournal()
	j.record(from(1, "a"))
	j.record(from(2, "b"))
	j.record(from(1, "c"))
	require.Equal(t, []string{"a", "c"}, queries(j.Events(1)))
	require.Equal(t, []string{"b"}, queries(j.Events(2)))
	require.Empty(t, j.Events(3))
	require.Len(t, j.All(), 3)
}

func TestJournalIsNotChangedThroughItsEvents(t *testing.T) {
	j := NewJournal()
	e := from(1, "a")
	e.First = []byte{1, 2}
	j.record(e)
	j.Events(1)[0].First[0] = 9
	j.All()[0].First[0] = 9
	require.Equal(t, []byte{1, 2}, j.Events(1)[0].First)
}

func TestAllIsSortedByTimeThenConnection(t *testing.T) {
	j := NewJournal()
	start := time.Unix(100, 0)
	for _, e := range []Event{
		{At: start.Add(2), Conn: 1, Query: "third"}, {At: start, Conn: 2, Query: "second"}, {At: start, Conn: 1, Query: "first"},
	} {
		e.Remote = netip.AddrPortFrom(netip.IPv4Unspecified(), uint16(e.At.Nanosecond()))
		j.record(e)
	}
	require.Equal(t, []string{"first", "second", "third"}, queries(j.All()))
}

func TestSubscriptionLosesNothing(t *testing.T) {
	const before, after = 100, 1000
	j := NewJournal()
	for i := range before {
		j.record(from(1, strconv.Itoa(i)))
	}
	events, cancel := j.Subscribe(1)
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range after {
			j.record(from(1, strconv.Itoa(before+i)))
			j.record(from(2, "somebody else"))
		}
	})
	for i := range before + after {
		require.Equal(t, strconv.Itoa(i), (<-events).Query)
	}
	wg.Wait()
	cancel()
	cancel()
	for range events {
		t.Fatal("an event after the last one")
	}
}

func TestForgetGoesOnWithTheNextEvent(t *testing.T) {
	j := NewJournal()
	events, cancel := j.Subscribe(1)
	defer cancel()
	j.record(from(1, "a"))
	require.Equal(t, "a", (<-events).Query)
	j.Forget(1)
	require.Empty(t, j.Events(1))
	j.record(from(1, "b"))
	require.Equal(t, "b", (<-events).Query)
	require.Equal(t, []string{"b"}, queries(j.Events(1)))
}

// TestForgottenConnectionsStayForgotten: a port's next owner is not blamed for what the one before left open.
func TestForgottenConnectionsStayForgotten(t *testing.T) {
	j := NewJournal()
	of := func(conn uint64, query string) Event {
		e := from(1, query)
		e.Conn = conn
		return e
	}
	old, oldCount := j.NextConn(), j.counter(1)
	j.record(of(old, "old"))
	other := j.NextConn() // of another port
	j.Forget(1)
	j.record(of(old, "given up"))
	oldCount.Add(100)
	require.Empty(t, j.Events(1))
	require.Zero(t, j.Received(1))
	young := j.NextConn()
	j.record(of(young, "young"))
	j.counter(1).Add(5)
	j.record(of(old, "closed"))
	require.Equal(t, []string{"young"}, queries(j.Events(1)))
	require.Equal(t, uint64(5), j.Received(1))
	e := from(2, "other")
	e.Conn = other
	j.record(e)
	require.Equal(t, []string{"other"}, queries(j.Events(2)))
	j.record(from(1, "unknown"))
	require.Equal(t, []string{"young", "unknown"}, queries(j.Events(1)))
}

func TestWait(t *testing.T) {
	j := NewJournal()
	is := func(q string) func(Event) bool { return func(e Event) bool { return e.Query == q } }
	j.record(from(1, "past"))
	e, err := j.Wait(t.Context(), 1, is("past"))
	require.NoError(t, err)
	require.Equal(t, "past", e.Query)

	var wg sync.WaitGroup
	wg.Go(func() {
		e, err = j.Wait(t.Context(), 1, is("future"))
	})
	j.record(from(1, "other"))
	j.record(from(1, "future"))
	wg.Wait()
	require.NoError(t, err)
	require.Equal(t, "future", e.Query)

	why := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	_, err = j.Wait(ctx, 1, is("never"))
	require.ErrorIs(t, err, why)
}

func queries(events []Event) []string {
	var out []string
	for _, e := range events {
		out = append(out, e.Query)
	}
	return out
}
