package sim

import (
	"net/netip"
	"testing"

	"drawbridge/sim/netns/netnstest"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestListenersAreFoundAndConnectionsAreNot(t *testing.T) {
	h := netnstest.New(t)
	at := []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:5432"), netip.MustParseAddrPort("[::1]:6379")}
	for _, a := range at {
		l, err := h.Listen(t.Context(), a)
		require.NoError(t, err)
		defer l.Close()
	}
	c, err := h.Dial(t.Context(), netip.AddrPort{}, at[0])
	require.NoError(t, err)
	defer c.Close()
	for i, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		var found []netip.AddrPort
		require.NoError(t, h.Do(func() (err error) { found, err = listeners(family); return err }))
		require.Equal(t, at[i:i+1], found)
	}
	all, err := inventory(h)
	require.NoError(t, err)
	require.Contains(t, all, "tcp 127.0.0.1:5432")
	require.Contains(t, all, "tcp [::1]:6379")
}

func TestAListenerThatIsCutShort(t *testing.T) {
	_, err := parseListener(make([]byte, diagAnswerLen-1))
	require.ErrorIs(t, err, errTruncated)
}
