package realserver_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"drawbridge/sim"
	"drawbridge/sim/client"
	"drawbridge/sim/endpoint"
	"drawbridge/sim/netns/netnstest"
	"drawbridge/sim/realserver"
	"drawbridge/topology"

	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

// limit is for a test as a whole: starting eight servers takes some seconds on a busy machine.
const limit = time.Minute

// installation finds the servers, or skips the test.
func installation(t *testing.T) *realserver.Installation {
	t.Helper()
	if _, err := realserver.Find(""); err != nil {
		netnstest.Missing(t, err.Error())
	}
	netnstest.NoLeaks(t)
	dir, err := os.MkdirTemp("", "db") // short: sockets lie in it
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	installed, err := realserver.Find(dir)
	require.NoError(t, err)
	return installed
}

// lab is the default world with real servers.
func lab(t *testing.T) *sim.Lab {
	t.Helper()
	installed := installation(t)
	l, err := sim.Up(t.Context(), topology.Default(), sim.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Close()) })
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	began := time.Now()
	require.NoError(t, l.StartRealServers(ctx, installed))
	t.Logf("servers started within %s", time.Since(began))
	return l
}

// The addresses of the vantage from which the tests connect.
var office, office6 = netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("2001:db8:a::1")

// real returns a lab's real server of a node.
func real(t *testing.T, l *sim.Lab, node string) *realserver.Server {
	t.Helper()
	s := l.RealServer(node)
	require.NotNil(t, s, node)
	return s
}

// of returns the events of a kind.
func of(kind endpoint.Kind, events []endpoint.Event) (out []endpoint.Event) {
	for _, e := range events {
		if e.Kind == kind {
			out = append(out, e)
		}
	}
	return out
}

// TestServersTellWhatTheySaw drives every real port with the engine's Go driver, and holds against it what the server's own
// log says.
func TestServersTellWhatTheySaw(t *testing.T) {
	l := lab(t)
	from, _ := l.Node("office")
	for i, e := range l.World().Endpoints() {
		if l.RealServer(e.Node) == nil {
			continue
		}
		for j, withTLS := range []bool{false, true} {
			if withTLS && e.TLS == topology.TLSNone || !withTLS && e.TLS == topology.TLSOnly || e.Kind != topology.PublicRW {
				continue
			}
			t.Run(fmt.Sprintf("%s %s TLS=%v", e.Node, e.Addr, withTLS), func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), limit)
				defer cancel()
				local := netip.AddrPortFrom(office, uint16(30000+2*i+j))
				if e.Addr.Addr().Is6() {
					local = netip.AddrPortFrom(office6, local.Port())
				}
				marker := fmt.Sprintf("marker-%d", local.Port())
				session, err := client.Open(ctx, func(ctx context.Context) (net.Conn, error) { return from.Dial(ctx, local, e.Addr) },
					client.Target{Engine: e.Engine, Addr: e.Addr, TLS: withTLS, RootCAs: l.CA(), ServerName: e.Database})
				require.NoError(t, err)
				require.NoError(t, session.Query(ctx, marker))
				require.NoError(t, session.Close())
				_, err = l.Journal().Wait(ctx, local.Port(), func(e endpoint.Event) bool { return e.Kind == endpoint.Closed })
				require.NoError(t, err)
				seen, err := real(t, l, e.Node).Seen(ctx, local)
				require.NoError(t, err)
				require.Len(t, of(endpoint.Accepted, seen), 1, "%+v", seen)
				require.Equal(t, endpoint.Accepted, seen[0].Kind)
				require.Len(t, of(endpoint.Closed, seen), 1, "%+v", seen)
				require.Empty(t, of(endpoint.Refused, seen))
				carried := false
				for _, q := range of(endpoint.Query, seen) {
					require.Equal(t, withTLS, q.TLS, "%+v", q)
					require.Equal(t, e.Node, q.Node)
					carried = carried || strings.Contains(q.Query, marker)
				}
				require.True(t, carried, "%+v", seen)
				require.Equal(t, withTLS, len(realserver.Plaintext(seen)) == 0, "%+v", seen)
				t.Log(real(t, l, e.Node).Program(), seen)
			})
		}
	}
	t.Run("what is no conversation", func(t *testing.T) { tellsOfGarbage(t, l) })
	t.Run("what is taken and not told", func(t *testing.T) { countsWhatIsTaken(t, l) })
}

// tellsOfGarbage sends bytes that are no login, and expects to be told of them.
func tellsOfGarbage(t *testing.T, l *sim.Lab) {
	from, _ := l.Node("office")
	for i, c := range []struct {
		name, node string
		port       uint16
		bytes      string
		plaintext  bool
		more       string // sent after the first byte of an answer
	}{
		{"PostgreSQL, an HTTP request", "pg-shared-1", 5432, "GET / HTTP/1.0\r\n\r\n", true, ""},
		{"PostgreSQL, half a length", "pg-shared-1", 5432, "\x00\x00", true, ""},
		{"PostgreSQL, a startup packet for nobody", "pg-shared-1", 5432, "\x00\x00\x00\x13\x00\x03\x00\x00user\x00nobody\x00\x00"[:19], true, ""},
		{"PostgreSQL, plaintext after a request for TLS", "pg-shared-1", 5432, "\x00\x00\x00\x08\x04\xd2\x16\x2f", true, "GET / HTTP/1.0\r\n\r\n"},
		{"PostgreSQL, nothing", "pg-shared-1", 5432, "", false, ""},
		{"PostgreSQL, a request for TLS and no more", "pg-shared-1", 5432, "\x00\x00\x00\x08\x04\xd2\x16\x2f", false, ""},
		{"MariaDB, an HTTP request", "my-shared-1", 3306, "GET / HTTP/1.0\r\n\r\n", true, ""},
		{"MariaDB, nothing", "my-shared-1", 3306, "", false, ""},
		{"Redis, a command without a login", "redis-shared-1", 6379, "PING\r\n", true, ""},
		{"Redis, half a command", "redis-shared-1", 6379, "PIN", true, ""},
		{"Redis, a disguised command", "redis-shared-1", 6379, "\x16\x03\r\nPING\r\n", true, ""},
		{"Redis, nothing", "redis-shared-1", 6379, "", false, ""},
		{"Redis, a command at the TLS port", "redis-shared-1", 6380, "PING\r\n", false, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			local := netip.AddrPortFrom(office, uint16(40000+i))
			var to netip.AddrPort
			for _, e := range l.World().Endpoints() {
				if e.Node == c.node && e.Addr.Port() == c.port && e.Addr.Addr().Is4() {
					to = e.Addr
				}
			}
			require.True(t, to.IsValid())
			conn, err := from.Dial(ctx, local, to)
			require.NoError(t, err)
			_, err = conn.Write([]byte(c.bytes))
			require.NoError(t, err)
			require.NoError(t, conn.SetReadDeadline(time.Now().Add(limit)))
			if c.more != "" {
				_, err = conn.Read(make([]byte, 1))
				require.NoError(t, err)
				_, err = conn.Write([]byte(c.more))
				require.NoError(t, err)
			}
			err = conn.(interface{ CloseWrite() error }).CloseWrite()
			for err == nil {
				_, err = conn.Read(make([]byte, 512))
			}
			require.NotErrorIs(t, err, os.ErrDeadlineExceeded, "the server did not end the connection")
			_ = conn.Close() // the server may have reset it
			server := real(t, l, c.node)
			require.NoError(t, server.Sync(ctx))
			_, err = l.Journal().Wait(ctx, local.Port(), func(e endpoint.Event) bool { return e.Kind == endpoint.Closed })
			require.NoError(t, err, "%+v", l.Journal().Events(local.Port()))
			seen, err := server.Seen(ctx, local)
			require.NoError(t, err)
			require.Equal(t, c.plaintext, len(realserver.Plaintext(seen)) > 0, "%+v", seen)
			t.Log(seen)
		})
	}
}

// countsWhatIsTaken leaves words unfinished that no log tells of while the connection is open.
func countsWhatIsTaken(t *testing.T, l *sim.Lab) {
	from, _ := l.Node("office")
	for i, c := range []struct{ node, to string }{
		{"pg-shared-1", "198.51.100.129:5432"}, {"my-shared-1", "198.51.100.129:3306"}, {"redis-shared-1", "[2001:db8:5b::a]:6379"},
	} {
		t.Run(c.node, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			local, to := netip.AddrPortFrom(office, uint16(45000+i)), netip.MustParseAddrPort(c.to)
			if to.Addr().Is6() {
				local = netip.AddrPortFrom(office6, local.Port())
			}
			server := real(t, l, c.node)
			_, open, err := server.Taken(local)
			require.NoError(t, err)
			require.False(t, open)
			conn, err := from.Dial(ctx, local, to)
			require.NoError(t, err)
			defer conn.Close()
			_, err = conn.Write([]byte("\x00\x00\x00"))
			require.NoError(t, err)
			for n := uint64(0); n != 3; {
				require.NoError(t, ctx.Err(), "%s has taken %d bytes", c.node, n)
				n, _, err = server.Taken(local)
				require.NoError(t, err)
			}
		})
	}
}
