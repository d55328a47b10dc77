//go:build !operator

package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"drawbridge/features"
	"drawbridge/features/driver"
	"drawbridge/features/oracle"
	"drawbridge/features/suite"
	"drawbridge/sim/impair"
	"drawbridge/sim/netns/netnstest"
	"drawbridge/topology"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// brokenLimit bounds a run in a broken lab, or with a broken driver: whatever is wrong, the run ends.
const brokenLimit = 2 * time.Minute

// fragile is a lab that breaks before one of its Connects.
type fragile struct {
	suite.Lab
	breakIt func() error

	mu    sync.Mutex
	after int
}

func (f *fragile) Connect(ctx context.Context, attempts []oracle.Connection) ([]suite.Outcome, error) {
	f.mu.Lock()
	f.after--
	now := f.after == 0
	f.mu.Unlock()
	if now {
		if err := f.breakIt(); err != nil {
			return nil, err
		}
	}
	return f.Lab.Connect(ctx, attempts)
}

// inLab is a lab in the test's own namespace, and a configuration that judges the reference enforcer in it.
func inLab(t *testing.T, program string, args ...string) (*lab, suite.Config) {
	t.Helper()
	netnstest.Require(t)
	l, err := up(t.Context(), topology.Default(), embeddedServers, t.TempDir(), impair.Impairment{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Close()) })
	enforcer, err := driver.New(program, args, t.TempDir(), func(point string) (driver.Starter, error) {
		node, ok := l.Node(point)
		require.True(t, ok)
		return node, nil
	})
	require.NoError(t, err)
	enforcer.Env = append(os.Environ(), asProgram+"=1")
	return l, suite.Config{
		World: l.World(), Lab: suite.Simulated(l.Lab, l.prober), Enforcer: enforcer, Features: features.Files, Format: "progress",
		Profiles: []string{driver.Core}, Tags: "@D-09", Lanes: lanes,
	}
}

// sickness is something that breaks in a lab.
type sickness struct {
	name string
	make func(*lab) error
	// named is what the report must say of it; "" where it cannot be told from what an enforcer may do.
	named string
}

var sicknesses = []sickness{
	{"a listener is down", func(l *lab) error {
		s := l.Server("pg-dedicated-1", 5432)
		if s == nil {
			return errors.New("no such server")
		}
		return s.Close()
	}, "pg-dedicated-1: no longer there: tcp"},
	{"a route is missing", func(l *lab) error {
		h, _ := l.Node("office")
		return h.Do(func() error {
			routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
			if err != nil {
				return err
			}
			for _, r := range routes {
				if r.Dst == nil || r.Dst.IP.IsUnspecified() {
					return netlink.RouteDel(&r)
				}
			}
			return errors.New("no default route")
		})
	}, "office: no longer there: route"},
	{"5% of all packets are lost on the way", lose, ""},
}

// lose makes the router in the middle lose one packet in twenty, by chance.
func lose(l *lab) error {
	h, _ := l.Node("internet")
	c, err := nftables.New(nftables.WithNetNSFd(h.Fd()))
	if err != nil {
		return err
	}
	table := c.AddTable(&nftables.Table{Name: "loss", Family: nftables.TableFamilyINet})
	chain := c.AddChain(&nftables.Chain{
		Name: "loss", Table: table, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityRaw,
	})
	c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
		&expr.Numgen{Register: 1, Modulus: 20, Type: unix.NFT_NG_RANDOM},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{0, 0, 0, 0}},
		&expr.Verdict{Kind: expr.VerdictDrop},
	}})
	return c.Flush()
}

// TestNoRunInABrokenLabIsConformant breaks the lab before the run and in the middle of it.
func TestNoRunInABrokenLabIsConformant(t *testing.T) {
	for _, s := range sicknesses {
		t.Run(s.name+", from the start", func(t *testing.T) {
			l, cfg := inLab(t, "/proc/self/exe", "enforce")
			require.NoError(t, s.make(l))
			r := bounded(t, cfg)
			require.Equal(t, suite.Unjudged, r.Result, r.Error)
			require.Contains(t, r.Error, "the lab is broken")
			require.Zero(t, r.Counts.Executed)
		})
		t.Run(s.name+", in the middle", func(t *testing.T) {
			l, cfg := inLab(t, "/proc/self/exe", "enforce")
			cfg.Lab = &fragile{Lab: cfg.Lab, after: 4, breakIt: func() error { return s.make(l) }}
			r := bounded(t, cfg)
			require.NotEqual(t, suite.Passed, r.Result, r.Error)
			if s.named != "" {
				require.Equal(t, suite.Unjudged, r.Result, r.Error)
				require.Contains(t, r.Error, s.named)
			}
		})
	}
}

// bounded runs the suite, which must end in time.
func bounded(t *testing.T, cfg suite.Config) *suite.Report {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), brokenLimit)
	defer cancel()
	r, err := suite.Run(ctx, cfg)
	require.NoError(t, err)
	require.NoError(t, ctx.Err(), "it does not end")
	return r
}

// TestNoBrokenDriverIsConformant: each ends in time, by its name, with exit status 3.
func TestNoBrokenDriverIsConformant(t *testing.T) {
	const describe = `case $1 in describe) echo '{"protocol":1,"name":"d","version":"1","profiles":["core"],"features":{"force_tls":"first-bytes"}}'; exit;; esac
cat >/dev/null
`
	for name, c := range map[string]struct {
		script, want string
		limit        time.Duration
	}{
		"hangs":                  {describe + "sleep 1000", "hang", time.Second},
		"hangs from the start":   {"sleep 1000", "hang", time.Second},
		"prints nonsense":        {describe + "echo done", "nonsense on standard output", 0},
		"describes nonsense":     {"echo '{}'", "nonsense on standard output", 0},
		"dies":                   {describe + "kill -SEGV $$", "signal", 0},
		"leaves processes":       {describe + `sleep 1000 >/dev/null 2>&1 & echo "{\"generation\":$$}"`, "left behind: sleep", 0},
		"leaves them at a reset": {describe + `[ $1 = reset ] && { sleep 1000 >/dev/null 2>&1 & exit; }; echo "{\"generation\":$$}"`, "left behind: sleep", 0},
		"sleeps in every call":   {describe + `sleep 11; echo "{\"generation\":$$}"`, "too slow to be judged", 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			program := filepath.Join(t.TempDir(), "driver")
			require.NoError(t, os.WriteFile(program, []byte("#!/bin/sh\n"+c.script+"\n"), 0o700))
			_, cfg := inLab(t, program)
			cfg.Enforcer.(*driver.Exec).Limit = c.limit
			cfg.Tags = "@S-11" // which deny nothing: this driver would pass them
			r := bounded(t, cfg)
			require.NotEqual(t, suite.Passed, r.Result)
			require.Equal(t, 3, r.Result.ExitCode(), r.Error)
			require.Contains(t, r.Error, c.want)
		})
	}
}
