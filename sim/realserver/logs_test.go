package realserver

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"drawbridge/sim/endpoint"

	"github.com/stretchr/testify/require"
)

// told returns a ledger and what it has written so far, as lines "kind tls port text".
func told() (*ledger, func() []string) {
	j := endpoint.NewJournal()
	at := time.Unix(0, 0)
	l := newLedger(Config{Journal: j, Database: "d", Name: "n", Now: func() time.Time { at = at.Add(1); return at }})
	return l, func() (lines []string) {
		for _, e := range j.All() {
			words := []string{e.Kind.String(), map[bool]string{true: "tls", false: "plain"}[e.TLS], e.Remote.String(), e.Query + e.Reason}
			lines = append(lines, strings.TrimSpace(strings.Join(words, " ")))
		}
		return lines
	}
}

func TestPostgresLog(t *testing.T) {
	const client = "7 198.51.100.9(40001)|"
	for _, c := range []struct {
		name  string
		lines []string
		want  []string
	}{
		{"a query over TLS", []string{
			client + "LOG:  connection received: host=198.51.100.9 port=40001",
			client + `DEBUG:  SSL connection from DN:"(anonymous)" CN:"(anonymous)"`,
			client + "LOG:  connection authorized: user=u database=d SSL enabled (protocol=TLSv1.3)",
			client + "LOG:  execute stmtcache_1: select 'x'", "\tlimit 1",
			client + "LOG:  could not receive data from client: Connection reset by peer",
			"1 |DEBUG:  server process (PID 7) exited with exit code 0",
		}, []string{
			"accepted plain 198.51.100.9:40001", "tls tls 198.51.100.9:40001",
			"query tls 198.51.100.9:40001 connection authorized: user=u database=d SSL enabled (protocol=TLSv1.3)",
			"query tls 198.51.100.9:40001 select 'x'", "query tls 198.51.100.9:40001 limit 1",
			"closed tls 198.51.100.9:40001 the server's process exited with exit code 0",
		}},
		{"a handshake that failed is none", []string{
			client + "LOG:  connection received: host=198.51.100.9 port=40001",
			client + "LOG:  could not accept SSL connection: http request",
			client + `DEBUG:  SSL connection from DN:"(anonymous)" CN:"(anonymous)"`,
			"1 |DEBUG:  client backend (PID 7) exited with exit code 0",
		}, []string{
			"accepted plain 198.51.100.9:40001", "bytes plain 198.51.100.9:40001 could not accept SSL connection: http request",
			"closed plain 198.51.100.9:40001 the server's process exited with exit code 0",
		}},
		{"plaintext that was refused, and a reset that says nothing", []string{
			client + "LOG:  connection received: host=198.51.100.9 port=40001",
			client + "LOG:  could not receive data from client: Connection reset by peer",
			client + `FATAL:  no pg_hba.conf entry for host "198.51.100.9", no encryption`,
		}, []string{
			"accepted plain 198.51.100.9:40001", `refused plain 198.51.100.9:40001 no pg_hba.conf entry for host "198.51.100.9", no encryption`,
		}},
		{"a request to cancel", []string{
			"8 2001:db8::1(40002)|LOG:  connection received: host=2001:db8::1 port=40002",
			"8 2001:db8::1(40002)|DEBUG:  processing cancel request: sending SIGINT to process 7",
		}, []string{
			"accepted plain [2001:db8::1]:40002", "query plain [2001:db8::1]:40002 processing cancel request: sending SIGINT to process 7",
		}},
		{"a process number that is used again, and the lab's own", []string{
			client + "LOG:  connection received: host=198.51.100.9 port=40001",
			"1 |DEBUG:  server process (PID 7) was terminated by signal 9: Killed",
			"7 [local]|LOG:  connection received: host=[local]",
			"7 [local]|LOG:  statement: select 1",
		}, []string{
			"accepted plain 198.51.100.9:40001", "closed plain 198.51.100.9:40001 the server's process was terminated by signal 9: Killed",
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l, lines := told()
			log := newPostgresLog(l, func() {})
			for _, line := range c.lines {
				log.take(line)
			}
			require.Equal(t, c.want, lines())
		})
	}
}

func TestMariadbLogs(t *testing.T) {
	l, lines := told()
	log := newMariadbLog(l, func() {})
	// The logs are faster than the capture, and the error log faster than the general one.
	log.takeGeneral("261125 18:25:58\t     5 Connect\tdrawbridge@198.51.100.9 on drawbridge using SSL/TLS")
	log.takeGeneral("\t\t     5 Query\tselect 'two")
	log.takeError("2026-11-25 18:25:58 5 [Warning] Aborted connection 5 to db: 'd' (Got an error reading communication packets)")
	log.takeGeneral("lines'")
	require.Empty(t, lines())
	keys, _ := l.pending()
	require.Equal(t, []string{"5"}, keys)
	greeting := append([]byte{0x10, 0, 0, 0, 10}, append([]byte("11.8.1-MariaDB\x00"), 5, 0, 0, 0, 'x')...)
	thread, ok := greetingThread(greeting)
	require.True(t, ok)
	l.greeted(thread, netip.MustParseAddrPort("198.51.100.9:40001"), netip.MustParseAddrPort("198.51.100.129:3306"))
	log.takeError("2026-11-25 18:25:58 9 [ERROR] mariadbd: Got packets out of order")
	l.greeted("9", netip.MustParseAddrPort("198.51.100.9:40002"), netip.AddrPort{})
	log.takeGeneral("\t\t     3 Connect\troot@localhost on  using SSL/TLS")
	log.takeGeneral("\t\t     3 Query\tDO 1")
	require.ElementsMatch(t, []string{
		"accepted plain 198.51.100.9:40001", "tls tls 198.51.100.9:40001",
		"query tls 198.51.100.9:40001 drawbridge@198.51.100.9 on drawbridge using SSL/TLS", "query tls 198.51.100.9:40001 select 'two",
		"closed tls 198.51.100.9:40001 Aborted connection 5 to db: 'd' (Got an error reading communication packets)",
		"query tls 198.51.100.9:40001 lines'",
		"accepted plain 198.51.100.9:40002", "bytes plain 198.51.100.9:40002 mariadbd: Got packets out of order",
	}, lines())
	keys, _ = l.pending()
	require.Empty(t, keys)
}

func TestGreetingsAreToldFromOtherPackets(t *testing.T) {
	for _, packet := range []string{
		"", "\x01\x00\x00\x00", "\x10\x00\x00\x00\x0aname", "\x10\x00\x00\x00\x0aname\x00\x01\x02",
		"\x10\x00\x00\x02\x0aname\x00\x01\x02\x03\x04", "\x10\x00\x00\x00\x09name\x00\x01\x02\x03\x04",
	} {
		_, ok := greetingThread([]byte(packet))
		require.False(t, ok, "%q", packet)
	}
}

func TestRedisLogs(t *testing.T) {
	const prefix = "7:M 25 Nov 2026 18:25:16.606 - "
	l, lines := told()
	nudged := 0
	log := &redisLog{ledger: l, ready: func() {}, nudge: func() { nudged++ }, tlsPort: 6380}
	// MONITOR is faster than the log, and the list of clients tells by which port the client came.
	takeMonitor(l, `1795631116.6 [0 [2001:db8::1]:40001] "echo" "x"`)
	log.take(prefix + "Accepted 2001:db8::1:40001")
	require.Empty(t, lines())
	require.Equal(t, 1, nudged)
	c := parseRedisClient("id=4 addr=[2001:db8::1]:40001 laddr=[2001:db8:5b::a]:6380 qbuf=0 cmd=echo user=drawbridge")
	l.identify(c.remote.String(), c.remote, c.local, c.local.Port() == 6380)
	log.take(prefix + "Reading from client: Connection reset by peer")
	require.Equal(t, 2, nudged)
	log.take(prefix + "Accepted 198.51.100.9:40002")
	log.take(prefix + "Client closed connection id=5 addr=198.51.100.9:40002 laddr=198.51.100.131:6379 qbuf=3 cmd=ping user=default")
	takeMonitor(l, `1795631116.6 [0 unix:/tmp/s] "echo" "y"`)
	require.ElementsMatch(t, []string{
		"accepted plain [2001:db8::1]:40001", `query tls [2001:db8::1]:40001 "echo" "x"`,
		"accepted plain 198.51.100.9:40002", "query plain 198.51.100.9:40002 PING",
		"bytes plain 198.51.100.9:40002 3 bytes of an unfinished command",
		"closed plain 198.51.100.9:40002 the client closed the connection",
	}, lines())
}

// The list of clients may be faster than the log: what the log says then still belongs to the connection.
func TestAcceptedAfterIdentified(t *testing.T) {
	l, lines := told()
	remote := netip.MustParseAddrPort("198.51.100.9:40001")
	l.identify(remote.String(), remote, netip.AddrPort{}, false)
	l.accepted(remote.String(), remote, false)
	require.Equal(t, []string{"accepted plain 198.51.100.9:40001"}, lines())
}

func TestBarriersAreNotTakenForEachOther(t *testing.T) {
	l, _ := told()
	var seen []<-chan struct{}
	for range 11 {
		_, c := l.expect()
		seen = append(seen, c)
	}
	l.arrived("select 'drawbridge-barrier-11-'")
	open := slices.IndexFunc(seen, func(c <-chan struct{}) bool {
		select {
		case <-c:
			return true
		default:
			return false
		}
	})
	require.Equal(t, 10, open)
}
