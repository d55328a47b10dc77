package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const twoCells = `{"result": "failed", "world": "w", "profiles": ["core"], "implementation": {"name": "mine"},
  "counts": {"expected": 3, "executed": 3, "passed": 2, "attempts": 6},
  "statements": [{"id": "S-05", "result": "passed"}, {"id": "D-04", "result": "failed"}, {"id": "X-11", "result": "unjudged", "open": true}],
  "scenarios": [
    {"name": "Force TLS of Shared Resources: off by default: every app over TLS", "file": "at_a_glance.feature", "result": "passed", "attempts": [{}, {}]},
    {"name": "Force TLS of Dedicated Resources: on by default: \"office\" without TLS", "file": "at_a_glance.feature", "result": %q, "attempts": [{}]},
    {"name": "Another", "file": "other.feature", "result": "passed", "attempts": [{}, {}, {}]}
  ]}`

func TestUpdate(t *testing.T) {
	for result, mark := range map[string]string{"passed": "✓", "failed": "✗", "unjudged": "?"} {
		t.Run(result, func(t *testing.T) {
			dir := t.TempDir()
			reportFile, readme := filepath.Join(dir, "report.json"), filepath.Join(dir, "README.md")
			require.NoError(t, os.WriteFile(reportFile, fmt.Appendf(nil, twoCells, result), 0o600))
			require.NoError(t, os.WriteFile(readme, []byte("before\n"+beginMark+"old\n"+endMark+"after\n"), 0o600))
			require.NoError(t, update(reportFile, readme))
			passed := 0
			if result == "passed" {
				passed = 1
			}
			got, err := os.ReadFile(readme)
			require.NoError(t, err)
			require.Equal(t, "before\n"+beginMark+
				"| | Shared Resources | Dedicated Resources |\n|---|---|---|\n"+
				"| **Force TLS** | ✓ off by default (1/1 scenarios, 2 connections) | "+
				fmt.Sprintf("%s on by default (%d/1 scenarios, 1 connections) |\n", mark, passed)+
				"\nEnforcer `mine`, profiles core, world `w`: **failed**. 2 of 3 scenarios passed, with 6 connections and packets.\n"+
				"Statements verified: 1 of 3; D-04 failed; no scenario drives traffic yet for X-11.\n"+
				endMark+"after\n", string(got))
		})
	}
}

func TestUpdateRefuses(t *testing.T) {
	good := fmt.Sprintf(twoCells, "passed")
	marks := beginMark + endMark
	for name, c := range map[string]struct{ report, readme, want string }{
		"a selection":      {strings.Replace(good, `"world"`, `"tags": "@S-05", "world"`, 1), marks, "not a complete run"},
		"a part":           {strings.Replace(good, `"executed": 3`, `"executed": 2`, 1), marks, "not a complete run"},
		"a missing cell":   {strings.Replace(good, "of Dedicated", "of Shared", 1), marks, "Force TLS of Dedicated Resources was not run"},
		"an unknown cell":  {strings.Replace(good, "Dedicated Resources", "Other Resources", 1), marks, "is no cell of the table"},
		"no table":         {strings.ReplaceAll(good, "at_a_glance", "other"), marks, "no scenario of the table was run"},
		"not JSON":         {"{", marks, "unexpected end"},
		"a README without": {good, "text", "are not there"},
		"marks reversed":   {good, endMark + beginMark, "are not there"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			reportFile, readme := filepath.Join(dir, "report.json"), filepath.Join(dir, "README.md")
			require.NoError(t, os.WriteFile(reportFile, []byte(c.report), 0o600))
			require.NoError(t, os.WriteFile(readme, []byte(c.readme), 0o600))
			require.ErrorContains(t, update(reportFile, readme), c.want)
			unchanged, err := os.ReadFile(readme)
			require.NoError(t, err)
			require.Equal(t, c.readme, string(unchanged))
		})
	}
}
