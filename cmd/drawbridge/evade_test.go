//go:build !operator

package main

import (
	"context"
	"encoding/json"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"drawbridge/enforcer"
	"drawbridge/enforcer/compile"
	"drawbridge/enforcer/nft"
	"drawbridge/enforcer/policy"
	"drawbridge/enforcer/ruleset"
	"drawbridge/features"
	"drawbridge/features/driver"
	"drawbridge/features/platform"
	"drawbridge/sim"
	"drawbridge/sim/evade"
	"drawbridge/sim/netns/netnstest"
	"drawbridge/topology"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
)

// arena is a lab with hand-made clients in it, and tables of the reference enforcer that a test may spoil.
type arena struct {
	t     *testing.T // the outermost: what is opened stays open until its end
	lab   *sim.Lab
	field *evade.Field
	state *platform.State
	conns map[string]*nft.Conn
}

// evader is the vantage that attempts come from.
const evader = "office"

func newArena(t *testing.T, bare bool) *arena {
	t.Helper()
	return arenaOf(t, func(lab *sim.Lab) evade.Recorder {
		if bare {
			servers, err := evade.Listen(t.Context(), lab)
			require.NoError(t, err)
			t.Cleanup(func() { require.NoError(t, servers.Close()) })
			return servers
		}
		require.NoError(t, lab.StartServers(t.Context()))
		return evade.Embedded(lab.Journal())
	})
}

func arenaOf(t *testing.T, serve func(*sim.Lab) evade.Recorder) *arena {
	t.Helper()
	netnstest.NoLeaks(t)
	lab, err := sim.Up(t.Context(), topology.Default(), sim.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, lab.Close()) })
	a := &arena{t: t, lab: lab, state: platform.Start(lab.World()), conns: map[string]*nft.Conn{}}
	a.field, err = evade.Open(lab, evader, serve(lab))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, a.field.Close()) })
	for _, d := range lab.World().Databases() {
		a.admit(t, d, platform.On)
	}
	return a
}

// admit lets everybody in to a database, with Force TLS on or off.
func (a *arena) admit(t *testing.T, d topology.Database, force platform.Toggle) {
	t.Helper()
	if d.Canary {
		return
	}
	s := platform.Settings{ForceTLS: force}
	if d.Model == topology.Shared {
		s.InternetAccessibility = force // which needs Force TLS
	} else {
		for _, cidr := range []string{"198.51.100.0/25", "2001:db8:a::/64"} {
			rule, err := platform.Custom(cidr)
			require.NoError(t, err)
			s.Rules = append(s.Rules, rule)
		}
	}
	a.state.Set(d.Name, s)
}

// enforce brings the state's policy into force at every point, as spoil leaves it.
func (a *arena) enforce(t *testing.T, spoil func(*ruleset.Table)) {
	t.Helper()
	for _, p := range a.lab.World().Points() {
		document, err := driver.Build(a.state, p.Name)
		require.NoError(t, err)
		text, err := json.Marshal(document)
		require.NoError(t, err)
		node, ok := a.lab.Node(p.Name)
		require.True(t, ok)
		require.NoError(t, node.Do(func() error {
			_, err := enforcer.Apply(t.Context(), text, enforcer.Options{Name: p.Name})
			return err
		}))
		if spoil == nil {
			continue
		}
		parsed, err := policy.Parse(p.Name, text)
		require.NoError(t, err)
		table, err := compile.Compile(parsed)
		require.NoError(t, err)
		spoil(&table)
		conn := a.conn(t, p.Name)
		state, err := conn.Read(t.Context())
		require.NoError(t, err)
		require.NoError(t, conn.Commit(t.Context(), ruleset.Diff(state.Table, table), state.Generation))
	}
}

func (a *arena) conn(t *testing.T, point string) *nft.Conn {
	t.Helper()
	if c, ok := a.conns[point]; ok {
		return c
	}
	ns, ok := a.lab.Node(point)
	require.True(t, ok)
	var c *nft.Conn
	require.NoError(t, ns.Do(func() (err error) {
		c, err = nft.Open(compile.TableName)
		return err
	}))
	a.t.Cleanup(func() { require.NoError(a.t, c.Close()) })
	a.conns[point] = c
	return c
}

// forced lists the endpoints at which Force TLS is tried, in both families and both placements.
func (a *arena) forced() []topology.Endpoint {
	var out []topology.Endpoint
	for _, e := range a.lab.World().Endpoints() {
		d, _ := a.lab.World().Database(e.Database)
		twin := slices.ContainsFunc(out, func(o topology.Endpoint) bool {
			return o.Database == e.Database && o.Addr.Addr().Is4() == e.Addr.Addr().Is4()
		})
		if !d.Canary && e.TLS != topology.TLSNone && e.Kind == topology.PublicRW && !twin {
			out = append(out, e)
		}
	}
	return out
}

// played is what became of every attempt at every endpoint.
func (a *arena) played(t *testing.T, ctx context.Context) []evade.Observation {
	t.Helper()
	var out []evade.Observation
	for _, e := range a.forced() {
		d, _ := a.lab.World().Database(e.Database)
		began := time.Now()
		all, err := a.field.PlayAll(ctx, evade.For(e, d.Model), e)
		require.NoError(t, err, e.Database)
		t.Logf("%s at %s: %d attempts in %s", e.Database, e.Addr, len(all), time.Since(began).Round(time.Millisecond))
		out = append(out, all...)
	}
	return out
}

func leaks(all []evade.Observation) []evade.Observation {
	return slices.DeleteFunc(slices.Clone(all), func(o evade.Observation) bool {
		return len(o.Plaintext()) == 0 && o.OnWire() == nil
	})
}

// tight checks that nothing leaked.
func tight(t *testing.T, all []evade.Observation) {
	t.Helper()
	require.NotEmpty(t, all)
	for _, o := range leaks(all) {
		t.Errorf("leak: %s", o)
	}
}

// TestEvasion plays every attempt at every engine, in both placements and both families, against servers that speak TLS and
// servers that do not: without an enforcer it gets its byte through, with it the server sees none.
func TestEvasion(t *testing.T) {
	var all []evade.Observation
	for _, kind := range []string{"embedded", "bare"} {
		t.Run(kind, func(t *testing.T) {
			a := newArena(t, kind == "bare")
			free := a.played(t, t.Context())
			require.GreaterOrEqual(t, len(free), 40)
			for _, o := range free {
				if len(o.Plaintext()) == 0 {
					t.Errorf("tries nothing: %s", o)
				}
			}
			a.enforce(t, nil)
			all = append(all, a.played(t, t.Context())...)
		})
	}
	tight(t, all)
}

// TestTurningForceTLSOnIsNoWayRound plays attempts that begin while Force TLS is off: where it stays off they get through.
func TestTurningForceTLSOnIsNoWayRound(t *testing.T) {
	a := newArena(t, true)
	for _, d := range a.lab.World().Databases() {
		a.admit(t, d, platform.Off)
	}
	var all []evade.Observation
	for _, e := range a.forced() {
		d, _ := a.lab.World().Database(e.Database)
		if d.Model == topology.Shared {
			continue // the Internet reaches it with Force TLS on only
		}
		for _, attempt := range evade.FitsHalfway(e, d.Model) {
			a.admit(t, d, platform.Off)
			a.enforce(t, nil)
			o, err := a.field.Play(t.Context(), attempt, e)
			require.NoError(t, err)
			require.NotEmpty(t, o.Plaintext(), "tries nothing: %s", o)
			a.admit(t, d, platform.On)
			o, err = a.field.PlayAround(t.Context(), attempt, e, func() error { a.enforce(t, nil); return nil })
			require.NoError(t, err)
			o.Left = nil // what passed before it was forbidden
			all = append(all, o)
		}
	}
	tight(t, all)
}

// TestWhatExpiresFailsClosed shortens what the gate remembers for a while, and waits it out.
func TestWhatExpiresFailsClosed(t *testing.T) {
	const remembered = time.Second // the least that the kernel knows
	a := newArena(t, true)
	attempt := evade.Patient(remembered + remembered/2)
	a.enforce(t, func(table *ruleset.Table) { shorten(table, remembered) })
	all := make([]evade.Observation, len(a.forced()))
	var group errgroup.Group
	for i, e := range a.forced() {
		group.Go(func() (err error) {
			all[i], err = a.field.Play(t.Context(), attempt, e)
			return err
		})
	}
	require.NoError(t, group.Wait())
	tight(t, all)
}

// shorten makes the gate forget a place that was sent to, or answered from, after so long.
func shorten(table *ruleset.Table, to time.Duration) {
	for _, c := range table.Chains {
		for _, r := range c.Rules {
			for i, s := range r.Statements {
				if d, ok := s.(ruleset.Dynset); ok && d.Timeout > 0 {
					d.Timeout = to
					r.Statements[i] = d
				}
			}
		}
	}
}

// TestOthersTablesAreNoWayRound plays attempts while another table exempts databases from connection tracking: what cannot be
// told from TLS does not pass. At a gateway nothing arrives at all then, as addresses are not translated.
func TestOthersTablesAreNoWayRound(t *testing.T) {
	nft := netnstest.Tool(t, "nft")
	a := newArena(t, true)
	for _, host := range []string{"shared-a", "redis-a"} {
		ns, ok := a.lab.Node(host)
		require.True(t, ok)
		cmd := exec.CommandContext(t.Context(), nft, "-f", "-")
		cmd.Stdin = strings.NewReader("table inet other { chain c { type filter hook prerouting priority -350; tcp dport { 3306, 5432, 6380 } notrack; }; }")
		require.NoError(t, ns.Start(cmd))
		require.NoError(t, cmd.Wait())
	}
	for _, force := range []bool{false, true} {
		if force {
			a.enforce(t, nil)
		}
		for _, e := range a.forced() {
			if e.Database != "pg-shared" && e.Database != "my-shared" && e.Database != "redis-shared" {
				continue
			}
			all, err := a.field.PlayAll(t.Context(), evade.For(e, topology.Shared), e)
			require.NoError(t, err)
			through := leaks(all)
			if force {
				require.Empty(t, through, e.Database)
				continue
			}
			require.Len(t, through, len(all), "they try nothing")
		}
	}
}

// TestMultipathIsNoWayRound plays attempts at servers that speak Multipath TCP.
func TestMultipathIsNoWayRound(t *testing.T) {
	a := arenaOf(t, func(lab *sim.Lab) evade.Recorder {
		servers, err := evade.ListenMultipath(lab)
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, servers.Close()) })
		return servers
	})
	play := func() (all []evade.Observation) {
		for _, e := range a.forced() {
			if e.TLS == topology.TLSInBand {
				continue // a hello opens nothing there
			}
			some, err := a.field.PlayAll(t.Context(), evade.Multipath(), e)
			require.NoError(t, err)
			all = append(all, some...)
		}
		return all
	}
	free := play()
	require.Len(t, leaks(free), len(free), "they try nothing")
	a.enforce(t, nil)
	tight(t, play())
	a.enforce(t, func(table *ruleset.Table) {
		both(without("forced_syn", "a second one of the kind"), weaker("forced_syn", strips))(t, table)
	})
	spoilt := play()
	require.Len(t, leaks(spoilt), len(spoilt), "a gate that leaves options in is not caught")
}

// TestFeatureNamesEveryEvasion: an attempt that no scenario names judges nobody.
func TestFeatureNamesEveryEvasion(t *testing.T) {
	text, err := features.Files.ReadFile("evasion.feature")
	require.NoError(t, err)
	var names []string
	for _, a := range evade.Attempts() {
		require.NotContains(t, names, a.Name)
		names = append(names, a.Name)
		require.NotEmpty(t, a.Idea)
		row := regexp.MustCompile(`(?m)^ +\| ` + regexp.QuoteMeta(a.Name) + ` +\|$`)
		require.True(t, row.Match(text), a.Name)
	}
	require.GreaterOrEqual(t, len(names), 60)
}
