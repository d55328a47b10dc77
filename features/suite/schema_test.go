package suite_test

import (
	"bytes"
	"os"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"

	"drawbridge/features/mutant"
	"drawbridge/features/suite"
)

// fits checks a report by its schema.
func fits(t *testing.T, report []byte) error {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(suite.Schema()))
	require.NoError(t, err)
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	require.NoError(t, c.AddResource("report.json", doc))
	s, err := c.Compile("report.json")
	require.NoError(t, err)
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(report))
	require.NoError(t, err)
	return s.Validate(v)
}

// score is that of one wrong enforcer and a right one.
func score(verdict string) *mutant.Score {
	s := &mutant.Score{Suite: "sha256:0", Trials: []mutant.Trial{
		{Mutant: "slow", Breaks: "everything", Statement: "D-16", Verdict: verdict, Killers: []string{"a scenario"}, Statements: []string{"D-16"}, Detail: "why"},
		{Mutant: "unchanged", Breaks: "nothing", Equivalent: true, Verdict: mutant.Equivalent, Killers: []string{}, Statements: []string{}},
	}}
	s.Count()
	return s
}

// TestAScoreStandsInTheReport: a suite that lets a wrong enforcer pass has no right to call another one conformant.
func TestAScoreStandsInTheReport(t *testing.T) {
	for verdict, result := range map[string]suite.Result{mutant.Killed: suite.Passed, mutant.Survived: suite.Unjudged, mutant.Unjudged: suite.Unjudged} {
		cfg := config(newModel(faults{}))
		cfg.Tags, cfg.Mutants = "@S-09", score(verdict)
		r := run(t, cfg)
		require.Equal(t, result, r.Result, verdict)
		require.Equal(t, cfg.Mutants, r.Mutants)
		require.Contains(t, summary(t, r), "the suite itself: ")
	}
}

func TestReportsFitTheirSchema(t *testing.T) {
	for name, m := range map[string]*model{
		"right": newModel(faults{}), "wrong": newModel(faults{openNeighbour: true}), "late": newModel(faults{late: true}),
	} {
		var b bytes.Buffer
		cfg := config(m)
		cfg.Mutants = score(mutant.Killed)
		require.NoError(t, run(t, cfg).WriteJSON(&b))
		require.NoError(t, fits(t, b.Bytes()), name)
		require.Error(t, fits(t, bytes.Replace(b.Bytes(), []byte(`"result"`), []byte(`"outcome"`), 1)), name)
	}
	if path := os.Getenv("DRAWBRIDGE_REPORT"); path != "" { // a run of one's own
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		require.NoError(t, fits(t, text))
	}
}
