package nft

import (
	"testing"

	"github.com/stretchr/testify/require"

	"drawbridge/enforcer/ruleset"
)

func TestAPreparedTableIsMadeOnlyWhereThereIsNone(t *testing.T) {
	c, _ := open(t)
	prepared, err := c.Prepare(sampleTable())
	require.NoError(t, err)
	nothing := read(t, c)
	require.ErrorIs(t, c.Create(t.Context(), prepared, nothing.Generation+1), ErrGeneration)
	require.False(t, read(t, c).Exists)
	for range 2 { // it can be used again
		before := read(t, c)
		require.NoError(t, c.Create(t.Context(), prepared, before.Generation))
		made := read(t, c)
		require.NoError(t, made.Foreign)
		require.Equal(t, canonical(sampleTable()), canonical(made.Table))
		require.ErrorIs(t, c.Create(t.Context(), prepared, made.Generation), ErrExists)
		require.Equal(t, made, read(t, c))
		require.NoError(t, c.Delete(t.Context(), made.Generation))
	}
	_, err = c.Prepare(ruleset.Table{Family: ruleset.FamilyINET, Name: "another"})
	require.ErrorIs(t, err, ErrInvalid)
}
