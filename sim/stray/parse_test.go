package stray

import (
	"net/netip"
	"testing"

	"drawbridge/topology/flow"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func FuzzParseRaw(f *testing.F) {
	f.Add(byte(flow.SCTP), true, append(append([]byte{0x45}, make([]byte, 19)...), 0x4e, 0x20, 0x15, 0x38, 0, 0, 0, 0))
	f.Add(byte(flow.ICMPv6), false, []byte{128, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, proto byte, four bool, b []byte) {
		at, from := netip.IPv6Loopback(), unix.Sockaddr(&unix.SockaddrInet6{})
		if four {
			at, from = netip.MustParseAddr("127.0.0.1"), &unix.SockaddrInet4{}
		}
		got, payload, ok := parseRaw(flow.Protocol(proto), at, from, b)
		if !ok {
			return
		}
		require.Equal(t, at, got.Dst.Addr())
		require.LessOrEqual(t, len(payload), len(b))
	})
}
