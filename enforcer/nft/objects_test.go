package nft

import (
	"testing"

	"github.com/stretchr/testify/require"

	"drawbridge/enforcer/ruleset"
)

// TestObjectsAreForeign, unless they are counters that rules name.
func TestObjectsAreForeign(t *testing.T) {
	c, ns := open(t)
	require.NoError(t, install(t, c, sampleTable()).Foreign, "its rules name a counter")
	nft(t, ns, "add counter inet drawbridge theirs")
	s := read(t, c)
	require.ErrorIs(t, s.Foreign, ErrForeign)
	require.ErrorContains(t, s.Foreign, `counter "theirs"`)
	require.True(t, s.Exists)
	require.Equal(t, ruleset.Table{}, s.Table)
	require.NoError(t, c.Replace(t.Context(), sampleTable(), true, s.Generation))
	require.NoError(t, read(t, c).Foreign)
	nft(t, ns, "add table inet another; add counter inet another theirs")
	require.NoError(t, read(t, c).Foreign, "another table's")
}

// TestFlowtablesAreForeign: not every kernel has any, so that one is made up.
func TestFlowtablesAreForeign(t *testing.T) {
	c := &Conn{table: "drawbridge"}
	of := func(table string) []byte {
		var e encoder
		e.string(flowtableTable, table)
		e.string(flowtableName, "fast")
		return e.data
	}
	err := c.foreignFlowtable(of("drawbridge"))
	require.ErrorIs(t, err, ErrForeign)
	require.ErrorContains(t, err, `flowtable "fast"`)
	require.NoError(t, c.foreignFlowtable(of("another")))
}
