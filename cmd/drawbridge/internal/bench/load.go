package bench

import (
	"fmt"
	"net/netip"
	"strconv"

	"drawbridge/sim/endpoint"
	"drawbridge/topology"
)

// Row is one load on one database. The zero value is none.
type Row struct {
	Engine topology.Engine
	Model  topology.Model
	// New opens a connection for every transaction; otherwise each client keeps one.
	New bool
	TLS bool
}

// Rows returns all loads there are, those over TLS first.
func Rows() (all []Row) {
	for _, tls := range []bool{true, false} {
		for _, e := range []topology.Engine{topology.PostgreSQL, topology.MySQL, topology.Redis} {
			for _, m := range []topology.Model{topology.Shared, topology.Dedicated} {
				all = append(all, Row{e, m, false, tls}, Row{e, m, true, tls})
			}
		}
	}
	return all
}

// Connections returns new or persistent.
func (r Row) Connections() string { return either(r.New, "new", "persistent") }

// Transport returns tls or plain.
func (r Row) Transport() string { return either(r.TLS, "tls", "plain") }

// Unit is what a rate counts in a second.
func (r Row) Unit() string { return either(r.New, "connections", "transactions") }

func either(first bool, one, other string) string {
	if first {
		return one
	}
	return other
}

// String names the row: "postgresql shared new tls". Regular expressions that select rows are matched against it.
func (r Row) String() string {
	return fmt.Sprintf("%s %s %s %s", r.Engine, r.Model, r.Connections(), r.Transport())
}

// Vantage is where the load comes from: the Internet. A shared database is open to the Internet only with Force TLS (SPEC S-09), so
// that plaintext for it comes from an app of its region.
func (r Row) Vantage() string { return either(r.Model == topology.Shared && !r.TLS, app, internet) }

// Program names what makes the load.
func (r Row) Program() string {
	return map[topology.Engine]string{
		topology.PostgreSQL: PgBench, topology.MySQL: MariaDBSlap, topology.Redis: RedisBenchmark,
	}[r.Engine]
}

// Target is where a load goes.
type Target struct {
	Addr   netip.AddrPort
	CAFile string // of the servers' authority, PEM
	// Clients that ask at the same time.
	Clients int
}

// Arguments make the row's program ask n questions, which has to be a multiple of the clients. Every question is the
// cheapest that the engine has, so that as much as possible of the time is the network's: a server that works more hides what
// stands in front of it. Whoever has TLS verifies the servers' authority: without a file of their own, the clients of MariaDB and Redis
// would read all the system's authorities for each connection, which takes several times as long as the rest of it.
func (r Row) Arguments(t Target, n int) []string {
	switch r.Engine {
	case topology.PostgreSQL:
		return r.pgBench(t, n)
	case topology.MySQL:
		return r.mariadbSlap(t, n)
	case topology.Redis:
		return r.redisBenchmark(t, n)
	}
	return nil
}

// Environment holds the passwords that programs take from there, and nothing of the configuration of whoever runs it.
func Environment() []string {
	return []string{"LC_ALL=C", "HOME=/nonexistent", "PGPASSWORD=" + endpoint.Password, "MYSQL_PWD=" + endpoint.Password}
}

func conninfo(t Target, mode string) string {
	return fmt.Sprintf("host=%s port=%d user=%s dbname=%s gssencmode=disable connect_timeout=10 sslmode=%s sslrootcert=%s",
		t.Addr.Addr(), t.Addr.Port(), endpoint.User, endpoint.Schema, mode, t.CAFile)
}

// PgBenchData are the arguments that fill a database with pgbench's tables, of which its select-only script reads single rows.
func PgBenchData(t Target) []string { return []string{"-i", "-q", "-s", "1", conninfo(t, "verify-ca")} }

func (r Row) pgBench(t Target, n int) []string {
	args := []string{"-n", "-S", "-c", strconv.Itoa(t.Clients), "-j", strconv.Itoa(t.Clients), "-t", strconv.Itoa(n / t.Clients)}
	if r.New {
		args = append(args, "-C")
	}
	return append(args, conninfo(t, either(r.TLS, "verify-ca", "disable")))
}

func (r Row) mariadbSlap(t Target, n int) []string {
	args := []string{
		"--no-defaults", "--protocol=tcp", "--host=" + t.Addr.Addr().String(), "--port=" + strconv.Itoa(int(t.Addr.Port())),
		"--user=" + endpoint.User, "--create-schema=" + endpoint.Schema, "--no-drop", "--query=SELECT 1", "--csv",
		"--concurrency=" + strconv.Itoa(t.Clients), "--number-of-queries=" + strconv.Itoa(n),
	}
	if r.New {
		args = append(args, "--detach=1")
	}
	if r.TLS {
		return append(args, "--ssl-ca="+t.CAFile)
	}
	return append(args, "--skip-ssl")
}

func (r Row) redisBenchmark(t Target, n int) []string {
	args := []string{
		"-h", t.Addr.Addr().String(), "-p", strconv.Itoa(int(t.Addr.Port())), "--user", endpoint.User, "-a", endpoint.Password,
		"-c", strconv.Itoa(t.Clients), "-n", strconv.Itoa(n), "-k", either(r.New, "0", "1"), "--csv",
	}
	if r.TLS {
		args = append(args, "--tls", "--cacert", t.CAFile)
	}
	return append(args, "GET", "key")
}
