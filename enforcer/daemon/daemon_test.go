package daemon_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"drawbridge/enforcer/compile"
	"drawbridge/enforcer/daemon"
	"drawbridge/sim/netns/netnstest"
)

// host is the policy of a shared host whose region is one network.
func host(region string) string {
	return fmt.Sprintf(`{"version": 1, "point": {"name": "h", "model": "shared"}, "region": {"name": "r", "networks": [%q]}, "databases": [%s]}`, region, database(27017))
}

func database(port int) string {
	return fmt.Sprintf(`{"name": "db%[1]d", "model": "shared", "engine": "mongodb",
		"endpoints": [{"kind": "public-rw", "address": "10.10.0.1", "port": %[1]d, "family": "ipv4", "tls": "either"}],
		"nodes": [{"name": "n", "here": true, "addresses": ["10.10.0.1"], "ports": [{"port": %[1]d, "tls": "either"}]}]}`, port)
}

// log is written by the daemon and read by the test.
type log struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *log) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// scene is a daemon with files in a directory of its own.
type scene struct {
	*running
	dir, policy string
	log         *log
}

func newScene(t *testing.T, change func(*scene, *daemon.Options)) *scene {
	t.Helper()
	s := &scene{dir: t.TempDir(), log: &log{}, running: &running{ns: netnstest.New(t)}}
	s.policy = filepath.Join(s.dir, "policy.json")
	s.write(t, s.policy, host("10.10.0.0/16"))
	options := daemon.Options{
		Policy: s.policy, Snapshots: daemon.Snapshots{Dir: filepath.Join(s.dir, "state")}, Socket: filepath.Join(s.dir, "socket"),
		Log: slog.New(slog.NewTextHandler(s.log, nil)),
	}
	if change != nil {
		change(s, &options)
	}
	s.running = start(t, s.ns, options)
	t.Cleanup(s.stop)
	return s
}

func (s *scene) write(t *testing.T, path, text string) {
	t.Helper()
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
}

func (s *scene) get(t *testing.T, where string) (code int, text string) {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(s.dir, "socket"))
	}}}
	r, err := client.Get("http://drawbridge" + where)
	require.NoError(t, err)
	defer r.Body.Close()
	var b bytes.Buffer
	_, err = b.ReadFrom(r.Body)
	require.NoError(t, err)
	return r.StatusCode, b.String()
}

func (s *scene) status(t *testing.T) (st daemon.Status) {
	t.Helper()
	_, text := s.get(t, "/status")
	require.NoError(t, json.Unmarshal([]byte(text), &st))
	return st
}

func (s *scene) until(t *testing.T, fits func(daemon.Status) bool) daemon.Status {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
		if st := s.status(t); fits(st) {
			return st
		}
	}
	require.Fail(t, "it did not happen", "%+v\n%s", s.status(t), s.log)
	return daemon.Status{}
}

func (s *scene) nft(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.Command(netnstest.Tool(t, "nft"), args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	require.NoError(t, s.ns.Start(cmd))
	require.NoError(t, cmd.Wait(), out.String())
	return out.String()
}

// tableIsThere waits until something has the table's name: the table, or a denial in its place.
func (s *scene) tableIsThere(t *testing.T) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
		if strings.Contains(s.nft(t, "list", "tables"), "table inet "+compile.TableName+"\n") {
			return
		}
	}
	require.Fail(t, "there is no table", s.log)
}

// holds waits until a network is the region, and no other one.
func (s *scene) holds(t *testing.T, region string) {
	t.Helper()
	var text string
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
		if text = s.nft(t, "list", "set", "inet", "drawbridge", "region4"); strings.Contains(text, "elements = { "+region+" }") {
			return
		}
	}
	require.Fail(t, "it did not come into force", "%s is not in\n%s\n%s", region, text, s.log)
}

// TestWaysToChangeAFile: whatever programs do to a file, what it holds comes into force, and no half of it is refused.
func TestWaysToChangeAFile(t *testing.T) {
	const next = "10.20.0.0/16"
	for name, change := range map[string]func(t *testing.T, s *scene){
		"renamed over": func(t *testing.T, s *scene) {
			s.write(t, s.policy+".tmp", host(next))
			require.NoError(t, os.Rename(s.policy+".tmp", s.policy))
		},
		"written in place": func(t *testing.T, s *scene) { s.write(t, s.policy, host(next)) },
		"written in steps": func(t *testing.T, s *scene) {
			f, err := os.OpenFile(s.policy, os.O_WRONLY|os.O_TRUNC, 0)
			require.NoError(t, err)
			for _, b := range []byte(host(next)) {
				_, err := f.Write([]byte{b})
				require.NoError(t, err)
			}
			require.NoError(t, f.Close())
		},
		"written with a pause": func(t *testing.T, s *scene) {
			f, err := os.OpenFile(s.policy, os.O_WRONLY|os.O_TRUNC, 0)
			require.NoError(t, err)
			text := host(next)
			_, err = f.WriteString(text[:len(text)/2])
			require.NoError(t, err)
			<-time.After(10 * time.Millisecond) // longer than the daemon waits before it looks
			_, err = f.WriteString(text[len(text)/2:])
			require.NoError(t, errors.Join(err, f.Close()))
		},
		"deleted and made again": func(t *testing.T, s *scene) {
			require.NoError(t, os.Remove(s.policy))
			s.until(t, func(st daemon.Status) bool { return strings.Contains(st.Refused, "no such file") })
			s.holds(t, "10.10.0.0/16")
			s.write(t, s.policy, host(next))
		},
		"its directory replaced": func(t *testing.T, s *scene) {
			aside := filepath.Join(t.TempDir(), "policy.json")
			require.NoError(t, os.Rename(s.policy, aside))
			s.write(t, aside, host(next))
			require.NoError(t, os.Symlink(aside, s.policy))
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t, func(_ *scene, o *daemon.Options) { o.Unmindful() })
			s.holds(t, "10.10.0.0/16")
			change(t, s)
			s.holds(t, next)
			require.Empty(t, s.until(t, func(st daemon.Status) bool { return st.Refused == "" }).Refused)
			if strings.Contains(name, "written") || strings.Contains(name, "renamed") {
				require.NotContains(t, s.log.String(), "refused")
			}
		})
	}
}

// TestAVolumeOfKubernetes: the file is a link to a link to a directory, and that link is swapped.
func TestAVolumeOfKubernetes(t *testing.T) {
	volume := func(t *testing.T, dir, version, text string) {
		t.Helper()
		real := filepath.Join(dir, version)
		require.NoError(t, os.Mkdir(real, 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(real, "policy.json"), []byte(text), 0o600))
		require.NoError(t, os.Symlink(version, filepath.Join(dir, "..data_tmp")))
		require.NoError(t, os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")))
	}
	for _, way := range []string{"file", "directory", "link from elsewhere"} {
		t.Run(way, func(t *testing.T) {
			dir := t.TempDir()
			volume(t, dir, "..2026_1", host("10.10.0.0/16"))
			require.NoError(t, os.Symlink(filepath.Join("..data", "policy.json"), filepath.Join(dir, "policy.json")))
			s := newScene(t, func(_ *scene, o *daemon.Options) {
				o.Unmindful() // its events must do
				switch o.Policy = filepath.Join(dir, "policy.json"); way {
				case "directory":
					o.Policy = dir
				case "link from elsewhere":
					o.Policy = filepath.Join(t.TempDir(), "policy.json")
					require.NoError(t, os.Symlink(filepath.Join(dir, "..data", "policy.json"), o.Policy))
				}
			})
			for i, region := range []string{"10.20.0.0/16", "10.30.0.0/16", "10.40.0.0/16"} {
				volume(t, dir, fmt.Sprint("..2026_", i+2), host(region))
				s.holds(t, region)
				require.NoError(t, os.RemoveAll(filepath.Join(dir, fmt.Sprint("..2026_", i+1))))
			}
		})
	}
}

// TestADirectoryOfParts: one file for each database. What is wrong in one is told with its name, and changes nothing.
func TestADirectoryOfParts(t *testing.T) {
	dir := t.TempDir()
	part := func(name, text string) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	part("00-point.json", `{"version": 1, "point": {"name": "h", "model": "shared"}, "region": {"name": "r", "networks": ["10.10.0.0/16"]}}`)
	part("a.json", `{"databases": [`+database(27017)+`]}`)
	part("b.json", `{"databases": [`+database(27018)+`]}`)
	part(".hidden.json", `{"nonsense": 1}`)
	s := newScene(t, func(_ *scene, o *daemon.Options) { o.Policy = dir })
	protected := func() string { return s.nft(t, "list", "set", "inet", "drawbridge", "protected4") }
	require.Contains(t, protected(), "27018")
	before := s.status(t)
	part("c.json", `{"databases": [`+database(27019)+`]}`)
	s.until(t, func(st daemon.Status) bool { return st.PolicySHA256 != before.PolicySHA256 && st.Refused == "" })
	require.Contains(t, protected(), "27019")
	part("b.json", "{\"databases\": [\n{\"name\": }]}")
	st := s.until(t, func(st daemon.Status) bool { return st.Refused != "" })
	require.Contains(t, st.Refused, "b.json:2:10")
	require.Contains(t, protected(), "27018")
	part("b.json", `{"databases": [`+database(27018)+`, `+strings.Replace(database(27020), "10.10.0.1", "10.10.0", 1)+`]}`)
	s.until(t, func(st daemon.Status) bool {
		return strings.Contains(st.Refused, filepath.Join(dir, "b.json")+`: databases[1].endpoints[0].address: "10.10.0" is not an IP address`)
	})
	part("b.json", `{"region": {"name": "another"}}`)
	s.until(t, func(st daemon.Status) bool { return strings.Contains(st.Refused, `"region" is in `) })
	require.NoError(t, os.Remove(filepath.Join(dir, "b.json")))
	s.until(t, func(st daemon.Status) bool { return st.Refused == "" })
	require.NotContains(t, protected(), "27018")
}

// TestWhatCannotBeReadIsRefusedWhole, and said in the log, the status and the metrics, with the place.
func TestWhatCannotBeReadIsRefusedWhole(t *testing.T) {
	s := newScene(t, nil)
	for i, tt := range []struct{ text, place, reason string }{
		{strings.Replace(host("10.20.0.0/16"), `"version": 1`, `"version": 2`, 1), "policy.json:1:13", "version 2"},
		{host("10.20.0.0/16")[:200], "policy.json:2:", "cut off"},
		{host("10.20.0.1/16"), "policy.json:1:", "host bits"},
		{strings.Replace(host("10.20.0.0/16"), "mongodb", "mongo\x00db", 1), "policy.json:1:", "NUL"},
	} {
		s.put([]byte(tt.text))
		st := s.until(t, func(st daemon.Status) bool { return strings.Contains(st.Refused, tt.reason) })
		require.Contains(t, st.Refused, tt.place)
		require.True(t, st.Ready)
		require.Contains(t, s.log.String(), tt.place)
		code, body := s.get(t, "/readyz")
		require.Equal(t, http.StatusServiceUnavailable, code)
		require.Contains(t, body, tt.reason)
		_, metrics := s.get(t, "/metrics")
		require.Contains(t, metrics, fmt.Sprintf("drawbridge_policies_refused_total %d", i+1))
		s.holds(t, "10.10.0.0/16")
	}
	s.put([]byte(host("10.30.0.0/16")))
	s.holds(t, "10.30.0.0/16")
	s.until(t, func(st daemon.Status) bool { return st.Refused == "" })
	code, _ := s.get(t, "/readyz")
	require.Equal(t, http.StatusOK, code)
}

// TestAFullDisk: the policy comes into force all the same, and it is said that it could not be kept, until it is: as soon as there is room.
func TestAFullDisk(t *testing.T) {
	netnstest.Require(t)
	tiny := t.TempDir()
	require.NoError(t, unix.Mount("tmpfs", tiny, "tmpfs", 0, "size=4k"))
	t.Cleanup(func() { require.NoError(t, unix.Unmount(tiny, unix.MNT_DETACH)) })
	var ticks atomic.Int64
	s := newScene(t, func(_ *scene, o *daemon.Options) {
		o.Snapshots.Dir = tiny
		o.Alive = func() { ticks.Add(1) }
	})
	resize := func(size string) {
		require.NoError(t, unix.Mount("tmpfs", tiny, "tmpfs", unix.MS_REMOUNT, "size="+size))
	}
	metric := func(name string) string {
		_, metrics := s.get(t, "/metrics")
		return regexp.MustCompile(`(?m)^drawbridge_` + name + ` .*$`).FindString(metrics)
	}
	s.until(t, func(st daemon.Status) bool { return st.Snapshot != "" })
	tried := ticks.Load()
	require.Eventually(t, func() bool { return ticks.Load() > tried+2 }, 20*time.Second, 10*time.Millisecond)
	require.Equal(t, "drawbridge_snapshot_current 0", metric("snapshot_current"))
	require.Equal(t, "drawbridge_snapshots_failed_total 1", metric("snapshots_failed_total"), "trying again is no further policy")
	require.Equal(t, 1, strings.Count(s.log.String(), "could not be kept"))
	resize("1m")
	s.until(t, func(st daemon.Status) bool { return st.Snapshot == "" })
	require.Equal(t, "drawbridge_snapshot_current 1", metric("snapshot_current"))
	for _, region := range []string{"10.10.0.0/16", "10.20.0.0/16"} {
		kept, err := daemon.Snapshots{Dir: tiny}.Load()
		require.NoError(t, err)
		require.Equal(t, host(region), string(kept))
		s.put([]byte(host("10.20.0.0/16")))
		s.holds(t, "10.20.0.0/16")
		s.until(t, func(st daemon.Status) bool { return st.Snapshot == "" && st.Read > 1 })
	}
}

// TestLostWords: what the kernel could not tell, since the socket was full or for any other reason, is found within a second or two.
func TestLostWords(t *testing.T) {
	s := newScene(t, func(_ *scene, o *daemon.Options) {
		o.NoOwner = true
		o.Deaf()
	})
	s.nft(t, "flush", "ruleset")
	st := s.until(t, func(st daemon.Status) bool { return st.Tampered == 1 })
	require.NotNil(t, st.LastTampering)
	require.Empty(t, st.LastTampering.Program)
	s.holds(t, "10.10.0.0/16")
}

// TestClocksJump: no clock decides whether a policy comes into force.
func TestClocksJump(t *testing.T) {
	var mu sync.Mutex
	jumps := 0
	s := newScene(t, func(_ *scene, o *daemon.Options) {
		o.Enforcer.Clock = func() time.Time {
			mu.Lock()
			defer mu.Unlock()
			jumps++
			return time.Now().Add(time.Duration(jumps%3-1) * 1000 * time.Hour)
		}
	})
	for i := range 20 {
		region := fmt.Sprintf("10.%d.0.0/16", 20+i)
		s.put([]byte(host(region)))
		s.holds(t, region)
	}
}

// holding are the files that hold a snapshot.
func holding(t *testing.T, dir string) (files []string) {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(dir, "policy.*.snapshot"))
	require.NoError(t, err)
	for _, name := range all {
		text, err := os.ReadFile(name)
		require.NoError(t, err)
		if len(text) > 0 && text[0] != 0 {
			files = append(files, name)
		}
	}
	return files
}

// TestSnapshots: what is damaged is never taken for a policy, and a copy takes its place.
func TestSnapshots(t *testing.T) {
	for _, tt := range []struct {
		name   string
		damage func(t *testing.T, first, second string)
		whole  bool
	}{
		{"none", func(*testing.T, string, string) {}, true},
		{"first cut off", func(t *testing.T, first, _ string) { require.NoError(t, os.Truncate(first, 100)) }, true},
		{"first empty", func(t *testing.T, first, _ string) { require.NoError(t, os.Truncate(first, 0)) }, true},
		{"first gone", func(t *testing.T, first, _ string) { require.NoError(t, os.Remove(first)) }, true},
		{"a byte changed", func(t *testing.T, first, _ string) {
			text, err := os.ReadFile(first)
			require.NoError(t, err)
			text[bytes.Index(text, []byte("10.20."))] ^= 1
			require.NoError(t, os.WriteFile(first, text, 0o600))
		}, true},
		{"both", func(t *testing.T, first, second string) {
			require.NoError(t, os.Truncate(first, 100))
			require.NoError(t, os.Truncate(second, 100))
		}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := daemon.Snapshots{Dir: filepath.Join(t.TempDir(), "state")}
			_, err := s.Load()
			require.ErrorIs(t, err, daemon.ErrNoSnapshot)
			require.NoError(t, s.Save([]byte(host("10.10.0.0/16"))))
			require.NoError(t, s.Save([]byte(host("10.20.0.0/16"))))
			kept := holding(t, s.Dir)
			require.Len(t, kept, 2, "no older one is left")
			tt.damage(t, kept[0], kept[1])
			document, err := s.Load()
			if !tt.whole {
				require.ErrorIs(t, err, daemon.ErrNoSnapshot)
				return
			}
			require.NoError(t, err)
			require.Equal(t, host("10.20.0.0/16"), string(document), "never an older one")
		})
	}
}
