package suite_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"drawbridge/features/driver"
	"drawbridge/features/suite"
	"drawbridge/sim"
	"drawbridge/sim/netns/netnstest"
	"drawbridge/sim/probe"
	"drawbridge/topology"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

// inLab is a Config for a real lab and a driver made of a shell script.
func inLab(t *testing.T, script string) suite.Config {
	t.Helper()
	netnstest.NoLeaks(t)
	lab, err := sim.Up(t.Context(), topology.Default(), sim.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, lab.Close()) })
	require.NoError(t, lab.StartServers(t.Context()))
	prober, err := probe.New(t.Context(), lab)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, prober.Close()) })
	program := filepath.Join(t.TempDir(), "driver")
	require.NoError(t, os.WriteFile(program, []byte("#!/bin/sh\n"+script), 0o700))
	exec, err := driver.New(program, nil, t.TempDir(), func(point string) (driver.Starter, error) {
		n, ok := lab.Node(point)
		require.True(t, ok, point)
		return n, nil
	})
	require.NoError(t, err)
	cfg := config(newModel(faults{}))
	cfg.Lab, cfg.Enforcer = suite.Simulated(lab, prober), exec
	return cfg
}

const acceptAll = `case $1 in
describe) echo '{"protocol":1,"name":"open","version":"1","profiles":["core","extended"],"features":{"force_tls":"first-bytes","revoke":"cut"}}' ;;
apply) cat >/dev/null; read n <count; echo $((n + 1)) >count; echo "{\"generation\":$((n + 1))}" ;;
esac 2>/dev/null
`

// TestALabWithoutEnforcementIsNotConformant drives one scenario of every sort through a real lab in which nothing is denied.
func TestALabWithoutEnforcementIsNotConformant(t *testing.T) {
	cfg := inLab(t, acceptAll)
	cfg.Tags = "@G-01,@C-02,@D-13,@D-17,@X-02,@X-04"
	r := run(t, cfg)
	require.Equal(t, suite.Failed, r.Result, summary(t, r))
	require.Zero(t, r.Counts.Unjudged, summary(t, r))
	for _, s := range r.Statements {
		require.NotEqual(t, suite.Unjudged, s.Result, s.ID)
	}
	for _, id := range []string{"G-01", "C-02", "D-13", "D-17", "X-02", "X-04"} {
		require.Equal(t, suite.Failed, result(r, id), "%s\n%s", id, summary(t, r))
	}
}

// TestWhatMustBeServedIsServedInALab: scenarios that deny nothing pass without any enforcement.
func TestWhatMustBeServedIsServedInALab(t *testing.T) {
	cfg := inLab(t, acceptAll)
	cfg.Tags = "@S-11"
	r := run(t, cfg)
	require.Equal(t, suite.Passed, r.Result, summary(t, r))
}

func result(r *suite.Report, id string) suite.Result {
	for _, s := range r.Statements {
		if s.ID == id {
			return s.Result
		}
	}
	return suite.Unjudged
}
