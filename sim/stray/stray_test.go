package stray_test

import (
	"context"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"drawbridge/sim/netns"
	"drawbridge/sim/netns/netnstest"
	"drawbridge/sim/stray"
	"drawbridge/topology/flow"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

var loopbacks = []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::1")}

func listen(t *testing.T) (*netns.Handle, *stray.Listeners) {
	t.Helper()
	h := netnstest.New(t)
	l, err := stray.Listen(t.Context(), h, loopbacks, []uint16{5432})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Close()) })
	return h, l
}

// A database may have the port on which something listens anyway.
func TestSocketsAreCountedOnceForEachPort(t *testing.T) {
	h := netnstest.New(t)
	before := sockets(t)
	ports := []uint16{5432, stray.UDPPort}
	l, err := stray.Listen(t.Context(), h, loopbacks, ports)
	require.NoError(t, err)
	defer func() { require.NoError(t, l.Close()) }()
	require.Equal(t, 10, stray.Sockets(loopbacks, ports), "TCP, SCTP, ICMP and two of UDP for each address")
	require.Equal(t, stray.Sockets(loopbacks, ports), sockets(t)-before)
}

func sockets(t *testing.T) (n int) {
	t.Helper()
	files, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	for _, f := range files {
		if to, err := os.Readlink("/proc/self/fd/" + f.Name()); err == nil && strings.HasPrefix(to, "socket:") {
			n++
		}
	}
	return n
}

func next(t *testing.T, l *stray.Listeners, proto flow.Protocol, to netip.AddrPort) stray.Arrival {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	a, err := l.Next(ctx, func(a stray.Arrival) bool { return a.Flow.Proto == proto && a.Flow.Dst == to && len(a.Payload) > 0 })
	require.NoError(t, err)
	return a
}

func TestTCPAndUDPEchoAndRecord(t *testing.T) {
	h, l := listen(t)
	for _, addr := range loopbacks {
		to := netip.AddrPortFrom(addr, stray.TCPPort)
		c, err := h.Dial(t.Context(), netip.AddrPortFrom(addr, 20000), to)
		require.NoError(t, err)
		echoed(t, c)
		require.Equal(t, netip.AddrPortFrom(addr, 20000), next(t, l, flow.TCP, to).Flow.Src)
		for _, port := range []uint16{stray.UDPPort, 5432} {
			to := netip.AddrPortFrom(addr, port)
			c, err := h.ListenPacket(t.Context(), netip.AddrPortFrom(addr, 20001))
			require.NoError(t, err)
			_, err = c.WriteToUDPAddrPort([]byte("marker"), to)
			require.NoError(t, err)
			_, from, err := c.ReadFromUDPAddrPort(make([]byte, 10))
			require.NoError(t, err)
			require.Equal(t, to, from)
			require.NoError(t, c.Close())
			a := next(t, l, flow.UDP, to)
			require.Equal(t, netip.AddrPortFrom(addr, 20001), a.Flow.Src)
			require.Equal(t, "marker", string(a.Payload))
		}
	}
}

func echoed(t *testing.T, c net.Conn) {
	t.Helper()
	_, err := io.WriteString(c, "marker")
	require.NoError(t, err)
	got := make([]byte, 6)
	_, err = io.ReadFull(c, got)
	require.NoError(t, err)
	require.Equal(t, "marker", string(got))
	require.NoError(t, c.Close())
}

func TestRawProtocolsAreRecorded(t *testing.T) {
	h, l := listen(t)
	sctp := append([]byte{0x4e, 0x20, 0x15, 0x38, 0, 0, 0, 0, 0, 0, 0, 0}, "chunk"...)
	for _, addr := range loopbacks {
		send(t, h, addr, unix.IPPROTO_SCTP, sctp)
		a := next(t, l, flow.SCTP, netip.AddrPortFrom(addr, 5432))
		require.Equal(t, netip.AddrPortFrom(addr, 20000), a.Flow.Src)
		require.Equal(t, "chunk", string(a.Payload))
	}
	send(t, h, loopbacks[0], unix.IPPROTO_ICMP, []byte{8, 0, 0, 0, 0, 1, 0, 1, 'm'}) // raw sockets get it before its checksum counts
	require.Equal(t, "m", string(next(t, l, flow.ICMP, netip.AddrPortFrom(loopbacks[0], 0)).Payload))
	send(t, h, loopbacks[1], unix.IPPROTO_ICMPV6, []byte{128, 0, 0, 0, 0, 1, 0, 1, 'm'})
	require.Equal(t, "m", string(next(t, l, flow.ICMPv6, netip.AddrPortFrom(loopbacks[1], 0)).Payload))
	require.Len(t, l.Arrivals(), 4, "the kernel's echo replies must not be taken for arrivals")
}

func send(t *testing.T, h *netns.Handle, to netip.Addr, proto int, b []byte) {
	t.Helper()
	domain, sa := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Addr: to.As16()})
	if to.Is4() {
		domain, sa = unix.AF_INET, &unix.SockaddrInet4{Addr: to.As4()}
	}
	fd, err := h.Socket(domain, unix.SOCK_RAW, proto)
	require.NoError(t, err)
	defer unix.Close(fd)
	require.NoError(t, os.NewSyscallError("sendto", unix.Sendto(fd, b, 0, sa)))
}

func TestCloseEndsConnections(t *testing.T) {
	h := netnstest.New(t)
	l, err := stray.Listen(t.Context(), h, loopbacks, nil)
	require.NoError(t, err)
	c, err := h.Dial(t.Context(), netip.AddrPort{}, netip.AddrPortFrom(loopbacks[0], stray.TCPPort))
	require.NoError(t, err)
	defer c.Close()
	_, err = l.Next(t.Context(), func(stray.Arrival) bool { return true })
	require.NoError(t, err)
	require.NoError(t, l.Close())
	_, err = c.Read(make([]byte, 1))
	require.Error(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = l.Next(ctx, func(stray.Arrival) bool { return false })
	require.ErrorIs(t, err, context.Canceled)
}
