package daemon_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"drawbridge/enforcer"
	"drawbridge/enforcer/daemon"
	"drawbridge/enforcer/policy/policytest"
	"drawbridge/sim/netns"
	"drawbridge/sim/netns/netnstest"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

// maxApplied is more changes than a test makes without looking. A Status has some hundred bytes, and what a test holds counts towards
// what the daemon's memory is limited to.
const maxApplied = 1 << 12

// running is a daemon in a namespace of its own, inside this process.
type running struct {
	tb      testing.TB
	ns      *netns.Handle
	options daemon.Options
	applied chan daemon.Status
	stop    func()
}

func start(tb testing.TB, ns *netns.Handle, options daemon.Options) *running {
	tb.Helper()
	r := &running{tb: tb, ns: ns, options: options, applied: make(chan daemon.Status, maxApplied)}
	ctx, cancel := context.WithCancel(context.Background())
	ready, ended := make(chan struct{}), make(chan error, 1)
	options.Ready = func() { close(ready) }
	options.Applied = func(s daemon.Status) { r.applied <- s }
	go func() { ended <- ns.Do(func() error { return daemon.Run(ctx, options) }) }()
	var once sync.Once // a test may stop it before its end does
	r.stop = func() {
		once.Do(func() {
			cancel()
			require.NoError(tb, <-ended)
		})
	}
	select {
	case <-ready:
	case err := <-ended:
		cancel()
		require.NoError(tb, err)
	}
	return r
}

// put renames a document into the place of the policy, and says when that began and when it was done. As programs do that replace a file, it
// brings the document to disk first: some file systems otherwise do that in the rename, which then takes as long as their disk.
func (r *running) put(document []byte) (began, done time.Time) {
	r.tb.Helper()
	next := r.options.Policy + ".new"
	f, err := os.Create(next)
	require.NoError(r.tb, err)
	_, err = f.Write(document)
	require.NoError(r.tb, errors.Join(err, f.Sync(), f.Close()))
	began = time.Now()
	require.NoError(r.tb, os.Rename(next, r.options.Policy))
	return began, time.Now()
}

// change is the next that was written. A file may be read once more without one: the tick may see what an event tells of later.
func (r *running) change() daemon.Status {
	for s := range r.applied {
		if s.Receipt.Changed != (enforcer.Changed{}) {
			return s
		}
	}
	return daemon.Status{}
}

// BenchmarkChange is one rule changed at databases of 30 rules each: from the rename of the policy's file to its being in force, which
// is when the kernel had answered, and to its having been read back. Besides, how long the rename itself took, which is the file system's,
// and how long after it the change was in force. Changes come as soon as the one before is told of, or as an operator's would.
func BenchmarkChange(b *testing.B) {
	for _, bb := range []struct {
		databases int
		pause     time.Duration // after each change
	}{{1, 0}, {100, 0}, {1000, 0}, {1000, 50 * time.Millisecond}} {
		b.Run(fmt.Sprint(bb.databases, " databases, pause ", bb.pause), func(b *testing.B) { change(b, bb.databases, bb.pause) })
	}
}

func change(b *testing.B, n int, pause time.Duration) {
	ns, dir := netnstest.New(b), b.TempDir()
	documents := [][]byte{policytest.Gateway(b, n, "198.18.0.0/24"), policytest.Gateway(b, n, "198.18.1.0/24")}
	policy := filepath.Join(dir, "policy.json")
	require.NoError(b, os.WriteFile(policy, documents[0], 0o600))
	r := start(b, ns, daemon.Options{Policy: policy, Snapshots: daemon.Snapshots{Dir: filepath.Join(dir, "state")}})
	<-r.applied
	took := map[string][]time.Duration{}
	for i := 1; b.Loop(); i++ {
		if pause > 0 {
			<-time.After(pause)
		}
		began, renamed := r.put(documents[i%2])
		receipt := r.change().Receipt
		require.Equal(b, 1, receipt.Changed.ElementsAdded)
		for name, d := range map[string]time.Duration{
			"in-force": receipt.InForceAt.Sub(began), "read-back": receipt.ReadAt.Sub(began),
			"rename": renamed.Sub(began), "after-rename": max(0, receipt.InForceAt.Sub(renamed)),
		} {
			took[name] = append(took[name], d)
		}
	}
	r.stop()
	for name, d := range took {
		slices.Sort(d)
		b.ReportMetric(float64(d[len(d)/2].Microseconds())/1000, name+"-p50-ms")
		b.ReportMetric(float64(d[len(d)*99/100].Microseconds())/1000, name+"-p99-ms")
	}
}
