//go:build !operator

package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTopologyVerbs(t *testing.T) {
	file := filepath.Join(t.TempDir(), "world.yaml")
	require.Equal(t, result{}, invoke(t, nil, "topology", "new", "--shared", "2", "--dedicated", "2", "--nodes", "3", "--peering", "-o", file))
	got := invoke(t, nil, "topology", "lint", file, "../../topology/testdata/examples/thousand-tenants.yaml")
	require.Equal(t, exitOK, got.code, got.err)
	require.Contains(t, got.out, "world my-world is valid: ")
	require.Contains(t, got.out, "world thousand-tenants is valid: 5 nodes, 1 enforcement points, 1001 databases\n")
	require.Contains(t, invoke(t, nil, "topology", "graph", file).out, "dedicated-2")
	require.True(t, json.Valid([]byte(invoke(t, nil, "topology", "schema").out)))
	got = invoke(t, nil, "topology", "new", "-o", file)
	require.Equal(t, exitUsage, got.code, "what is there is not written over")
	require.Equal(t, exitUsage, invoke(t, nil, "topology", "new", "--engine", "oracle").code)

	text, err := os.ReadFile(file)
	require.NoError(t, err)
	wrong := strings.NewReplacer("region: region-1", "region: nowhere", "10.64.0.0/16", "10.10.7.0/24").Replace(string(text))
	require.NoError(t, os.WriteFile(file, []byte(wrong), 0o600))
	got = invoke(t, nil, "topology", "lint", file)
	require.Equal(t, exitUsage, got.code)
	require.Regexp(t, `world.yaml:[0-9]+:[0-9]+: hosts\[0\].region: unknown region nowhere; known: region-1\n`, got.err)
	require.Contains(t, got.err, "the network 10.10.7.0/24 overlaps 10.10.0.0/16", "all errors at once")
	got = invoke(t, nil, "topology", "lint", "--json", file, "nothing.yaml")
	require.Equal(t, exitUsage, got.code)
	var all []problem
	require.NoError(t, json.Unmarshal([]byte(got.out), &all))
	require.Greater(t, len(all), 2)
	require.Equal(t, "nothing.yaml", all[len(all)-1].File)
}
