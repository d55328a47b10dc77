package switchboard_test

import (
	"net"
	"net/netip"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"drawbridge/sim/switchboard"
)

// Addresses of the loopback network, all of which are this machine's.
var one, two, three = netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.2"), netip.MustParseAddr("127.0.0.3")

func board(t *testing.T) (*switchboard.Board, uint16) {
	t.Helper()
	socket, err := net.Listen("tcp", "[::]:0")
	require.NoError(t, err)
	b := switchboard.New(socket)
	t.Cleanup(func() { _ = b.Close() })
	return b, socket.Addr().(*net.TCPAddr).AddrPort().Port()
}

func dial(t *testing.T, a netip.Addr, port uint16) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", netip.AddrPortFrom(a, port).String())
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func TestEachAddressHasItsOwn(t *testing.T) {
	b, port := board(t)
	first, err := b.Listen(one)
	require.NoError(t, err)
	second, err := b.Listen(two, three)
	require.NoError(t, err)
	for _, c := range []struct {
		at netip.Addr
		l  net.Listener
	}{{two, second}, {one, first}, {three, second}, {one, first}} {
		client := dial(t, c.at, port)
		server, err := c.l.Accept()
		require.NoError(t, err)
		require.Equal(t, client.LocalAddr().String(), server.RemoteAddr().String())
		require.NoError(t, server.Close())
	}
	require.Equal(t, netip.AddrPortFrom(two, port).String(), second.Addr().String())
}

func TestNobodysAddressIsReset(t *testing.T) {
	b, port := board(t)
	l, err := b.Listen(one)
	require.NoError(t, err)
	require.NoError(t, l.Close())
	for _, a := range []netip.Addr{one, two} {
		c, err := net.Dial("tcp", netip.AddrPortFrom(a, port).String())
		if err == nil { // it may come before the client looks
			_, err = c.Read(make([]byte, 1))
			require.NoError(t, c.Close())
		}
		require.ErrorIs(t, err, syscall.ECONNRESET)
	}
}

func TestAnAddressIsServedOnceAndAgainAfterwards(t *testing.T) {
	b, port := board(t)
	l, err := b.Listen(one)
	require.NoError(t, err)
	_, err = b.Listen(two, one)
	require.ErrorIs(t, err, switchboard.ErrTaken)
	require.NoError(t, l.Close())
	_, err = l.Accept()
	require.ErrorIs(t, err, net.ErrClosed)
	l, err = b.Listen(two, one)
	require.NoError(t, err)
	dial(t, one, port)
	_, err = l.Accept()
	require.NoError(t, err)
}

func TestTheSocketsEndIsEverybodysEnd(t *testing.T) {
	b, _ := board(t)
	l, err := b.Listen(one)
	require.NoError(t, err)
	require.NoError(t, b.Close())
	_, err = l.Accept()
	require.ErrorIs(t, err, net.ErrClosed)
	_, err = b.Listen(two)
	require.ErrorIs(t, err, net.ErrClosed)
}
