//go:build !operator

package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"drawbridge/features/mutant"
	"drawbridge/sim/netns/netnstest"

	"github.com/stretchr/testify/require"
)

// TestTryMutant has one wrong enforcer judged and one right one, as conform --mutants does with all.
func TestTryMutant(t *testing.T) {
	netnstest.Require(t)
	t.Setenv(asProgram, "1")
	score := mutant.Score{}
	for name, verdict := range map[string]string{"unpublished family open": mutant.Killed, "unchanged": mutant.Equivalent} {
		m, err := mutant.Find(name)
		require.NoError(t, err)
		trial, digest, err := tryMutant(t.Context(), "/proc/self/exe", m, false)
		require.NoError(t, err)
		require.Equal(t, verdict, trial.Verdict, "%+v", trial)
		require.Equal(t, verdict == mutant.Killed, len(trial.Killers) > 0)
		require.Regexp(t, "^sha256:", digest)
		score.Suite, score.Trials = digest, append(score.Trials, trial)
	}
	score.Count()
	require.True(t, score.OK)
	dir := t.TempDir()
	require.NoError(t, writeScore(dir, &score))
	text, err := os.ReadFile(filepath.Join(dir, mutantsReport))
	require.NoError(t, err)
	var read mutant.Score
	require.NoError(t, json.Unmarshal(text, &read))
	require.Equal(t, score, read)
}

func TestMutantsAndDeviationsAreUsedRight(t *testing.T) {
	file := filepath.Join(t.TempDir(), "known.yaml")
	require.NoError(t, os.WriteFile(file, []byte("\n- {statement: S-99, reason: x, expires: 2030-01-31}\n"), 0o644))
	for _, c := range []struct {
		args  []string
		words string
	}{
		{[]string{"--mutants", "--driver", "x"}, "exclude each other"},
		{[]string{"--mutants", "--tags", "@S-06"}, "exclude each other"},
		{[]string{"--all-scenarios"}, "is for --mutants"},
		{[]string{"--schema=lattice"}, "must be policy or report"},
		{[]string{"--deviations", file}, file + `:2: there is no statement "S-99"`},
		{[]string{"--deviations", file + "x"}, "no such file"},
	} {
		got := invoke(t, nil, append([]string{"conform"}, c.args...)...)
		require.Equal(t, exitUsage, got.code, c.args)
		require.Contains(t, got.err, c.words, c.args)
	}
	got := invoke(t, nil, "conform", "--schema=report")
	require.Equal(t, exitOK, got.code)
	require.Contains(t, got.out, `"right_if"`)
}
