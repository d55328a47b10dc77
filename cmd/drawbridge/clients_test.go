//go:build !operator

package main

import (
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"drawbridge/features/platform"
	"drawbridge/sim/endpoint"
	"drawbridge/sim/netns/netnstest"
	"drawbridge/sim/realserver"

	"github.com/stretchr/testify/require"
)

// clientOutcome is what has to become of a client.
type clientOutcome string

const (
	overTLS clientOutcome = "served over TLS"
	inPlain clientOutcome = "served without TLS"
	denied  clientOutcome = "not served"
)

// clientMode is one way to call a client, and what has to become of it with Force TLS off and on.
type clientMode struct {
	name   string
	engine string // first part of the databases' names
	plain  bool   // it goes to the port without TLS
	hangs  bool   // where it is denied, or not understood, it waits until it is stopped: redis-cli knows no time-out
	// lacks says why a client of the installed version has no such mode; nil: every version has it.
	lacks   func(t *testing.T, path string) string
	args    func(r *realLab, host, port, marker string) []string
	off, on clientOutcome
}

// psqlMode calls psql with parameters of libpq.
func psqlMode(parameters string, off, on clientOutcome) clientMode {
	return clientMode{name: "psql " + parameters, engine: "pg", off: off, on: on, args: func(r *realLab, host, port, marker string) []string {
		parameters := strings.ReplaceAll(parameters, "CA", r.ca)
		return []string{"psql", "-X", "-w", "-A", "-t", "-c", "SELECT '" + marker + "'", fmt.Sprintf("host=%s port=%s user=%s password=%s dbname=%s %s",
			host, port, endpoint.User, endpoint.Password, endpoint.Schema, parameters)}
	}}
}

func mariadbMode(flags string, off, on clientOutcome) clientMode {
	return clientMode{name: "mariadb " + flags, engine: "my", off: off, on: on, args: func(r *realLab, host, port, marker string) []string {
		args := []string{"mariadb", "--no-defaults", "-h" + host, "-P" + port, "-u" + endpoint.User, "-p" + endpoint.Password, "-N", "-B",
			"--connect-timeout=10", "-e", "SELECT '" + marker + "'"}
		return append(args, strings.Fields(strings.ReplaceAll(flags, "CA", r.ca))...)
	}}
}

func redisMode(flags string, plain bool, off, on clientOutcome) clientMode {
	port := "TLS port"
	if plain {
		port = "plain port"
	}
	return clientMode{name: "redis-cli " + flags + " to the " + port, engine: "redis", plain: plain, hangs: plain, off: off, on: on,
		args: func(r *realLab, host, port, marker string) []string {
			args := []string{"redis-cli", "-h", host, "-p", port, "--user", endpoint.User, "--pass", endpoint.Password, "--no-auth-warning"}
			args = append(args, strings.Fields(strings.ReplaceAll(flags, "CA", r.ca))...)
			return append(args, "ECHO", marker)
		}}
}

// clientModes is every TLS mode that the clients have; gssencmode=prefer asks for GSSAPI only where there is a Kerberos
// ticket. Of those that fall back, prefer ends on TLS always. allow begins without it, and tries TLS only if the server
// *answered* with an error (libpq, PQconnectPoll): a refusal by reset ends it, and what counts is that nothing of its
// plaintext arrived.
func clientModes() []clientMode {
	direct := psqlMode("sslmode=require sslnegotiation=direct", overTLS, overTLS)
	direct.lacks = func(t *testing.T, path string) string {
		if v := majorVersion(t, path); v < 17 {
			return fmt.Sprintf("psql %d does not know sslnegotiation, 17 does", v)
		}
		return ""
	}
	byDefault := mariadbMode("", overTLS, overTLS)
	byDefault.lacks = func(t *testing.T, path string) string {
		help, err := exec.Command(path, "--no-defaults", "--help").Output()
		require.NoError(t, err)
		if !regexp.MustCompile(`(?m)^ssl\s+TRUE$`).Match(help) {
			return "this version does not try TLS by default"
		}
		return ""
	}
	return []clientMode{
		psqlMode("sslmode=disable", inPlain, denied),
		psqlMode("sslmode=disable gssencmode=prefer", inPlain, denied),
		psqlMode("sslmode=allow", inPlain, denied),
		psqlMode("sslmode=allow gssencmode=disable", inPlain, denied),
		psqlMode("sslmode=prefer", overTLS, overTLS),
		psqlMode("sslmode=prefer gssencmode=disable", overTLS, overTLS),
		psqlMode("sslmode=require", overTLS, overTLS),
		psqlMode("sslmode=verify-full sslrootcert=CA", overTLS, overTLS),
		direct,
		mariadbMode("--skip-ssl", inPlain, denied),
		byDefault,
		mariadbMode("--ssl", overTLS, overTLS),
		mariadbMode("--ssl-verify-server-cert --ssl-ca=CA", overTLS, overTLS),
		redisMode("", true, inPlain, denied),
		redisMode("--tls --cacert CA", true, denied, denied),
		redisMode("--tls --cacert CA", false, overTLS, overTLS),
		redisMode("", false, denied, denied),
	}
}

// majorVersion returns the first number of what a program says of its version.
func majorVersion(t *testing.T, path string) int {
	t.Helper()
	out, err := exec.Command(path, "--version").Output()
	require.NoError(t, err)
	major, err := strconv.Atoi(regexp.MustCompile(`\d+`).FindString(string(out)))
	require.NoError(t, err, string(out))
	return major
}

// forceTLS sets Force TLS of every database, and lets the clients of the tests in.
func (r *realLab) forceTLS(t *testing.T, toggle platform.Toggle) {
	t.Helper()
	office, err := platform.Custom("198.51.100.0/25")
	require.NoError(t, err)
	for _, engine := range []string{"pg", "my", "redis"} {
		r.state.Set(engine+"-shared", platform.Settings{ForceTLS: toggle})
		r.state.Set(engine+"-dedicated", platform.Settings{ForceTLS: toggle, Rules: []platform.Rule{office}})
	}
	r.enforce(t)
}

// TestRealClientsAndServers drives every client in every mode it has, against Force TLS off and on, on a shared host and
// behind a gateway, and reads in the servers' own logs what they got.
func TestRealClientsAndServers(t *testing.T) {
	r := newRealLab(t)
	for _, toggle := range []platform.Toggle{platform.Off, platform.On} {
		r.forceTLS(t, toggle)
		before := r.connections()
		for _, place := range []struct{ model, from string }{{"shared", "osc-fr1/web"}, {"dedicated", "office"}} {
			for i, m := range clientModes() {
				t.Run(fmt.Sprintf("Force TLS %s/%s/%s", toggle, place.model, m.name), func(t *testing.T) {
					marker := fmt.Sprintf("marker-%s-%s-%d-end", toggle, place.model, i)
					r.drive(t, m, place.from, m.engine+"-"+place.model, marker, toggle == platform.On)
				})
			}
		}
		if toggle == platform.On {
			r.heardNoPlaintext(t, before)
		}
	}
}

func (r *realLab) drive(t *testing.T, m clientMode, from, database, marker string, forced bool) {
	to := r.endpointOf(t, database, m.plain)
	args := m.args(r, to.Addr.Addr().String(), strconv.Itoa(int(to.Addr.Port())), marker)
	path := netnstest.Tool(t, args[0])
	if m.lacks != nil {
		if why := m.lacks(t, path); why != "" {
			t.Skip(why)
		}
	}
	want := m.off
	if forced {
		want = m.on
	}
	n, limit := r.connections(), clientLimit
	if m.hangs && want == denied {
		limit = hangLimit
	}
	got := r.client(t, limit, from, path, args[1:]...)
	events := r.since(t, n, database)
	carried, tls := carriedOut(events, marker)
	about := fmt.Sprintf("%+v\n%+v", got, events)
	require.Equal(t, want != denied, got.out == marker, about)
	require.Equal(t, want != denied, carried, about)
	require.Equal(t, want == overTLS, tls, about)
	if forced || want == overTLS {
		require.Empty(t, realserver.Plaintext(events), about)
	}
	t.Logf("%s; the client said %q; the server has %d events", want, got.err, len(events))
}

// heardNoPlaintext: in all that the servers logged there is no login, command or startup packet without TLS.
func (r *realLab) heardNoPlaintext(t *testing.T, n uint64) {
	t.Helper()
	for _, d := range r.World().Databases() {
		if d.Canary {
			continue
		}
		events := r.since(t, n, d.Name)
		require.NotEmpty(t, events, d.Name)
		require.Empty(t, realserver.Plaintext(events), d.Name)
	}
}

// TestCancelRequest presses Ctrl-C in psql while a query runs. The request to cancel travels in plaintext, and carries the
// key of the session: under Force TLS it is refused, the query runs to its end, and the session goes on. Without Force TLS
// it cancels.
func TestCancelRequest(t *testing.T) {
	psql := netnstest.Tool(t, "psql")
	if v := majorVersion(t, psql); v >= 17 {
		t.Skipf("psql %d may send the request over TLS", v)
	}
	r := newRealLab(t)
	for _, c := range []struct {
		toggle    platform.Toggle
		cancelled bool
	}{{platform.Off, true}, {platform.On, false}} {
		for _, place := range []struct{ model, from, server string }{
			{"shared", "osc-fr1/web", "pg-shared-1"}, {"dedicated", "office", "pg-dedicated-1"},
		} {
			t.Run(fmt.Sprintf("Force TLS %s/%s", c.toggle, place.model), func(t *testing.T) {
				r.forceTLS(t, c.toggle)
				n := r.connections()
				said := r.interrupted(t, psql, place.from, "pg-"+place.model, place.server)
				events := r.since(t, n, "pg-"+place.model)
				about := fmt.Sprintf("%s\n%+v", said, events)
				require.Contains(t, said, "Cancel request sent", about) // psql does not learn what became of it
				require.Contains(t, said, "survived:1", about)
				require.Equal(t, c.cancelled, strings.Contains(said, "canceling statement due to user request"), about)
				asked, _ := carriedOut(events, "processing cancel request")
				require.Equal(t, c.cancelled, asked, about)
				require.Equal(t, connectionOf(t, events, "pg_sleep"), connectionOf(t, events, "survived"), about)
				if !c.cancelled {
					require.Empty(t, realserver.Plaintext(events), about)
				}
			})
		}
	}
}

// interrupted has psql ask for a sleep, presses Ctrl-C while the server sleeps, asks for one thing more, and returns what
// the terminal showed.
func (r *realLab) interrupted(t *testing.T, psql, from, database, server string) string {
	t.Helper()
	to := r.endpointOf(t, database, false)
	ctx, cancel := withClientLimit(t)
	defer cancel()
	cmd := exec.CommandContext(ctx, psql, "-X", "-n", "-w", "-A", "-t", "-P", "pager=off",
		fmt.Sprintf("host=%s port=%d user=%s password=%s dbname=%s sslmode=require",
			to.Addr.Addr(), to.Addr.Port(), endpoint.User, endpoint.Password, endpoint.Schema))
	cmd.Env = clientEnvironment()
	term := onTerminal(t, cmd, func(cmd *exec.Cmd) error { return r.at(t, from).Start(cmd) })
	term.press(t, "SELECT 'slept' FROM pg_sleep(2);\n")
	for asleep := "0"; asleep == "0"; {
		var err error
		asleep, err = r.RealServer(server).Ask(ctx, "SELECT count(*)::text FROM pg_stat_activity WHERE wait_event = 'PgSleep'")
		require.NoError(t, err)
	}
	term.press(t, ctrlC)
	for asleep := "1"; asleep != "0"; { // what is typed before psql has dealt with the key may be thrown away with it
		var err error
		asleep, err = r.RealServer(server).Ask(ctx, "SELECT count(*)::text FROM pg_stat_activity WHERE wait_event = 'PgSleep'")
		require.NoError(t, err)
	}
	term.press(t, "SELECT 'survived:' || 1;\n\\q\n")
	require.NoError(t, cmd.Wait())
	return <-term.said
}

// connectionOf returns the number of the connection whose query holds a text.
func connectionOf(t *testing.T, events []endpoint.Event, text string) uint64 {
	t.Helper()
	for _, e := range events {
		if e.Kind == endpoint.Query && strings.Contains(e.Query, text) {
			return e.Conn
		}
	}
	t.Fatalf("no query holds %q: %+v", text, events)
	return 0
}
