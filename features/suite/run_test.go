package suite_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"

	"drawbridge/features"
	"drawbridge/features/driver"
	"drawbridge/features/suite"
	"drawbridge/topology"
)

func config(m *model) suite.Config {
	return suite.Config{
		World: topology.Default(), Lab: m, Enforcer: m, Features: features.Files, Expected: features.Expected, Format: "progress",
		Rehearsed: true, // by TestARightEnforcerConforms
	}
}

func run(t *testing.T, cfg suite.Config) *suite.Report {
	t.Helper()
	report, err := suite.Run(t.Context(), cfg)
	require.NoError(t, err)
	return report
}

func summary(t *testing.T, r *suite.Report) string {
	t.Helper()
	var b bytes.Buffer
	require.NoError(t, r.WriteSummary(&b))
	return b.String()
}

func TestARightEnforcerConforms(t *testing.T) {
	rehearsed := config(newModel(faults{}))
	rehearsed.Rehearsed = false
	require.Equal(t, suite.Passed, run(t, rehearsed).Result)
	cfg := config(newModel(faults{}))
	cfg.ReportDir = t.TempDir()
	r := run(t, cfg)
	require.Equal(t, suite.Passed, r.Result, summary(t, r))
	require.Equal(t, features.Expected["core"]+features.Expected["extended"], r.Counts.Executed)
	for _, s := range r.Statements {
		require.False(t, s.Open, "%s", s.ID)
	}
	for _, f := range []string{"report.json", "junit.xml", "cucumber.json"} {
		info, err := os.Stat(filepath.Join(cfg.ReportDir, f))
		require.NoError(t, err)
		require.Positive(t, info.Size())
	}
	require.Contains(t, summary(t, r), "\nCONFORMANT")
}

// TestScenariosSideBySide: where scenarios run at once, the report is the same, and in the same order.
func TestScenariosSideBySide(t *testing.T) {
	one := run(t, config(newModel(faults{})))
	cfg := config(newModel(faults{}))
	cfg.Lanes = 5
	r := run(t, cfg)
	require.Equal(t, suite.Passed, r.Result, summary(t, r))
	require.Len(t, r.Scenarios, len(one.Scenarios))
	for i, s := range r.Scenarios {
		require.Equal(t, one.Scenarios[i].Name, s.Name)
		require.Len(t, s.Attempts, len(one.Scenarios[i].Attempts), s.Name)
	}
	for _, f := range []faults{{late: true}, {openNeighbour: true}, {ignoreRemoval: true}} {
		cfg := config(newModel(f))
		cfg.Lanes = 5
		require.Equal(t, suite.Failed, run(t, cfg).Result)
	}
}

func TestAnEnforcerThatLeavesForceTLSToTheDatabaseConforms(t *testing.T) {
	m := newModel(faults{})
	m.about.ForceTLS, m.about.Profiles, m.about.Revoke = driver.ByDatabase, []string{driver.Core}, driver.Keep
	r := run(t, config(m))
	require.Equal(t, suite.Passed, r.Result, summary(t, r))
	require.Equal(t, features.Expected["core"], r.Counts.Executed)
}

func TestEvasionsAreNotJudgedWhereForceTLSIsLeftToTheDatabase(t *testing.T) {
	m := newModel(faults{evaded: true})
	m.about.ForceTLS = driver.ByDatabase
	cfg := config(m)
	cfg.Tags = "@X-08"
	r := run(t, cfg)
	require.Equal(t, suite.Passed, r.Result, summary(t, r))
}

func TestWrongEnforcersFail(t *testing.T) {
	for name, c := range map[string]struct {
		faults    faults
		statement string // one that must be among the failed
	}{
		"a gap during changes":                {faults{gap: true}, "X-06"},
		"leaks during changes":                {faults{leaksDuring: true}, "X-06"},
		"leaves halves when killed":           {faults{leavesHalves: true}, "X-07"},
		"opens when killed":                   {faults{killOpens: true}, "X-07"},
		"opens when it crashes":               {faults{crashOpens: true}, "X-07"},
		"lets others tamper with its rules":   {faults{tampered: true}, "X-09"},
		"lets forged packets pass":            {faults{forgedPass: true}, "X-03"},
		"lets forged bytes through":           {faults{forgedOpen: true}, "X-03"},
		"lets a flood pass":                   {faults{floodPasses: true}, "X-10"},
		"remembers a flood":                   {faults{floodTracked: true}, "X-10"},
		"is slow under a flood":               {faults{floodDelays: true}, "X-10"},
		"accepts mistakes":                    {faults{acceptsMistakes: true}, "X-11"},
		"names no place of a mistake":         {faults{namesNoPlace: true}, "X-11"},
		"mistakes open":                       {faults{mistakesOpen: true}, "X-11"},
		"accepts all":                         {faults{acceptAll: true}, "G-01"},
		"denies all":                          {faults{denyAll: true}, "S-01"},
		"ignores reset":                       {faults{ignoreReset: true}, "D-05"},
		"no IPv6":                             {faults{no6: true}, "X-01"},
		"Force TLS off":                       {faults{unforced: true}, "D-04"},
		"the wrong region's range":            {faults{wrongRegion: true}, "D-06"},
		"established connections let through": {faults{keepEstablished: true}, "X-04"},
		"cuts every connection":               {faults{cutsAll: true}, "X-05"},
		"warns nobody":                        {faults{silent: true}, "D-11"},
		"refuses nothing":                     {faults{refuseNothing: true}, "S-09"},
		"refuses every rule":                  {faults{refuseAll: true}, "D-09"},
		"open while untouched":                {faults{defaultsOpen: true}, "D-01"},
		"lets first bytes through":            {faults{ignoreTalk: true}, "S-06"},
		"plaintext between nodes":             {faults{plainCluster: true}, "C-01"},
		"cluster ports open":                  {faults{openCluster: true}, "C-04"},
		"ways round open":                     {faults{openBypass: true}, "G-03"},
		"opens the neighbour too":             {faults{openNeighbour: true}, "S-12"},
		"rules of one database open another":  {faults{ruleByDatabase: true}, "D-15"},
		"keeps removed rules":                 {faults{ignoreRemoval: true}, "D-10"},
		"loses a range's first address":       {faults{firstAddressOff: true}, "D-09"},
		"never updates managed ranges":        {faults{staleRange: true}, "D-13"},
		"the same generation every time":      {faults{staleGeneration: true}, "D-16"},
		"slow":                                {faults{applySlow: true}, "D-16"},
		"does not follow a fail-over":         {faults{staleDNAT: true}, "D-17"},
		"private endpoint open to all zones":  {faults{peeringEverywhere: true}, "D-14"},
		"other protocols open":                {faults{openPorts: true}, "X-02"},
		"evaded":                              {faults{evaded: true}, "X-08"},
		"impatient":                           {faults{impatient: true}, "X-08"},
		"forgets the 30th rule":               {faults{forgetRule30: true}, "D-12"},
		"lets denied clients in later":        {faults{late: true}, "D-01"},
		"a proxy in between":                  {faults{proxies: true}, "S-11"},
	} {
		t.Run(name, func(t *testing.T) {
			r := run(t, config(newModel(c.faults)))
			require.Equal(t, suite.Failed, r.Result, summary(t, r))
			require.Equal(t, 1, r.Result.ExitCode())
			if len(r.Scenarios) == 0 {
				return // the defaults alone were wrong
			}
			for _, s := range r.Statements {
				if s.ID == c.statement {
					require.Equal(t, suite.Failed, s.Result, summary(t, r))
				}
			}
		})
	}
}

func TestWhatCannotBeJudged(t *testing.T) {
	for name, f := range map[string]faults{
		"a broken lab":    {lossyLab: true},
		"a broken driver": {breaks: true},
	} {
		t.Run(name, func(t *testing.T) {
			r := run(t, config(newModel(f)))
			require.Equal(t, suite.Unjudged, r.Result, summary(t, r))
			require.Equal(t, 3, r.Result.ExitCode())
		})
	}
}

func TestWhatTheLastResetLeavesBehindFailsTheRun(t *testing.T) {
	r := run(t, config(newModel(faults{leavesNodesClosed: true})))
	require.Equal(t, suite.Failed, r.Result)
	require.Zero(t, r.Counts.Failed, "no scenario looks at every way round after a reset")
	require.Contains(t, r.Error, "after the last reset")
}

func TestAFailureWithoutTrafficIsNotAnOpenStatement(t *testing.T) {
	cfg := config(newModel(faults{staleGeneration: true}))
	cfg.Tags = "@D-16"
	r := run(t, cfg)
	require.Equal(t, suite.Failed, result(r, "D-16"), summary(t, r))
	require.NotContains(t, summary(t, r), "nothing was driven")
}

func TestACanaryThatIsNotServedFailsTheRun(t *testing.T) {
	r := run(t, config(newModel(faults{deadCanary: true})))
	require.Equal(t, suite.Failed, r.Result)
	require.Contains(t, r.Error, "canary")
}

func TestSelection(t *testing.T) {
	cfg := config(newModel(faults{}))
	cfg.Tags = "@S-09"
	r := run(t, cfg)
	require.Equal(t, suite.Passed, r.Result, summary(t, r))
	require.Positive(t, r.Counts.Executed)
	require.Less(t, r.Counts.Executed, features.Expected["core"])
	for _, tags := range []string{"@S-99", "S-09", "@S-09 &&", "~", "@S-09 or @S-10"} {
		cfg.Tags = tags
		_, err := suite.Run(t.Context(), cfg)
		require.ErrorIs(t, err, suite.ErrUsage, tags)
	}
	cfg.Tags, cfg.Profiles = "", []string{"gold"}
	_, err := suite.Run(t.Context(), cfg)
	require.ErrorIs(t, err, suite.ErrUsage)
	cfg = config(newModel(faults{}))
	cfg.Format = "events"
	_, err = suite.Run(t.Context(), cfg)
	require.ErrorIs(t, err, suite.ErrUsage)
}

// TestVacuousFeaturesDoNotPass runs features that godog alone would call a success, or that contradict the oracle.
func TestVacuousFeaturesDoNotPass(t *testing.T) {
	const head = "Feature: F\n\n  @core @S-01\n  Scenario: A\n"
	const given = "    Given the database \"my-shared\" with its defaults\n"
	for name, c := range map[string]struct{ text, want string }{
		"no scenario":             {"Feature: F\n", "there are no features"},
		"no profile":              {strings.Replace(head, "@core ", "", 1) + given, "needs a profile"},
		"no statement":            {strings.Replace(head, " @S-01", "", 1) + given, "needs a profile and at least one statement"},
		"unknown statement":       {strings.Replace(head, "S-01", "S-13", 1) + given, "@S-13"},
		"no steps":                {head, "has no steps"},
		"no traffic":              {head + given, "drove no traffic"},
		"undefined step":          {head + given + "    Then all is well\n", "undefined"},
		"literal against oracle":  {head + given + "    Then every Internet host is served\n", "by the oracle it is denied"},
		"nobody to try again":     {head + given + "    Then every app of its region is served\n    And all that was denied stays denied when its clients try again\n", "nobody was denied"},
		"refusal not foreseen":    {head + given + "    When its owner turns Force TLS on\n    Then the change is refused and nothing changed\n", "knows no reason"},
		"refusal not spoken of":   {head + given + "    When its owner turns Internet accessibility on\n    Then every Internet host is denied\n", "says nothing about the refusal"},
		"refusal at the very end": {head + given + "    Then every Internet host is denied\n    When its owner turns Internet accessibility on\n", "says nothing about the refusal"},
		"unknown vantage":         {head + given + "    Then \"nobody\" is denied\n", "no such vantage"},
		"unknown database":        {head + "    Given the database \"none\" with its defaults\n", "no database"},
		"empty table":             {head + given + "    Then these connections have these outcomes:\n      | who | how | outcome |\n", "no rows"},
		"unspecified":             {head + given + "    Then \"office\" using 2001:db8:a::1 is denied\n", "different families"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := config(newModel(faults{}))
			cfg.Features = fstest.MapFS{"f.feature": {Data: []byte(c.text)}}
			cfg.Expected = nil
			r := run(t, cfg)
			require.Equal(t, suite.Unjudged, r.Result, summary(t, r))
			require.Contains(t, summary(t, r), c.want)
		})
	}
}

func TestAnInterruptedRunIsNotJudged(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	m := newModel(faults{})
	cfg := config(m)
	cfg.Lab = &interrupting{model: m, cancel: cancel, after: 10}
	r, err := suite.Run(ctx, cfg)
	require.NoError(t, err)
	require.Equal(t, suite.Unjudged, r.Result, summary(t, r))
	require.Zero(t, r.Counts.Failed)
	require.Positive(t, r.Counts.Passed)
	require.Positive(t, r.Counts.Unjudged)
}

func TestLostScenariosAreNoticed(t *testing.T) {
	cfg := config(newModel(faults{}))
	cfg.Expected = map[string]int{"core": features.Expected["core"] + 1, "extended": features.Expected["extended"]}
	r := run(t, cfg)
	require.Equal(t, suite.Unjudged, r.Result)
	require.Contains(t, r.Error, "the committed number is")
}

func TestInconclusiveIsNeitherServedNorDenied(t *testing.T) {
	cfg := config(newModel(faults{}))
	cfg.Tags = "@D-01"
	m := newModel(faults{})
	cfg.Lab, cfg.Enforcer = &blindAfter{model: m}, m
	r := run(t, cfg)
	require.Equal(t, suite.Unjudged, r.Result, summary(t, r))
	require.Contains(t, summary(t, r), "inconclusive")
}

// TestNoEnforcerRunsWhereTheFeaturesContradictTheOracle: what a feature says of the outcome is checked on paper first.
func TestNoEnforcerRunsWhereTheFeaturesContradictTheOracle(t *testing.T) {
	m := newModel(faults{})
	cfg := config(m)
	cfg.Features = fstest.MapFS{"f.feature": {Data: []byte("Feature: F\n\n  @core @S-01\n  Scenario: A\n" +
		"    Given the database \"my-shared\" with its defaults\n    Then every Internet host is served\n")}}
	cfg.Expected, cfg.Rehearsed = nil, false
	r := run(t, cfg)
	require.Equal(t, suite.Unjudged, r.Result)
	require.Contains(t, r.Error, "do not agree")
	require.Zero(t, m.calls)
	require.Empty(t, r.Scenarios)
}
