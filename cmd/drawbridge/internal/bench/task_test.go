package bench_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"drawbridge/cmd/drawbridge/internal/bench"

	"github.com/stretchr/testify/require"
)

// clock is a time that only contenders let pass.
type clock struct{ now time.Time }

func (c *clock) takes(d time.Duration) { c.now = c.now.Add(d) }

// plan measures with a clock; everything else uses a quarter of two processors.
func plan(c *clock, rounds int) bench.Plan {
	return bench.Plan{
		Rounds: rounds, Budget: time.Hour, Processors: 2, Now: func() time.Time { return c.now },
		Usage: func() (bench.Usage, error) {
			return bench.Usage{Machine: time.Duration(c.now.UnixNano()) / 2}, nil
		},
	}
}

// runner is a contender whose i-th run gives the i-th value and takes some time.
func runner(c *clock, order *[]string, name string, kind bench.Kind, takes time.Duration, values ...float64) bench.Contender {
	run := 0
	return bench.Contender{Name: name, Kind: kind, Run: func(context.Context) (bench.Values, error) {
		*order = append(*order, name)
		c.takes(takes)
		run++
		return bench.Values{"": values[(run-1)%len(values)]}, nil
	}}
}

var inMillis = []bench.Metric{{Unit: "ms"}}

func measure(t *testing.T, p bench.Plan, task bench.Task) bench.Comparison {
	t.Helper()
	got, err := p.Measure(t.Context(), task)
	require.NoError(t, err)
	require.Len(t, got, 1)
	return got[0]
}

// TestRoundsBeginWithAnotherContenderEachTime, and values of one round make a ratio.
func TestRoundsBeginWithAnotherContenderEachTime(t *testing.T) {
	var c clock
	var order []string
	got := measure(t, plan(&c, 4), bench.Task{Name: "t", Metrics: inMillis, Contenders: []bench.Contender{
		runner(&c, &order, "ours", bench.Ours, time.Second, 1, 2, 3, 4),
		runner(&c, &order, "a", bench.Peer, time.Second, 2, 2, 2, 2),
		runner(&c, &order, "b", bench.Floor, time.Second, 1, 1, 1, 1),
	}})
	require.Equal(t, []string{"ours", "a", "b", "a", "b", "ours", "b", "ours", "a", "ours", "a", "b"}, order)
	require.Equal(t, []float64{0.5, 1, 1.5, 2}, got.Lines[1].Ratio.Values)
	require.Equal(t, []float64{1, 2, 3, 4}, got.Lines[2].Ratio.Values)
	require.Nil(t, got.Lines[0].Ratio)
	require.InDelta(t, 0.25, got.Others, 1e-9)
}

// TestBudget: who has spent it runs no more, and the ratios are of the rounds that it had.
func TestBudget(t *testing.T) {
	var c clock
	var order []string
	p := plan(&c, 5)
	p.Budget = 3 * time.Second
	got := measure(t, p, bench.Task{Name: "t", Metrics: inMillis, Contenders: []bench.Contender{
		runner(&c, &order, "ours", bench.Ours, time.Millisecond, 1, 2, 3, 4, 5),
		runner(&c, &order, "slow", bench.Peer, 2*time.Second, 10),
		runner(&c, &order, "slower", bench.Peer, time.Minute, 10),
	}})
	require.Equal(t, []float64{0.1, 0.2}, got.Lines[1].Ratio.Values)
	require.Equal(t, "2 of 5 rounds took 4s", got.Lines[1].Note)
	require.Equal(t, []float64{0.1}, got.Lines[2].Ratio.Values)
	require.Len(t, got.Lines[0].Value.Values, 5)
	require.Empty(t, got.Lines[0].Note)
}

// TestWhoCannotBeMeasuredHasALine that says why, and is not asked again; what fails of ours is an error.
func TestWhoCannotBeMeasuredHasALine(t *testing.T) {
	var c clock
	var order []string
	broken := errors.New("no such thing")
	failing := func(kind bench.Kind) bench.Contender {
		return bench.Contender{Name: "failing", Kind: kind, Run: func(context.Context) (bench.Values, error) {
			order = append(order, "failing")
			return nil, broken
		}}
	}
	ours := runner(&c, &order, "ours", bench.Ours, 1, 1)
	absent := bench.Contender{Name: "absent", Kind: bench.Peer, Absent: "not installed: absent"}
	got := measure(t, plan(&c, 2), bench.Task{Name: "t", Metrics: inMillis, Contenders: []bench.Contender{ours, absent, failing(bench.Peer)},
		Aims: []bench.Aim{{Against: "absent", Limit: 1}, {Against: "failing", Limit: 1}, {Of: "failing", Limit: 1}, {Against: "nobody", Limit: 1}}})
	require.Equal(t, bench.Line{Name: "absent", Kind: bench.Peer, Note: "not installed: absent"}, got.Lines[1])
	require.Equal(t, bench.Line{Name: "failing", Kind: bench.Peer, Note: "failed: no such thing", Failed: true}, got.Lines[2])
	require.Len(t, slices.DeleteFunc(order, func(s string) bool { return s != "failing" }), 1)
	excused := []bool{true, false, false, false}
	for i, j := range got.Goals {
		require.Equal(t, bench.Unmeasured, j.Verdict)
		require.Equal(t, excused[i], j.Excused, "%+v", j)
	}
	for _, kind := range []bench.Kind{bench.Ours, bench.Part} {
		_, err := plan(&c, 2).Measure(t.Context(), bench.Task{Name: "t", Metrics: inMillis, Contenders: []bench.Contender{failing(kind)}})
		require.ErrorIs(t, err, broken)
	}
}

// TestMeasuringEndsWithItsContext, whoever's run it ended.
func TestMeasuringEndsWithItsContext(t *testing.T) {
	var c clock
	ctx, cancel := context.WithCancel(t.Context())
	_, err := plan(&c, 2).Measure(ctx, bench.Task{Metrics: inMillis, Contenders: []bench.Contender{
		{Name: "peer", Kind: bench.Peer, Run: func(ctx context.Context) (bench.Values, error) { cancel(); return nil, ctx.Err() }},
	}})
	require.ErrorIs(t, err, context.Canceled)
}

func TestGoals(t *testing.T) {
	for _, tt := range []struct {
		name   string
		more   bool
		values []float64
		limit  float64
		want   bench.Verdict
	}{
		{"less: at the limit", false, []float64{5, 5, 5, 5, 5}, 5, bench.Met},
		{"less: above in one round", false, []float64{6}, 5, bench.Noise},
		{"less: above in five", false, []float64{6, 7, 6, 7, 6}, 5, bench.Missed},
		{"less: above in four of five", false, []float64{6, 7, 4, 7, 6}, 5, bench.Noise},
		{"more: at the limit", true, []float64{5, 5, 5, 5, 5}, 5, bench.Met},
		{"more: below in four", true, []float64{4, 4, 4, 4}, 5, bench.Noise},
		{"more: below in five", true, []float64{4, 4, 4, 4, 4}, 5, bench.Missed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var c clock
			var order []string
			got := measure(t, plan(&c, len(tt.values)), bench.Task{
				Metrics:    []bench.Metric{{Unit: "u", More: tt.more}},
				Contenders: []bench.Contender{runner(&c, &order, "ours", bench.Ours, 1, tt.values...), runner(&c, &order, "half", bench.Peer, 1, 2)},
				Aims:       []bench.Aim{{Limit: tt.limit}, {Against: "half", Limit: tt.limit / 2}},
			})
			require.Equal(t, tt.want, got.Goals[0].Verdict)
			require.Equal(t, tt.want, got.Goals[1].Verdict, "half of it against half of it")
			s := bench.Summary{Comparisons: []bench.Comparison{got}}
			s.Conclude()
			require.Equal(t, tt.want, s.Verdict)
		})
	}
}

// TestNoRatioOfWhatIsNotPositive: memory may seem to be given back, where the machine did so meanwhile.
func TestNoRatioOfWhatIsNotPositive(t *testing.T) {
	var c clock
	var order []string
	got := measure(t, plan(&c, 2), bench.Task{Metrics: inMillis, Contenders: []bench.Contender{
		runner(&c, &order, "ours", bench.Ours, 1, 2, 3), runner(&c, &order, "odd", bench.Peer, 1, 5, -1), runner(&c, &order, "none", bench.Peer, 1, 5, 0),
	}})
	for _, l := range got.Lines[1:] {
		require.NotNil(t, l.Value)
		require.Nil(t, l.Ratio)
		require.Equal(t, "no ratio of what is not positive", l.Note)
	}
}

// TestMetricsThatOnlySomeTell are rows of those, even if they were left out of later rounds.
func TestMetricsThatOnlySomeTell(t *testing.T) {
	var c clock
	says := func(v bench.Values) func(context.Context) (bench.Values, error) {
		return func(context.Context) (bench.Values, error) { return v, nil }
	}
	p := plan(&c, 2)
	p.Budget = 0
	got, err := p.Measure(t.Context(), bench.Task{Name: "t",
		Metrics: []bench.Metric{{Name: "up", Unit: "ms"}, {Name: "verified", Unit: "ms"}},
		Contenders: []bench.Contender{
			{Name: "ours", Kind: bench.Ours, Run: says(bench.Values{"up": 1, "verified": 2})},
			{Name: "peer", Kind: bench.Peer, Run: says(bench.Values{"up": 4})},
		}})
	require.NoError(t, err)
	require.Len(t, got, 2)
	require.Len(t, got[0].Lines, 2)
	require.Len(t, got[1].Lines, 1)
}
