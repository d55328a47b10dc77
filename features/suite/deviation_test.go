package suite_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"drawbridge/features"
	"drawbridge/features/suite"
)

func deviations(t *testing.T, text string) ([]suite.Deviation, error) {
	t.Helper()
	known, err := suite.Select(features.Files, "")
	require.NoError(t, err)
	return suite.ReadDeviations("known.yaml", strings.NewReader(text), known)
}

func TestDeviationsAreReadWithCare(t *testing.T) {
	all, err := deviations(t, "- {statement: S-06, reason: later, expires: 2030-01-31}\n- scenario: Disabling Force TLS while Internet accessibility is on is refused\n  reason: x\n  expires: 2030-01-31\n")
	require.NoError(t, err)
	require.Len(t, all, 2)
	all, err = deviations(t, "")
	require.NoError(t, err)
	require.Empty(t, all)
	for text, words := range map[string]string{
		"a: b": "known.yaml: must be a list", "- {statement: S-99, reason: x, expires: 2030-01-31}": `known.yaml:1: there is no statement "S-99"`,
		"- {scenario: S, reason: x, expires: 2030-01-31}":                `there is no scenario "S"`,
		"- {statement: S-06, expires: 2030-01-31}":                       "the reason is missing",
		"- {statement: S-06, reason: x}":                                 "must be a date",
		"- {statement: S-06, reason: x, expires: 31.1.2030}":             "must be a date",
		"- {reason: x, expires: 2030-01-31}":                             "either a statement or a scenario",
		"- {statement: S-06, reason: x, expires: 2030-01-31, until: x}":  "unknown member",
		"- {statement: S-06, reason: x, reason: y, expires: 2030-01-31}": "given once",
		"- S-06": "must be a mapping",
		"- {statement: S-06, reason: x, expires: 2030-01-31}\n- {statement: S-06, reason: x, expires: 2030-01-31}": "known.yaml:2: \"S-06\" is listed twice",
	} {
		_, err := deviations(t, text)
		require.ErrorIs(t, err, suite.ErrDeviations, text)
		require.ErrorContains(t, err, words, text)
	}
}

// TestTheManualsDeviations: what docs/DRIVERS.md shows can be used.
func TestTheManualsDeviations(t *testing.T) {
	manual, err := os.ReadFile(filepath.Join("..", "..", "docs", "DRIVERS.md"))
	require.NoError(t, err)
	_, rest, found := strings.Cut(string(manual), "```yaml\n")
	require.True(t, found)
	list, _, _ := strings.Cut(rest, "```")
	all, err := deviations(t, list)
	require.NoError(t, err)
	require.Len(t, all, 2)
}

// TestDeviations judges an enforcer that opens a neighbour, and one that does not, with and without excuse.
func TestDeviations(t *testing.T) {
	failing := func(r *suite.Report) (names []string) {
		for _, s := range r.Scenarios {
			if s.Result == suite.Failed {
				names = append(names, s.Name)
			}
		}
		return names
	}
	plain := run(t, config(newModel(faults{openNeighbour: true})))
	require.Equal(t, suite.Failed, plain.Result)
	list := func(expires string, names ...string) string {
		var b strings.Builder
		for _, n := range names {
			fmt.Fprintf(&b, "- scenario: %q\n  reason: known\n  expires: %s\n", n, expires)
		}
		return b.String()
	}
	wrong := failing(plain)
	for name, c := range map[string]struct {
		list   string
		faults faults
		result suite.Result
		status string
		says   string
	}{
		"all known":    {list("2030-01-31", wrong...), faults{openNeighbour: true}, suite.Deviating, suite.DeviationKnown, "CONFORMANT BUT FOR KNOWN DEVIATIONS"},
		"on its day":   {list("2030-01-01", wrong...), faults{openNeighbour: true}, suite.Deviating, suite.DeviationKnown, ""},
		"expired":      {list("2029-12-31", wrong...), faults{openNeighbour: true}, suite.Failed, suite.DeviationExpired, "has expired on 2029-12-31"},
		"another one":  {list("2030-01-31", wrong[0]), faults{openNeighbour: true, ignoreRemoval: true}, suite.Failed, suite.DeviationKnown, "NOT CONFORMANT"},
		"it passes":    {list("2030-01-31", wrong[0]), faults{}, suite.Failed, suite.DeviationPassed, "known.yaml:1: unexpected pass"},
		"by statement": {"- {statement: S-12, reason: x, expires: 2030-01-31}", faults{}, suite.Failed, suite.DeviationPassed, "unexpected pass"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := config(newModel(c.faults))
			cfg.Now = func() time.Time { return time.Date(2030, 1, 1, 23, 59, 0, 0, time.UTC) }
			var err error
			cfg.Deviations, err = deviations(t, c.list)
			require.NoError(t, err)
			r := run(t, cfg)
			require.Equal(t, c.result, r.Result, summary(t, r))
			require.Equal(t, c.status, r.Deviations[0].Status)
			require.Contains(t, summary(t, r), c.says)
			require.Equal(t, c.result == suite.Deviating, r.Result.ExitCode() == 0)
		})
	}
}
