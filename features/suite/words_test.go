package suite_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"drawbridge/features/driver"
	"drawbridge/features/suite"
)

// answering is a right enforcer whose driver answers some calls with something of its own.
type answering struct {
	*model
	apply func(m *model, doc driver.Document) error // nil, or nil returned: as the model does
	reset func(point string) error
}

func (a *answering) Apply(ctx context.Context, doc driver.Document) (driver.Receipt, error) {
	if a.apply != nil {
		if err := a.apply(a.model, doc); err != nil {
			return driver.Receipt{}, err
		}
	}
	return a.model.Apply(ctx, doc)
}

func (a *answering) Reset(ctx context.Context, point string) error {
	if a.reset != nil {
		if err := a.reset(point); err != nil {
			return err
		}
	}
	return a.model.Reset(ctx, point)
}

func broken(call, point string) error {
	return &driver.Broken{Point: point, Call: call, Reason: driver.OtherStatus, Detail: "exit status 7", Stderr: "no such luck"}
}

// mustRefuse reports whether a policy holds something that enforcers must refuse.
func mustRefuse(doc driver.Document) bool {
	for _, d := range doc.Databases {
		if refuse(d) != "" {
			return true
		}
	}
	return false
}

// TestWords checks that whoever reads the summary learns which call at which point went wrong, once, and nothing untrue.
func TestWords(t *testing.T) {
	for name, c := range map[string]struct {
		faults  faults
		apply   func(*model, driver.Document) error
		reset   func(string) error
		tags    string
		result  suite.Result
		says    []string
		not     []string
		longest int // lines
	}{
		"a driver that breaks where it should refuse has accepted nothing": {
			apply: func(_ *model, doc driver.Document) error {
				if mustRefuse(doc) {
					return broken("apply", doc.Point.Name)
				}
				return nil
			},
			tags: "@S-09", result: suite.Unjudged, longest: 30,
			says: []string{"S-09", "driver broken: apply at shared-a: ", "exit status 7", "no such luck"}, not: []string{"accepted what must be refused", "failed:"},
		},
		"a driver that breaks at the very first policy": {
			apply: func(_ *model, doc driver.Document) error { return broken("apply", doc.Point.Name) },
			tags:  "@S-09", result: suite.Unjudged, longest: 10,
			says: []string{"the defaults could not be brought into force: driver broken: apply at ", "exit status 7"}, not: []string{"STATEMENT"},
		},
		"defaults refused everywhere": {
			apply: func(_ *model, doc driver.Document) error {
				return &driver.Refused{Point: doc.Point.Name, Stderr: "never"}
			},
			tags: "@S-09", result: suite.Failed, longest: 20,
			says: []string{"the defaults, which must not be refused, were refused at gw-fr1, gw-secnum, redis-a", "shared-s", "never"}, not: []string{"accepted"},
		},
		"defaults refused at one point": {
			apply: func(_ *model, doc driver.Document) error {
				if doc.Point.Name == "shared-s" {
					return &driver.Refused{Point: doc.Point.Name, Stderr: "not here"}
				}
				return nil
			},
			tags: "@S-09", result: suite.Failed, longest: 10,
			says: []string{"the defaults, which must not be refused, were refused at shared-s:\n", "not here"}, not: []string{"accepted"},
		},
		"reset leaves everything in force": {
			faults: faults{ignoreReset: true}, tags: "@D-15", result: suite.Failed, longest: 30,
			says: []string{"reset at gw-fr1 left something in force; not served after it:\n", "more"}, not: []string{"brought into force", "after the last reset"},
		},
		"reset breaks": {
			reset: func(point string) error { return broken("reset", point) },
			tags:  "@D-09", result: suite.Unjudged, longest: 30,
			says: []string{"reset failed: driver broken: reset at gw-", "not run: an earlier scenario ended", "more with the same words"},
		},
		"a generation comes twice": {
			faults: faults{staleGeneration: true}, tags: "@D-15", result: suite.Failed, longest: 30,
			says: []string{"the receipt names generation 1, as the one before did"}, not: []string{"brought into force"},
		},
		"accepts what must be refused": {
			faults: faults{refuseNothing: true}, tags: "@S-10", result: suite.Failed, longest: 30,
			says: []string{"S-10       failed", "accepted what must be refused"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := newModel(c.faults)
			cfg := config(m)
			cfg.Enforcer, cfg.Tags = &answering{m, c.apply, c.reset}, c.tags
			r := run(t, cfg)
			text := summary(t, r)
			require.Equal(t, c.result, r.Result, text)
			for _, s := range c.says {
				require.Contains(t, text, s)
			}
			for _, s := range c.not {
				require.NotContains(t, text, s)
			}
			require.LessOrEqual(t, strings.Count(text, "\n"), c.longest, text)
		})
	}
}

// TestPoliciesOfFailedScenarios: the report has the policies that a failed scenario is about, and none of an earlier run.
func TestPoliciesOfFailedScenarios(t *testing.T) {
	dir := t.TempDir()
	fails := config(newModel(faults{firstAddressOff: true}))
	fails.Tags, fails.ReportDir = "@D-09", dir
	r := run(t, fails)
	require.Equal(t, suite.Failed, r.Result)
	var rules []string
	for _, s := range r.Scenarios {
		require.Equal(t, s.Result == suite.Passed, len(s.Policies) == 0, s.Name)
		for _, p := range s.Policies {
			require.Contains(t, summary(t, r), p)
			for _, d := range policy(t, filepath.Join(dir, p)).Databases {
				for _, rule := range d.FirewallRules {
					if !strings.HasPrefix(d.Name, driver.CanaryPrefix) {
						rules = append(rules, rule.CIDR.String())
					}
				}
			}
		}
	}
	require.NotEmpty(t, rules, "the policies are those from before the defaults came back")

	passes := config(newModel(faults{}))
	passes.Tags, passes.ReportDir = "@D-09", dir
	require.Equal(t, suite.Passed, run(t, passes).Result)
	left, err := filepath.Glob(filepath.Join(dir, "policies", "*"))
	require.NoError(t, err)
	require.Empty(t, left)
}

// TestARefusedPolicyIsKept: for a policy that was wrongly refused, the report has that one too.
func TestARefusedPolicyIsKept(t *testing.T) {
	m := newModel(faults{})
	cfg := config(m)
	cfg.Enforcer = &answering{model: m, apply: func(_ *model, doc driver.Document) error {
		for _, d := range doc.Databases {
			if d.Name == "my-shared" && d.ForceTLS != nil {
				return &driver.Refused{Point: doc.Point.Name, Stderr: "no"}
			}
		}
		return nil
	}}
	cfg.Tags, cfg.ReportDir = "@S-06", t.TempDir()
	r := run(t, cfg)
	require.Equal(t, suite.Failed, r.Result)
	asked := 0
	for _, s := range r.Scenarios {
		for _, p := range s.Policies {
			if strings.HasSuffix(p, "shared-a.asked.json") {
				asked++
				require.True(t, touched(policy(t, filepath.Join(cfg.ReportDir, p))))
				require.False(t, touched(policy(t, filepath.Join(cfg.ReportDir, strings.Replace(p, ".asked", "", 1)))))
			}
		}
	}
	require.Positive(t, asked, summary(t, r))
}

func touched(doc driver.Document) bool {
	for _, d := range doc.Databases {
		if d.Name == "my-shared" && d.ForceTLS != nil {
			return true
		}
	}
	return false
}

func policy(t *testing.T, path string) driver.Document {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	var doc driver.Document
	require.NoError(t, json.Unmarshal(text, &doc))
	return doc
}

// looking counts how often everything is looked at.
type looking struct {
	*model
	baselines int
}

func (l *looking) Baseline(ctx context.Context) error {
	l.baselines++
	return l.model.Baseline(ctx)
}

// TestWhatAResetLeftIsNotLookedForAgain: after the last reset everything is looked at, which takes long where much is dropped;
// not so if it is known already that something was left.
func TestWhatAResetLeftIsNotLookedForAgain(t *testing.T) {
	for _, c := range []struct {
		faults faults
		want   int
	}{{faults{}, 2}, {faults{ignoreReset: true}, 1}} {
		m := newModel(c.faults)
		cfg, lab := config(m), &looking{model: m}
		cfg.Lab, cfg.Tags = lab, "@D-15"
		run(t, cfg)
		require.Equal(t, c.want, lab.baselines)
	}
}
