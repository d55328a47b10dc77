package trouble

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"drawbridge/topology/flow"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/stretchr/testify/require"
)

// TestAccidentsHappenToOnePacket sends five packets each way and looks at what arrives.
func TestAccidentsHappenToOnePacket(t *testing.T) {
	for _, c := range []struct {
		name string
		c    Case
		up   []int // what arrives of the client's
	}{
		{"none", Case{}, []int{1, 2, 3, 4, 5}},
		{"lost", Case{Way: Up, Packet: 2, Accident: Lost}, []int{1, 3, 4, 5}},
		{"repeated", Case{Way: Up, Packet: 5, Accident: Repeated}, []int{1, 2, 3, 4, 5, 5}},
		{"swapped", Case{Way: Up, Packet: 1, Accident: Swapped}, []int{2, 1, 3, 4, 5}},
		{"swapped with none", Case{Way: Up, Packet: 5, Accident: Swapped}, []int{1, 2, 3, 4, 5}},
		{"the other way", Case{Way: Down, Packet: 2, Accident: Lost}, []int{1, 2, 3, 4, 5}},
		{"late", Case{Delay: time.Second}, []int{1, 2, 3, 4, 5}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &conversation{c: c.c}
				var up []int
				began := time.Now()
				for n := 1; n <= 5; n++ {
					f.pass(Up, func() { up = append(up, n) })
					f.pass(Down, func() {})
				}
				arrived := func() []int {
					f.mu.Lock()
					defer f.mu.Unlock()
					return slices.Clone(up)
				}
				require.Empty(t, arrived(), "everything takes its time")
				for len(arrived()) < len(c.up) && time.Since(began) < time.Minute {
					<-time.After(distance)
					synctest.Wait()
				}
				require.Equal(t, c.up, arrived())
				require.Equal(t, c.c.Accident != 0, f.happened())
			})
		})
	}
}

// TestChecksums computes what another implementation computes.
func TestChecksums(t *testing.T) {
	for _, ends := range [][2]netip.Addr{
		{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")},
		{netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")},
	} {
		for _, payload := range []string{"", "odd", "even"} {
			want := datagram(t, ends[0], ends[1], payload)
			got := append([]byte(nil), want...)
			tcp, ok := transport(got)
			require.True(t, ok)
			binary.BigEndian.PutUint16(tcp[16:], 0xdead)
			checksum(got)
			require.Equal(t, want, got)
		}
	}
}

func datagram(t *testing.T, src, dst netip.Addr, payload string) []byte {
	t.Helper()
	tcp := &layers.TCP{SrcPort: 1000, DstPort: 2000, Seq: 7, ACK: true}
	var ip gopacket.SerializableLayer
	var network gopacket.NetworkLayer
	if src.Is4() {
		l := &layers.IPv4{Version: 4, IHL: 5, TTL: 64, Protocol: layers.IPProtocol(flow.TCP), SrcIP: src.AsSlice(), DstIP: dst.AsSlice()}
		ip, network = l, l
	} else {
		l := &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: layers.IPProtocol(flow.TCP), SrcIP: src.AsSlice(), DstIP: dst.AsSlice()}
		ip, network = l, l
	}
	require.NoError(t, tcp.SetNetworkLayerForChecksum(network))
	buf := gopacket.NewSerializeBuffer()
	sums := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	require.NoError(t, gopacket.SerializeLayers(buf, sums, ip, tcp, gopacket.Payload(payload)))
	return append([]byte(nil), buf.Bytes()...)
}
