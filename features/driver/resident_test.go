package driver_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"drawbridge/features/driver"
)

const runs = `case "$1" in
describe) echo '{"protocol":1,"name":"n","version":"1","profiles":["core"],"features":{"force_tls":"first-bytes","run":true}}' ;;
run) echo up >> runs; trap 'echo term >> runs; kill $!; exit 0' TERM; echo ready; while :; do sleep 1 & wait; done ;;
apply) cat > /dev/null; echo '{"generation": 1}' ;;
reset) echo reset >> runs ;;
esac`

// TestAnEnforcerThatRuns: it is started once before the first apply, ended before reset, and again started when it was killed.
func TestAnEnforcerThatRuns(t *testing.T) {
	e := script(t, runs)
	d, err := e.Describe(t.Context(), "shared-a")
	require.NoError(t, err)
	require.True(t, d.Run)
	for range 2 {
		_, err = e.Apply(t.Context(), document(t))
		require.NoError(t, err)
	}
	was, err := e.Crash(t.Context(), "shared-a")
	require.NoError(t, err)
	require.True(t, was)
	require.NoError(t, e.Reset(t.Context(), "shared-a"))
	text, err := os.ReadFile(filepath.Join(e.Dir, "shared-a", "runs"))
	require.NoError(t, err)
	require.Contains(t, string(text), "up\nup\n")
	require.Contains(t, string(text), "reset\n")
}

func TestAnEnforcerThatDoesNotBecomeReady(t *testing.T) {
	e := script(t, `case "$1" in
describe) echo '{"protocol":1,"name":"n","version":"1","profiles":["core"],"features":{"force_tls":"first-bytes","run":true}}' ;;
run) echo no ;;
apply) cat > /dev/null; echo '{"generation": 1}' ;;
esac`)
	_, err := e.Describe(t.Context(), "shared-a")
	require.NoError(t, err)
	_, err = e.Apply(t.Context(), document(t))
	var broken *driver.Broken
	require.ErrorAs(t, err, &broken)
	require.Equal(t, driver.NonsenseOutput, broken.Reason)
	require.Equal(t, "run", broken.Call)
}

// TestWhatAnEnforcerThatRunsLeavesBehindIsNamed: it ends when it is told to, but not what it had started.
func TestWhatAnEnforcerThatRunsLeavesBehindIsNamed(t *testing.T) {
	e := script(t, `case "$1" in
describe) echo '{"protocol":1,"name":"n","version":"1","profiles":["core"],"features":{"force_tls":"first-bytes","run":true}}' ;;
run) trap 'exit 0' TERM; sleep 1000 >/dev/null 2>&1 & echo ready; wait ;;
apply) cat > /dev/null; echo '{"generation": 1}' ;;
esac`)
	_, err := e.Describe(t.Context(), "shared-a")
	require.NoError(t, err)
	_, err = e.Apply(t.Context(), document(t))
	require.NoError(t, err)
	err = e.Reset(t.Context(), "shared-a")
	var broken *driver.Broken
	require.ErrorAs(t, err, &broken)
	require.Equal(t, driver.LeftBehind, broken.Reason)
	require.Len(t, broken.Leftover, 1)
	require.Contains(t, broken.Error(), "left behind: sleep")
	require.NoError(t, e.Reset(t.Context(), "shared-a"), "what was left is gone")
}
