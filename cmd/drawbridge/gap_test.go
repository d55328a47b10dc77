package main

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"drawbridge/enforcer/daemon"
)

// narrow and wide are two policies of one host: both let alwaysIn in and keep neverIn out.
var (
	narrow = hostPolicy(`10.10.0.0/16`)
	wide   = hostPolicy(`10.10.0.0/16", "10.20.0.0/16`)
)

// passage is a policy brought into force while probes go on.
type passage struct {
	began, ended time.Time // ended: from when on it was in force
	open         bool      // whether it lets sometimes in
}

// bring renames a policy into place and waits until the daemon says that it is in force.
func (k *keeper) bring(text string) passage {
	k.t.Helper()
	before := k.status().Read
	c := passage{began: time.Now(), open: text == wide}
	k.replace(text)
	code, answer := k.get(fmt.Sprintf("/status/%x?after=%d", sha256.Sum256([]byte(text)), before))
	require.Equal(k.t, http.StatusOK, code, answer)
	var s daemon.Status
	require.NoError(k.t, json.Unmarshal([]byte(answer), &s))
	require.Empty(k.t, s.Refused)
	c.ended = s.Receipt.InForceAt
	return c
}

// requireNoGap: what every policy allows was always let in, and what every policy denies never.
func requireNoGap(t *testing.T, rounds []round) {
	t.Helper()
	for i, r := range rounds {
		require.True(t, r.open[ofAlways], "round %d of %d, at %v: what both policies allow got no answer", i, len(rounds), r.sent)
		require.False(t, r.open[ofNever], "round %d of %d, at %v: what both policies deny was let in", i, len(rounds), r.sent)
	}
}

// wrongVerdicts counts rounds in which sometimes fared otherwise than under any policy that was in force while it was judged.
func wrongVerdicts(rounds []round, before bool, changes []passage) (wrong int) {
	next := 0
	for _, r := range rounds {
		for next < len(changes) && changes[next].ended.Before(r.sent) {
			before = changes[next].open
			next++
		}
		right := r.open[ofSometimes] == before
		for _, c := range changes[next:] {
			if c.began.After(r.judged) {
				break
			}
			right = right || r.open[ofSometimes] == c.open
		}
		if !right {
			wrong++
		}
	}
	return wrong
}

// number is a number from the environment.
func number(t *testing.T, name string, otherwise int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	require.NoError(t, err, name)
	return n
}

// TestChangesUnderProbes: while policies change, every packet meets the one or the other (SPEC X-01).
func TestChangesUnderProbes(t *testing.T) {
	k := newKeeper(t)
	k.start()
	p := startProber(t, k.ns)
	changes := make([]passage, 0, 1000)
	for i := range number(t, "DRAWBRIDGE_TEST_CHANGES", 1000) {
		changes = append(changes, k.bring([]string{wide, narrow}[i%2]))
	}
	require.NoError(t, p.more(t.Context(), 10))
	rounds := p.end(t)
	requireNoGap(t, rounds)
	require.Zero(t, wrongVerdicts(rounds, false, changes))
	require.NotZero(t, wrongVerdicts(rounds, true, shifted(changes)), "the judge is blind")
	var took []time.Duration
	for _, c := range changes {
		took = append(took, c.ended.Sub(c.began))
	}
	p50, p99 := quantiles(took)
	t.Logf("%d changes, %d rounds of 3 probes, 0 wrong; in force after %v (median), %v (99th of 100)", len(changes), len(rounds), p50, p99)
}

// shifted are the changes the other way round: what the judge must find wrong.
func shifted(changes []passage) []passage {
	out := make([]passage, len(changes))
	for i, c := range changes {
		c.open = !c.open
		out[i] = c
	}
	return out
}

// TestKilledAtRandom: wherever the program is killed, in its start or in a change, no packet passes that both policies deny, none
// is lost that both allow, and the next start brings the file's policy into force.
func TestKilledAtRandom(t *testing.T) {
	const (
		longest = 40 * time.Millisecond // from the start of the program to its end
		checked = 10                    // kills between two starts that are let through
	)
	k := newKeeper(t)
	k.start()
	p := startProber(t, k.ns)
	k.kill()
	random := rand.New(rand.NewPCG(1, 2))
	var ended struct{ starting, running int }
	for i := range number(t, "DRAWBRIDGE_TEST_KILLS", 200) {
		text := []string{wide, narrow}[i%2]
		k.replace(text)
		if i%checked == checked-1 {
			k.start()
			require.Equal(t, i%2 == 0, strings.Contains(k.region(), "10.20.0.0/16"))
			require.NoError(t, p.more(t.Context(), 2))
			k.replace([]string{narrow, wide}[i%2])
			ended.running++
		} else {
			k.launch()
			ended.starting++
		}
		timer := time.NewTimer(time.Duration(random.Int64N(int64(longest))))
		<-timer.C
		k.kill()
	}
	k.replace(narrow)
	k.start()
	require.NoError(t, p.more(t.Context(), 10))
	rounds := p.end(t)
	requireNoGap(t, rounds)
	require.False(t, rounds[len(rounds)-1].open[ofSometimes])
	t.Logf("killed %d times in its start, %d times in a change; %d rounds of 3 probes", ended.starting, ended.running, len(rounds))
}

// launch starts the program and does not wait for it.
func (k *keeper) launch(args ...string) {
	k.t.Helper()
	self, err := os.Executable()
	require.NoError(k.t, err)
	k.cmd = exec.Command(self, append([]string{
		"enforce", "run", "--policy", k.policy, "--state", filepath.Join(k.dir, "state"), "--socket", k.socket(), "--audit", k.audit,
	}, args...)...)
	k.cmd.Env = append(os.Environ(), asProgram+"=1")
	k.cmd.Stderr = &k.log
	require.NoError(k.t, k.ns.Start(k.cmd))
}

// quantiles are the median and the 99th of 100.
func quantiles(d []time.Duration) (median, p99 time.Duration) {
	slices.Sort(d)
	return d[len(d)/2], d[len(d)*99/100]
}

// wasOpen tells the longest time in which what both policies deny was let in, from before the first such round to the first after the
// last one, and how many rounds that were.
func wasOpen(rounds []round) (longest time.Duration, n int) {
	var from time.Time
	for i, r := range rounds {
		if r.open[ofNever] {
			if n++; from.IsZero() {
				from = rounds[max(i-1, 0)].sent
			}
			longest = max(longest, r.judged.Sub(from))
		} else {
			from = time.Time{}
		}
	}
	return longest, n
}

// TestFlushedUnderProbes: "nft flush ruleset" opens nothing where the tables are owned; otherwise what it opens is closed at once, and
// the one who did it is named; with no program at work, the next start closes it.
func TestFlushedUnderProbes(t *testing.T) {
	t.Run("owned", func(t *testing.T) {
		k := newKeeper(t)
		k.start()
		p := startProber(t, k.ns)
		for range 5 {
			_, err := k.nft("flush", "ruleset")
			require.NoError(t, err)
			require.NoError(t, p.more(t.Context(), 5))
		}
		requireNoGap(t, p.end(t))
	})
	t.Run("not owned", func(t *testing.T) {
		k := newKeeper(t)
		k.start("--no-owner")
		p := startProber(t, k.ns)
		const flushes = 10
		var took []time.Duration
		for i := range flushes {
			_, err := k.nft("flush", "ruleset")
			require.NoError(t, err)
			s := k.until(func(s daemon.Status) bool { return s.Tampered > uint64(i) })
			took = append(took, s.LastTampering.Took)
			require.NoError(t, p.more(t.Context(), 5))
		}
		rounds := p.end(t)
		// Without any rule the kernel tracks no connection. A SYN from that moment, whose answer comes when it does again, belongs to
		// nothing that the kernel knows, and the answer is dropped: its client tries again.
		lost := 0
		for _, r := range rounds {
			if !r.open[ofAlways] {
				lost++
			}
		}
		require.LessOrEqual(t, lost, flushes)
		longest, n := wasOpen(rounds)
		t.Logf("%d flushes, %d of %d rounds let in what is denied, for %v at the longest, %d lost what is allowed; mended within %v", flushes, n,
			len(rounds), longest, lost, took)
		require.Less(t, longest, time.Second, "under 10 ms on a machine that has time")
		s := k.status()
		require.NotNil(t, s.LastTampering)
		require.Equal(t, "nft", s.LastTampering.Program)
		require.NotZero(t, s.LastTampering.ProcessID)
		audit, err := os.ReadFile(k.audit)
		require.NoError(t, err)
		require.Equal(t, flushes, strings.Count(string(audit), `"program":"nft"`))
	})
	t.Run("no program at work", func(t *testing.T) {
		k := newKeeper(t)
		k.start()
		p := startProber(t, k.ns)
		k.kill()
		require.NoError(t, p.more(t.Context(), 5))
		before := p.soFar()
		_, err := k.nft("flush", "ruleset") // nothing can prevent that: the tables belong to nobody
		require.NoError(t, err)
		require.NoError(t, p.more(t.Context(), 5))
		k.start()
		after := p.soFar() + 1 // one may be under way
		require.NoError(t, p.more(t.Context(), 5))
		rounds := p.end(t)
		requireNoGap(t, rounds[:before])
		_, n := wasOpen(rounds)
		require.NotZero(t, n, "the prober is blind")
		requireNoGap(t, rounds[after:])
	})
}
