package daemon_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"drawbridge/enforcer/daemon"
)

// lines are those of a file; none if it is not there.
func lines(path string) []string {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	return strings.Split(strings.TrimSpace(string(text)), "\n")
}

// TestTheAuditLogIsRotated by a rename: what comes later is in a new file, which is there at once where somebody asks for it (SIGHUP), with
// the next line, and soon anyway.
func TestTheAuditLogIsRotated(t *testing.T) {
	reload := make(chan struct{})
	s := newScene(t, func(s *scene, o *daemon.Options) { o.Audit, o.Reload = filepath.Join(s.dir, "audit.log"), reload })
	path := filepath.Join(s.dir, "audit.log")
	rotate := func(to string) { require.NoError(t, os.Rename(path, filepath.Join(s.dir, to))) }
	there := func() bool { _, err := os.Stat(path); return err == nil }
	require.Len(t, lines(path), 1)

	rotate("audit.log.1")
	s.put([]byte(host("10.20.0.0/16")))
	s.holds(t, "10.20.0.0/16")
	s.until(t, func(st daemon.Status) bool { return st.Read > 1 })
	require.Eventually(t, func() bool { return len(lines(path)) == 1 }, 20*time.Second, time.Millisecond)
	require.Len(t, lines(filepath.Join(s.dir, "audit.log.1")), 1)

	rotate("audit.log.2")
	reload <- struct{}{}
	require.Eventually(t, there, 20*time.Second, time.Millisecond)

	require.NoError(t, os.Remove(path))
	require.Eventually(t, there, 20*time.Second, time.Millisecond, "the tick")
	require.NotContains(t, s.log.String(), "audit log")
}

// TestAnAuditLogThatCannotGoOn where its path is: nothing is lost, and it is told once.
func TestAnAuditLogThatCannotGoOn(t *testing.T) {
	s := newScene(t, func(s *scene, o *daemon.Options) {
		o.Audit = filepath.Join(s.dir, "log", "audit.log")
		require.NoError(t, os.Mkdir(filepath.Join(s.dir, "log"), 0o700))
	})
	logs, aside := filepath.Join(s.dir, "log"), filepath.Join(s.dir, "aside")
	require.NoError(t, os.Rename(logs, aside))
	s.put([]byte(host("10.20.0.0/16")))
	s.holds(t, "10.20.0.0/16")
	require.Eventually(t, func() bool { return len(lines(filepath.Join(aside, "audit.log"))) == 2 }, 20*time.Second, time.Millisecond)
	s.put([]byte(host("10.30.0.0/16")))
	require.Eventually(t, func() bool { return len(lines(filepath.Join(aside, "audit.log"))) == 3 }, 20*time.Second, time.Millisecond)
	require.Equal(t, 1, strings.Count(s.log.String(), "lines go on into the file that was at "+filepath.Join(logs, "audit.log")))
	require.NoError(t, os.Mkdir(logs, 0o700))
	require.Eventually(t, func() bool { _, err := os.Stat(filepath.Join(logs, "audit.log")); return err == nil }, 20*time.Second, time.Millisecond)
}

// TestAnAuditLogThatNobodyReads holds nobody up.
func TestAnAuditLogThatNobodyReads(t *testing.T) {
	s := newScene(t, func(s *scene, o *daemon.Options) { o.Audit = filepath.Join(s.dir, "audit.log") })
	path := filepath.Join(s.dir, "audit.log")
	require.NoError(t, unix.Mkfifo(path+".new", 0o600))
	require.NoError(t, os.Rename(path+".new", path))
	s.put([]byte(host("10.20.0.0/16")))
	s.holds(t, "10.20.0.0/16")
	require.Eventually(t, func() bool { return strings.Contains(s.log.String(), "a FIFO") }, 20*time.Second, time.Millisecond)
}

// TestTamperingIsToldWithWhatWasChanged: the log and the audit log name the sets and chains, and what was put into them.
func TestTamperingIsToldWithWhatWasChanged(t *testing.T) {
	s := newScene(t, func(s *scene, o *daemon.Options) { o.NoOwner, o.Audit = true, filepath.Join(s.dir, "audit.log") })
	for i, tt := range []struct{ spoiling, what string }{
		{"add element inet drawbridge region4 { 192.168.0.0/16 }", "set region4: taken out 192.168.0.0/16"},
		{"delete element inet drawbridge region4 { 10.10.0.0/16 }", "set region4: put in 10.10.0.0/16"},
		{"add chain inet drawbridge foreign", "chain foreign: deleted"},
		{"flush ruleset", "table inet drawbridge: made"},
	} {
		s.nft(t, strings.Fields(tt.spoiling)...)
		s.until(t, func(st daemon.Status) bool { return st.Tampered > uint64(i) })
		var all []string
		require.Eventually(t, func() bool { all = lines(filepath.Join(s.dir, "audit.log")); return len(all) == i+2 }, 20*time.Second, time.Millisecond)
		require.Contains(t, all[i+1], `"what":"tampered","why":"`+tt.what)
		require.Contains(t, s.log.String(), `what="`+tt.what)
	}
}
