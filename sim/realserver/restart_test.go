package realserver_test

import (
	"context"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"drawbridge/sim"
	"drawbridge/sim/endpoint"
	"drawbridge/sim/netns/netnstest"
	"drawbridge/topology"

	"github.com/stretchr/testify/require"
)

// says runs a client's program at the office and returns what it printed.
func says(t *testing.T, l *sim.Lab, program string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	from, ok := l.Node("office")
	require.True(t, ok)
	var out, complaints strings.Builder
	cmd := exec.CommandContext(ctx, netnstest.Tool(t, program), args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C", "HOME=/nonexistent", "PGCONNECT_TIMEOUT=10"}
	cmd.Stdout, cmd.Stderr = &out, &complaints
	require.NoError(t, from.Start(cmd))
	require.NoError(t, cmd.Wait(), complaints.String())
	return strings.TrimSpace(out.String())
}

// TestAServerComesBackWithItsData: each engine is ended as by a crash, twice, and has afterwards what it had acknowledged; and it still tells
// of its clients.
func TestAServerComesBackWithItsData(t *testing.T) {
	l := lab(t)
	psql := func(statement string) string {
		return says(t, l, "psql", "-X", "-w", "-q", "-A", "-t", "-c", statement, "host=198.51.100.129 port=5432 user="+endpoint.User+
			" password="+endpoint.Password+" dbname="+endpoint.Schema+" sslmode=require")
	}
	mariadb := func(statement string) string {
		return says(t, l, "mariadb", "--no-defaults", "-h198.51.100.129", "-P3306", "-u"+endpoint.User, "-p"+endpoint.Password, "--skip-ssl", "-N", "-B",
			"-e", statement, endpoint.Schema)
	}
	redis := func(command string) string {
		var at netip.AddrPort
		for _, e := range l.World().Endpoints() {
			if e.Node == "redis-shared-1" && e.TLS == topology.TLSNone && !at.IsValid() {
				at = e.Addr
			}
		}
		args := []string{"-h", at.Addr().String(), "-p", strconv.Itoa(int(at.Port())), "--user", endpoint.User, "--pass", endpoint.Password, "--no-auth-warning"}
		return says(t, l, "redis-cli", append(args, strings.Fields(command)...)...)
	}
	for _, c := range []struct {
		node        string
		ask         func(string) string
		write, read string
	}{
		{"pg-shared-1", psql, "CREATE TABLE kept AS SELECT 'kept' AS word", "SELECT word FROM kept"},
		{"my-shared-1", mariadb, "CREATE TABLE kept AS SELECT 'kept' AS word", "SELECT word FROM kept"},
		{"redis-shared-1", redis, "SET word kept", "GET word"},
	} {
		t.Run(c.node, func(t *testing.T) {
			c.ask(c.write)
			for range 2 {
				require.NoError(t, l.StopServer(c.node))
				require.NoError(t, l.RestartServer(t.Context(), c.node))
				require.Equal(t, "kept", c.ask(c.read))
				seen, err := real(t, l, c.node).Seen(t.Context(), netip.AddrPortFrom(office, 0))
				require.NoError(t, err)
				require.NotEmpty(t, of(endpoint.Query, seen), "what it logs is heard")
			}
		})
	}
}
