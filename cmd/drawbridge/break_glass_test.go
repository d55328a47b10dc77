package main

import (
	"bufio"
	"encoding/json"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"drawbridge/enforcer"
	"drawbridge/enforcer/daemon"
	"drawbridge/sim/netns/netnstest"
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
	require.Contains(t, k.verb("enforce", "plan", "--policy", k.policy, "--socket", k.socket()), "nothing would change", "it stays open")
	require.Contains(t, k.verb("enforce", "explain", "--from", "198.51.100.9", "--to", "docs", "--policy", k.policy, "--socket", k.socket()), "break-glass, until")
	k.kill()
	k.start()
	require.Len(t, k.status().BreakGlass, 1)
	require.Contains(t, k.verb("enforce", "break-glass", "--end", "docs", "--socket", k.socket()), "is what the policy says again")
	require.Empty(t, k.status().BreakGlass)
	require.Contains(t, k.verb(verify...), "\nPROVEN")
}

// TestTheDaemonTellsWhoIsDenied, as it hears of them and afterwards, and how much the rules are used.
func TestTheDaemonTellsWhoIsDenied(t *testing.T) {
	k := newKeeper(t)
	k.start()
	if heard := k.status().Denied; heard.Error != "" {
		netnstest.Missing(t, "nflog in a user namespace: "+heard.Error)
	}
	self, err := os.Executable()
	require.NoError(t, err)
	follow := exec.CommandContext(t.Context(), self, "enforce", "denied", "--follow", "--json", "--socket", k.socket())
	follow.Env = append(os.Environ(), asProgram+"=1")
	out, err := follow.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, k.ns.Start(follow))
	p := startProber(t, k.ns) // it goes on, so that it does not matter when the follower began to listen
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	var one enforcer.Denial
	require.NoError(t, json.Unmarshal([]byte(line), &one))
	require.Equal(t, []any{"docs", probed, "no rule"}, []any{one.Database, one.To, one.Why})
	require.Contains(t, []netip.Addr{sometimes, neverIn}, one.Source)
	require.NoError(t, follow.Process.Signal(os.Interrupt))
	require.ErrorContains(t, follow.Wait(), "interrupt")

	require.NoError(t, p.more(t.Context(), 5))
	p.end(t)
	k.until(func(s daemon.Status) bool { return s.Denied.Sources == 2 })
	said := k.verb("enforce", "denied", "--socket", k.socket())
	require.Contains(t, said, sometimes.String())
	require.Contains(t, said, neverIn.String())
	require.NotContains(t, said, alwaysIn.String())
	require.Contains(t, k.verb("enforce", "hits", "--policy", k.policy, "--socket", k.socket()), "no database has a rule")
}
