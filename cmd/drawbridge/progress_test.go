//go:build !operator

package main

import (
	"bytes"
	"os"
	"os/exec"
	"testing"
	"testing/synctest"
	"time"

	"drawbridge/features/suite"
	"drawbridge/sim/netns/netnstest"

	"github.com/stretchr/testify/require"
)

func TestProgressLine(t *testing.T) {
	var out bytes.Buffer
	at := time.Unix(0, 0)
	s := &progress{out: &out, now: func() time.Time { return at }, began: at, stop: make(chan struct{})}
	s.draw()
	at = at.Add(2500 * time.Millisecond)
	s.update(suite.Progress{Done: 3, Selected: 12, Failed: 1})
	s.update(suite.Progress{Done: 12, Selected: 12, Failed: 1})
	s.close()
	require.Equal(t, "\r\x1b[Kthe lab, and the enforcer's defaults, 0s\r\x1b[K3 of 12 scenarios, 1 failed, 2s"+
		"\r\x1b[K12 of 12 scenarios, 1 failed, 2s, taking everything out of force\r\x1b[K", out.String())
	var none *progress
	none.update(suite.Progress{})
	none.close()
}

// What takes a second says on a terminal what it is.
func TestWaitingIsShown(t *testing.T) {
	p := &program{std: streams{err: &bytes.Buffer{}}, env: os.LookupEnv}
	require.Nil(t, p.waiting("connecting"), "no terminal")
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		s := &progress{out: &out, now: time.Now, began: time.Now(), stop: make(chan struct{}), said: "connecting"}
		s.tick()
		<-time.After(2*refresh + refresh/2)
		s.close()
		require.Equal(t, "\r\x1b[Kconnecting, 1s\r\x1b[Kconnecting, 2s\r\x1b[K", out.String())
	})
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		p := &program{std: streams{err: &out}, env: os.LookupEnv}
		s := p.counting("connecting")
		s.count(tried{3, 12})
		<-time.After(plainRefresh + plainRefresh/2)
		s.count(tried{7, 12})
		<-time.After(plainRefresh)
		s.close()
		require.Equal(t, "connecting, 3 of 12, 5s\nconnecting, 7 of 12, 10s\n", out.String(), "lines, where there is no terminal")
	})
}

// TestProgressIsForTerminals: people see the line in the place of the dots; a program that reads the output does not.
func TestProgressIsForTerminals(t *testing.T) {
	netnstest.Require(t)
	cmd := exec.Command("/proc/self/exe", "conform", "--report=", "--tags", "@S-11")
	cmd.Env = append(os.Environ(), asProgram+"=1", "TERM=xterm")
	term := onTerminal(t, cmd, (*exec.Cmd).Start)
	require.NoError(t, cmd.Wait())
	said := <-term.said
	require.Regexp(t, `\d of \d scenarios, 0 failed, \d+s`, said)
	require.NotContains(t, said, "....")
	require.Contains(t, said, "CONFORMANT")

	cmd = exec.Command("/proc/self/exe", "conform", "--report=", "--tags", "@S-11")
	cmd.Env = append(os.Environ(), asProgram+"=1", "TERM=xterm")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	require.NotContains(t, string(out), "\r")
}
