//go:build !operator

package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"drawbridge/features/mutant"
	"drawbridge/features/suite"
	"drawbridge/sim/netns/netnstest"
)

// sampled runs conform sample in a process of its own.
func sampled(t *testing.T, args ...string) (code int, r suite.SampleReport, output string) {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", append([]string{"conform", "sample", "--report", dir}, args...)...)
	cmd.Env = append(os.Environ(), asProgram+"=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		require.ErrorAs(t, err, new(*exec.ExitError), string(out))
	}
	text, err := os.ReadFile(filepath.Join(dir, "sample.json"))
	require.NoError(t, err, string(out))
	require.NoError(t, json.Unmarshal(text, &r))
	return cmd.ProcessState.ExitCode(), r, string(out)
}

func TestTheReferenceConformsInAFleet(t *testing.T) {
	netnstest.Require(t)
	code, r, out := sampled(t, "--dedicated", "50", "--shared", "50", "--sample", "120", "--changes", "3", "--seed", "1")
	require.Equal(t, exitOK, code, out)
	require.Equal(t, suite.Passed, r.Result)
	require.Equal(t, 3, r.Changes.Count)
	require.Len(t, r.Phases, 3)
	require.Len(t, r.Phases[0].Strata, 7)
	require.Contains(t, out, "0 wrong: with 95% confidence fewer than 2.5% are")
	require.Contains(t, r.Command, "--seed 1")
}

// TestRareMutantsAreFoundInAFleet: each is wrong at two databases of 200. With these samples each is found with a probability of
// more than 99%, and with this seed always.
func TestRareMutantsAreFoundInAFleet(t *testing.T) {
	netnstest.Require(t)
	for _, m := range mutant.Rare() {
		t.Run(m.Name, func(t *testing.T) {
			code, r, out := sampled(t, "--dedicated", "200", "--shared", "0", "--sample", "600", "--changes", "0", "--seed", "1", "--mutant", m.Name)
			require.Equal(t, exitNotConformant, code, out)
			require.Positive(t, r.Mismatched)
			for _, found := range r.Mismatches {
				database := strings.Split(found.Settings, ":")[0]
				require.Contains(t, []string{"dedicated-97", "dedicated-194"}, database)
			}
			below := 0.0
			for _, s := range r.Phases[0].Strata {
				below = max(below, s.Below)
			}
			require.Greater(t, below, .005, "what is stated is no less than what is wrong")
		})
	}
}

func TestSampleIsUsedRight(t *testing.T) {
	for _, c := range []struct {
		args  []string
		words string
	}{
		{[]string{"--dedicated", "0", "--shared", "0"}, "no databases"},
		{[]string{"--dedicated", "20001"}, "must be 0 to 20000"},
		{[]string{"--sample", "0"}, "a sample of 0: must be at least 1"},
		{[]string{"--rules", "31"}, "31 rules: must be 0 to 30"},
		{[]string{"--limit", "-1s"}, "must be more than 0"},
		{[]string{"--confidence", "1"}, "confidence 1: must be between 0 and 1"},
		{[]string{"--driver", "x", "--resident"}, "exclude each other"},
		{[]string{"--driver", "./not-there"}, "not-there"},
		{[]string{"--mutant", "nobody"}, "no such mutant"},
		{[]string{"x"}, "unexpected argument"},
	} {
		got := invoke(t, nil, append([]string{"conform", "sample"}, c.args...)...)
		require.Equal(t, exitUsage, got.code, c.args)
		require.Contains(t, got.err, c.words, c.args)
	}
	got := invoke(t, nil, "conform", "sample", "--schema")
	require.Equal(t, exitOK, got.code)
	require.JSONEq(t, string(suite.SampleSchema()), got.out)
}
