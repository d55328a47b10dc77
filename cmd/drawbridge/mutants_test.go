//go:build !operator

package main

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"drawbridge/features/mutant"
	"drawbridge/sim/netns/netnstest"

	"github.com/stretchr/testify/require"
)

// mutantLimit bounds one run of the suite; nothing waits for it to pass.
const mutantLimit = 6 * time.Minute

// allScenarios makes every mutant be judged by the whole suite (make mutants), and not only by what must catch it.
const allScenarios = "DRAWBRIDGE_TEST_ALL_SCENARIOS"

// verdict is what a report says about a run.
type verdict struct {
	Result  string `json:"result"`
	Error   string `json:"error"`
	Servers []struct {
		Database string `json:"database"`
		Program  string `json:"program"`
	} `json:"servers"`
	Statements []struct {
		ID     string `json:"id"`
		Result string `json:"result"`
	} `json:"statements"`
	Scenarios []struct {
		Name   string `json:"name"`
		Result string `json:"result"`
		Error  string `json:"error"`
	} `json:"scenarios"`
	Counts struct{ Executed, Unjudged int } `json:"counts"`
}

func (v verdict) failed() []string {
	var ids []string
	for _, s := range v.Statements {
		if s.Result == "failed" {
			ids = append(ids, s.ID)
		}
	}
	return ids
}

// judged runs conform in a process of its own.
func judged(t *testing.T, args ...string) (code int, v verdict, output string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), mutantLimit)
	defer cancel()
	dir := t.TempDir()
	cmd := exec.CommandContext(ctx, "/proc/self/exe", append([]string{"conform", "--report", dir}, args...)...)
	cmd.Env = append(os.Environ(), asProgram+"=1")
	out, err := cmd.CombinedOutput()
	require.NoError(t, ctx.Err(), "it does not end")
	if err != nil {
		require.ErrorAs(t, err, new(*exec.ExitError))
	}
	text, err := os.ReadFile(filepath.Join(dir, "report.json"))
	require.NoError(t, err, string(out))
	require.NoError(t, json.Unmarshal(text, &v))
	return cmd.ProcessState.ExitCode(), v, string(out)
}

// TestMutants: the suite fails every enforcer that is wrong, for the reason for which it is, and passes those that are not.
func TestMutants(t *testing.T) {
	netnstest.Require(t)
	for _, m := range mutant.All() {
		t.Run(m.Name, func(t *testing.T) {
			t.Parallel()
			if m.NeedsNFT() {
				netnstest.Tool(t, "nft")
			}
			args := []string{"--mutant", m.Name}
			if os.Getenv(allScenarios) == "" && !m.Full {
				args = append(args, "--tags", m.Tags)
			}
			code, v, output := judged(t, args...)
			if m.Conforms {
				require.Equal(t, exitOK, code, output)
				require.Equal(t, "passed", v.Result)
				return
			}
			require.Equal(t, exitNotConformant, code, output)
			require.Equal(t, "failed", v.Result)
			require.Zero(t, v.Counts.Unjudged, output)
			if m.Statement == "" {
				require.Zero(t, v.Counts.Executed)
				require.Contains(t, v.Error, "a canary must be served")
				return
			}
			require.Contains(t, v.failed(), m.Statement, output)
			t.Logf("%s: killed by %v", m.Breaks, v.failed())
		})
	}
}

func TestMutantsAreWellDescribed(t *testing.T) {
	var names []string
	for _, m := range mutant.All() {
		require.NotContains(t, names, m.Name)
		names = append(names, m.Name)
		require.NotEmpty(t, m.Breaks, m.Name)
		require.NotEmpty(t, m.Tags, m.Name)
		require.Equal(t, m.Conforms, m.Statement == "" && m.Name != "denies all", m.Name)
	}
	require.GreaterOrEqual(t, len(names), 60)
	require.True(t, slices.ContainsFunc(mutant.All(), func(m mutant.Mutant) bool { return m.Conforms }))
	_, err := mutant.Find("no such")
	require.ErrorIs(t, err, mutant.ErrUnknown)
}
