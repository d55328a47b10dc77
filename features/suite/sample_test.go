package suite_test

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"

	"drawbridge/features/confidence"
	"drawbridge/features/driver"
	"drawbridge/features/platform"
	"drawbridge/features/suite"
	"drawbridge/topology"
)

func fleet(t *testing.T, dedicated, shared int) *topology.World {
	t.Helper()
	text, err := topology.NewFleet(topology.Fleet{Name: "fleet", Dedicated: dedicated, Shared: shared})
	require.NoError(t, err)
	w, err := topology.Parse("fleet.yaml", text)
	require.NoError(t, err)
	return w
}

// sampleOf is a config for a model as enforcer and lab in a fleet.
func sampleOf(t *testing.T, f faults, dedicated, shared int) suite.SampleConfig {
	t.Helper()
	w, m := fleet(t, dedicated, shared), newModel(f)
	m.fabric = platform.Start(w)
	return suite.SampleConfig{World: w, Lab: m, Enforcer: m, Size: 100, Rules: 30, Changes: 8, Level: .95, Seed: 1}
}

func runSample(t *testing.T, cfg suite.SampleConfig) (*suite.SampleReport, string) {
	t.Helper()
	r, err := suite.RunSample(t.Context(), cfg)
	require.NoError(t, err)
	var b bytes.Buffer
	require.NoError(t, r.WriteSummary(&b))
	return r, b.String()
}

func TestASamplePassesARightEnforcer(t *testing.T) {
	r, text := runSample(t, sampleOf(t, faults{}, 60, 30))
	require.Equal(t, suite.Passed, r.Result, text)
	require.Zero(t, r.Mismatched)
	require.Equal(t, 8, r.Changes.Count)
	require.Equal(t, 2, r.Install.Count, "one for each point")
	require.Len(t, r.Phases, 3)
	installed := r.Phases[0].Strata
	require.Len(t, installed, 7, "four of dedicated databases and three of shared ones, which have no way round")
	total := r.Unspecified
	for _, s := range installed {
		total += s.Of
		require.Equal(t, min(100, s.Of), s.Tried, s.Name)
		require.InDelta(t, confidence.Sample{Of: s.Of, Tried: s.Tried}.Below(.95), s.Below, 1e-12)
		require.Greater(t, s.Of, 100, "a good part of %s", s.Name)
	}
	require.Equal(t, r.Connections, total, "each connection is in one stratum")
	require.Contains(t, text, "100 of ")
	require.Contains(t, text, "0 wrong: with 95% confidence fewer than 3.0% are")
	require.Contains(t, text, "CONFORMANT")
}

func TestASampleIsRepeatable(t *testing.T) {
	cfg := sampleOf(t, faults{unforced: true}, 40, 0)
	one, _ := runSample(t, cfg)
	cfg = sampleOf(t, faults{unforced: true}, 40, 0)
	two, _ := runSample(t, cfg)
	require.Equal(t, one.Mismatches, two.Mismatches)
	cfg = sampleOf(t, faults{unforced: true}, 40, 0)
	cfg.Seed = 2
	other, _ := runSample(t, cfg)
	require.NotEqual(t, one.Mismatches, other.Mismatches)
}

func TestASampleFailsWrongEnforcers(t *testing.T) {
	for name, f := range map[string]faults{
		"accepts everything":            {acceptAll: true},
		"leaves IPv6 open":              {no6: true},
		"never forces TLS":              {unforced: true},
		"rules of all for all":          {ruleByDatabase: true},
		"opens the neighbour":           {openNeighbour: true},
		"loses a range's first address": {firstAddressOff: true},
		"forgets the 30th rule":         {forgetRule30: true},
		"keeps removed rules":           {ignoreRemoval: true},
		"ways round are open":           {openBypass: true},
		"ignores reset":                 {ignoreReset: true},
		"lets denied clients in late":   {late: true},
		"says the same generation":      {staleGeneration: true},
		"drops the canary":              {deadCanary: true},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := sampleOf(t, f, 30, 30)
			cfg.Changes = 30
			r, text := runSample(t, cfg)
			require.Equal(t, suite.Failed, r.Result, text)
			require.Equal(t, 1, r.Result.ExitCode())
			require.Contains(t, text, "NOT CONFORMANT")
		})
	}
}

func TestASampleOfABlindLabIsUnjudged(t *testing.T) {
	r, text := runSample(t, sampleOf(t, faults{blind: true}, 10, 10))
	require.Equal(t, suite.Unjudged, r.Result, text)
	require.Contains(t, r.Error, "without an enforcer not every connection is served")
	require.Equal(t, 3, r.Result.ExitCode())
}

func TestASampleOfNothingIsRefused(t *testing.T) {
	for name, change := range map[string]func(*suite.SampleConfig){
		"size": func(c *suite.SampleConfig) { c.Size = 0 }, "rules": func(c *suite.SampleConfig) { c.Rules = 31 },
		"changes": func(c *suite.SampleConfig) { c.Changes = -1 }, "no confidence": func(c *suite.SampleConfig) { c.Level = 0 },
		"certainty": func(c *suite.SampleConfig) { c.Level = 1 },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := sampleOf(t, faults{}, 3, 3)
			change(&cfg)
			_, err := suite.RunSample(t.Context(), cfg)
			require.ErrorIs(t, err, suite.ErrUsage)
		})
	}
}

// forgetful is a right enforcer but for some dedicated databases, whose rules it forgets.
type forgetful struct {
	*model
	every int
}

func (f *forgetful) Apply(ctx context.Context, doc driver.Document) (driver.Receipt, error) {
	doc.Databases = slices.Clone(doc.Databases)
	for i := range doc.Databases {
		if !strings.HasPrefix(doc.Databases[i].Name, driver.CanaryPrefix) && i%f.every == f.every-1 {
			doc.Databases[i].FirewallRules = nil
		}
	}
	return f.model.Apply(ctx, doc)
}

// TestWhatIsRarelyWrongIsFoundAsOftenAsStated: of the connections to one database in 25, those that must be served are not. A sample of n
// finds that with a probability that follows from n and from how many there are, and in many runs about as often.
func TestWhatIsRarelyWrongIsFoundAsOftenAsStated(t *testing.T) {
	const runs, size = 30, 60
	found, understated, expected := 0, 0, 0.0
	for seed := range uint64(runs) {
		cfg := sampleOf(t, faults{}, 25, 0)
		cfg.Enforcer = &forgetful{cfg.Enforcer.(*model), 25}
		cfg.Size, cfg.Changes, cfg.Seed = size, 0, seed+1
		r, text := runSample(t, cfg)
		served := r.Phases[0].Strata[0]
		if served.Wrong > 0 {
			found++
			require.Equal(t, suite.Failed, r.Result, text)
		}
		all := cfg
		all.Size = served.Of
		whole, _ := runSample(t, all)
		truth := whole.Phases[0].Strata[0]
		fraction := float64(truth.Wrong) / float64(truth.Of)
		expected += confidence.Found(size, fraction)
		if fraction > served.Below {
			understated++
		}
	}
	require.LessOrEqual(t, understated, 6, "one in twenty, and by chance no more than that")
	require.Greater(t, expected, 15.)
	require.InDelta(t, expected, found, 9, "more than three standard deviations")
}

func TestTheSchemaOfSamplesDescribesThem(t *testing.T) {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(suite.SampleSchema()))
	require.NoError(t, err)
	c := jsonschema.NewCompiler()
	require.NoError(t, c.AddResource("sample.schema.json", doc))
	s, err := c.Compile("sample.schema.json")
	require.NoError(t, err)
	for name, f := range map[string]faults{"right": {}, "wrong": {no6: true}, "blind": {blind: true}} {
		t.Run(name, func(t *testing.T) {
			r, _ := runSample(t, sampleOf(t, f, 10, 10))
			var b bytes.Buffer
			require.NoError(t, r.WriteJSON(&b))
			v, err := jsonschema.UnmarshalJSON(&b)
			require.NoError(t, err)
			require.NoError(t, s.Validate(v))
			v.(map[string]any)["surprise"] = 1
			require.Error(t, s.Validate(v))
		})
	}
}
