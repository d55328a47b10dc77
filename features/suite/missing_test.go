package suite_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"drawbridge/features"
	"drawbridge/features/suite"
	"drawbridge/topology"
)

// TestMissing: scenarios name what only some worlds have.
func TestMissing(t *testing.T) {
	other, err := topology.Load("../../topology/testdata/minimal.yaml")
	require.NoError(t, err)
	for tags, want := range map[string]string{
		"": "shared databases metrics-shared, my-shared, pg-shared, redis-shared; dedicated databases canary-gw-secnum, mongo-dedicated, pg-dedicated, search-dedicated; Internet hosts home, office, stranger; regions osc-fr1, osc-secnum-fr1; " +
			"clients corp/desk, corp/printer, osc-fr1/web, osc-fr1/worker, osc-secnum-fr1/batch",
		"@G-02":  "shared databases my-shared",
		"@never": "",
	} {
		got, err := suite.Missing(features.Files, tags, topology.Default(), other)
		require.NoError(t, err)
		require.Equal(t, want, got, tags)
		got, err = suite.Missing(features.Files, tags, topology.Default(), topology.Default())
		require.NoError(t, err)
		require.Empty(t, got, tags)
	}
}
