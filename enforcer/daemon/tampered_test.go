package daemon_test

import (
	"fmt"
	"os/exec"
	"regexp"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"drawbridge/enforcer/daemon"
	"drawbridge/sim/netns/netnstest"
)

var regionIn = regexp.MustCompile(`elements = \{ (\S+) \}`)

// region is what stands in the kernel; empty if there is no table, or one that denies everything.
func (s *scene) region(t *testing.T) string {
	t.Helper()
	cmd := exec.Command(netnstest.Tool(t, "nft"), "list", "set", "inet", "drawbridge", "region4")
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, s.ns.Start(cmd))
	text := make([]byte, 4<<10)
	n, _ := stdout.Read(text) // nothing, where it ends with an error
	_ = cmd.Wait()
	if found := regionIn.FindSubmatch(text[:n]); found != nil {
		return string(found[1])
	}
	return ""
}

// reaches waits until a network is the region. Before that there may be no table, or one of these others, and no other one.
func (s *scene) reaches(t *testing.T, want string, others ...string) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
		have := s.region(t)
		if have == want {
			return
		}
		require.Contains(t, append(others, ""), have, "%s", s.log)
	}
	require.Fail(t, "it did not come into force", "%s\n%s", want, s.log)
}

// TestADeletionBringsNoOlderPolicyBack, whether it comes beside a change or behind it.
func TestADeletionBringsNoOlderPolicyBack(t *testing.T) {
	s := newScene(t, func(_ *scene, o *daemon.Options) { o.NoOwner = true })
	before := "10.10.0.0/16"
	const changes = 40
	for i := range changes {
		next := fmt.Sprintf("10.%d.0.0/16", 20+i)
		s.put([]byte(host(next)))
		s.nft(t, "flush", "ruleset")
		s.reaches(t, next, before)
		s.nft(t, "flush", "ruleset")
		s.reaches(t, next)
		before = next
	}
	// Two deletions in a row, or one beside a change, may be mended at one time.
	st := s.until(t, func(st daemon.Status) bool { return st.Tampered >= changes })
	require.LessOrEqual(t, st.Tampered, uint64(2*changes))
	require.Equal(t, "nft", st.LastTampering.Program)
	require.Empty(t, st.Refused)
}
