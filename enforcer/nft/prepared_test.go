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

func TestAPreparedTableTakesThePlaceOfOneAlone(t *testing.T) {
	c, _ := open(t)
	first := ruleset.Table{Family: ruleset.FamilyINET, Name: sampleTable().Name, Sets: []ruleset.Set{{Name: "mine", Key: []ruleset.DataType{ruleset.TypeMark}}}}
	other := first
	other.Sets = []ruleset.Set{{Name: "theirs", Key: []ruleset.DataType{ruleset.TypeMark}}}
	prepared, err := c.PrepareOver(sampleTable(), "mine")
	require.NoError(t, err)
	require.ErrorIs(t, c.Create(t.Context(), prepared, read(t, c).Generation), ErrRejected, "there is no table")
	install := func(table ruleset.Table) State {
		t.Helper()
		require.NoError(t, c.Commit(t.Context(), ruleset.Diff(ruleset.Table{}, table), read(t, c).Generation))
		return read(t, c)
	}
	made := install(other)
	require.ErrorIs(t, c.Create(t.Context(), prepared, made.Generation), ErrRejected)
	require.Equal(t, made, read(t, c), "somebody else's")
	require.NoError(t, c.Delete(t.Context(), made.Generation))
	made = install(first)
	require.ErrorIs(t, c.Create(t.Context(), prepared, made.Generation+1), ErrGeneration)
	require.NoError(t, c.Create(t.Context(), prepared, made.Generation))
	require.Equal(t, canonical(sampleTable()), canonical(read(t, c).Table))
	require.ErrorIs(t, c.Create(t.Context(), prepared, made.Generation+1), ErrRejected, "it is in its own place")
	_, err = c.PrepareOver(ruleset.Table{Family: ruleset.FamilyINET, Name: "another"}, "mine")
	require.ErrorIs(t, err, ErrInvalid)
}
