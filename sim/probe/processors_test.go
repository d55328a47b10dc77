package probe

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// TestSomebodyIsOnEachProcessor, until it is closed, and whoever comes later does not wait.
func TestSomebodyIsOnEachProcessor(t *testing.T) {
	var usable unix.CPUSet
	require.NoError(t, unix.SchedGetaffinity(0, &usable))
	before := bound(t)
	p, err := openProcessors()
	require.NoError(t, err)
	if usable.Count() > 1 {
		require.Equal(t, before+usable.Count(), bound(t))
	}
	var g sync.WaitGroup
	for range 8 {
		g.Go(func() {
			for range 100 {
				p.sweep()
			}
		})
	}
	g.Wait()
	p.close()
	p.sweep()
	p.close()
}

// bound counts this process's threads that may run on one processor only.
func bound(t *testing.T) (n int) {
	t.Helper()
	threads, err := filepath.Glob("/proc/self/task/*/status")
	require.NoError(t, err)
	for _, path := range threads {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		_, list, _ := strings.Cut(string(text), "Cpus_allowed_list:\t")
		list, _, _ = strings.Cut(list, "\n")
		if !strings.ContainsAny(list, ",-") {
			n++
		}
	}
	return n
}
