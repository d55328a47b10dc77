package capture

import (
	"bytes"
	"io"
	"net"
	"net/netip"
	"testing"

	"drawbridge/sim/link"
	"drawbridge/sim/netns"
	"drawbridge/sim/netns/netnstest"
	"drawbridge/topology/flow"

	"github.com/gopacket/gopacket/pcapgo"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

var (
	addrA, addrZ = netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("198.51.100.1")
	macA, macZ   = net.HardwareAddr{2, 0, 0, 0, 0, 1}, net.HardwareAddr{2, 0, 0, 0, 0, 2}
)

func pair(t *testing.T) (a, z *netns.Handle) {
	t.Helper()
	a, z = netnstest.New(t), netnstest.New(t)
	run := func(h *netns.Handle, fill func(b *link.Batch)) {
		c, err := link.Open(h)
		require.NoError(t, err)
		defer c.Close()
		var b link.Batch
		fill(&b)
		require.NoError(t, c.Run(&b))
	}
	end := func(own netip.Addr, peer net.HardwareAddr) func(b *link.Batch) {
		return func(b *link.Batch) {
			b.Up(2)
			b.Address(2, own)
			b.Neighbours(2, peer)
			b.Route(netip.MustParsePrefix("0.0.0.0/0"), 2)
		}
	}
	run(a, func(b *link.Batch) {
		b.Veth(link.Device{Namespace: a.Fd(), Name: "eth0", Index: 2, MAC: macA}, link.Device{Namespace: z.Fd(), Name: "eth0", Index: 2, MAC: macZ})
	})
	run(a, end(addrA, macZ))
	run(z, end(addrZ, macA))
	return a, z
}

func TestConnectionIsSeenWholeAndInOrder(t *testing.T) {
	a, z := pair(t)
	tap, err := Open(z)
	require.NoError(t, err)
	l, err := z.Listen(t.Context(), netip.AddrPortFrom(addrZ, 5432))
	require.NoError(t, err)
	defer l.Close()
	packets, cancel := tap.Subscribe(func(p Packet) bool { return p.Flow.Proto == flow.TCP })
	defer cancel()

	c, err := a.Dial(t.Context(), netip.AddrPortFrom(addrA, 20000), netip.AddrPortFrom(addrZ, 5432))
	require.NoError(t, err)
	s, err := l.Accept()
	require.NoError(t, err)
	_, err = io.WriteString(c, "a marker")
	require.NoError(t, err)
	_, err = io.ReadFull(s, make([]byte, 8))
	require.NoError(t, err)
	require.NoError(t, c.Close())
	require.NoError(t, s.Close())

	there := flow.Flow{Proto: flow.TCP, Src: netip.AddrPortFrom(addrA, 20000), Dst: netip.AddrPortFrom(addrZ, 5432)}
	syn, synAck, ack, data := <-packets, <-packets, <-packets, <-packets
	require.Equal(t, there, syn.Flow)
	require.Equal(t, SYN, syn.Flags)
	require.False(t, syn.Outgoing)
	require.Equal(t, "eth0", syn.Iface)
	require.Equal(t, there.Reverse(), synAck.Flow)
	require.True(t, synAck.Outgoing)
	require.Equal(t, syn.Seq+1, synAck.Ack)
	require.Equal(t, ACK, ack.Flags)
	require.Equal(t, "a marker", string(data.Payload))
	require.False(t, data.At.Before(syn.At))
	require.NoError(t, tap.Close())
	require.NoError(t, tap.Close(), "closing twice")
	for range packets { // what was captured before Close comes, then the channel is closed
	}
}

func TestSegmentsAreThoseOfTheWire(t *testing.T) {
	a, z := pair(t)
	tap, err := Open(z, "eth0")
	require.NoError(t, err)
	l, err := z.Listen(t.Context(), netip.AddrPortFrom(addrZ, 5432))
	require.NoError(t, err)
	defer l.Close()
	incoming, cancel := tap.Subscribe(func(p Packet) bool { return !p.Outgoing })
	defer cancel()
	c, err := a.Dial(t.Context(), netip.AddrPort{}, netip.AddrPortFrom(addrZ, 5432))
	require.NoError(t, err)
	s, err := l.Accept()
	require.NoError(t, err)
	const size = 500_000
	go func() {
		_, _ = c.Write(make([]byte, size))
		_ = c.Close()
	}()
	n, err := io.Copy(io.Discard, s)
	require.NoError(t, err)
	require.EqualValues(t, size, n)
	require.NoError(t, s.Close())
	require.NoError(t, tap.Close(), "nothing may be lost")
	total := 0
	for p := range incoming {
		require.False(t, p.Truncated())
		total += len(p.Payload)
	}
	require.GreaterOrEqual(t, total, size)
}

func TestOverflowIsAnError(t *testing.T) {
	a, z := pair(t)
	tap, err := Open(z)
	require.NoError(t, err)
	out, err := a.ListenPacket(t.Context(), netip.AddrPortFrom(addrA, 20000))
	require.NoError(t, err)
	defer out.Close()
	blocked := make(chan struct{})
	first := make(chan struct{}, 1)
	_, cancel := tap.Subscribe(func(Packet) bool {
		select {
		case first <- struct{}{}:
			<-blocked
		default:
		}
		return false
	})
	defer cancel()
	for range tap.ring.frames + 10 {
		_, err := out.WriteToUDPAddrPort([]byte("x"), netip.AddrPortFrom(addrZ, 53))
		require.NoError(t, err)
	}
	require.ErrorIs(t, errAfter(tap, blocked), ErrOverflow)
}

func errAfter(tap *Tap, blocked chan struct{}) error {
	close(blocked)
	return tap.Close()
}

func TestCancelEndsASubscriptionOnly(t *testing.T) {
	a, z := pair(t)
	tap, err := Open(z)
	require.NoError(t, err)
	forgotten, cancel := tap.Subscribe(nil)
	kept, cancelKept := tap.Subscribe(nil)
	defer cancelKept()
	cancel()
	cancel()
	for range forgotten {
	}
	_, err = a.Dial(t.Context(), netip.AddrPort{}, netip.AddrPortFrom(addrZ, 9))
	require.Error(t, err)
	require.Equal(t, SYN, (<-kept).Flags)
	require.True(t, (<-kept).Flags.Has(RST))
	require.NoError(t, tap.Close())
	after, cancelAfter := tap.Subscribe(nil)
	defer cancelAfter()
	for range after {
		t.Fatal("a closed tap has no packets")
	}
}

func TestOpenNamesAMissingInterface(t *testing.T) {
	_, err := Open(netnstest.New(t), "inet0")
	require.ErrorContains(t, err, "inet0")
}

func TestWriterIsReadableByOthers(t *testing.T) {
	frame := make([]byte, 60)
	var out bytes.Buffer
	w := NewWriter(&out)
	require.NoError(t, w.Flush())
	for i, node := range []string{"gw", "host", "gw"} {
		frame[0] = byte(i)
		require.NoError(t, w.Write(node, Packet{Iface: "inet0", Raw: frame, Length: 70}))
	}
	require.NoError(t, w.Flush())
	r, err := pcapgo.NewNgReader(&out, pcapgo.DefaultNgReaderOptions)
	require.NoError(t, err)
	for i, want := range []string{"gw/inet0", "host/inet0", "gw/inet0"} {
		data, ci, err := r.ReadPacketData()
		require.NoError(t, err)
		require.Equal(t, byte(i), data[0])
		require.Equal(t, 70, ci.Length)
		intf, err := r.Interface(ci.InterfaceIndex)
		require.NoError(t, err)
		require.Equal(t, want, intf.Name)
	}
}

func TestRingConstants(t *testing.T) {
	require.Zero(t, blockSize%unix.Getpagesize())
}
