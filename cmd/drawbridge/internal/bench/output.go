package bench

import (
	"encoding/csv"
	"errors"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"

	"drawbridge/topology"
)

// ErrOutput is the error of a load generator's output that does not say what it has to say.
var ErrOutput = errors.New("the load generator's output is not as expected")

// Outcome is what a load generator says of one run.
type Outcome struct {
	PerSecond float64       // transactions or connections; positive and finite
	Latency   time.Duration // mean, of a transaction with all that belongs to it
}

// Parse reads the output of the row's program after n questions of so many clients. A run in which any question failed, or that asked
// fewer, is an error.
func (r Row) Parse(output string, clients, n int) (Outcome, error) {
	var o Outcome
	var err error
	switch r.Engine {
	case topology.PostgreSQL:
		o, err = parsePgBench(output, n)
	case topology.MySQL:
		o, err = parseMariaDBSlap(output, clients, n)
	case topology.Redis:
		o, err = parseRedisBenchmark(output)
	default:
		err = fmt.Errorf("no load for engine %q", r.Engine)
	}
	if err == nil && (!(o.PerSecond > 0) || math.IsInf(o.PerSecond, 0)) {
		err = fmt.Errorf("rate %v", o.PerSecond)
	}
	if err != nil {
		return Outcome{}, fmt.Errorf("%w: %s: %w: %q", ErrOutput, r.Program(), err, strings.TrimSpace(output))
	}
	return o, nil
}

var (
	pgProcessed = regexp.MustCompile(`(?m)^number of transactions actually processed: (\d+)/(\d+)$`)
	pgFailed    = regexp.MustCompile(`(?m)^number of failed transactions: (\d+) `) // from PostgreSQL 15 on
	pgLatency   = regexp.MustCompile(`(?m)^latency average = ([0-9.]+) ms$`)
	// pgRate: from PostgreSQL 14 on there is one line, before there were two, of which the second is the one that counts.
	pgRate = regexp.MustCompile(`(?m)^tps = ([0-9.]+) \((?:without initial connection time|including reconnection times|excluding connections establishing)\)$`)
)

func parsePgBench(output string, n int) (Outcome, error) {
	processed, rate := pgProcessed.FindStringSubmatch(output), pgRate.FindStringSubmatch(output)
	latency := pgLatency.FindStringSubmatch(output)
	if processed == nil || rate == nil || latency == nil {
		return Outcome{}, errors.New("no result")
	}
	if failed := pgFailed.FindStringSubmatch(output); failed != nil && failed[1] != "0" {
		return Outcome{}, fmt.Errorf("%s transactions failed", failed[1])
	}
	if processed[1] != strconv.Itoa(n) {
		return Outcome{}, fmt.Errorf("%s of %d transactions processed", processed[1], n)
	}
	perSecond, err := strconv.ParseFloat(rate[1], 64)
	ms, latencyErr := strconv.ParseFloat(latency[1], 64)
	return Outcome{perSecond, milliseconds(ms)}, errors.Join(err, latencyErr)
}

// The fields of mariadb-slap's line of figures.
const (
	slapSeconds = 2 // average of the iterations, of which there is one
	slapClients = 5
	slapQueries = 6 // of each client
	slapFields  = 7
)

func parseMariaDBSlap(output string, clients, n int) (Outcome, error) {
	fields := strings.Split(lastLine(output), ",")
	if len(fields) != slapFields {
		return Outcome{}, errors.New("no result")
	}
	if fields[slapClients] != strconv.Itoa(clients) || fields[slapQueries] != strconv.Itoa(n/clients) {
		return Outcome{}, fmt.Errorf("%s clients, %s queries each", fields[slapClients], fields[slapQueries])
	}
	seconds, err := strconv.ParseFloat(fields[slapSeconds], 64)
	if err != nil {
		return Outcome{}, err
	}
	return Outcome{float64(n) / seconds, milliseconds(seconds * 1000 * float64(clients) / float64(n))}, nil
}

// redisColumns begin the first of the two lines of redis-benchmark (6.2 and later).
const redisColumns = `"test","rps","avg_latency_ms"`

func parseRedisBenchmark(output string) (Outcome, error) {
	_, table, ok := strings.Cut(output, redisColumns)
	if !ok {
		return Outcome{}, errors.New("no result")
	}
	records, err := csv.NewReader(strings.NewReader(redisColumns + table)).ReadAll()
	if err != nil {
		return Outcome{}, err
	}
	if len(records) != 2 {
		return Outcome{}, fmt.Errorf("%d lines of results", len(records)-1)
	}
	perSecond, err := strconv.ParseFloat(records[1][1], 64)
	ms, latencyErr := strconv.ParseFloat(records[1][2], 64)
	return Outcome{perSecond, milliseconds(ms)}, errors.Join(err, latencyErr)
}

func lastLine(s string) string {
	s = strings.TrimSpace(s)
	return s[strings.LastIndexByte(s, '\n')+1:]
}

func milliseconds(ms float64) time.Duration { return time.Duration(ms * float64(time.Millisecond)) }
