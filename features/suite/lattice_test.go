package suite_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"drawbridge/features/suite"
)

// latticeOf judges a model by the lattice, after a single scenario.
func latticeOf(t *testing.T, f faults, seed uint64, sequences int) *suite.Report {
	t.Helper()
	cfg := config(newModel(f))
	cfg.Tags, cfg.Lattice, cfg.Seed, cfg.Sequences = "@S-11", true, seed, sequences
	r := run(t, cfg)
	require.NotNil(t, r.Lattice, summary(t, r))
	return r
}

func TestTheLatticePassesARightEnforcer(t *testing.T) {
	r := latticeOf(t, faults{}, 1, 3)
	l := r.Lattice
	require.Equal(t, suite.Passed, r.Result, summary(t, r))
	require.Equal(t, suite.Passed, l.Result)
	require.Zero(t, l.Mismatched)
	require.Equal(t, l.Cells, l.Served+l.Denied)
	require.Greater(t, l.Places, 1000)
	require.Greater(t, l.Cells, 30000)
	require.Greater(t, l.Served, 1000)
	require.Greater(t, l.Combinations, 150)
	require.Greater(t, l.Refusals, 250)
	require.Equal(t, 3, l.Sequences)
	require.Greater(t, l.Removals, 5)
	require.Contains(t, summary(t, r), "seed 1;")
}

func TestTheLatticeFailsWrongEnforcers(t *testing.T) {
	for name, f := range map[string]faults{
		"managed ranges of the wrong region": {wrongRegion: true},
		"opens the neighbour too":            {openNeighbour: true},
		"loses a range's first address":      {firstAddressOff: true},
		"refuses nothing":                    {refuseNothing: true},
		"lets denied clients in later":       {late: true},
	} {
		t.Run(name, func(t *testing.T) {
			r := latticeOf(t, f, 1, 0)
			require.Equal(t, suite.Failed, r.Lattice.Result, summary(t, r))
			require.Equal(t, 1, r.Result.ExitCode())
			m := r.Lattice.Mismatches[0]
			require.NotEmpty(t, m.What)
			require.NotEmpty(t, m.Must)
			require.NotEmpty(t, m.Detail)
		})
	}
}

func TestRemovingARuleNeverOpensACell(t *testing.T) {
	r := latticeOf(t, faults{removalOpens: true}, 1, 0)
	require.NotEmpty(t, r.Lattice.Opened)
	require.Contains(t, summary(t, r), "removing a rule opened")
}

// TestTheShortestSequenceIsFoundAndRepeatable: pg-shared never refuses plaintext, which one step shows.
func TestTheShortestSequenceIsFoundAndRepeatable(t *testing.T) {
	r := latticeOf(t, faults{neverForced: true}, 7, 40)
	require.Equal(t, suite.Failed, r.Result)
	require.Len(t, r.Lattice.Shortest, 1, summary(t, r))
	require.True(t, strings.HasPrefix(r.Lattice.Shortest[0], "pg-shared: Force TLS on"), r.Lattice.Shortest[0])
	require.Contains(t, summary(t, r), "--seed 7")
	again := latticeOf(t, faults{neverForced: true}, 7, 40)
	require.Equal(t, r.Lattice.Shortest, again.Lattice.Shortest)
	require.Equal(t, r.Lattice.Mismatches[0].What, again.Lattice.Mismatches[0].What)
}

func TestABlindLabMakesNoLattice(t *testing.T) {
	m := newModel(faults{})
	cfg := config(m)
	cfg.Tags, cfg.Lattice, cfg.Seed = "@S-11", true, 1
	cfg.Lab = &blindLater{model: m, after: 20}
	r := run(t, cfg)
	require.Equal(t, suite.Unjudged, r.Result, summary(t, r))
	require.Equal(t, suite.Unjudged, r.Lattice.Result)
	require.Contains(t, r.Lattice.Error, "inconclusive")
}
