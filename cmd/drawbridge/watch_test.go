//go:build !operator

package main

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"drawbridge/cmd/drawbridge/internal/control"
	"drawbridge/sim/probe"
	"drawbridge/topology"

	"github.com/stretchr/testify/require"
)

func TestOnlyWhatFaresOtherwiseHasChanged(t *testing.T) {
	at := time.Unix(1, 0)
	one := seen{From: "a", To: netip.MustParseAddrPort("192.0.2.1:1"), Mode: "tls", Verdict: "served"}
	two := one
	two.From = "b"
	denied := two
	denied.Verdict = "dropped"
	require.Empty(t, changed(nil, []seen{one, two}, at), "there was nothing before")
	require.Empty(t, changed([]seen{one, two}, []seen{one, two}, at))
	require.Equal(t, []change{{at, "served", denied}}, changed([]seen{one, two}, []seen{denied, one}, at), "in any order")
	require.Empty(t, changed([]seen{one}, []seen{one, denied}, at), "what was not tried before")
}

func looksAtDefault() *looking {
	w := topology.Default()
	specs, err := matrixOrder{}.specs(w)
	if err != nil {
		panic(err) // it names nothing that could be unknown
	}
	return newLooking(w, specs)
}

func TestWhatDependsOnAChangeIsLookedAt(t *testing.T) {
	l := looksAtDefault()
	from := func(names ...string) func(probe.Spec) bool {
		return func(s probe.Spec) bool { return slices.Contains(names, s.From) }
	}
	at := func(point string) func(probe.Spec) bool {
		return func(s probe.Spec) bool { return s.To.Point == point }
	}
	for where, depends := range map[string]func(probe.Spec) bool{
		"office":       from("office"),
		"edge-osc-fr1": from("osc-fr1/web", "osc-fr1/worker"),
		"corp":         from("corp/desk", "corp/printer"),
		"gw-fr1": func(s probe.Spec) bool {
			return at("gw-fr1")(s) || from("corp/desk", "corp/printer", "pg-dedicated-1", "pg-dedicated-2", "pg-dedicated-3", "mongo-dedicated-1", "canary-gw-fr1-1")(s)
		},
		"shared-a":    func(s probe.Spec) bool { return at("shared-a")(s) || from("pg-shared-1", "my-shared-1")(s) },
		"my-shared-1": func(s probe.Spec) bool { return s.To.Node == "my-shared-1" },
		"gw-secnum": func(s probe.Spec) bool {
			return at("gw-secnum")(s) || from("search-dedicated-1", "canary-gw-secnum-1")(s)
		},
		"not known": func(probe.Spec) bool { return true },
	} {
		l.tell("changed", where)
		to, from, why := l.told()
		require.Equal(t, where+": changed", why)
		which := slices.Concat(to, from)
		require.NotEmpty(t, which, where)
		for i, s := range l.specs {
			require.Equal(t, depends(s), slices.Contains(which, i), "%s: %s", where, s)
		}
	}
	l.tell("changed", "office", "corp")
	to, rest, why := l.told()
	require.Equal(t, "corp: changed, office: changed", why)
	require.Empty(t, to)
	require.Less(t, len(rest), len(l.specs))
	to, rest, _ = l.told()
	require.Empty(t, append(to, rest...), "they have been looked at")
}

func TestDenialsDependOnTheCanary(t *testing.T) {
	w := topology.Default()
	require.Equal(t, []string{"my-shared-1"}, dependents(w, []string{"my-shared-1"}))
	require.Contains(t, dependents(w, []string{"canary-gw-fr1-1"}), "gw-fr1")
}

// watchedFor runs a looking in a time of its own, and returns its looks.
func watchedFor(t *testing.T, o watchOrder, length time.Duration, during func(*looking)) (all []look) {
	t.Helper()
	l := looksAtDefault()
	l.observe = func(_ context.Context, specs []probe.Spec) ([]seen, error) { return make([]seen, len(specs)), nil }
	ctx, cancel := context.WithTimeout(t.Context(), length)
	defer cancel()
	go during(l)
	require.NoError(t, l.run(ctx, o, func(k look) error { all = append(all, k); return nil }))
	require.Len(t, all[0].Which, len(l.specs), "at first everything")
	return all[1:]
}

func TestWhatNothingTellsOfIsLookedAtWithinARound(t *testing.T) {
	const round = time.Minute
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		latest := map[int]time.Time{}
		for _, k := range watchedFor(t, watchOrder{Every: time.Second, Round: round}, 3*round, func(*looking) {}) {
			for _, i := range k.Which {
				before, ok := latest[i]
				if !ok {
					before = began
				}
				require.LessOrEqual(t, k.At.Sub(before), round)
				latest[i] = k.At
			}
		}
		require.Len(t, latest, len(looksAtDefault().specs))
	})
}

func TestChangesAreLookedAtAtOnceButNotWithoutEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		looks := watchedFor(t, watchOrder{Every: time.Second, Round: time.Hour}, 10*time.Second, func(l *looking) {
			for range 50 { // five seconds of commits
				l.tell("ruleset changed", "gw-fr1")
				<-time.After(100 * time.Millisecond)
			}
		})
		require.Len(t, looks, 2*6)
		for i, k := range looks {
			require.Equal(t, time.Duration(i/2)*time.Second, k.At.Sub(began), "the first at once, and the last word is not lost")
			require.Equal(t, "gw-fr1: ruleset changed", k.Why)
			require.Equal(t, i%2 == 0, looksAtDefault().specs[k.Which[0]].To.Point == "gw-fr1", "first what leads there")
		}
	})
}

func TestAWorldWithoutDatabasesIsWatchedAsWell(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithTimeout(t.Context(), time.Minute)
		defer stop()
		began := time.Now()
		l := &looking{word: make(chan struct{}, 1), observe: func(context.Context, []probe.Spec) ([]seen, error) { return nil, nil }}
		var looks []look
		require.NoError(t, l.run(ctx, watchOrder{Every: 1, Round: 1}, func(k look) error { looks = append(looks, k); return nil }))
		require.Len(t, looks, 1)
		require.Equal(t, time.Minute, time.Since(began), "until it is told to stop")
	})
}

func TestALookThatFailsEndsTheWatch(t *testing.T) {
	l, gone := looksAtDefault(), errors.New("lost sight of packets")
	l.observe = func(context.Context, []probe.Spec) ([]seen, error) { return nil, gone }
	require.ErrorIs(t, l.run(t.Context(), watchOrder{Every: 1, Round: 1}, nil), gone)
}

func TestTheScreenSaysWhatIsFresh(t *testing.T) {
	at := func(seconds int64) time.Time { return time.Unix(seconds, 0) }
	one := seen{From: "office", Database: "pg", To: netip.MustParseAddrPort("192.0.2.1:5432"), Kind: "public-rw", Mode: "tls", Verdict: "served"}
	two := one
	two.Database, two.To = "my", netip.MustParseAddrPort("192.0.2.2:3306")
	var out bytes.Buffer
	w := &watching{out: &out, screen: true, now: func() time.Time { return at(90) }, round: time.Minute}
	require.NoError(t, w.take(look{At: at(10), Why: "everything", Which: []int{0, 1}, Seen: []seen{one, two}}))
	denied := two
	denied.Verdict = "dropped"
	out.Reset()
	require.NoError(t, w.take(look{At: at(70), Took: time.Second, Why: "gw: ruleset changed", Which: []int{1}, Seen: []seen{denied}}))
	clock := func(seconds int64) string { return at(seconds).Format(time.TimeOnly) }
	text := out.String()
	require.Contains(t, text, clock(70)+"  gw: ruleset changed: looked at 1 of 2 in 1s. Nothing here is older than "+clock(10)+"; all is looked at within 1m0s.\n")
	require.Regexp(t, `(?m)^pg .* S +`+clock(10)+`$`, text)
	require.Regexp(t, `(?m)^my .* d +`+clock(70)+` \*$`, text)
	require.Contains(t, text, clock(90)+"  office to my at 192.0.2.2:3306, tls: dropped, was served\n")
	out.Reset()
	require.NoError(t, w.take(look{At: at(80), Why: "gw: its turn", Which: []int{0}, Seen: []seen{one}}))
	require.Contains(t, out.String(), "dropped, was served", "the last change stays")
	for _, k := range []look{{Which: []int{2}, Seen: []seen{one}}, {Which: []int{-1}, Seen: []seen{one}}, {Which: []int{0}}} {
		require.ErrorIs(t, w.take(k), control.ErrMessage)
	}
}
