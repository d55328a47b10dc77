package capture

import (
	"net"
	"net/netip"
	"testing"

	"drawbridge/topology/flow"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/stretchr/testify/require"
)

var (
	ethernet4 = &layers.Ethernet{
		SrcMAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}, DstMAC: net.HardwareAddr{2, 0, 0, 0, 0, 2}, EthernetType: layers.EthernetTypeIPv4,
	}
	ethernet6 = &layers.Ethernet{SrcMAC: ethernet4.SrcMAC, DstMAC: ethernet4.DstMAC, EthernetType: layers.EthernetTypeIPv6}
)

func ip4(proto layers.IPProtocol) *layers.IPv4 {
	return &layers.IPv4{Version: 4, TTL: 64, Protocol: proto, SrcIP: net.IPv4(192, 0, 2, 1).To4(), DstIP: net.IPv4(198, 51, 100, 2).To4()}
}

func ip6(next layers.IPProtocol) *layers.IPv6 {
	return &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: next, SrcIP: net.ParseIP("2001:db8::1"), DstIP: net.ParseIP("2001:db8::2")}
}

func frameOf(t testing.TB, stack ...gopacket.SerializableLayer) []byte {
	t.Helper()
	b := gopacket.NewSerializeBuffer()
	require.NoError(t, gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true}, stack...))
	return b.Bytes()
}

func mustFlow(proto flow.Protocol, src, dst string) flow.Flow {
	return flow.Flow{Proto: proto, Src: netip.MustParseAddrPort(src), Dst: netip.MustParseAddrPort(dst)}
}

func TestDecode(t *testing.T) {
	tcp := &layers.TCP{SrcPort: 40000, DstPort: 5432, Seq: 7, Ack: 9, SYN: true, ACK: true, DataOffset: 5,
		Options: []layers.TCPOption{{OptionType: layers.TCPOptionKindMSS, OptionLength: 4, OptionData: []byte{5, 180}}}}
	udp := &layers.UDP{SrcPort: 40000, DstPort: 53}
	sctp := append([]byte{0x9c, 0x40, 0x15, 0x38, 0, 0, 0, 0, 0, 0, 0, 0}, "chunk"...)
	payload := gopacket.Payload("payload")
	quoted := frameOf(t, ip4(layers.IPProtocolTCP), tcp)[:28] // RFC 792: the header and 64 bits
	v4, v6 := [2]string{"192.0.2.1:", "198.51.100.2:"}, [2]string{"[2001:db8::1]:", "[2001:db8::2]:"}
	tests := map[string]struct {
		frame []byte
		want  Packet
	}{
		"tcp over v4": {frameOf(t, ethernet4, ip4(layers.IPProtocolTCP), tcp, payload),
			Packet{Flow: mustFlow(flow.TCP, v4[0]+"40000", v4[1]+"5432"), Flags: SYN | ACK, Seq: 7, Ack: 9, Payload: payload}},
		"tcp over v6": {frameOf(t, ethernet6, ip6(layers.IPProtocolTCP), tcp, payload),
			Packet{Flow: mustFlow(flow.TCP, v6[0]+"40000", v6[1]+"5432"), Flags: SYN | ACK, Seq: 7, Ack: 9, Payload: payload}},
		"udp over v4": {frameOf(t, ethernet4, ip4(layers.IPProtocolUDP), udp, payload),
			Packet{Flow: mustFlow(flow.UDP, v4[0]+"40000", v4[1]+"53"), Payload: payload}},
		"ethernet padding": {append(frameOf(t, ethernet4, ip4(layers.IPProtocolUDP), udp), make([]byte, 20)...),
			Packet{Flow: mustFlow(flow.UDP, v4[0]+"40000", v4[1]+"53"), Payload: []byte{}}},
		"sctp over v6": {frameOf(t, ethernet6, ip6(layers.IPProtocolSCTP), gopacket.Payload(sctp)),
			Packet{Flow: mustFlow(flow.SCTP, v6[0]+"40000", v6[1]+"5432"), Payload: []byte("chunk")}},
		"echo": {frameOf(t, ethernet4, ip4(layers.IPProtocolICMPv4), &layers.ICMPv4{TypeCode: 8 << 8, Id: 5, Seq: 6}),
			Packet{Flow: mustFlow(flow.ICMP, v4[0]+"0", v4[1]+"0"), ICMP: ICMP{Type: 8, ID: 5, Seq: 6}, Payload: []byte{}}},
		"unreachable": {frameOf(t, ethernet4, ip4(layers.IPProtocolICMPv4), &layers.ICMPv4{TypeCode: 3<<8 | 3}, gopacket.Payload(quoted)),
			Packet{Flow: mustFlow(flow.ICMP, v4[0]+"0", v4[1]+"0"), Payload: quoted,
				ICMP: ICMP{Type: 3, Code: 3, Quoted: mustFlow(flow.TCP, v4[0]+"40000", v4[1]+"5432")}}},
		"echo v6": {frameOf(t, ethernet6, ip6(layers.IPProtocolICMPv6), gopacket.Payload{128, 0, 0, 0, 0, 5, 0, 6}),
			Packet{Flow: mustFlow(flow.ICMPv6, v6[0]+"0", v6[1]+"0"), ICMP: ICMP{Type: 128, ID: 5, Seq: 6}, Payload: []byte{}}},
		"first fragment v6": {frameOf(t, ethernet6, ip6(layers.IPProtocolIPv6Fragment),
			gopacket.Payload(append([]byte{17, 0, 0, 1, 0, 0, 0, 9, 0x9c, 0x40, 0, 53, 0, 8, 0, 0}, "x"...))),
			Packet{Flow: mustFlow(flow.UDP, v6[0]+"40000", v6[1]+"53"), Payload: []byte("x")}},
		"later fragment v6": {frameOf(t, ethernet6, ip6(layers.IPProtocolIPv6Fragment), gopacket.Payload{17, 0, 0, 8, 0, 0, 0, 9, 1, 2}),
			Packet{Flow: mustFlow(flow.UDP, v6[0]+"0", v6[1]+"0"), Fragment: true, Payload: []byte{1, 2}}},
		"destination options": {frameOf(t, ethernet6, ip6(layers.IPProtocolIPv6Destination),
			gopacket.Payload{17, 0, 1, 4, 0, 0, 0, 0, 0x9c, 0x40, 0, 53, 0, 8, 0, 0}),
			Packet{Flow: mustFlow(flow.UDP, v6[0]+"40000", v6[1]+"53"), Payload: []byte{}}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := Decode(tt.frame)
			require.NoError(t, err)
			tt.want.Raw, tt.want.Length = tt.frame, len(tt.frame)
			require.Equal(t, string(tt.want.Payload), string(got.Payload))
			got.Payload, tt.want.Payload = nil, nil
			require.Equal(t, tt.want, got)
		})
	}
}

func TestDecodeRefusesWhatIsNoIP(t *testing.T) {
	for name, b := range map[string][]byte{
		"empty":     nil,
		"arp":       frameOf(t, &layers.Ethernet{SrcMAC: ethernet4.SrcMAC, DstMAC: ethernet4.DstMAC, EthernetType: layers.EthernetTypeARP}),
		"cut short": frameOf(t, ethernet4, ip4(layers.IPProtocolTCP))[:30],
		"version 5": append(make([]byte, 12), append([]byte{8, 0, 0x50}, make([]byte, 60)...)...),
	} {
		_, err := Decode(b)
		require.ErrorIs(t, err, errNotIP, name)
	}
}

func TestFlags(t *testing.T) {
	require.True(t, (SYN | ACK).Has(SYN))
	require.False(t, SYN.Has(SYN|ACK))
	require.Equal(t, "syn,ack", (SYN | ACK).String())
}

// Whatever gopacket makes of well-formed packets, decode must make of them too.
func FuzzDecode(f *testing.F) {
	f.Add(frameOf(f, ethernet4, ip4(layers.IPProtocolTCP), &layers.TCP{SrcPort: 1, DstPort: 2, SYN: true}, gopacket.Payload("x")))
	f.Add(frameOf(f, ethernet6, ip6(layers.IPProtocolUDP), &layers.UDP{SrcPort: 1, DstPort: 2}, gopacket.Payload("x")))
	f.Add(frameOf(f, ethernet4, ip4(layers.IPProtocolICMPv4), &layers.ICMPv4{TypeCode: 3 << 8}, gopacket.Payload("x")))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := Decode(b)
		if err != nil {
			return
		}
		other := gopacket.NewPacket(b, layers.LayerTypeEthernet, gopacket.NoCopy)
		if other.ErrorLayer() != nil || other.Metadata().Truncated {
			return
		}
		tcp, isTCP := other.TransportLayer().(*layers.TCP)
		if isTCP && p.Flow.Proto == flow.TCP && !p.Fragment {
			require.Equal(t, uint16(tcp.SrcPort), p.Flow.Src.Port())
			require.Equal(t, tcp.Seq, p.Seq)
			require.Equal(t, string(tcp.Payload), string(p.Payload))
		}
	})
}
