package evade

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"

	"drawbridge/sim/capture"
	"drawbridge/topology"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/stretchr/testify/require"
)

func TestPlaintextIsToldFromRequests(t *testing.T) {
	hello := clientHello("")
	request := mysqlHead(1, mysqlPlainCapabilities|mysqlClientSSL, 0)
	for _, c := range []struct {
		name   string
		engine topology.Engine
		stream []byte
		want   string
	}{
		{"nothing", topology.Redis, nil, ""},
		{"a hello", topology.Redis, hello, ""},
		{"seven bytes of one", topology.Redis, hello[:7], ""},
		{"six bytes tell nothing", topology.Redis, hello[:6], string(hello[:6])},
		{"a single byte", topology.Redis, []byte("P"), "P"},
		{"a command", topology.Redis, []byte("PING\r\n"), "PING\r\n"},
		{"a request", topology.PostgreSQL, pgSSLRequest, ""},
		{"half a request", topology.PostgreSQL, pgSSLRequest[:4], string(pgSSLRequest[:4])},
		{"request and hello", topology.PostgreSQL, append(bytes.Clone(pgSSLRequest), hello...), ""},
		{"direct TLS", topology.PostgreSQL, hello, ""},
		{"a byte behind the request", topology.PostgreSQL, append(bytes.Clone(pgSSLRequest), 'x'), "x"},
		{"both requests and a byte", topology.PostgreSQL, append(append(bytes.Clone(pgGSSENCRequest), pgSSLRequest...), 'x'), "x"},
		{"MySQL's request", topology.MySQL, request, ""},
		{"MySQL's request and hello", topology.MySQL, append(bytes.Clone(request), hello...), ""},
		{"a bare hello is nothing to MySQL", topology.MySQL, hello[:9], string(hello[:9])},
		{"a byte behind MySQL's request", topology.MySQL, append(bytes.Clone(request), 'x'), "x"},
		{"no CLIENT_SSL", topology.MySQL, mysqlHead(1, mysqlPlainCapabilities, 0)[:6], string(mysqlHead(1, mysqlPlainCapabilities, 0)[:6])},
		{"MongoDB's hello", topology.MongoDB, hello, ""},
		{"MongoDB's command in disguise", topology.MongoDB, mongoCommand(0x0001_0316, 0x0100), string(mongoCommand(0x0001_0316, 0x0100))},
	} {
		t.Run(c.name, func(t *testing.T) { require.Equal(t, c.want, string(plaintext(c.engine, c.stream))) })
	}
}

func TestWhatClientsSayIsPlaintext(t *testing.T) {
	for _, e := range topology.Engines() {
		w := wireOf(e)
		require.Equal(t, w.plain, plaintext(e, w.plain), e)
		require.True(t, containsMarker(w.plain), e)
		require.Empty(t, plaintext(e, w.opening()), e)
	}
}

func someHeader(family string) header {
	h := header{seq: 7, ack: 9, clock: 1_000_000, echo: 5, window: 65535, stamps: true, id: 3,
		local: netip.MustParseAddrPort("192.0.2.1:1000"), remote: netip.MustParseAddrPort("192.0.2.2:2000")}
	if family == "IPv6" {
		h.local, h.remote = netip.MustParseAddrPort("[2001:db8::1]:1000"), netip.MustParseAddrPort("[2001:db8::2]:2000")
	}
	return h
}

// TestSegmentsAreWhatTheySay reads encoded segments back with another decoder.
func TestSegmentsAreWhatTheySay(t *testing.T) {
	s := Segment{Flags: capture.ACK | capture.PSH, Data: []byte("hello"), AckBy: -4, Urgent: 2}
	for _, family := range []struct {
		name  string
		first gopacket.LayerType
	}{{"IPv4", layers.LayerTypeIPv4}, {"IPv6", layers.LayerTypeIPv6}} {
		t.Run(family.name, func(t *testing.T) {
			datagrams, err := s.encode(someHeader(family.name))
			require.NoError(t, err)
			require.Len(t, datagrams, 1)
			p := gopacket.NewPacket(datagrams[0], family.first, gopacket.Default)
			require.Nil(t, p.ErrorLayer())
			tcp, ok := p.Layer(layers.LayerTypeTCP).(*layers.TCP)
			require.True(t, ok)
			require.Equal(t, []any{uint32(7), uint32(5), uint16(2), true, true, false, "hello"},
				[]any{tcp.Seq, tcp.Ack, tcp.Urgent, tcp.URG, tcp.PSH, tcp.SYN, string(tcp.Payload)})
			wrong := s
			wrong.BadSum = true
			other, err := wrong.encode(someHeader(family.name))
			require.NoError(t, err)
			require.NotEqual(t, datagrams, other)
			require.Len(t, other[0], len(datagrams[0]))
		})
	}
}

// TestFragmentsMakeTheSegment puts them together again.
func TestFragmentsMakeTheSegment(t *testing.T) {
	whole, err := Segment{Data: bytes.Repeat([]byte("x"), 50)}.encodeTCP(someHeader("IPv4"))
	require.NoError(t, err)
	for name, how := range map[string]func([]byte) []Fragment{"two": cut(32), "tiny": tiny, "small": small, "whole": func(b []byte) []Fragment { return []Fragment{{0, b, false}} }} {
		t.Run(name, func(t *testing.T) {
			got, more := make([]byte, len(whole)), 0
			for _, f := range how(whole) {
				require.Zero(t, f.Offset%8)
				copy(got[f.Offset:], f.Data)
				if f.More {
					more++
				}
			}
			require.Equal(t, whole, got)
			require.Equal(t, len(how(whole))-1, more, "all but the last say that more follow")
		})
	}
}

func TestExtensionHeadersAreChained(t *testing.T) {
	next, b := chained([]Extension{padding(extHopByHop, 1), padding(extDestination, 1)}, []byte("TCP"))
	require.Equal(t, byte(extHopByHop), next)
	require.Equal(t, "3c00"+"0104"+"00000000"+"0600"+"0104"+"00000000"+hex.EncodeToString([]byte("TCP")), hex.EncodeToString(b))
}

func TestAttemptsAreNamedOnce(t *testing.T) {
	names := map[string]bool{}
	for _, a := range append(append(Attempts(), Halfway()...), Multipath()...) {
		require.False(t, names[a.Name], a.Name)
		names[a.Name] = true
		require.False(t, strings.ContainsAny(a.Name, "|\n"), "it is a cell of a table")
	}
	_, err := Find("no such")
	require.ErrorIs(t, err, ErrUnknown)
}
