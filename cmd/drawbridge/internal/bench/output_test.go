package bench_test

import (
	"strings"
	"testing"
	"time"

	"drawbridge/cmd/drawbridge/internal/bench"
	"drawbridge/topology"

	"github.com/stretchr/testify/require"
)

const pgbenchPersistent = `pgbench (15.18 (Debian 15.18-0+deb12u1))
transaction type: <builtin: select only>
scaling factor: 1
query mode: simple
number of clients: 4
number of threads: 2
maximum number of tries: 1
number of transactions per client: 500
number of transactions actually processed: 2000/2000
number of failed transactions: 0 (0.000%)
latency average = 0.979 ms
initial connection time = 36.066 ms
tps = 4087.747590 (without initial connection time)
`

const pgbenchNew = `pgbench (15.18 (Debian 15.18-0+deb12u1))
transaction type: <builtin: select only>
number of transactions actually processed: 200/200
number of failed transactions: 0 (0.000%)
latency average = 93.188 ms
average connection time = 44.137 ms
tps = 42.924055 (including reconnection times)
`

const pgbench13 = `transaction type: <builtin: select only>
number of transactions actually processed: 40/40
latency average = 0.500 ms
tps = 7000.000000 (including connections establishing)
tps = 8000.000000 (excluding connections establishing)
`

const redisOutput = `"test","rps","avg_latency_ms","min_latency_ms","p50_latency_ms","p95_latency_ms","p99_latency_ms","max_latency_ms"
"GET key","12352.94","0.318","0.064","0.287","0.567","0.903","1.527"
`

func TestParse(t *testing.T) {
	for _, tt := range []struct {
		name       string
		engine     topology.Engine
		output     string
		clients, n int
		want       bench.Outcome
	}{
		{"pgbench", topology.PostgreSQL, pgbenchPersistent, 4, 2000, bench.Outcome{PerSecond: 4087.74759, Latency: 979 * time.Microsecond}},
		{"pgbench -C", topology.PostgreSQL, pgbenchNew, 4, 200, bench.Outcome{PerSecond: 42.924055, Latency: 93188 * time.Microsecond}},
		{"pgbench 13", topology.PostgreSQL, pgbench13, 4, 40, bench.Outcome{PerSecond: 8000, Latency: 500 * time.Microsecond}},
		{"mariadb-slap", topology.MySQL, ",mixed,0.500,0.500,0.500,4,500\n", 4, 2000, bench.Outcome{PerSecond: 4000, Latency: time.Millisecond}},
		{"redis-benchmark", topology.Redis, redisOutput, 4, 100, bench.Outcome{PerSecond: 12352.94, Latency: 318 * time.Microsecond}},
		{"redis-benchmark with a warning", topology.Redis, "WARNING: Could not fetch server CONFIG\n" + redisOutput, 4, 100,
			bench.Outcome{PerSecond: 12352.94, Latency: 318 * time.Microsecond}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := bench.Row{Engine: tt.engine}.Parse(tt.output, tt.clients, tt.n)
			require.NoError(t, err)
			require.Equal(t, tt.want, got)
		})
	}
}

// TestParseRefuses: what is not the result of the whole run is no result.
func TestParseRefuses(t *testing.T) {
	for _, tt := range []struct {
		name   string
		engine topology.Engine
		output string
		n      int
	}{
		{"nothing", topology.PostgreSQL, "", 2000},
		{"nothing", topology.MySQL, "", 2000},
		{"nothing", topology.Redis, "", 2000},
		{"another engine", topology.MongoDB, pgbenchPersistent, 2000},
		{"a part", topology.PostgreSQL, strings.Replace(pgbenchPersistent, "2000/2000", "1999/2000", 1), 2000},
		{"of another run", topology.PostgreSQL, pgbenchPersistent, 4000},
		{"with failures", topology.PostgreSQL, strings.Replace(pgbenchPersistent, "failed transactions: 0 ", "failed transactions: 3 ", 1), 2000},
		{"no rate", topology.PostgreSQL, strings.Replace(pgbenchPersistent, "4087.747590", "0.000000", 1), 2000},
		{"no time", topology.MySQL, ",mixed,0.000,0.000,0.000,4,500\n", 2000},
		{"no number", topology.MySQL, ",mixed,nan,0.000,0.000,4,500\n", 2000},
		{"other clients", topology.MySQL, ",mixed,0.500,0.500,0.500,5,500\n", 2000},
		{"fewer queries", topology.MySQL, ",mixed,0.500,0.500,0.500,4,400\n", 2000},
		{"no figures", topology.Redis, redisOutput[:strings.Index(redisOutput, "\n")+1], 2000},
		{"two tests", topology.Redis, redisOutput + `"SET","1","1","1","1","1","1","1"` + "\n", 2000},
		{"no number", topology.Redis, strings.Replace(redisOutput, "12352.94", "many", 1), 2000},
	} {
		t.Run(string(tt.engine)+" "+tt.name, func(t *testing.T) {
			got, err := bench.Row{Engine: tt.engine}.Parse(tt.output, 4, tt.n)
			require.ErrorIs(t, err, bench.ErrOutput)
			require.Zero(t, got)
		})
	}
}
