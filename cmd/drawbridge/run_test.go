package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"drawbridge/enforcer/daemon"
	"drawbridge/sim/netns"
	"drawbridge/sim/netns/netnstest"
)

// keeper is an enforce run in a namespace of its own.
type keeper struct {
	t             *testing.T
	ns            *netns.Handle
	dir           string
	cmd           *exec.Cmd
	log           lockedBuffer
	policy, audit string
}

// lockedBuffer is written by one goroutine and read by another.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// hostPolicy is a shared host's policy whose region is one network.
func hostPolicy(region string) string {
	return `{"version": 1, "point": {"name": "h", "model": "shared"}, "region": {"name": "r", "networks": ["` + region + `"]}, "managed_ranges": {},
		"databases": [{"name": "docs", "model": "shared", "engine": "mongodb",
			"endpoints": [{"kind": "public-rw", "address": "10.10.0.1", "port": 27017, "family": "ipv4", "tls": "either"}],
			"nodes": [{"name": "docs-1", "here": true, "addresses": ["10.10.0.1"], "ports": [{"port": 27017, "tls": "either"}]}]}]}`
}

func newKeeper(t *testing.T) *keeper {
	k := &keeper{t: t, ns: netnstest.New(t), dir: t.TempDir()}
	k.policy, k.audit = filepath.Join(k.dir, "policy.json"), filepath.Join(k.dir, "audit.log")
	k.replace(hostPolicy("10.10.0.0/16"))
	return k
}

// replace renames a new file into the place of the policy.
func (k *keeper) replace(text string) {
	k.t.Helper()
	next := k.policy + ".new"
	require.NoError(k.t, os.WriteFile(next, []byte(text), 0o600))
	require.NoError(k.t, os.Rename(next, k.policy))
}

// start starts the program and waits until it says that it is ready.
func (k *keeper) start(args ...string) {
	k.t.Helper()
	self, err := os.Executable()
	require.NoError(k.t, err)
	k.cmd = exec.Command(self, append([]string{
		"enforce", "run", "--policy", k.policy, "--state", filepath.Join(k.dir, "state"), "--socket", k.socket(), "--audit", k.audit,
	}, args...)...)
	k.cmd.Env = append(os.Environ(), asProgram+"=1")
	out, err := k.cmd.StdoutPipe()
	require.NoError(k.t, err)
	k.cmd.Stderr = &k.log
	require.NoError(k.t, k.ns.Start(k.cmd))
	cmd := k.cmd
	k.t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(k.t, err, "%s", &k.log)
	require.Equal(k.t, "ready\n", line)
	go func() { _, _ = io.Copy(io.Discard, out) }()
}

func (k *keeper) socket() string { return filepath.Join(k.dir, "socket") }

// kill ends the program like a crash.
func (k *keeper) kill() {
	k.t.Helper()
	require.NoError(k.t, k.cmd.Process.Signal(syscall.SIGKILL))
	_ = k.cmd.Wait()
}

func (k *keeper) get(path string) (int, string) {
	k.t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", k.socket())
	}}}
	r, err := client.Get("http://drawbridge" + path)
	require.NoError(k.t, err)
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	require.NoError(k.t, err)
	return r.StatusCode, string(text)
}

func (k *keeper) status() (s daemon.Status) {
	k.t.Helper()
	_, text := k.get("/status")
	require.NoError(k.t, json.Unmarshal([]byte(text), &s), text)
	return s
}

// until asks for the status until it fits.
func (k *keeper) until(fits func(daemon.Status) bool) daemon.Status {
	k.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
		if s := k.status(); fits(s) {
			return s
		}
	}
	require.Fail(k.t, "it did not happen", "%+v\n%s", k.status(), &k.log)
	return daemon.Status{}
}

// nft runs nft(8) beside the daemon.
func (k *keeper) nft(args ...string) (string, error) {
	k.t.Helper()
	cmd := exec.Command(netnstest.Tool(k.t, "nft"), args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	require.NoError(k.t, k.ns.Start(cmd))
	err := cmd.Wait()
	return out.String(), err
}

func (k *keeper) region() string {
	k.t.Helper()
	text, err := k.nft("list", "set", "inet", "drawbridge", "region4")
	require.NoError(k.t, err, text)
	return text
}

// TestRunFollowsItsFile: a renamed file comes into force, a bad one changes nothing and is named, and what is in force
// outlives the program.
func TestRunFollowsItsFile(t *testing.T) {
	k := newKeeper(t)
	k.start()
	require.Contains(t, k.region(), "10.10.0.0/16")
	first := k.status()
	require.True(t, first.Ready)

	k.replace(hostPolicy("10.20.0.0/16"))
	second := k.until(func(s daemon.Status) bool { return s.PolicySHA256 != first.PolicySHA256 })
	require.Contains(t, k.region(), "10.20.0.0/16")
	require.NotContains(t, k.region(), "10.10.0.0/16")
	require.Equal(t, 1, second.Receipt.Changed.ElementsAdded)

	k.replace(strings.Replace(hostPolicy("10.40.0.0/16"), `"version": 1`, `"version": 1, "nonsense": true`, 1))
	refused := k.until(func(s daemon.Status) bool { return s.Refused != "" })
	require.Contains(t, refused.Refused, "nonsense")
	require.Equal(t, second.PolicySHA256, refused.PolicySHA256)
	require.Contains(t, k.region(), "10.20.0.0/16")
	code, _ := k.get("/readyz")
	require.Equal(t, http.StatusServiceUnavailable, code)
	_, metrics := k.get("/metrics")
	require.Contains(t, metrics, "drawbridge_policies_refused_total 1")
	require.Contains(t, metrics, "drawbridge_policies_applied_total 2")

	k.kill()
	require.Contains(t, k.region(), "10.20.0.0/16", "it stays in force")
	k.start() // with a bad file: the last good policy holds
	require.Contains(t, k.region(), "10.20.0.0/16")
	require.Zero(t, k.status().Receipt.Changed, "the orphan was adopted as it was")
	k.replace(hostPolicy("10.30.0.0/16"))
	k.until(func(s daemon.Status) bool { return s.Refused == "" })
	require.NoError(t, k.cmd.Process.Signal(syscall.SIGTERM))
	require.NoError(t, k.cmd.Wait(), "%s", &k.log)
	require.Contains(t, k.region(), "10.30.0.0/16")
	log, err := os.ReadFile(k.audit)
	require.NoError(t, err)
	require.Equal(t, 2, strings.Count(string(log), `"what":"refused"`))
}

// TestOthersCannotChangeTheRules, or not for long (SPEC X-09).
func TestOthersCannotChangeTheRules(t *testing.T) {
	t.Run("owned", func(t *testing.T) {
		k := newKeeper(t)
		k.start()
		_, err := k.nft("flush", "ruleset")
		require.NoError(t, err)
		require.Contains(t, k.region(), "10.10.0.0/16")
		_, err = k.nft("delete", "table", "inet", "drawbridge")
		require.Error(t, err)
		require.Zero(t, k.status().Tampered)
	})
	t.Run("not owned", func(t *testing.T) {
		k := newKeeper(t)
		k.start("--no-owner")
		_, err := k.nft("flush", "ruleset")
		require.NoError(t, err)
		s := k.until(func(s daemon.Status) bool { return s.Tampered > 0 })
		require.Contains(t, k.region(), "10.10.0.0/16")
		t.Logf("mended within %v", s.LastTampering.Took)
		log, err := os.ReadFile(k.audit)
		require.NoError(t, err)
		require.Contains(t, string(log), `"program":"nft"`)
		_, err = k.nft("add", "element", "inet", "drawbridge", "region4", "{ 192.168.0.0/16 }")
		require.NoError(t, err)
		k.until(func(s daemon.Status) bool { return s.Tampered > 1 })
		require.NotContains(t, k.region(), "192.168.0.0/16")
	})
}

// TestAnUpgradeTakesNothingAway: a policy that an earlier version took, with a label that is refused now, is brought back from its snapshot.
func TestAnUpgradeTakesNothingAway(t *testing.T) {
	k := newKeeper(t)
	text := strings.Replace(understood, `"office"`, `"off\u001b[31mice\u202e"`, 1)
	k.replace(text)
	state := daemon.Snapshots{Dir: filepath.Join(k.dir, "state")}
	require.NoError(t, state.Save([]byte(text)))
	allows := func() {
		t.Helper()
		said := k.verb("enforce", "explain", "--from", "198.51.100.3", "--to", "orders")
		require.Contains(t, said, "PASS")
	}
	code, said := k.boot("--policy", k.policy)
	require.Zero(t, code, said)
	require.Empty(t, said, "nothing is passed over")
	allows()
	k.start()
	require.Contains(t, k.status().Refused, "U+001B in a label", "the file is another matter: who wrote it can mend it")
	require.Zero(t, k.status().Receipt.Changed, "what boot brought into force is taken over as it is")
	allows()
	require.NotContains(t, k.verb("enforce", "rules"), "\x1b")
	kept, err := state.Load()
	require.NoError(t, err)
	require.Equal(t, text, string(kept), "for the next start")

	before := k.status().Read
	k.replace(strings.Replace(text, "198.51.100.0/28", "198.51.100.0/27", 1))
	require.Contains(t, k.until(func(s daemon.Status) bool { return s.Read > before }).Refused, "U+001B in a label")
	k.replace(strings.Replace(understood, "198.51.100.0/28", "198.51.100.0/27", 1))
	k.until(func(s daemon.Status) bool { return s.Refused == "" })
	require.Contains(t, k.verb("enforce", "rules"), "198.51.100.0/27")
	allows()
}

// boot starts enforce boot in a fresh namespace and returns its exit code and what it said.
func (k *keeper) boot(args ...string) (code int, said string) {
	k.t.Helper()
	k.ns = netnstest.New(k.t)
	self, err := os.Executable()
	require.NoError(k.t, err)
	cmd := exec.Command(self, append([]string{"enforce", "boot", "--state", filepath.Join(k.dir, "state")}, args...)...)
	cmd.Env = append(os.Environ(), asProgram+"=1")
	var out bytes.Buffer
	cmd.Stderr = &out
	require.NoError(k.t, k.ns.Start(cmd))
	_ = cmd.Wait() // the code tells
	return cmd.ProcessState.ExitCode(), out.String()
}

// verb runs a verb beside the daemon and returns what it prints.
func (k *keeper) verb(args ...string) string {
	k.t.Helper()
	self, err := os.Executable()
	require.NoError(k.t, err)
	cmd := exec.Command(self, args...)
	cmd.Env = append(os.Environ(), asProgram+"=1")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	require.NoError(k.t, k.ns.Start(cmd))
	require.NoError(k.t, cmd.Wait(), out.String())
	return out.String()
}

// snapshotsIn are the files of a state directory that hold a policy.
func snapshotsIn(t *testing.T, state string) (files []string) {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(state, "policy.*.snapshot"))
	require.NoError(t, err)
	for _, name := range all {
		text, err := os.ReadFile(name)
		require.NoError(t, err)
		if len(text) > 0 && text[0] != 0 { // an empty one begins with zeros
			files = append(files, name)
		}
	}
	return files
}

// TestBootBringsBackTheLastPolicy, also from half a file, and never an older one. Without any, all that it protected is denied.
func TestBootBringsBackTheLastPolicy(t *testing.T) {
	k := newKeeper(t)
	state := filepath.Join(k.dir, "state")
	k.start()
	first := k.status()
	k.replace(hostPolicy("10.20.0.0/16"))
	k.until(func(s daemon.Status) bool { return s.PolicySHA256 != first.PolicySHA256 })
	k.kill()
	code, said := k.boot()
	require.Zero(t, code, said)
	require.Contains(t, k.region(), "10.20.0.0/16")
	k.start()
	require.Zero(t, k.status().Receipt.Changed, "what boot brought into force is taken over as it is")
	k.kill()
	copies := snapshotsIn(t, state)
	require.Len(t, copies, 2, "no older one is left")
	require.NoError(t, os.Truncate(copies[0], 100))
	code, said = k.boot()
	require.Zero(t, code, said)
	require.Contains(t, k.region(), "10.20.0.0/16", "the copy of it")
	require.NoError(t, os.Truncate(copies[1], 100))

	code, said = k.boot("--policy", k.policy)
	require.Zero(t, code)
	require.Contains(t, said, "truncated")
	require.Contains(t, k.region(), "10.20.0.0/16", "the file")

	code, said = k.boot("--policy", filepath.Join(k.dir, "nowhere"), "--deny", "192.0.2.7")
	require.Zero(t, code)
	require.Contains(t, said, "no policy is in force; 2 protected addresses are denied")
	rules, err := k.nft("list", "ruleset")
	require.NoError(t, err)
	require.Contains(t, rules, "elements = { 10.10.0.1 . 27017 }")
	require.Contains(t, rules, "elements = { 192.0.2.7 }")
	require.Contains(t, k.verb("enforce", "status"), "no policy is in force")
	p := startProber(t, k.ns)
	require.NoError(t, p.more(t.Context(), 1))
	k.start() // the policy takes the place of the denial
	require.NoError(t, p.more(t.Context(), 2))
	rounds := p.end(t)
	require.Equal(t, [3]bool{}, rounds[0].open, "denied")
	require.True(t, rounds[len(rounds)-1].open[ofSometimes])
	require.False(t, rounds[len(rounds)-1].open[ofNever])

	require.NoError(t, os.RemoveAll(state))
	code, said = k.boot()
	require.Equal(t, exitUnjudged, code)
	require.Contains(t, said, "nothing is named that is to be denied")
	rules, err = k.nft("list", "ruleset")
	require.NoError(t, err)
	require.Empty(t, rules)
}
