package daemon_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"drawbridge/enforcer"
	"drawbridge/enforcer/daemon"
	"drawbridge/enforcer/nft"
	"drawbridge/enforcer/policy/policytest"
	"drawbridge/enforcer/ruleset"
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
	require.Equal(t, "nft", st.LastTampering.Program, s.log.String())
	require.Empty(t, st.Refused)
}

// writes adds a table of others to the ruleset and takes it out again, hundreds of times in a second, until it is stopped. Each time it leaves
// the ruleset alone for as long as it takes to read the tables, however slow the machine is: who writes faster than that keeps everybody from
// reading, the daemon too, which then cannot prove what is in force, and so tells nothing.
func (s *scene) writes(ctx context.Context, t *testing.T) (stop func()) {
	t.Helper()
	var conn, reader *nft.Conn
	require.NoError(t, s.ns.Do(func() (err error) {
		if conn, err = nft.Open("another"); err != nil {
			return err
		}
		reader, err = nft.Open("drawbridge")
		return err
	}))
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error)
	go func() {
		pace := time.NewTicker(2 * time.Millisecond)
		defer pace.Stop()
		for ctx.Err() == nil {
			<-pace.C
			_, _ = reader.Read(context.Background()) // it may be gone
			for _, write := range []func(uint32) error{
				func(g uint32) error {
					return conn.Commit(context.Background(), ruleset.Change{Family: ruleset.FamilyINET, Table: "another", CreateTable: true}, g)
				},
				func(g uint32) error { return conn.Delete(context.Background(), g) },
			} {
				generation, err := conn.Generation(context.Background())
				if err == nil {
					_ = write(generation) // it may be gone, or somebody else was faster
				}
			}
		}
		ended <- errors.Join(conn.Close(), reader.Close())
	}()
	return func() {
		cancel()
		require.NoError(t, <-ended)
	}
}

// tampering is what the audit log tells of it.
func tampering(t *testing.T, path string) (all []tamperingEntry) {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	for line := range bytes.Lines(text) {
		var e tamperingEntry
		require.NoError(t, json.Unmarshal(line, &e))
		if e.What == "tampered" {
			all = append(all, e)
		}
	}
	return all
}

type tamperingEntry struct {
	What    string            `json:"what"`
	Why     string            `json:"why"`
	Program string            `json:"program"`
	Receipt *enforcer.Receipt `json:"receipt"`
}

// TestEachDeletionIsToldOfOnce, and of whom, however often others write, who leave it the time to look.
func TestEachDeletionIsToldOfOnce(t *testing.T) {
	audit := filepath.Join(t.TempDir(), "audit")
	s := newScene(t, func(_ *scene, o *daemon.Options) { o.NoOwner, o.Audit = true, audit })
	stop := s.writes(t.Context(), t)
	const deletions = 5
	for i := range deletions {
		s.nft(t, "flush", "ruleset")
		st := s.until(t, func(st daemon.Status) bool { return st.Tampered > uint64(i) })
		require.Equal(t, "nft", st.LastTampering.Program, s.log.String())
		require.Positive(t, st.LastTampering.Took)
		s.reaches(t, "10.10.0.0/16")
	}
	stop()
	all := tampering(t, audit)
	require.Len(t, all, deletions)
	for _, e := range all {
		require.Equal(t, "nft", e.Program)
		require.NotZero(t, e.Receipt.Changed.Chains, s.log.String())
	}
}

// TestWhoItWasIsWaitedFor where words were lost, as long as the word of the deletion can be to come.
func TestWhoItWasIsWaitedFor(t *testing.T) {
	const nobody, another, culprit = "", "another", "nft"
	lost := nft.Event{}
	for name, tt := range map[string]struct {
		heard [][]string // of whom, together; nobody: words were lost
		told  []int      // how often by then
		by    string
	}{
		"nothing is lost":                    {[][]string{{culprit}}, []int{1}, culprit},
		"lost before, and heard of with it":  {[][]string{{nobody, culprit, another}}, []int{1}, culprit},
		"lost before, and heard of later":    {[][]string{{nobody}, {culprit}, {another}}, []int{0, 1, 1}, culprit},
		"lost later":                         {[][]string{{culprit}, {nobody}, {another}}, []int{1, 1, 1}, culprit},
		"lost itself, with others after it":  {[][]string{{nobody, another}}, []int{1}, nobody},
		"lost itself, and others come later": {[][]string{{nobody}, {another}, {another}}, []int{0, 1, 1}, nobody},
	} {
		t.Run(name, func(t *testing.T) {
			require.NoError(t, netnstest.New(t).Do(func() error {
				s, err := enforcer.Open(enforcer.Options{})
				require.NoError(t, err)
				defer s.Close()
				_, err = s.Apply(t.Context(), []byte(host("10.10.0.0/16")))
				require.NoError(t, err)
				require.NoError(t, s.Prepare())
				words := map[string]nft.Event{nobody: lost, culprit: deletes(t, s), another: writes(t)}
				hear := daemon.Mends(s)
				for i, together := range tt.heard {
					var events []nft.Event
					for _, who := range together {
						events = append(events, words[who])
					}
					told, last := hear(events...)
					require.EqualValues(t, tt.told[i], told, "after %d", i)
					if told > 0 {
						require.Equal(t, tt.by, last.Program)
					}
				}
				return nil
			}))
		})
	}
}

// deletes deletes a session's table as another program does, has its sentry put it back, and returns the word of the deletion.
func deletes(t *testing.T, s *enforcer.Session) nft.Event {
	t.Helper()
	conn, err := nft.Open("drawbridge")
	require.NoError(t, err)
	defer conn.Close()
	before, err := conn.Generation(t.Context())
	require.NoError(t, err)
	require.NoError(t, conn.Delete(t.Context(), before))
	done, err := s.Sentry().Restore(t.Context(), 0, nft.Deletion{Ours: true, Generation: uint16(before + 1), Writer: conn.Port()})
	require.NoError(t, err)
	require.True(t, done)
	return nft.Event{Generation: before + 1, ProcessID: 1, ProcessName: "nft"}
}

// writes makes a table that is nobody's business, and returns the word of it.
func writes(t *testing.T) nft.Event {
	t.Helper()
	conn, err := nft.Open("another")
	require.NoError(t, err)
	defer conn.Close()
	before, err := conn.Generation(t.Context())
	require.NoError(t, err)
	require.NoError(t, conn.Commit(t.Context(), ruleset.Change{Family: ruleset.FamilyINET, Table: "another", CreateTable: true}, before))
	return nft.Event{Generation: before + 1, ProcessID: 2, ProcessName: "another"}
}

// TestTwoDeletionsInARow are told of, and whose they were, although the second one may come while the first is being answered. Both may be
// mended at one time.
func TestTwoDeletionsInARow(t *testing.T) {
	audit := filepath.Join(t.TempDir(), "audit")
	s := newScene(t, func(s *scene, o *daemon.Options) {
		o.NoOwner, o.Audit = true, audit
		s.write(t, s.policy, string(policytest.Gateway(t, 5, "198.18.0.0/24")))
	})
	s.until(t, func(st daemon.Status) bool { return st.Ready })
	const times = 10
	for i := range times {
		s.nft(t, "flush", "ruleset")
		s.nft(t, "flush", "ruleset")
		s.until(t, func(st daemon.Status) bool { return st.Tampered > uint64(i) })
	}
	s.nft(t, "flush", "ruleset") // the last one; whatever was not told by then would be told with it
	s.until(t, func(st daemon.Status) bool { return st.Tampered > times })
	all := tampering(t, audit)
	require.GreaterOrEqual(t, len(all), times)
	require.LessOrEqual(t, len(all), 2*times+1)
	for _, e := range all {
		require.Equal(t, "nft", e.Program, "%+v", e.Receipt)
	}
}

// TestALargeTableThatIsGoneTwiceIsDeniedTwice: the second time comes while the table is being made.
func TestALargeTableThatIsGoneTwiceIsDeniedTwice(t *testing.T) {
	s := newScene(t, func(s *scene, o *daemon.Options) {
		o.NoOwner = true
		s.write(t, s.policy, string(policytest.Gateway(t, 100, "198.18.0.0/24")))
	})
	s.until(t, func(st daemon.Status) bool { return st.Ready })
	for range 4 { // every other one while the table that follows the denial waits in the kernel
		s.tableIsThere(t) // or there is nothing to be deleted, and told of
		s.nft(t, "flush", "ruleset")
	}
	st := s.until(t, func(st daemon.Status) bool { return st.Tampered >= 4 })
	require.Less(t, st.LastTampering.Closed, st.LastTampering.Took)
	require.NotContains(t, s.log.String(), "could not")
}

// TestAStopLeavesNoDenialBehind: who ends the daemon while it answers a deletion finds the table afterwards, or, if nobody has heard of it, none.
func TestAStopLeavesNoDenialBehind(t *testing.T) {
	for range 8 {
		s := newScene(t, func(_ *scene, o *daemon.Options) { o.NoOwner = true })
		s.until(t, func(st daemon.Status) bool { return st.Ready })
		stopped := make(chan struct{})
		flush := exec.Command(netnstest.Tool(t, "nft"), "flush", "ruleset")
		require.NoError(t, s.ns.Start(flush))
		go func() { s.stop(); close(stopped) }()
		require.NoError(t, flush.Wait())
		<-stopped
		list := exec.Command(netnstest.Tool(t, "nft"), "list", "ruleset")
		var rules bytes.Buffer
		list.Stdout = &rules
		require.NoError(t, s.ns.Start(list))
		require.NoError(t, list.Wait())
		require.NotContains(t, rules.String(), "deny_", s.log.String())
	}
}

// TestEndingsAreToldOf: the tables that end refused connections are nobody else's either, whoever hears of it or not.
func TestEndingsAreToldOf(t *testing.T) {
	for _, deaf := range []bool{false, true} {
		t.Run(fmt.Sprintf("deaf=%v", deaf), func(t *testing.T) {
			audit := filepath.Join(t.TempDir(), "audit")
			s := newScene(t, func(_ *scene, o *daemon.Options) {
				o.NoOwner, o.Audit = true, audit
				if deaf {
					o.Deaf()
				}
			})
			s.until(t, func(st daemon.Status) bool { return st.Ready })
			spoilings := map[string]string{
				"delete table ip drawbridge":                             "table ip drawbridge: missing",
				"flush chain ip drawbridge ending_forward":               "table ip drawbridge: rule of chain ending_forward: ",
				"add chain ip6 drawbridge x":                             "table ip6 drawbridge: chain x: not wanted",
				"add rule ip6 drawbridge ending_forward meta mark set 7": "table ip6 drawbridge: chain \"ending_forward\": expression 1",
			}
			told := uint64(0)
			for spoiling, what := range spoilings {
				s.nft(t, strings.Fields(spoiling)...)
				told++
				st := s.until(t, func(st daemon.Status) bool { return st.Tampered >= told })
				require.Equal(t, told, st.Tampered, s.log.String())
				require.NotZero(t, st.LastTampering.Took)
				var all []tamperingEntry
				require.Eventually(t, func() bool { all = tampering(t, audit); return len(all) >= int(told) }, 20*time.Second, time.Millisecond)
				require.Len(t, all, int(told))
				require.Contains(t, all[told-1].Why, what)
				require.Contains(t, s.log.String(), strings.ReplaceAll(what, `"`, `\"`))
				if !deaf {
					require.Equal(t, "nft", st.LastTampering.Program)
				}
			}
		})
	}
}

// TestEndingsThatAChangeMendsAreToldOf as well: the change comes between the tampering and the word of it.
func TestEndingsThatAChangeMendsAreToldOf(t *testing.T) {
	s := newScene(t, func(_ *scene, o *daemon.Options) { o.NoOwner = true })
	s.until(t, func(st daemon.Status) bool { return st.Ready })
	const changes = 20
	for i := range changes {
		s.nft(t, "delete", "table", "ip", "drawbridge")
		s.put([]byte(host(fmt.Sprintf("10.%d.0.0/16", 20+i))))
		st := s.until(t, func(st daemon.Status) bool { return st.Tampered > uint64(i) })
		require.Equal(t, uint64(i+1), st.Tampered)
		require.Equal(t, "nft", st.LastTampering.Program, s.log.String())
	}
}
