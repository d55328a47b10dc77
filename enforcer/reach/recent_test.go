package reach

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestRecentForgetsWhatNobodyAsksFor: it stays bounded, and what is asked for again and again stays.
func TestRecentForgetsWhatNobodyAsksFor(t *testing.T) {
	const bound = 8
	r := recent[int]{bound: bound}
	r.put("hot", -1)
	for i := range 100 {
		r.put(fmt.Sprint(i), i)
		v, ok := r.get([]byte("hot"))
		require.True(t, ok)
		require.Equal(t, -1, v)
		v, ok = r.get(fmt.Append(nil, i))
		require.True(t, ok)
		require.Equal(t, i, v)
		require.LessOrEqual(t, len(r.young), bound)
		require.LessOrEqual(t, len(r.old), bound)
	}
	_, ok := r.get([]byte("0"))
	require.False(t, ok)
	var none recent[int]
	none.put("a", 1)
	_, ok = none.get([]byte("a"))
	require.False(t, ok)
}
