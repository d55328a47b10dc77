//go:build !operator

package main

import (
	"os/exec"
	"path/filepath"
	"testing"

	"drawbridge/sim/netns/netnstest"

	"github.com/stretchr/testify/require"
)

// TestALabIsInterruptedInOneLine ends labs while they are being built, which has to take longer than it takes the line that says so to appear.
func TestALabIsInterruptedInOneLine(t *testing.T) {
	netnstest.Require(t)
	world := filepath.Join(t.TempDir(), "big.yaml")
	got := invoke(t, nil, "topology", "new", "--apps", "1000", "--regions", "3", "-o", world)
	require.Equal(t, exitOK, got.code, got.err)
	t.Setenv(asProgram, "1")
	t.Setenv("TERM", "xterm")
	for verb, args := range map[string][]string{"sim up": nil, "sim up --detach": {"--detach"}} {
		for _, keys := range []string{ctrlC, ctrlC + ctrlC} {
			cmd := exec.Command("/proc/self/exe", append([]string{"sim", "up", "--lab", t.Name()[:16], world}, args...)...)
			term := onTerminal(t, cmd, (*exec.Cmd).Start)
			term.await(t, "building world")
			term.press(t, keys)
			require.Error(t, cmd.Wait())
			said := <-term.said
			if cmd.ProcessState.ExitCode() < 0 { // the second one was the faster
				continue
			}
			require.Equal(t, exitUnjudged, cmd.ProcessState.ExitCode(), said)
			require.Regexp(t, `\r\x1b\[K(\^C)*(drawbridge: (`+verb+`: )?interrupted; nothing of the lab is left\r\n)$`, said)
		}
	}
	require.Equal(t, result{out: "LAB  WORLD  PID  SINCE  NODES\n"}, invoke(t, nil, "sim", "ls"))
}
