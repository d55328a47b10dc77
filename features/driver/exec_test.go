package driver_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"drawbridge/features/driver"
	"drawbridge/features/platform"
	"drawbridge/topology"
)

type local struct{}

func (local) Start(cmd *exec.Cmd) error { return cmd.Start() }

// script makes a driver out of a shell script, whose $1 is the verb.
func script(t *testing.T, body string) *driver.Exec {
	t.Helper()
	path := filepath.Join(t.TempDir(), "driver")
	require.NoError(t, os.WriteFile(path, []byte("#!/bin/sh\n"+body+"\n"), 0o700))
	e, err := driver.New(path, nil, t.TempDir(), func(string) (driver.Starter, error) { return local{}, nil })
	require.NoError(t, err)
	return e
}

func document(t *testing.T) driver.Document {
	t.Helper()
	doc, err := driver.Build(platform.Start(topology.Default()), "shared-a")
	require.NoError(t, err)
	return doc
}

func TestApply(t *testing.T) {
	e := script(t, `[ "$1" = apply ] || exit 9
cat > policy.json; pwd >&2; echo "warning: pg is open" >&2; echo "not a warning: at all" >&2
echo '{"generation": 7, "extra": [1]}'`)
	r, err := e.Apply(t.Context(), document(t))
	require.NoError(t, err)
	require.Equal(t, "7", r.Generation)
	require.JSONEq(t, `{"generation": 7, "extra": [1]}`, string(r.Members))
	require.Equal(t, []string{"pg is open"}, r.Warnings)
	require.Positive(t, r.Duration)
	got, err := os.ReadFile(filepath.Join(e.Dir, "shared-a", "policy.json"))
	require.NoError(t, err, "the working directory is the point's own")
	want, err := document(t).Encode()
	require.NoError(t, err)
	require.Equal(t, string(want), string(got))
}

func TestRefusal(t *testing.T) {
	e := script(t, `cat >/dev/null; echo "databases[0]: no" >&2; exit 2`)
	_, err := e.Apply(t.Context(), document(t))
	require.ErrorIs(t, err, driver.ErrRefused)
	var refused *driver.Refused
	require.ErrorAs(t, err, &refused)
	require.Equal(t, "databases[0]: no\n", refused.Stderr)
	require.ErrorIs(t, e.Reset(t.Context(), "shared-a"), driver.ErrBroken, "only a policy can be refused")
}

func TestBroken(t *testing.T) {
	for _, c := range []struct {
		name, body string
		want       driver.Reason
	}{
		{"other status", "exit 3", driver.OtherStatus},
		{"signal", "kill -TERM $$", driver.Signalled},
		{"silence", "cat >/dev/null", driver.NonsenseOutput},
		{"no JSON", "echo done", driver.NonsenseOutput},
		{"no generation", "echo '{}'", driver.NonsenseOutput},
		{"null generation", `echo '{"generation":null}'`, driver.NonsenseOutput},
		{"empty generation", `echo '{"generation":""}'`, driver.NonsenseOutput},
		{"two answers", `echo '{"generation":1}{"generation":2}'`, driver.NonsenseOutput},
		{"no program behind the script", "exec /nonexistent/program", driver.OtherStatus},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := script(t, c.body).Apply(t.Context(), document(t))
			require.ErrorIs(t, err, driver.ErrBroken)
			require.NotErrorIs(t, err, driver.ErrRefused)
			var broken *driver.Broken
			require.ErrorAs(t, err, &broken)
			require.Equal(t, c.want, broken.Reason, err.Error())
		})
	}
}

func TestHangEndsTheWholeGroup(t *testing.T) {
	e := script(t, `sleep 1000 & echo $! > child; wait`)
	e.Limit = 200 * time.Millisecond
	_, err := e.Apply(t.Context(), document(t))
	var broken *driver.Broken
	require.ErrorAs(t, err, &broken)
	require.Equal(t, driver.Hang, broken.Reason, err.Error())
	pid, err := os.ReadFile(filepath.Join(e.Dir, "shared-a", "child"))
	require.NoError(t, err)
	requireGone(t, strings.TrimSpace(string(pid)))
}

func TestLeftoverProcessesAreNamedAndEnded(t *testing.T) {
	e := script(t, `cat >/dev/null; sleep 1000 >/dev/null 2>&1 & echo $! > child; echo '{"generation":1}'`)
	_, err := e.Apply(t.Context(), document(t))
	var broken *driver.Broken
	require.ErrorAs(t, err, &broken)
	require.Equal(t, driver.LeftBehind, broken.Reason)
	require.Len(t, broken.Leftover, 1)
	pid, err := os.ReadFile(filepath.Join(e.Dir, "shared-a", "child"))
	require.NoError(t, err)
	require.Contains(t, broken.Leftover[0], strings.TrimSpace(string(pid)))
	require.Contains(t, broken.Error(), "sleep")
	requireGone(t, strings.TrimSpace(string(pid)))
}

func TestWhatEndsAMomentLaterIsNotLeftBehind(t *testing.T) {
	_, err := script(t, `cat >/dev/null; sleep 0.02 >/dev/null 2>&1 & echo '{"generation":1}'`).Apply(t.Context(), document(t))
	require.NoError(t, err)
}

// requireGone waits until a process has ended; a zombie has.
func requireGone(t *testing.T, pid string) {
	t.Helper()
	require.Eventually(t, func() bool {
		stat, err := os.ReadFile("/proc/" + pid + "/stat")
		return errors.Is(err, os.ErrNotExist) || strings.Contains(string(stat), ") Z ")
	}, 5*time.Second, time.Millisecond)
}

func TestOutputIsBounded(t *testing.T) {
	_, err := script(t, `head -c 3000000 /dev/zero | tr '\0' x >&2; exit 4`).Apply(t.Context(), document(t))
	var broken *driver.Broken
	require.ErrorAs(t, err, &broken)
	require.Less(t, len(broken.Stderr), 1<<20+100)
	require.Contains(t, broken.Stderr, "bytes more were thrown away")
}

func TestUnreadPolicyIsNoError(t *testing.T) {
	_, err := script(t, `exec 0<&-; echo '{"generation":"a"}'`).Apply(t.Context(), document(t))
	require.NoError(t, err)
}

func TestCancelledCallIsNotTheDriversFault(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	e := script(t, `sleep 1000`)
	e.At = func(string) (driver.Starter, error) { return cancelling{cancel}, nil }
	err := e.Reset(ctx, "shared-a")
	require.ErrorIs(t, err, context.Canceled)
	require.NotErrorIs(t, err, driver.ErrBroken)
}

type cancelling struct{ cancel context.CancelFunc }

func (c cancelling) Start(cmd *exec.Cmd) error { defer c.cancel(); return cmd.Start() }

func TestNewNeedsAProgram(t *testing.T) {
	_, err := driver.New(filepath.Join(t.TempDir(), "missing"), nil, t.TempDir(), nil)
	require.ErrorContains(t, err, "give the path of an executable file")
}

func TestDescribe(t *testing.T) {
	const good = `{"protocol":1,"name":"n","version":"0.1","profiles":["core"],"features":{"force_tls":"database"}}`
	d, err := script(t, "echo '"+good+"'").Describe(t.Context(), "shared-a")
	require.NoError(t, err)
	require.Equal(t, driver.Description{Name: "n", Version: "0.1", Profiles: []string{"core"}, ForceTLS: driver.ByDatabase, Revoke: driver.Keep}, d)
	require.True(t, d.Has(driver.Core))
	require.False(t, d.Has(driver.Extended))
	for _, c := range []struct{ old, new, want string }{
		{`"protocol":1`, `"protocol":2`, "protocol"},
		{`"protocol":1,`, ``, "protocol"},
		{`"name":"n"`, `"name":""`, "name"},
		{`"version":"0.1"`, `"version":1`, "version"},
		{`["core"]`, `["core","gold"]`, "gold"},
		{`["core"]`, `[]`, "core"},
		{`["core"]`, `["core","extended"]`, "revoke"},
		{`"database"`, `"hope"`, "force_tls"},
		{good, `[]`, "JSON object"},
		{good, ``, "no JSON object"},
	} {
		_, err := script(t, "echo '"+strings.Replace(good, c.old, c.new, 1)+"'").Describe(t.Context(), "shared-a")
		require.ErrorIs(t, err, driver.ErrBroken)
		require.ErrorContains(t, err, c.want)
	}
}

// TestInterruptBeforeItBegan: on a busy machine the time for a call may be over before its process exists.
func TestInterruptBeforeItBegan(t *testing.T) {
	e := script(t, `cat >/dev/null; echo '{"generation":1}'`)
	_, killed, err := e.Interrupt(t.Context(), document(t), 0)
	require.NoError(t, err)
	require.True(t, killed)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = e.Apply(ctx, document(t))
	require.ErrorIs(t, err, context.Canceled)
}
