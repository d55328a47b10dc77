package nft

import (
	"testing"

	"github.com/stretchr/testify/require"

	"drawbridge/enforcer/ruleset"
)

// TestWhatAKernelCanHold: asking leaves nothing behind.
func TestWhatAKernelCanHold(t *testing.T) {
	c, _ := open(t)
	before := read(t, c)
	holds, err := c.CanHold(t.Context(), sampleTable())
	require.NoError(t, err)
	require.True(t, holds)
	impossible := sampleTable()
	impossible.Chains[0].Rules = append(impossible.Chains[0].Rules, rule("to nowhere", ruleset.Verdict{Kind: ruleset.Jump, Chain: "nowhere"}))
	holds, err = c.CanHold(t.Context(), impossible)
	require.NoError(t, err)
	require.False(t, holds)
	require.Equal(t, before, read(t, c))
}
