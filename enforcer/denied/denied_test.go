package denied

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"github.com/stretchr/testify/require"
)

var noon = time.Date(2027, 1, 31, 12, 0, 0, 0, time.UTC)

func told(t *testing.T, packet []byte) netlink.Message {
	t.Helper()
	ae := netlink.NewAttributeEncoder()
	ae.String(nfulaPrefix, "no rule")
	ae.Bytes(nfulaPayload, packet)
	b, err := ae.Encode()
	require.NoError(t, err)
	return netlink.Message{Header: netlink.Header{Type: messageType(nfulnlMessagePacket)}, Data: append([]byte{2, 0, 0, 0}, b...)}
}

func ipv4(options int, protocol byte, ports ...byte) []byte {
	b := make([]byte, ipv4Header+options)
	b[0], b[9] = 0x40|byte(len(b)/wordSize), protocol
	copy(b[12:], []byte{198, 51, 100, 9, 203, 0, 113, 1})
	return append(b, ports...)
}

func ipv6(next byte, ports ...byte) []byte {
	b := make([]byte, ipv6Header)
	b[0], b[6] = 0x60, next
	copy(b[8:], netip.MustParseAddr("2001:db8::9").AsSlice())
	copy(b[24:], netip.MustParseAddr("2001:db8:2::1").AsSlice())
	return append(b, ports...)
}

func TestWhatTheKernelTells(t *testing.T) {
	ports := binary.BigEndian.AppendUint16([]byte{0x9c, 0x40}, 5432)
	for _, tt := range []struct {
		name, source, to string
		packet           []byte
	}{
		{"IPv4", "198.51.100.9", "203.0.113.1:5432", ipv4(0, 6, ports...)},
		{"IPv4 with options", "198.51.100.9", "203.0.113.1:5432", ipv4(8, 6, ports...)},
		{"IPv6", "2001:db8::9", "[2001:db8:2::1]:5432", ipv6(6, ports...)},
		{"no port", "198.51.100.9", "203.0.113.1:0", ipv4(0, 1, ports...)},
		{"cut off", "198.51.100.9", "203.0.113.1:0", ipv4(0, 6, ports[:3]...)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e, ok, err := parse(told(t, tt.packet), noon)
			require.NoError(t, err)
			require.True(t, ok)
			require.Equal(t, Event{Source: netip.MustParseAddr(tt.source), To: netip.MustParseAddrPort(tt.to), Why: "no rule", At: noon}, e)
		})
	}
	_, _, err := parse(told(t, []byte{0x45}), noon)
	require.ErrorIs(t, err, errMalformed)
}

func FuzzParse(f *testing.F) {
	f.Add([]byte{2, 0, 0, 0}, uint16(0))
	f.Fuzz(func(t *testing.T, data []byte, kind uint16) {
		e, ok, err := parse(netlink.Message{Header: netlink.Header{Type: messageType(int(kind % 2))}, Data: data}, noon)
		if ok && err == nil && !e.Source.IsValid() {
			t.Fatal("an event without a source")
		}
		_, _, _ = addresses(data)
	})
}

// TestTheMemoryIsBounded, whoever floods it: the latest stay.
func TestTheMemoryIsBounded(t *testing.T) {
	var m Memory
	require.Empty(t, m.Recent())
	event := func(i int) Event {
		return Event{Source: netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), To: netip.MustParseAddrPort("203.0.113.1:5432"), Why: "no rule", At: noon.Add(time.Duration(i) * time.Second)}
	}
	for i := range 1000 {
		m.Add("orders", event(i))
	}
	m.Add("orders", event(999))
	recent := m.Recent()
	require.Len(t, recent, maxSources)
	require.Equal(t, event(999).Source, recent[0].Source)
	require.EqualValues(t, 2, recent[0].Count)
	for i := range 2 * maxDatabases {
		m.Add(fmt.Sprint(i), event(i))
	}
	require.LessOrEqual(t, len(m.databases), maxDatabases)
}
