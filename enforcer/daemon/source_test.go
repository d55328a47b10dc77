package daemon_test

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"drawbridge/enforcer/daemon"
)

// TestWhatIsNoFileIsRefused, and holds nobody up: neither changes that come after it, nor the end of the daemon.
func TestWhatIsNoFileIsRefused(t *testing.T) {
	for kind, put := range map[string]func(t *testing.T, path string){
		"a FIFO": func(t *testing.T, path string) { require.NoError(t, unix.Mkfifo(path, 0o600)) },
		"a socket": func(t *testing.T, path string) {
			l, err := net.Listen("unix", path)
			require.NoError(t, err)
			l.(*net.UnixListener).SetUnlinkOnClose(false)
			require.NoError(t, l.Close())
		},
		"a device":    func(t *testing.T, path string) { require.NoError(t, os.Symlink("/dev/zero", path)) },
		"a directory": func(t *testing.T, path string) { require.NoError(t, os.Mkdir(path, 0o700)) },
	} {
		t.Run(kind, func(t *testing.T) {
			s := newScene(t, nil)
			aside := filepath.Join(s.dir, "aside")
			put(t, aside)
			require.NoError(t, os.Remove(s.policy))
			require.NoError(t, os.Rename(aside, s.policy))
			st := s.until(t, func(st daemon.Status) bool { return strings.Contains(st.Refused, kind) })
			require.Contains(t, st.Refused, s.policy+": "+daemon.ErrNotRegular.Error())
			s.holds(t, "10.10.0.0/16")
			require.NoError(t, os.Remove(s.policy))
			s.put([]byte(host("10.20.0.0/16")))
			s.holds(t, "10.20.0.0/16")
		})
	}
}

// TestASnapshotThatIsNoFile is passed over, and holds up neither who brings the last policy back nor who keeps it.
func TestASnapshotThatIsNoFile(t *testing.T) {
	s := daemon.Snapshots{Dir: filepath.Join(t.TempDir(), "state")}
	require.NoError(t, s.Save([]byte(host("10.10.0.0/16"))))
	kept := holding(t, s.Dir)
	require.Len(t, kept, 2)
	require.NoError(t, os.Remove(kept[0]))
	require.NoError(t, unix.Mkfifo(kept[0], 0o600))
	document, err := s.Load()
	require.NoError(t, err)
	require.Equal(t, host("10.10.0.0/16"), string(document))
	require.ErrorIs(t, s.Save([]byte(host("10.20.0.0/16"))), daemon.ErrNotRegular)
}
