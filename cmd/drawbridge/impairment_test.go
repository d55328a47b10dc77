//go:build !operator

package main

import (
	"strings"
	"testing"
	"time"

	"drawbridge/sim/netns/netnstest"

	"github.com/stretchr/testify/require"
)

func TestSharesAreReadAsPeopleWriteThem(t *testing.T) {
	for text, want := range map[string]percentage{"2%": 0.02, "0.02": 0.02, "100%": 1, "0": 0, " 0.5% ": 0.005} {
		var p percentage
		require.NoError(t, p.Set(text), text)
		require.InDelta(t, float64(want), float64(p), 1e-12, text)
	}
	for _, text := range []string{"", "%", "-1%", "101%", "2", "NaN", "two", "2%%", "Inf"} {
		require.Error(t, new(percentage).Set(text), text)
	}
	p := percentage(0.02)
	require.Equal(t, "2%", p.String())
}

func TestConformRefusesWhatCannotBeJudged(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"--delay 1s", "at most 100ms"}, {"--loss 20%", "at most 10%"}, {"--delay -1ms", "must be between 0"}, {"--loss 2% --patience 2s", "patience"},
		{"--seed 3 --delay 20ms", "--loss"}, {"--mutants --loss 2%", "mutants"},
	} {
		got := invoke(t, nil, append([]string{"conform"}, strings.Fields(c.args)...)...)
		require.Equal(t, exitUsage, got.code, c.args)
		require.Contains(t, got.err, c.want, c.args)
	}
}

func TestImpairmentIsRepeatable(t *testing.T) {
	f := impairmentFlags{delay: 20 * time.Millisecond, loss: 0.02}
	require.Equal(t, []string{"--delay", "20ms", "--loss", "2%", "--seed", "7"}, f.words(7))
	require.Empty(t, (&impairmentFlags{}).words(7))
}

// bad are the impairments under which the suite must judge as ever.
var bad = map[string][]string{"delay": {"--delay", "20ms"}, "loss": {"--loss", "2%", "--seed", "5"}}

// TestWrongEnforcersAreFoundOutOverBadLinks: neither a delay nor loss hides what is wrong, and neither makes wrong what is right.
func TestWrongEnforcersAreFoundOutOverBadLinks(t *testing.T) {
	netnstest.Require(t)
	for name, flags := range bad {
		for _, c := range []struct{ mutant, tags, statement string }{
			{"removal ignored", "@D-10", "D-10"}, {"", "@D-10", ""},
		} {
			t.Run(name+": "+c.mutant+c.tags, func(t *testing.T) {
				args := append([]string{"--tags", c.tags}, flags...)
				if c.mutant != "" {
					args = append(args, "--mutant", c.mutant)
				}
				code, v, output := judged(t, args...)
				require.Zero(t, v.Counts.Unjudged, output)
				if c.mutant == "" {
					require.Equal(t, exitOK, code, output)
					return
				}
				require.Equal(t, exitNotConformant, code, output)
				require.Contains(t, v.failed(), c.statement, output)
			})
		}
	}
}
