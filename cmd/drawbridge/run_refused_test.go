package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// refuses runs the program beside the daemon, if there is one, until it ends, and returns its exit code and what it said.
func (k *keeper) refuses(args ...string) (code int, said string) {
	k.t.Helper()
	self, err := os.Executable()
	require.NoError(k.t, err)
	cmd := exec.CommandContext(k.t.Context(), self, append([]string{"enforce", "run", "--policy", k.policy}, args...)...)
	cmd.Env = append(os.Environ(), asProgram+"=1")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	require.NoError(k.t, k.ns.Start(cmd))
	_ = cmd.Wait() // the code tells
	return cmd.ProcessState.ExitCode(), out.String()
}

// TestRunTakesNoFileAway for its socket.
func TestRunTakesNoFileAway(t *testing.T) {
	k := newKeeper(t)
	precious := filepath.Join(k.dir, "precious")
	require.NoError(t, os.WriteFile(precious, []byte("precious"), 0o600))
	code, said := k.refuses("--socket", precious)
	require.Equal(t, exitUsage, code, said)
	require.Contains(t, said, "enforce run: --socket: socket: "+precious+": the place of the socket is taken: there is a file")
	text, err := os.ReadFile(precious)
	require.NoError(t, err)
	require.Equal(t, "precious", string(text))
}

// TestDryRunOfNothing says at its end that it saw nobody to deny.
func TestDryRunOfNothing(t *testing.T) {
	k := newKeeper(t)
	self, err := os.Executable()
	require.NoError(t, err)
	for _, format := range []string{"", "--log-json"} {
		cmd := exec.CommandContext(t.Context(), self, append([]string{"enforce", "run", "--policy", k.policy, "--dry-run"}, strings.Fields(format)...)...)
		cmd.Env = append(os.Environ(), asProgram+"=1")
		out, err := cmd.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, k.ns.Start(cmd))
		lines := bufio.NewReader(out)
		line, err := lines.ReadString('\n')
		require.NoError(t, err)
		require.Equal(t, "ready\n", line)
		require.NoError(t, cmd.Process.Signal(os.Interrupt))
		rest, err := io.ReadAll(lines)
		require.NoError(t, err)
		require.NoError(t, cmd.Wait())
		want := "nobody would have been denied\n"
		if format != "" {
			want = "" // a program reads objects
		}
		require.Equal(t, want, string(rest))
	}
}

// TestRunListensWhereItIsToldTo, and nowhere that nobody has written out.
func TestRunListensWhereItIsToldTo(t *testing.T) {
	k := newKeeper(t)
	for _, address := range []string{":9469", "localhost:9469", "127.0.0.1", "9469", "127.0.0.1:0x1", "127.0.0.1:99999"} {
		code, said := k.refuses("--listen", address)
		require.Equal(t, exitUsage, code, said)
		require.Contains(t, said, "enforce run: --listen: metrics cannot be served there: \""+address+"\" is not ADDRESS:PORT; for this machine alone say 127.0.0.1:9469")
	}
	k.start("--listen", "127.0.0.1:9469")
	require.NotContains(t, k.log.String(), "whoever reaches")
	k.kill()
	k.start("--listen=") // as the unit says it where nothing is set
	k.kill()
	var other net.Listener
	require.NoError(t, k.ns.Do(func() (err error) { other, err = net.Listen("tcp", "0.0.0.0:9469"); return err }))
	defer other.Close()
	code, said := k.refuses("--listen", "127.0.0.1:9469")
	require.Equal(t, exitUnjudged, code, said)
	require.Contains(t, said, "address already in use; name another address or port")
}

// TestOneRunInANamespace: a second one is refused, and says whom it would have to do with.
func TestOneRunInANamespace(t *testing.T) {
	k := newKeeper(t)
	k.start("--no-owner")
	code, said := k.refuses("--no-owner")
	require.Equal(t, exitUnjudged, code, said)
	require.NotContains(t, said, "ready")
	require.Contains(t, said, fmt.Sprintf("drawbridge: enforce run: another drawbridge enforce run is at work in this network namespace: process %d (", k.cmd.Process.Pid))
	require.Contains(t, k.verb("enforce", "apply", "--policy", k.policy), "generation", "apply takes no lock")
	k.kill()
	k.start() // at once: the lock has ended with its process
}
