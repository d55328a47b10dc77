//go:build !operator

package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"drawbridge/sim/netns/netnstest"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// TestWhoHasReadEnoughHearsNoMore: head(1) goes after some lines, and that is no trouble of a cell's.
func TestWhoHasReadEnoughHearsNoMore(t *testing.T) {
	netnstest.Require(t)
	read, write, err := os.Pipe()
	require.NoError(t, err)
	require.NoError(t, read.Close())
	defer write.Close()
	var complaints strings.Builder
	cmd := exec.Command("/proc/self/exe", "sim", "doctor")
	cmd.Env = append(os.Environ(), asProgram+"=1")
	cmd.Stdout, cmd.Stderr = write, &complaints
	_ = cmd.Run() // the status says it
	require.Equal(t, 128+int(unix.SIGPIPE), cmd.ProcessState.ExitCode())
	require.Empty(t, complaints.String())
}
