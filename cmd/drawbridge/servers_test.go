//go:build !operator

package main

import (
	"slices"
	"strings"
	"testing"

	"drawbridge/features/mutant"
	"drawbridge/sim/netns/netnstest"
	"drawbridge/sim/realserver"

	"github.com/stretchr/testify/require"
)

// realMutants are enforcers whose mistake shows at the databases, or only in what the databases' own logs say: whether a
// query was carried out, and whether the database's half of a cut connection ended.
var realMutants = []string{
	"Force TLS off by default", "Force TLS spares the plain port", "Force TLS off in the region", "cluster by region",
	"unknown connections kept", "removal ignored", "fail-over loses Force TLS",
}

// TestConformWithRealServers judges with the distribution's servers: the reference enforcer passes, wrong ones do not, for
// the reason for which they are wrong, and the report names the programs. `make conform-real` runs all scenarios.
func TestConformWithRealServers(t *testing.T) {
	netnstest.Require(t)
	if _, err := realserver.Find(""); err != nil {
		netnstest.Missing(t, err.Error())
	}
	t.Run("the reference", func(t *testing.T) {
		code, v, output := judged(t, "--servers", "real", "--tags", "@S-06,@C-01,@D-17,@X-05")
		require.Equal(t, exitOK, code, output)
		require.Equal(t, "passed", v.Result)
		played := map[string]string{}
		for _, s := range v.Servers {
			played[s.Database] = s.Program
		}
		for database, program := range map[string]string{
			"pg-shared": "PostgreSQL ", "pg-dedicated": "PostgreSQL ", "my-shared": "MariaDB ", "redis-shared": "Redis ",
			"mongo-dedicated": "embedded", "canary-gw-fr1": "embedded",
		} {
			require.True(t, strings.HasPrefix(played[database], program), "%s: %q", database, played[database])
			require.Contains(t, output, strings.TrimSuffix(program, "embedded"), output)
		}
	})
	for _, m := range mutant.All() {
		if !slices.Contains(realMutants, m.Name) {
			continue
		}
		t.Run(m.Name, func(t *testing.T) {
			if m.NeedsNFT() {
				netnstest.Tool(t, "nft")
			}
			code, v, output := judged(t, "--servers", "real", "--mutant", m.Name, "--tags", m.Tags)
			require.Equal(t, exitNotConformant, code, output)
			require.Zero(t, v.Counts.Unjudged, output)
			require.Contains(t, v.failed(), m.Statement, output)
		})
	}
}

// TestForceTLSByTheDatabaseNeedsEmbeddedServers: such an enforcer is not judged by halves, but not at all.
func TestForceTLSByTheDatabaseNeedsEmbeddedServers(t *testing.T) {
	netnstest.Require(t)
	netnstest.Tool(t, "nft")
	if _, err := realserver.Find(""); err != nil {
		netnstest.Missing(t, err.Error())
	}
	const name = "established connections let through"
	_, err := mutant.Find(name)
	require.NoError(t, err)
	code, v, output := judged(t, "--servers", "real", "--mutant", name, "--tags", "@S-01")
	require.Equal(t, exitUnjudged, code, output)
	require.Equal(t, "unjudged", v.Result)
	require.Contains(t, output, "judge it with embedded ones")
}

// TestRealServersMissing: what is missing is named, with its packages, before anything is built.
func TestRealServersMissing(t *testing.T) {
	for _, name := range realMutants {
		_, err := mutant.Find(name)
		require.NoError(t, err)
	}
	require.NoError(t, checkServers("conform", embeddedServers))
	t.Setenv("PATH", t.TempDir())
	_, err := realserver.Find("")
	if err == nil {
		t.Skip("every server is where Debian puts it")
	}
	require.ErrorIs(t, err, realserver.ErrMissing)
	for _, verb := range []string{"conform", "sim up"} {
		got := invoke(t, map[string]string{}, append(strings.Fields(verb), "--servers", "real")...)
		require.Equal(t, exitUnjudged, got.code)
		require.Empty(t, got.out)
		require.Equal(t, 1, strings.Count(got.err, "\n"), got.err)
		require.Contains(t, got.err, "redis-server")
		require.Contains(t, got.err, "install ")
	}
}
