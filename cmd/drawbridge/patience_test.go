//go:build !operator

package main

import (
	"encoding/json"
	"os"
	"testing"

	"drawbridge/sim/netns/netnstest"

	"github.com/stretchr/testify/require"
)

// samples are scenarios of every sort of denial: at a host, at a gateway, of plaintext, of nodes, of single packets.
const samples = "@D-09,@S-06,@C-03,@X-02"

// attemptLine is one line of a report.
type attemptLine struct{ What, Must, Was, Way string }

// attemptsOf judges the reference enforcer and returns every attempt, in order.
func attemptsOf(t *testing.T, args ...string) []attemptLine {
	t.Helper()
	if os.Getenv(allScenarios) == "" {
		args = append(args, "--tags", samples)
	}
	got := invoke(t, nil, append([]string{"conform", "--json", "--report="}, args...)...)
	require.Equal(t, exitOK, got.code, "%s%s", got.out, got.err)
	var report struct {
		Scenarios []struct{ Attempts []attemptLine }
	}
	require.NoError(t, json.Unmarshal([]byte(got.out), &report))
	var all []attemptLine
	for _, s := range report.Scenarios {
		all = append(all, s.Attempts...)
	}
	return all
}

// TestPatienceAgreesWithFences: what the taps and a fence conclude in milliseconds is what becomes of the same connections in the time
// in which their clients try again.
func TestPatienceAgreesWithFences(t *testing.T) {
	netnstest.Require(t)
	t.Setenv(asProgram, "1") // for the reference enforcer
	fenced, waited := attemptsOf(t), attemptsOf(t, "--patience", "1200ms")
	require.Len(t, waited, len(fenced))
	ways := map[string]int{}
	for i, f := range fenced {
		w := waited[i]
		ways[f.Way]++
		if f.Way == "fence" { // whatever else is known from the database's own answer, or from single packets
			f.Way = "patience"
		}
		require.Equal(t, f, w)
	}
	require.Greater(t, ways["fence"], 100)
	require.Zero(t, ways["patience"])
}

func TestPatienceAndSeedAreChecked(t *testing.T) {
	for _, args := range [][]string{{"--patience", "1s"}, {"--patience", "-2s"}, {"--patience", "soon"}, {"--seed", "4"}} {
		got := invoke(t, nil, append([]string{"conform"}, args...)...)
		require.Equal(t, exitUsage, got.code, "%v: %s", args, got.err)
		require.Contains(t, got.err, args[0])
	}
}
