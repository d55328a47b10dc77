//go:build !operator

package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"drawbridge/sim/netns/netnstest"

	"github.com/stretchr/testify/require"
)

// policiesInForce brings policies into force, looks at what they do and why, and takes them out again.
func policiesInForce(t *testing.T, lab detached) {
	verdict := func(from, to string, mode string) string {
		got := lab.sim("probe", from, to, mode, "--json")
		require.Equal(t, exitOK, got.code, got.err)
		var all []seen
		require.NoError(t, json.Unmarshal([]byte(got.out), &all))
		require.NotEmpty(t, all)
		return all[0].Verdict
	}
	got := lab.sim("enforce", "--all", "--rule", "pg-dedicated=198.51.100.0/25", "--rule", "mongo-dedicated=osc-fr1", "--internet", "pg-shared", "--force-tls", "pg-shared", "--json")
	require.Equal(t, exitOK, got.code, got.err)
	var all []enforced
	require.NoError(t, json.Unmarshal([]byte(got.out), &all))
	require.Len(t, all, 7, "every enforcement point")
	for _, e := range all {
		require.Equal(t, inForce, e.Outcome, e)
		require.NotEmpty(t, e.Generation)
	}
	require.Equal(t, "served", verdict("office", "pg-dedicated", "--tls"))
	require.Equal(t, "tls-refused", verdict("office", "pg-dedicated", "--plain"))
	require.Equal(t, "dropped", verdict("home", "pg-dedicated", "--tls"))
	require.Equal(t, "served", verdict("osc-fr1/web", "mongo-dedicated", "--tls"))
	require.Equal(t, "served", verdict("home", "pg-shared", "--tls"))
	require.Equal(t, "dropped", verdict("home", "my-shared", "--plain"))

	got = lab.sim("rules", "gw-fr1")
	require.Equal(t, exitOK, got.code, got.err)
	require.Contains(t, got.out, `198.51.100.0/25 comment "pg-dedicated: rule 198.51.100.0/25 rule 1"`)
	require.Contains(t, got.out, "table inet drawbridge_fabric", "what others have is there too")
	nft := exec.Command(netnstest.Tool(t, "nft"), "-c", "-f", "-") // in the test's own namespace; changes nothing
	nft.Stdin = strings.NewReader(got.out)
	said, err := nft.CombinedOutput()
	require.NoError(t, err, "nft(8) reads it back: %s", said)

	refused := filepath.Join(t.TempDir(), "policy.json")
	require.NoError(t, os.WriteFile(refused, []byte(`{"version": 1}`), 0o600))
	got = lab.sim("enforce", "gw-fr1", "--policy", refused)
	require.Equal(t, exitUsage, got.code, got.out)
	require.Regexp(t, `(?m)^gw-fr1 +refused `, got.out)
	require.Equal(t, "dropped", verdict("home", "pg-dedicated", "--tls"), "what was in force still is")

	inForceThen := lab.sim("rules", "gw-fr1").out
	got = lab.sim("enforce", "gw-fr1", "--policy", "-") // of no bytes
	require.Equal(t, result{code: exitUsage, err: "drawbridge: sim enforce: --policy: standard input: " + errEmptyPolicy.Error() + "\n"}, got)
	answered, err := ask(t.Context(), "sim enforce", lab.name, order{Enforce: &enforceOrder{Points: []string{"gw-fr1"}, Policy: []byte{}}})
	require.NoError(t, err)
	require.Equal(t, wasRefuse, answered.Enforced[0].Outcome, "by the enforcer: nothing is made up in its place")
	require.Equal(t, inForceThen, lab.sim("rules", "gw-fr1").out)

	got = lab.sim("enforce", "gw-fr1", "--driver", driverScript(t, "exit 0", "exit 9"))
	require.Equal(t, exitUnjudged, got.code, got.out)
	require.Contains(t, got.out, "broken")
	for args, want := range map[string]string{
		"gw-fr1 --force-tls pg-shared":                       `--force-tls pg-shared: pg-shared is at none of the points that were named; it is at shared-a`,
		"gw-fr1 gw-secnum --rule pg-shared=::/0":             `pg-shared is at none of the points that were named`,
		"gw-fr1 --reset --rule pg-dedicated=::/0":            "--reset and --rule exclude each other",
		"gw-fr1 --reset --force-tls pg-dedicated":            "--reset and --force-tls exclude each other",
		"--all --reset --internet pg-shared":                 "--reset and --internet exclude each other",
		"gw-secnum --policy " + policyFile(t, lab, "gw-fr1"): `--policy: the document is another point's policy: its point.name is "gw-fr1", and not gw-secnum`,
		"nowhere":                           `"nowhere" is no enforcement point of world default`,
		"gw-fr1 --all":                      "POINT and --all exclude each other",
		"":                                  "POINT is missing",
		"--all --rule nothing=::/0":         `"nothing" is no database of world default`,
		"--all --rule pg-shared=web":        `"web" is neither a network, as 198.51.100.0/25 is, nor a region of world default; known: osc-fr1, osc-secnum-fr1`,
		"--all --rule pg-shared=10.0.0.1/8": `"10.0.0.1/8" is neither a region nor a network`,
	} {
		got := lab.sim("enforce", strings.Fields(args)...)
		require.Equal(t, exitUsage, got.code, args)
		require.Contains(t, got.err, want, args)
	}
	require.Equal(t, exitOK, lab.sim("enforce", "gw-fr1", "--policy", policyFile(t, lab, "gw-fr1")).code)
	someRefused(t, lab)
	require.Equal(t, exitOK, lab.sim("enforce", "--all", "--reset").code)
	require.Equal(t, "served", verdict("home", "pg-dedicated", "--plain"))
	require.NotContains(t, lab.sim("rules", "gw-fr1").out, "table inet drawbridge {")
}

// policyFile writes a point's policy, as the lab has it, into a file.
func policyFile(t *testing.T, lab detached, point string) string {
	t.Helper()
	got := lab.sim("policy", point)
	require.Equal(t, exitOK, got.code, got.err)
	file := filepath.Join(t.TempDir(), "policy.json")
	require.NoError(t, os.WriteFile(file, []byte(got.out), 0o600))
	return file
}

// someRefused: "nothing was changed" is said only where that is so.
func someRefused(t *testing.T, lab detached) {
	t.Helper()
	got := lab.sim("enforce", "--all", "--internet", "pg-dedicated")
	require.Equal(t, exitUnjudged, got.code, got.err)
	require.Regexp(t, `(?m)^gw-fr1 +refused `, got.out)
	require.Regexp(t, `(?m)^shared-a +in force `, got.out)
	require.Equal(t, "drawbridge: sim enforce: "+errSomeRefused.Error()+" at gw-fr1; what was in force there still is, and elsewhere the new policies are\n", got.err)
	got = lab.sim("enforce", "gw-fr1", "--internet", "pg-dedicated")
	require.Equal(t, exitUsage, got.code, got.err)
}
