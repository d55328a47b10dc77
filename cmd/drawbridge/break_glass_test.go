package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestVerbsAskTheDaemon: status, denied, hits and verify learn over the socket what the kernel alone does not tell, and break-glass is
// known to all of them.
func TestVerbsAskTheDaemon(t *testing.T) {
	k := newKeeper(t)
	k.replace(strings.Replace(hostPolicy("10.10.0.0/16"), `"engine"`, `"force_tls": true, "engine"`, 1))
	k.start()
	require.Contains(t, k.verb("enforce", "status"), "since when is not known")
	require.Contains(t, k.verb("enforce", "status", "--socket", k.socket()), ", since 20")
	require.Contains(t, k.verb("enforce", "denied", "--socket", k.socket()), "nobody was denied")
	verify := []string{"enforce", "verify", "--policy", k.policy, "--socket", k.socket()}
	require.Contains(t, k.verb(verify...), "\nPROVEN")

	said := k.verb("enforce", "break-glass", "docs", "--for", "15m", "--reason", "ticket 7", "--socket", k.socket())
	require.Contains(t, said, "docs is open to everybody until")
	require.Contains(t, k.verb("enforce", "status", "--socket", k.socket()), "break-glass: docs is open to everybody until")
	require.Contains(t, k.verb(verify...), "\nPROVEN", "nothing else is open")
	require.Contains(t, k.verb("enforce", "explain", "--from", "198.51.100.9", "--to", "docs", "--policy", k.policy, "--socket", k.socket()), "break-glass, until")
	k.kill()
	k.start()
	require.Len(t, k.status().BreakGlass, 1)
	require.Contains(t, k.verb("enforce", "break-glass", "--end", "docs", "--socket", k.socket()), "is what the policy says again")
	require.Empty(t, k.status().BreakGlass)
	require.Contains(t, k.verb(verify...), "\nPROVEN")
}
