//go:build !operator

package main

import (
	"testing"

	"drawbridge/sim/netns/netnstest"

	"github.com/stretchr/testify/require"
)

// TestTheLongRunningFormConforms: enforce run, driven by its own driver, survives kills and other programs' flushes, and refuses what
// must be refused (SPEC ).
func TestTheLongRunningFormConforms(t *testing.T) {
	netnstest.Require(t)
	netnstest.Tool(t, "nft")
	code, v, output := judged(t, "--resident", "--tags", "@X-07,@X-09,@X-11,@D-16")
	require.Equal(t, exitOK, code, output)
	require.Equal(t, "passed", v.Result)
}
