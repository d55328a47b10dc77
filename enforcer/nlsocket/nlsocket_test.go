package nlsocket

import (
	"context"
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"drawbridge/sim/netns/netnstest"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

func open(t *testing.T) *Socket {
	t.Helper()
	var s *Socket
	require.NoError(t, netnstest.New(t).Do(func() (err error) { s, err = Open(unix.NETLINK_ROUTE, 1<<20); return err }))
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

// linkRequest is a struct ifinfomsg.
func linkRequest(msg uint16, flags netlink.HeaderFlags, index uint32) netlink.Message {
	data := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(data[4:], index)
	return netlink.Message{Header: netlink.Header{Type: netlink.HeaderType(msg), Flags: netlink.Request | flags}, Data: data}
}

func TestAsk(t *testing.T) {
	s := open(t)
	one, err := s.Ask(t.Context(), linkRequest(unix.RTM_GETLINK, 0, 1))
	require.NoError(t, err)
	require.Len(t, one, 1)

	all, err := s.Ask(t.Context(), linkRequest(unix.RTM_GETLINK, netlink.Dump, 0))
	require.NoError(t, err)
	require.Len(t, all, 1, "there is only the loopback interface")
	require.Equal(t, netlink.HeaderType(unix.RTM_NEWLINK), all[0].Header.Type)

	none, err := s.Ask(t.Context(), linkRequest(unix.RTM_SETLINK, netlink.Acknowledge, 1))
	require.NoError(t, err)
	require.Empty(t, none)

	_, err = s.Ask(t.Context(), linkRequest(unix.RTM_GETLINK, 0, 4711))
	require.ErrorIs(t, err, unix.ENODEV)
	var refused *Error
	require.ErrorAs(t, err, &refused)
	require.Equal(t, s.sequence, refused.Sequence)
}

func TestAnswersToEarlierRequestsAreSkipped(t *testing.T) {
	s := open(t)
	_, err := s.Send(linkRequest(unix.RTM_GETLINK, 0, 4711), linkRequest(unix.RTM_GETLINK, 0, 1))
	require.NoError(t, err)
	_, err = s.Ask(t.Context(), linkRequest(unix.RTM_SETLINK, netlink.Acknowledge, 1))
	require.NoError(t, err)
}

// TestWhatIsLeftOfADumpIsReceived: the kernel refuses another dump while one is not over.
func TestWhatIsLeftOfADumpIsReceived(t *testing.T) {
	s := open(t)
	const many = 1000 // of which each takes some 80 bytes: the dump has several datagrams
	for i := range uint16(many) {
		_, err := s.Ask(t.Context(), addressRequest(i))
		require.NoError(t, err)
	}
	dump := addressRequest(0)
	dump.Header = netlink.Header{Type: unix.RTM_GETADDR, Flags: netlink.Request | netlink.Dump}
	taken := 0
	for range 2 {
		err := s.Each(t.Context(), dump, func(m netlink.Message) error {
			taken++
			require.Equal(t, netlink.HeaderType(unix.RTM_NEWADDR), m.Header.Type)
			return errTaken
		})
		require.ErrorIs(t, err, errTaken)
	}
	require.Equal(t, 2, taken, "only the first of each")
	all, err := s.Ask(t.Context(), dump)
	require.NoError(t, err)
	require.Len(t, all, many+1, "and the interface's own")
}

// addressRequest adds an address to the loopback interface: struct ifaddrmsg with the attribute IFA_LOCAL.
func addressRequest(i uint16) netlink.Message {
	data := []byte{unix.AF_INET, 32, 0, 0, 1, 0, 0, 0, 8, 0, unix.IFA_LOCAL, 0, 127, 1, byte(i >> 8), byte(i)}
	return netlink.Message{Header: netlink.Header{Type: unix.RTM_NEWADDR, Flags: netlink.Request | netlink.Create | netlink.Acknowledge}, Data: data}
}

var errTaken = errors.New("taken")

func TestWaitingEnds(t *testing.T) {
	s := open(t)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
	defer cancel()
	_, err := s.Receive(ctx)
	require.ErrorIs(t, err, ErrTimeout)
	cancel()
	_, err = s.Ask(ctx, linkRequest(unix.RTM_GETLINK, 0, 1))
	require.Error(t, err)
}

func FuzzParse(f *testing.F) {
	for _, m := range []netlink.Message{linkRequest(unix.RTM_GETLINK, 0, 1), {Header: netlink.Header{Type: netlink.Error, Flags: unix.NLM_F_ACK_TLVS | unix.NLM_F_CAPPED}, Data: make([]byte, 40)}} {
		m.Header.Length = uint32(align(unix.NLMSG_HDRLEN + len(m.Data)))
		b, err := m.MarshalBinary()
		require.NoError(f, err)
		f.Add(b)
		f.Add(append(b, b...))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		messages, err := Parse(b)
		if err != nil {
			return
		}
		total := 0
		for _, m := range messages {
			total += unix.NLMSG_HDRLEN + len(m.Data)
			Refusal(m)
		}
		require.LessOrEqual(t, total, len(b))
	})
}
