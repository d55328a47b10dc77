package suite

import (
	"context"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"drawbridge/features"
	"drawbridge/topology"

	"github.com/cucumber/godog"
)

func points(names ...string) map[string]bool {
	m := map[string]bool{}
	for _, n := range names {
		m[n] = true
	}
	return m
}

// isIn reports whether a ticket has been let in.
func isIn(t *ticket) bool {
	select {
	case <-t.ready:
		return true
	default:
		return false
	}
}

func queue(l *lanes, g ground) *ticket {
	t := &ticket{ground: g, ready: make(chan struct{})}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waiting = append(l.waiting, t)
	l.admit()
	return t
}

func TestLanesKeepScenariosApart(t *testing.T) {
	l := newLanes(3)
	a := queue(l, ground{own: points("a")})
	b := queue(l, ground{own: points("b"), calm: points("c")})
	again := queue(l, ground{own: points("a")})
	c := queue(l, ground{own: points("c")})
	calm := queue(l, ground{own: points("d"), calm: points("c")})
	require.True(t, isIn(a))
	require.True(t, isIn(b))
	require.False(t, isIn(again), "somebody changes its point")
	require.False(t, isIn(c), "somebody needs it to be calm")
	require.False(t, isIn(calm), "c was asked for before")
	l.leave(a.ground)
	require.True(t, isIn(again))
	l.leave(b.ground)
	require.True(t, isIn(c))
	require.False(t, isIn(calm), "somebody changes what is behind it")
	l.leave(c.ground)
	require.True(t, isIn(calm))
}

func TestLanesHaveAWidth(t *testing.T) {
	l := newLanes(0)
	a, b := queue(l, ground{own: points("a")}), queue(l, ground{own: points("b")})
	require.True(t, isIn(a))
	require.False(t, isIn(b))
	l.leave(a.ground)
	require.True(t, isIn(b))
}

func TestWhoStopsWaitingIsInNobodysWay(t *testing.T) {
	l := newLanes(2)
	a := queue(l, ground{own: points("a")})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, l.enter(ctx, ground{own: points("a", "b")}), context.Canceled)
	require.True(t, isIn(queue(l, ground{own: points("b")})))
	l.leave(a.ground)
	require.Empty(t, l.waiting)
	require.Equal(t, 1, l.running)
}

func TestThePointBusiestIsFirstAndTheWidestLast(t *testing.T) {
	l := newLanes(1)
	inside := queue(l, ground{own: points("x")})
	wide := queue(l, ground{own: points("a", "b", "c", "d", "e")})
	b := queue(l, ground{own: points("b")})
	a1, a2 := queue(l, ground{own: points("a")}), queue(l, ground{own: points("a")})
	for _, next := range []*ticket{a1, a2, b, wide} {
		require.False(t, isIn(next))
		l.leave(inside.ground)
		require.True(t, isIn(next))
		inside = next
	}
}

// TestGroundsOfTheFeatures: a scenario that reads too little of its text would fail for it; one that reads too much costs time.
func TestGroundsOfTheFeatures(t *testing.T) {
	found, err := godog.TestSuite{Options: &godog.Options{FS: features.Files, Paths: []string{"."}}}.RetrieveFeatures()
	require.NoError(t, err)
	w := topology.Default()
	narrow := 0
	for _, f := range found {
		for _, p := range f.Pickles {
			g := groundOf(w, p)
			require.NotEmpty(t, g.own, p.Name)
			if len(g.own) < len(w.Points()) {
				narrow++
			}
			if slices.ContainsFunc(words(p), wideRE.MatchString) {
				require.Equal(t, everywhere(w).own, g.own, p.Name)
			}
		}
	}
	require.Greater(t, narrow, 90)
}
