package bench_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"drawbridge/cmd/drawbridge/internal/bench"

	"github.com/stretchr/testify/require"
)

// proc writes a directory as /proc is.
func proc(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	return dir
}

const machine = "cpu  100 10 50 9999 77 3 7 0 0 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n"

func TestReadUsage(t *testing.T) {
	dir := proc(t, map[string]string{
		"stat":    machine,
		"1/stat":  "1 (init) S 0 1 1 0 -1 0 9 9 9 9 1 2 3 4 20 0 1 0 5\n",
		"17/stat": "17 (a (b) c) R 1 1 1 0 -1 0 9 9 9 9 10 20 30 40 20 0 1 0 5\n",
	})
	got, err := bench.ReadUsage(dir)
	require.NoError(t, err)
	require.Equal(t, bench.Usage{Processes: 1100 * time.Millisecond, Machine: 1700 * time.Millisecond}, got)
	require.Equal(t, bench.Usage{Processes: 100 * time.Millisecond}, got.Since(bench.Usage{Processes: time.Second, Machine: got.Machine}))
}

func TestReadUsageRefuses(t *testing.T) {
	for name, files := range map[string]map[string]string{
		"no machine":      {"stat": "intr 1 2 3\n"},
		"no number":       {"stat": "cpu a b c d e f g h\n"},
		"a short process": {"stat": machine, "1/stat": "1 (init) S 0 1 1\n"},
		"no times":        {"stat": machine, "1/stat": "1 (init) S 0 1 1 0 -1 0 9 9 9 9 -1 2 3 4 20\n"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := bench.ReadUsage(proc(t, files))
			require.ErrorIs(t, err, bench.ErrProc)
		})
	}
	_, err := bench.ReadUsage(t.TempDir())
	require.ErrorIs(t, err, os.ErrNotExist)
}

// TestReadUsageSeesOurOwn: a process that works uses time.
func TestReadUsageSeesOurOwn(t *testing.T) {
	before, err := bench.ReadUsage("/proc")
	require.NoError(t, err)
	after := before
	for began := time.Now(); after.Since(before).Machine == 0; {
		require.Less(t, time.Since(began), time.Minute)
		after, err = bench.ReadUsage("/proc")
		require.NoError(t, err)
	}
	require.Positive(t, before.Processes)
}

func TestProcessorName(t *testing.T) {
	require.Equal(t, "AMD EPYC", bench.ProcessorName("processor\t: 0\nmodel name\t: AMD EPYC\nmodel name\t: other\n"))
	require.Equal(t, "unknown", bench.ProcessorName("Features : fp asimd\n"))
}
