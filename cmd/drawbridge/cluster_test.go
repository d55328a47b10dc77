//go:build !operator

package main

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"drawbridge/features/platform"
	"drawbridge/sim/capture"
	"drawbridge/sim/endpoint"
	"drawbridge/sim/netns/netnstest"
	"drawbridge/sim/realserver"

	"github.com/stretchr/testify/require"
)

// cluster is a real PostgreSQL cluster of three nodes: the first is the primary, the others follow it by streaming
// replication.
type cluster struct {
	*realLab
	psql  string
	nodes []string
	at    map[string]netip.AddrPort
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	const database = "pg-dedicated"
	c := &cluster{realLab: newRealLab(t, database), psql: netnstest.Tool(t, "psql"), at: map[string]netip.AddrPort{}}
	d, ok := c.World().Database(database)
	require.True(t, ok)
	for _, n := range d.Nodes {
		c.nodes = append(c.nodes, n.Name)
		c.at[n.Name] = netip.AddrPortFrom(n.Addresses[0], n.Port)
	}
	require.Len(t, c.nodes, 3)
	c.ask(t, c.nodes[0], "CREATE TABLE IF NOT EXISTS told (word text PRIMARY KEY)")
	c.ask(t, c.nodes[0], "GRANT ALL ON told TO "+endpoint.User)
	for _, node := range c.nodes {
		c.until(t, node, "SELECT (to_regclass('told') IS NOT NULL)::text", "true")
	}
	return c
}

// ask has a node carry out a statement, past every network, and returns its answer if it is one that has any.
func (c *cluster) ask(t *testing.T, node, statement string) string {
	t.Helper()
	if !strings.HasPrefix(statement, "SELECT") && !strings.HasPrefix(statement, "INSERT") {
		require.NoError(t, c.RealServer(node).Do(t.Context(), statement))
		return ""
	}
	answer, err := c.RealServer(node).Ask(t.Context(), statement)
	require.NoError(t, err)
	return answer
}

// until asks a node again and again until it answers as wanted.
func (c *cluster) until(t *testing.T, node, statement, want string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), clientLimit)
	defer cancel()
	for got := ""; got != want; {
		var err error
		got, err = c.RealServer(node).Ask(ctx, statement)
		require.NoError(t, err, "%s: %q is %q, not %q", node, statement, got, want)
	}
}

// tell writes a word at one node.
func (c *cluster) tell(t *testing.T, node, word string) {
	t.Helper()
	require.Equal(t, word, c.ask(t, node, "INSERT INTO told VALUES ('"+word+"') RETURNING word"))
}

// knows waits until a node has a word.
func (c *cluster) knows(t *testing.T, node, word string) {
	t.Helper()
	c.until(t, node, "SELECT count(*)::text FROM told WHERE word = '"+word+"'", "1")
}

// follow makes a node follow another from now on, in one of libpq's modes.
func (c *cluster) follow(t *testing.T, node, primary, sslmode string) {
	t.Helper()
	c.ask(t, node, "ALTER SYSTEM SET primary_conninfo = '"+realserver.Conninfo(c.at[primary], sslmode)+"'")
	c.ask(t, node, "SELECT pg_reload_conf()::text")
}

// watched runs something and returns how many bytes went between two nodes meanwhile, and whether a word could be read in
// them.
func (c *cluster) watched(t *testing.T, a, b, word string, do func()) (n int, readable bool) {
	t.Helper()
	node, ok := c.Node(a)
	require.True(t, ok)
	tap, err := capture.Open(node)
	require.NoError(t, err)
	between := func(p capture.Packet) bool {
		addrs := []netip.Addr{p.Flow.Src.Addr(), p.Flow.Dst.Addr()}
		return addrs[0] == c.at[b].Addr() || addrs[1] == c.at[b].Addr()
	}
	packets, _ := tap.Subscribe(between)
	do()
	require.NoError(t, tap.Close())
	for p := range packets {
		n += len(p.Payload)
		readable = readable || bytes.Contains(p.Payload, []byte(word))
	}
	return n, readable
}

// attempts waits until a node has begun n connections to another, and so has been through with n-1.
func (c *cluster) attempts(t *testing.T, from, to string, n int) {
	t.Helper()
	node, ok := c.Node(from)
	require.True(t, ok)
	tap, err := capture.Open(node)
	require.NoError(t, err)
	packets, cancel := tap.Subscribe(func(p capture.Packet) bool {
		return p.Outgoing && p.Flow.Dst == c.at[to] && p.Flags.Has(capture.SYN)
	})
	ctx, stop := withClientLimit(t)
	defer stop()
	begun := map[uint16]bool{}
	for len(begun) < n {
		select {
		case p := <-packets:
			begun[p.Flow.Src.Port()] = true
		case <-ctx.Done():
			t.Fatalf("%s began %d connections to %s, not %d", from, len(begun), to, n)
		}
	}
	cancel()
	require.NoError(t, tap.Close())
}

// replicator has psql open a replication connection from one node to another, in one of libpq's modes.
func (c *cluster) replicator(t *testing.T, from, to, sslmode string) heard {
	t.Helper()
	return c.client(t, clientLimit, from, c.psql, "-X", "-w", "-A", "-t", "-c", "IDENTIFY_SYSTEM",
		realserver.Conninfo(c.at[to], sslmode)+" replication=true")
}

// write has psql write a word by way of the cluster's endpoint.
func (c *cluster) write(t *testing.T, limit time.Duration, from, sslmode, word string) heard {
	t.Helper()
	to := c.endpointOf(t, "pg-dedicated", false).Addr
	return c.client(t, limit, from, c.psql, "-X", "-w", "-A", "-t", "-q", "-c",
		"INSERT INTO told VALUES ('"+word+"') RETURNING word", fmt.Sprintf("host=%s port=%s user=%s password=%s dbname=%s sslmode=%s",
			to.Addr(), strconv.Itoa(int(to.Port())), endpoint.User, endpoint.Password, endpoint.Schema, sslmode))
}

// TestReplicationStaysEncrypted (SPEC C-01 to C-03): streaming replication goes over TLS with Force TLS off and on, and
// without TLS not at all.
func TestReplicationStaysEncrypted(t *testing.T) {
	c := newCluster(t)
	first, second, third := c.nodes[0], c.nodes[1], c.nodes[2]

	t.Run("without an enforcer, the watcher reads what goes by in the clear", func(t *testing.T) {
		c.follow(t, second, first, "disable")
		c.until(t, first, "SELECT count(*)::text FROM pg_stat_replication JOIN pg_stat_ssl USING (pid) WHERE NOT ssl", "1")
		n, readable := c.watched(t, first, second, "told-in-the-clear", func() {
			c.tell(t, first, "told-in-the-clear")
			c.knows(t, second, "told-in-the-clear")
		})
		require.NotZero(t, n)
		require.True(t, readable)
		c.follow(t, second, first, "require")
		c.until(t, first, "SELECT count(*)::text FROM pg_stat_replication JOIN pg_stat_ssl USING (pid) WHERE ssl", "2")
	})
	for _, toggle := range []platform.Toggle{platform.Off, platform.On} {
		t.Run("Force TLS "+toggle.String(), func(t *testing.T) {
			c.forceTLS(t, toggle)
			before := c.connections()
			for _, standby := range []string{second, third} {
				word := "told-to-" + standby + "-" + toggle.String()
				n, readable := c.watched(t, first, standby, word, func() {
					c.tell(t, first, word)
					c.knows(t, standby, word)
				})
				require.NotZero(t, n, standby)
				require.False(t, readable, standby)
				require.Zero(t, c.replicator(t, standby, first, "require").code)
				require.NotZero(t, c.replicator(t, standby, first, "disable").code)
			}
			// A standby that was told to do without TLS gets nothing, and catches up as soon as it uses it.
			c.follow(t, second, first, "disable")
			c.attempts(t, second, first, 3)
			word := "told-later-" + toggle.String()
			c.tell(t, first, word)
			c.knows(t, third, word)
			require.Equal(t, "0", c.ask(t, second, "SELECT count(*)::text FROM told WHERE word = '"+word+"'"))
			c.follow(t, second, first, "require")
			c.knows(t, second, word)
			for _, e := range realserver.Plaintext(c.since(t, before, "pg-dedicated")) {
				require.NotContains(t, []netip.Addr{c.at[second].Addr(), c.at[third].Addr()}, e.Remote.Addr(), "%+v", e)
			}
		})
	}
}

// TestFailoverByPromotion (SPEC D-17): the primary dies, a standby is promoted, and the endpoint leads to it. Nothing is
// told to the enforcer.
func TestFailoverByPromotion(t *testing.T) {
	c := newCluster(t)
	first, second, third := c.nodes[0], c.nodes[1], c.nodes[2]
	c.forceTLS(t, platform.On)
	c.holds(t, "before")
	c.knows(t, second, "before-tls")
	c.knows(t, third, "before-tls")

	require.NoError(t, c.RealServer(first).Close())
	require.Equal(t, "true", c.ask(t, second, "SELECT pg_promote()::text"))
	require.NoError(t, c.Failover("pg-dedicated", second))
	c.follow(t, third, second, "require")
	before := c.connections()
	c.holds(t, "after")
	c.knows(t, second, "before-tls")
	c.knows(t, second, "after-tls")
	c.knows(t, third, "after-tls")
	require.Equal(t, "0", c.ask(t, second, "SELECT count(*)::text FROM told WHERE word LIKE '%-plain'"))
	require.NotZero(t, c.replicator(t, third, second, "disable").code)
	for _, node := range []string{second, third} {
		require.NoError(t, c.RealServer(node).Sync(t.Context()))
	}
	for _, e := range realserver.Plaintext(c.Journal().All()) {
		require.False(t, e.Conn > before && e.Database == "pg-dedicated", "%+v", e)
	}
}

// holds: of those whom a rule lets in, the endpoint takes what comes over TLS, and nothing else; of others nothing.
func (c *cluster) holds(t *testing.T, when string) {
	t.Helper()
	require.Equal(t, when+"-tls", c.write(t, clientLimit, "office", "require", when+"-tls").out)
	require.NotZero(t, c.write(t, clientLimit, "office", "disable", when+"-plain").code)
	require.NotZero(t, c.write(t, hangLimit, "home", "require", when+"-home").code)
}

// TestAClusterIsBrokenAndMended: a standby that was ended comes back as one and catches up, and a primary as the one that all follow.
func TestAClusterIsBrokenAndMended(t *testing.T) {
	c := newCluster(t)
	for i, down := range []string{c.nodes[1], c.nodes[0]} {
		before, after := fmt.Sprintf("before-%d", i), fmt.Sprintf("after-%d", i)
		c.tell(t, c.nodes[0], before)
		require.NoError(t, c.StopServer(down))
		if down != c.nodes[0] {
			c.tell(t, c.nodes[0], "meanwhile")
		}
		require.NoError(t, c.RestartServer(t.Context(), down))
		c.tell(t, c.nodes[0], after)
		for _, node := range c.nodes {
			for _, word := range []string{before, "meanwhile", after} {
				c.knows(t, node, word)
			}
			require.Equal(t, fmt.Sprint(node != c.nodes[0]), c.ask(t, node, "SELECT pg_is_in_recovery()::text"), node)
		}
	}
}
