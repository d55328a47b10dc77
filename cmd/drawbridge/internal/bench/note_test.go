package bench

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A program that cannot do its work may say thousands of words. A table has room for the first of them.
func TestLongNotesAreCutInTables(t *testing.T) {
	c := Comparison{Lines: []Line{{Name: "nft", Kind: Peer, Note: strings.Repeat("é", longestNote)}, {Name: "ip", Kind: Peer, Note: strings.Repeat("é", longestNote+1)}}}
	table := c.table()
	require.Equal(t, strings.Repeat("é", longestNote), table[1][6])
	require.Equal(t, strings.Repeat("é", longestNote)+"…", table[2][6])
}
