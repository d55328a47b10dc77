package link_test

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"

	"drawbridge/sim/link"
	"drawbridge/sim/netns"
	"drawbridge/sim/netns/netnstest"

	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

var (
	macA = net.HardwareAddr{2, 0, 0, 0, 0, 1}
	macZ = net.HardwareAddr{2, 0, 0, 0, 0, 2}
)

func run(t *testing.T, h *netns.Handle, fill func(b *link.Batch)) error {
	t.Helper()
	c, err := link.Open(h)
	require.NoError(t, err)
	defer c.Close()
	var b link.Batch
	fill(&b)
	return c.Run(&b)
}

func TestTwoNamespacesReachEachOtherAtOnce(t *testing.T) {
	a, z := netnstest.New(t), netnstest.New(t)
	require.NoError(t, run(t, a, func(b *link.Batch) {
		b.Veth(link.Device{Namespace: a.Fd(), Name: "toz", Index: 7, MAC: macA},
			link.Device{Namespace: z.Fd(), Name: "toa", Index: 7, MAC: macZ})
	}))
	configure := func(h *netns.Handle, peer net.HardwareAddr, own4, own6, other4, other6 string) {
		require.NoError(t, run(t, h, func(b *link.Batch) {
			b.Up(7)
			b.Address(7, netip.MustParseAddr(own4))
			b.Address(7, netip.MustParseAddr(own6))
			b.Neighbours(7, peer)
			b.Route(netip.MustParsePrefix(other4), 7)
			b.Route(netip.MustParsePrefix(other6), 7)
		}))
	}
	configure(a, macZ, "192.0.2.1", "2001:db8::1", "0.0.0.0/0", "::/0")
	configure(z, macA, "198.51.100.1", "2001:db8:1::1", "192.0.2.1/32", "2001:db8::1/128")
	require.NoError(t, run(t, z, func(b *link.Batch) {
		b.Own(netip.MustParsePrefix("203.0.113.0/24"))
		b.Own(netip.MustParsePrefix("2001:db8:2::/48"))
	}))
	l, err := z.Listen(t.Context(), netip.MustParseAddrPort("[::]:5432"))
	require.NoError(t, err)
	defer l.Close()
	for _, to := range []string{"198.51.100.1", "2001:db8:1::1", "203.0.113.0", "203.0.113.255", "2001:db8:2::", "2001:db8:2:ffff::7"} {
		c, err := a.Dial(t.Context(), netip.AddrPort{}, netip.AddrPortFrom(netip.MustParseAddr(to), 5432))
		require.NoError(t, err, to)
		s, err := l.Accept()
		require.NoError(t, err)
		_, err = c.Write(make([]byte, 100_000))
		require.NoError(t, err)
		require.NoError(t, c.Close())
		n, err := io.Copy(io.Discard, s)
		require.NoError(t, err)
		require.EqualValues(t, 100_000, n)
		require.NoError(t, s.Close())
	}
}

func TestFailuresNameTheirRequests(t *testing.T) {
	h := netnstest.New(t)
	err := run(t, h, func(b *link.Batch) {
		b.Address(link.Loopback, netip.MustParseAddr("192.0.2.1"))
		b.Address(99, netip.MustParseAddr("192.0.2.2"))
		b.Route(netip.MustParsePrefix("192.0.2.0/24"), 98)
		b.Address(link.Loopback, netip.MustParseAddr("192.0.2.3"))
	})
	require.ErrorIs(t, err, syscall.ENODEV)
	require.ErrorContains(t, err, "add address 192.0.2.2 to interface 99")
	require.ErrorContains(t, err, "add route 192.0.2.0/24 by interface 98")
	require.NotContains(t, err.Error(), "192.0.2.1 ")
	require.NotContains(t, err.Error(), "192.0.2.3")
	var e *link.Error
	require.ErrorAs(t, err, &e)
	l, err := h.Listen(t.Context(), netip.MustParseAddrPort("192.0.2.3:1"))
	require.NoError(t, err, "the kernel must have gone on after the failure")
	require.NoError(t, l.Close())
}

func TestManyRequestsTakeSeveralDatagrams(t *testing.T) {
	h := netnstest.New(t)
	require.NoError(t, run(t, h, func(b *link.Batch) {
		for i := range 200 {
			b.Address(link.Loopback, netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}))
		}
		require.Equal(t, 200, b.Len())
	}))
	err := run(t, h, func(b *link.Batch) {
		for i := range 200 {
			b.Address(link.Loopback, netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 50)}))
		}
	})
	require.ErrorIs(t, err, syscall.EEXIST)
	require.ErrorContains(t, err, fmt.Sprintf("10.0.0.%d ", 50))
	require.NotContains(t, err.Error(), "10.0.0.200")
}
