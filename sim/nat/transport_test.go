package nat

import (
	"os"
	"testing"

	"github.com/mdlayher/netlink"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"drawbridge/sim/fabric"
	"drawbridge/sim/netns/netnstest"
)

// TestDescriptorsHaveNoBound installs a table over a socket whose number is beyond what select(2) takes, as in a lab of some hundred nodes.
func TestDescriptorsHaveNoBound(t *testing.T) {
	h := netnstest.New(t)
	const bound = 1024 // FD_SETSIZE
	for {
		f, err := os.Open(os.DevNull)
		require.NoError(t, err)
		defer f.Close()
		if f.Fd() > bound {
			break
		}
	}
	table, err := Install(h, fabric.Filter{Guarded: []string{"eth0"}})
	require.NoError(t, err)
	require.Greater(t, table.socket.fd, bound)
	require.NoError(t, table.Guard("eth0", false))
	require.NoError(t, table.Close())
}

func TestARefusalIsAnAnswer(t *testing.T) {
	m := netlink.Message{Header: netlink.Header{Sequence: 7}}
	closed := &transport{fd: -1}
	answers, err := closed.exchange([]netlink.Message{m})
	require.NoError(t, err)
	require.Len(t, answers, 1)
	require.Equal(t, netlink.Error, answers[0].Header.Type)
	require.EqualValues(t, 7, answers[0].Header.Sequence)
	require.Len(t, refusal(m, unix.EPERM), 1)
}

func FuzzMessages(f *testing.F) {
	f.Add([]byte{16, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		all, err := messages(b)
		if err == nil {
			require.LessOrEqual(t, len(all), len(b)/unix.NLMSG_HDRLEN)
		}
	})
}
