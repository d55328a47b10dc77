//go:build !operator

package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"drawbridge/features/driver"
	"drawbridge/features/platform"
	"drawbridge/sim"
	"drawbridge/sim/endpoint"
	"drawbridge/sim/netns"
	"drawbridge/sim/netns/netnstest"
	"drawbridge/sim/realserver"
	"drawbridge/topology"

	"github.com/stretchr/testify/require"
)

// Limits: real servers start within seconds; no client of a test waits longer than clientLimit, and those that are expected
// to hang are stopped after hangLimit: a client that is served needs a tenth of a second. What decides is what the server
// has seen by then.
const (
	realLimit   = 3 * time.Minute
	clientLimit = 20 * time.Second
	hangLimit   = 2 * time.Second
)

// realLab is a lab with the distribution's servers in this very process, so that a test can ask them what they saw; and the
// reference enforcer at every point, through its door.
type realLab struct {
	*sim.Lab
	state    *platform.State
	enforcer *driver.Exec
	ca       string // file
}

func newRealLab(t *testing.T, replicated ...string) *realLab {
	t.Helper()
	for _, name := range []string{"psql", "mariadb", "redis-cli"} {
		netnstest.Tool(t, name)
	}
	if _, err := realserver.Find(""); err != nil {
		netnstest.Missing(t, err.Error())
	}
	netnstest.NoLeaks(t)
	t.Setenv(asProgram, "1") // the reference enforcer is this binary
	ctx, cancel := context.WithTimeout(t.Context(), realLimit)
	t.Cleanup(cancel)
	world, err := topology.Load(filepath.Join("testdata", "real.yaml"))
	require.NoError(t, err)
	dir, err := os.MkdirTemp("", "db") // short: sockets lie in it
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	installed, err := realserver.Find(dir)
	require.NoError(t, err)
	l, err := sim.Up(ctx, world, sim.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Close()) })
	require.NoError(t, l.StartRealServers(ctx, installed, replicated...))
	enforcer, err := enforcerOf(l, conformOptions{}, t.TempDir())
	require.NoError(t, err)
	r := &realLab{Lab: l, state: platform.Start(world), enforcer: enforcer, ca: filepath.Join(t.TempDir(), "ca.pem")}
	require.NoError(t, os.WriteFile(r.ca, l.CAFile(), 0o600))
	return r
}

// enforce brings the state's policy into force at every point.
func (r *realLab) enforce(t *testing.T) {
	t.Helper()
	for _, p := range r.World().Points() {
		document, err := driver.Build(r.state, p.Name)
		require.NoError(t, err)
		_, err = r.enforcer.Apply(t.Context(), document)
		require.NoError(t, err)
	}
}

// heard is how a client's program ended.
type heard struct {
	code     int
	out, err string
}

func withClientLimit(t *testing.T) (context.Context, context.CancelFunc) {
	return context.WithTimeout(t.Context(), clientLimit)
}

// clientEnvironment holds nothing of the configuration of whoever runs the tests.
func clientEnvironment() []string {
	return []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C", "HOME=/nonexistent", "PGCONNECT_TIMEOUT=10"}
}

// at returns the namespace of a vantage.
func (r *realLab) at(t *testing.T, vantage string) *netns.Handle {
	t.Helper()
	v, ok := r.World().Vantage(vantage)
	require.True(t, ok, vantage)
	node, ok := r.Node(v.Namespace)
	require.True(t, ok, vantage)
	return node
}

// client runs a client's program at a vantage to its end, or stops it after a limit.
func (r *realLab) client(t *testing.T, limit time.Duration, from, path string, args ...string) heard {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	var out, complaints bytes.Buffer
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Stdout, cmd.Stderr, cmd.Env = &out, &complaints, clientEnvironment()
	require.NoError(t, r.at(t, from).Start(cmd))
	err := cmd.Wait()
	require.NotNil(t, cmd.ProcessState, err)
	return heard{cmd.ProcessState.ExitCode(), strings.TrimSpace(out.String()), strings.TrimSpace(complaints.String())}
}

// connections returns how many connections the servers of a lab have seen.
func (r *realLab) connections() (n uint64) {
	for _, e := range r.Journal().All() {
		n = max(n, e.Conn)
	}
	return n
}

// since returns what a database's servers saw of the connections after the n-th of the lab.
func (r *realLab) since(t *testing.T, n uint64, database string) (events []endpoint.Event) {
	t.Helper()
	require.NoError(t, r.SyncJournal(t.Context(), database))
	for _, e := range r.Journal().All() {
		if e.Conn > n && e.Database == database {
			events = append(events, e)
		}
	}
	return events
}

// carriedOut tells whether a query with a text was carried out, and whether all such came over TLS.
func carriedOut(events []endpoint.Event, text string) (carried, overTLS bool) {
	overTLS = true
	for _, e := range events {
		if e.Kind == endpoint.Query && strings.Contains(e.Query, text) {
			carried, overTLS = true, overTLS && e.TLS
		}
	}
	return carried, carried && overTLS
}

// endpointOf returns a database's public endpoint of IPv4; plain: that of the port without TLS, if it has one of its own.
func (r *realLab) endpointOf(t *testing.T, database string, plain bool) topology.Endpoint {
	t.Helper()
	d, ok := r.World().Database(database)
	require.True(t, ok, database)
	for _, e := range d.Endpoints() {
		if e.Kind == topology.PublicRW && e.Addr.Addr().Is4() && plain == (e.TLS == topology.TLSNone) {
			return e
		}
	}
	t.Fatalf("%s has no such endpoint", database)
	return topology.Endpoint{}
}
