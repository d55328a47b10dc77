//go:build !operator

package main

import (
	"bufio"
	"encoding/json"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"drawbridge/sim/probe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// interruptedInTheMiddle ends verbs while they wait for what will never arrive: connections over a link that was cut.
func interruptedInTheMiddle(t *testing.T, lab detached) {
	require.Equal(t, result{}, lab.sim("break", "link", "office:internet"))
	defer func() { require.Equal(t, result{}, lab.sim("break", "link", "office:internet", "--mend")) }()

	// Behind what is served come more connections from office than are tried at once, and each waits for as long as a line of progress takes.
	cmd := exec.Command("/proc/self/exe", "sim", "matrix", "--lab", lab.name, "--json", "--from", "home", "--from", "office")
	var out strings.Builder
	cmd.Stdout = &out
	complaints, err := cmd.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	says := bufio.NewScanner(complaints)
	require.True(t, says.Scan())
	require.Regexp(t, `^connecting, [1-9][0-9]* of [0-9]+, \d+s$`, says.Text())
	interrupted := time.Now()
	require.NoError(t, cmd.Process.Signal(unix.SIGTERM))
	var last string
	for says.Scan() {
		last = says.Text()
	}
	require.Error(t, cmd.Wait())
	require.Less(t, time.Since(interrupted), 4*time.Second, "what is under way is given up")
	require.Equal(t, signalled+int(unix.SIGTERM), cmd.ProcessState.ExitCode())
	require.Regexp(t, `^drawbridge: sim matrix: incomplete, because it was interrupted: [1-9][0-9]* of [0-9]+ connections were tried; what is shown as not tried was not denied$`, last)
	var all []seen
	require.NoError(t, json.Unmarshal([]byte(out.String()), &all))
	counts := map[string]int{}
	for _, s := range all {
		counts[s.Verdict]++
		if s.From == "home" {
			require.Equal(t, probe.Served.String(), s.Verdict, s.Reason)
		}
	}
	require.Positive(t, counts[notTried])
	require.Zero(t, counts[probe.Dropped.String()]+counts[probe.Rejected.String()]+counts[probe.Leaked.String()])

	watch := exec.Command("/proc/self/exe", "sim", "watch", "--lab", lab.name, "--from", "office")
	term := onTerminal(t, watch, (*exec.Cmd).Start)
	term.await(t, "first look, ")
	term.press(t, ctrlC)
	require.Error(t, watch.Wait())
	require.Equal(t, signalled+int(unix.SIGINT), watch.ProcessState.ExitCode())
	require.Regexp(t, `interrupted: nothing is known before the first look is complete, and \d+ of \d+ connections`, <-term.said)

	got := lab.sim("matrix", "--from", "home", "--to", "pg-shared")
	require.Equal(t, exitOK, got.code, got.err)
	require.Regexp(t, regexp.MustCompile(`(?m)^pg-shared .* SS$`), got.out)
}
