package cut

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/mdlayher/netlink"
	"github.com/stretchr/testify/require"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

func addrPort(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

var samples = []segment{
	{tuple: tuple{addrPort("198.51.100.10:40000"), addrPort("10.64.1.11:5432")}, flags: flagSYN},
	{tuple: tuple{addrPort("203.0.113.140:5432"), addrPort("198.51.100.10:40000")}, flags: flagRST | flagACK, seq: 0xfffffffe, ack: 0x01020304},
	{tuple: tuple{addrPort("[2001:db8::1]:40000"), addrPort("[fd00:64::11]:5432")}, flags: flagACK, seq: 7, ack: 9},
}

// Another implementation must read the same, and find the checksums right.
func TestSegmentsAreWellFormed(t *testing.T) {
	for _, s := range samples {
		b := s.marshal()
		first := layers.LayerTypeIPv6
		if s.src.Addr().Is4() {
			first = layers.LayerTypeIPv4
		}
		p := gopacket.NewPacket(b, first, gopacket.Default)
		require.Nil(t, p.ErrorLayer())
		tcp, ok := p.Layer(layers.LayerTypeTCP).(*layers.TCP)
		require.True(t, ok)
		require.Equal(t, []any{s.seq, s.ack, uint16(tcp.SrcPort), uint16(tcp.DstPort)}, []any{tcp.Seq, tcp.Ack, s.src.Port(), s.dst.Port()})
		require.Equal(t, []bool{s.flags&flagSYN != 0, s.flags&flagRST != 0, s.flags&flagACK != 0, false}, []bool{tcp.SYN, tcp.RST, tcp.ACK, tcp.FIN})
		require.NoError(t, tcp.SetNetworkLayerForChecksum(p.NetworkLayer()))
		wrong, mismatches := p.VerifyChecksums()
		require.NoError(t, wrong)
		require.Empty(t, mismatches)

		back, ok := unmarshalSegment(b)
		require.True(t, ok)
		require.Equal(t, s, back)
	}
}

func TestOnlyWholeTCPSegmentsAreRead(t *testing.T) {
	v4, v6 := samples[0].marshal(), samples[2].marshal()
	for name, change := range map[string]func() []byte{
		"nothing":         func() []byte { return nil },
		"cut off":         func() []byte { return v4[:39] },
		"cut off, IPv6":   func() []byte { return v6[:59] },
		"UDP":             func() []byte { b := append([]byte(nil), v4...); b[ipv4ProtocolAt] = unix.IPPROTO_UDP; return b },
		"a fragment":      func() []byte { b := append([]byte(nil), v4...); b[ipv4FragmentAt] = 0x20; return b },
		"IPv6 extension":  func() []byte { b := append([]byte(nil), v6...); b[ipv6NextAt] = unix.IPPROTO_HOPOPTS; return b },
		"header too long": func() []byte { b := append([]byte(nil), v4...); b[0] = 4<<4 | 15; return b },
		"length too small": func() []byte {
			b := append([]byte(nil), v4...)
			binary.BigEndian.PutUint16(b[ipv4TotalLenAt:], 21)
			return b
		},
	} {
		_, ok := unmarshalSegment(change())
		require.False(t, ok, name)
	}
}

func TestPayloadAndFINCount(t *testing.T) {
	b := samples[2].marshal()
	b = append(b, "abc"...)
	binary.BigEndian.PutUint16(b[ipv6PayloadAt:], tcpHeaderLen+3)
	b[ipv6HeaderLen+tcpFlagsAt] |= flagFIN
	s, ok := unmarshalSegment(b[:ipv6HeaderLen+tcpHeaderLen])
	require.True(t, ok)
	require.Equal(t, uint32(4), s.length)
}

func FuzzUnmarshalSegment(f *testing.F) {
	for _, s := range samples {
		f.Add(s.marshal())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, ok := unmarshalSegment(b); ok {
			require.True(t, s.src.IsValid() && s.dst.IsValid())
		}
	})
}

func FuzzUnmarshalTracking(f *testing.F) {
	want := tracking{
		family: unix.AF_INET, zone: 3, mark: 0x00f00000, id: []byte{1, 2, 3, 4}, state: stateEstablished,
		original: samples[0].tuple, reply: reverse(samples[0].tuple),
	}
	b, err := marshalTracking(want)
	require.NoError(f, err)
	f.Add(append([]byte{unix.AF_INET, 0, 0, 0}, b...))
	f.Fuzz(func(t *testing.T, b []byte) {
		tr, ok, err := unmarshalTracking(b)
		if err != nil || !ok {
			return
		}
		require.True(t, tr.original.complete() && tr.reply.complete())
		again, err := marshalTracking(tr)
		require.NoError(t, err)
		require.NotEmpty(t, again)
	})
}

func FuzzUnmarshalSocket(f *testing.F) {
	m := diagMessage(sockDiagByFamily, 0, unix.AF_INET6, tcpStates, [diagIDLen]byte{1, 2, 3})
	f.Add(append(m.Data, make([]byte, diagMessageLen-len(m.Data))...))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := unmarshalSocket(b)
		if err == nil {
			require.True(t, s.local.IsValid() && s.remote.IsValid())
		}
	})
}

func TestTrackingEntriesReadBack(t *testing.T) {
	ae := netlink.NewAttributeEncoder()
	ae.ByteOrder = binary.BigEndian
	ae.Nested(attrOriginal, func(ae *netlink.AttributeEncoder) error { return marshalTuple(ae, samples[2].tuple) })
	ae.Nested(attrReply, func(ae *netlink.AttributeEncoder) error { return marshalTuple(ae, reverse(samples[2].tuple)) })
	ae.Nested(attrProtoInfo, func(ae *netlink.AttributeEncoder) error {
		ae.Nested(protoInfoTCP, func(ae *netlink.AttributeEncoder) error { ae.Uint8(tcpState, stateCloseWait); return nil })
		return nil
	})
	ae.Uint32(attrMark, 0x00700000)
	ae.Uint16(attrZone, 9)
	b, err := ae.Encode()
	require.NoError(t, err)
	got, ok, err := unmarshalTracking(append([]byte{unix.AF_INET6, 0, 0, 0}, b...))
	require.NoError(t, err)
	require.True(t, ok)
	require.Equal(t, tracking{family: unix.AF_INET6, original: samples[2].tuple, reply: reverse(samples[2].tuple), mark: 0x00700000, zone: 9, state: stateCloseWait}, got)
	require.True(t, got.open())
	require.False(t, tracking{state: 7}.open(), "TIME_WAIT")
	require.False(t, tracking{}.open())
}

// An entry that began with a packet of the server has its directions exchanged. The socket tells which end is which.
func TestReversedEntriesDoNotTurnTheConnection(t *testing.T) {
	s := socket{local: addrPort("10.0.0.1:5432"), remote: addrPort("10.0.0.9:40000")}
	for name, t2 := range map[string]tracking{
		"forward":  {original: tuple{s.remote, s.local}, reply: tuple{s.local, s.remote}, mark: 5},
		"reversed": {original: tuple{s.local, s.remote}, reply: tuple{s.remote, s.local}, mark: 5},
	} {
		entries := fromSockets([]socket{s})
		e := entries[s.atServer()]
		e.track(&t2)
		require.Equal(t, Connection{Client: s.remote, Endpoint: s.local, Server: s.local, Tracked: true, Mark: 5, Local: true}, e.Connection, name)
	}
}

func TestTranslatedConnectionsAreMatchedWithTheirSockets(t *testing.T) {
	s := socket{local: addrPort("10.0.0.1:5432"), remote: addrPort("10.0.0.9:40000")}
	entries := fromSockets([]socket{s})
	fromTracking(entries, []tracking{{original: tuple{s.remote, addrPort("203.0.113.1:15432")}, reply: tuple{s.local, s.remote}}})
	require.Len(t, entries, 1)
	e := entries[s.atServer()]
	require.Equal(t, addrPort("203.0.113.1:15432"), e.Endpoint)
	require.Equal(t, s.local, e.Server)
	require.NotNil(t, e.socket)
}

// peer answers segments like two TCP stacks, each at its own place.
type peer struct {
	t                          *testing.T
	serverNext, clientNext     uint32 // what each sends next
	serverExpects, clientWants uint32 // what each takes next
	answers                    []segment
	serverGone, clientGone     bool
	deaf                       int // how many SYNs get lost
	wayToServer, wayToClient   tuple
	syns                       int
}

func (p *peer) send(s segment) error {
	switch {
	case s.tuple == p.wayToServer && s.flags == flagSYN:
		p.syns++
		if p.syns > p.deaf {
			p.answers = append(p.answers, segment{tuple: reverse(p.wayToServer), flags: flagACK, seq: p.serverNext, ack: p.serverExpects})
		}
	case s.tuple == p.wayToServer && s.flags&flagRST != 0:
		p.serverGone = p.serverGone || s.seq == p.serverExpects
	case s.tuple == p.wayToClient && s.flags&flagRST != 0:
		if s.seq == p.clientWants {
			p.clientGone = true
		} else { // RFC 5961 section 3.2
			p.answers = append(p.answers, segment{tuple: reverse(p.wayToClient), flags: flagACK, seq: p.clientNext, ack: p.clientWants})
		}
	default:
		p.t.Fatalf("unexpected segment %+v", s)
	}
	return nil
}

func (p *peer) receive(time.Time) (segment, bool, error) {
	if len(p.answers) == 0 {
		return segment{}, false, nil
	}
	s := p.answers[0]
	p.answers = p.answers[1:]
	return s, true, nil
}

func TestBothHalvesAreResetAtTheirOwnPlaces(t *testing.T) {
	e := &entry{Connection: Connection{Client: addrPort("198.51.100.10:40000"), Endpoint: addrPort("203.0.113.140:5432"), Server: addrPort("10.64.1.11:5432")}}
	for name, deaf := range map[string]int{"at once": 0, "after a loss": 2} {
		p := &peer{t: t, serverNext: 1000, serverExpects: 2000, clientNext: 2000, clientWants: 1000, deaf: deaf}
		one := newReset(e)
		p.wayToServer, p.wayToClient = one.server, one.client
		all, err := resetAll(t.Context(), p, []*entry{e}, time.Now().Add(time.Minute))
		require.NoError(t, err, name)
		require.True(t, all[0].done, name)
		require.True(t, p.serverGone, name)
		require.True(t, p.clientGone, name)
		require.Equal(t, deaf+1, p.syns, name)
	}
}

// crowded is a wire whose queue is full for the first segments.
type crowded struct {
	*peer
	full int
}

func (c *crowded) send(s segment) error {
	if c.full > 0 {
		c.full--
		return fmt.Errorf("send: %w", errCongested)
	}
	return c.peer.send(s)
}

// TestAFullQueueIsALoss: whether the challenge or the server's reset finds no room, the server is asked again.
func TestAFullQueueIsALoss(t *testing.T) {
	e := &entry{Connection: Connection{Client: addrPort("198.51.100.10:40000"), Endpoint: addrPort("203.0.113.140:5432"), Server: addrPort("10.64.1.11:5432")}}
	one := newReset(e)
	p := &peer{t: t, serverNext: 1000, serverExpects: 2000, clientNext: 2000, clientWants: 1000, wayToServer: one.server, wayToClient: one.client}
	all, err := resetAll(t.Context(), &crowded{peer: p, full: 1}, []*entry{e}, time.Now().Add(time.Minute))
	require.NoError(t, err)
	require.True(t, all[0].done && p.serverGone && p.clientGone)

	p.serverGone, p.clientGone = false, false
	r := resets{on: &crowded{peer: p, full: 1}, byAnswer: map[tuple]*reset{reverse(one.server): one}, open: 1}
	stands := segment{tuple: reverse(one.server), flags: flagACK, seq: p.serverNext, ack: p.serverExpects}
	require.NoError(t, r.answer(stands))
	require.False(t, one.done || p.serverGone)
	require.NoError(t, r.answer(stands))
	require.True(t, one.done && p.serverGone && p.clientGone)
}

// Bytes of the server are on the way when it is asked: the client expects an earlier place, says so, and is believed.
func TestAClientThatIsBehindIsResetWhereItIs(t *testing.T) {
	e := &entry{Connection: Connection{Client: addrPort("198.51.100.10:40000"), Endpoint: addrPort("203.0.113.140:5432"), Server: addrPort("10.64.1.11:5432")}}
	p := &peer{t: t, serverNext: 1000, serverExpects: 2000, clientNext: 2000, clientWants: 900}
	r := resets{on: p, byAnswer: map[tuple]*reset{}, open: 1}
	one := newReset(e)
	p.wayToServer, p.wayToClient = one.server, one.client
	r.byAnswer[reverse(one.server)], r.byAnswer[reverse(one.client)] = one, one
	require.NoError(t, r.challenge([]*reset{one}))
	for len(p.answers) > 0 {
		s, _, _ := p.receive(time.Time{})
		require.NoError(t, r.answer(s))
	}
	require.True(t, p.serverGone)
	require.True(t, p.clientGone)
	require.NoError(t, r.answer(segment{tuple: tuple{one.server.src, one.server.dst}}), "somebody else's segment")
}

// The filter in the kernel and the parser behind it must agree on what is asked for.
func TestTheFilterTakesAcknowledgementsOnly(t *testing.T) {
	vm, err := bpf.NewVM(withoutExtensions(acknowledgements(), 4))
	require.NoError(t, err)
	vm6, err := bpf.NewVM(withoutExtensions(acknowledgements(), 11))
	require.NoError(t, err)
	for flags, want := range map[uint8]bool{flagACK: true, flagACK | flagFIN: true, flagSYN: false, flagSYN | flagACK: false, flagRST | flagACK: false, flagFIN: false, 0: false} {
		for i, vm := range map[int]*bpf.VM{0: vm, 2: vm6} {
			s := samples[i]
			s.flags = flags
			n, err := vm.Run(s.marshal())
			require.NoError(t, err)
			require.Equal(t, want, n > 0, "flags %#x of %v", flags, s.src)
		}
	}
	b := samples[0].marshal()
	b[ipv4ProtocolAt] = unix.IPPROTO_UDP
	n, err := vm.Run(b)
	require.NoError(t, err)
	require.Zero(t, n)
}

// withoutExtensions starts the filter behind the questions for the packet's direction and protocol, which the VM cannot
// answer. Jumps are relative, so that the rest stays as it is.
func withoutExtensions(p []bpf.Instruction, from int) []bpf.Instruction { return p[from:] }
