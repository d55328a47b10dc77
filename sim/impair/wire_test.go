package impair_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"io"
	"math"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"drawbridge/sim/impair"
	"drawbridge/sim/link"
	"drawbridge/sim/netns"
	"drawbridge/sim/netns/netnstest"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

// cable is a link between two nodes, of which a is the end at which wires are laid.
type cable struct {
	a, z, yard *netns.Handle
	end        impair.End
}

const ifindex = 7

var (
	macA   = net.HardwareAddr{2, 0xdb, 0, 0, 0, 1}
	macZ   = net.HardwareAddr{2, 0xdb, 0, 0, 0, 2}
	addrs4 = [2]netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("198.51.100.1")}
	addrs6 = [2]netip.Addr{netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8:1::1")}
)

func newCable(t testing.TB) cable {
	c := cable{a: netnstest.New(t), z: netnstest.New(t), yard: netnstest.New(t)}
	c.end = impair.End{Node: c.a, Name: "toz", Index: ifindex, MAC: macA}
	configure(t, c.a, func(b *link.Batch) {
		b.Veth(link.Device{Namespace: c.a.Fd(), Name: "toz", Index: ifindex, MAC: macA}, link.Device{Namespace: c.z.Fd(), Name: "toa", Index: ifindex, MAC: macZ})
	})
	for i, h := range []*netns.Handle{c.a, c.z} {
		configure(t, h, func(b *link.Batch) {
			b.WithoutLinkLocal(ifindex)
			b.Up(ifindex)
			b.Neighbours(ifindex, []net.HardwareAddr{macZ, macA}[i])
			for _, addrs := range [][2]netip.Addr{addrs4, addrs6} {
				b.Address(ifindex, addrs[i])
				b.Route(netip.PrefixFrom(addrs[1-i], addrs[1-i].BitLen()), ifindex)
			}
		})
	}
	for _, h := range []*netns.Handle{c.a, c.z} {
		configure(t, h, func(b *link.Batch) { b.Settle(ifindex) })
	}
	return c
}

func configure(t testing.TB, h *netns.Handle, fill func(*link.Batch)) {
	t.Helper()
	c, err := link.Open(h)
	require.NoError(t, err)
	defer c.Close()
	var b link.Batch
	fill(&b)
	require.NoError(t, c.Run(&b))
}

func (c cable) lay(t testing.TB, i impair.Impairment, lost func(impair.Loss)) *impair.Wire {
	t.Helper()
	w, err := impair.Lay(c.yard, c.end, 1, i, lost)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, w.Close()) })
	return w
}

// handshake measures how long a connection from the hooked end to the other takes, and closes it.
func (c cable) handshake(t testing.TB, l net.Listener) time.Duration {
	t.Helper()
	began := time.Now()
	conn, err := c.a.Dial(t.Context(), netip.AddrPort{}, l.Addr().(*net.TCPAddr).AddrPort())
	took := time.Since(began)
	require.NoError(t, err)
	require.NoError(t, conn.Close())
	return took
}

func listen(t testing.TB, h *netns.Handle, at netip.Addr) net.Listener {
	t.Helper()
	l, err := h.Listen(t.Context(), netip.AddrPortFrom(at, 0))
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func TestAHandshakeTakesADelayEachWayAndNoneAfterwards(t *testing.T) {
	netnstest.NoLeaks(t)
	c := newCable(t)
	const delay, tolerance = 20 * time.Millisecond, 2 * time.Millisecond // for both ways together
	for name, at := range map[string]netip.Addr{"IPv4": addrs4[1], "IPv6": addrs6[1]} {
		l := listen(t, c.z, at)
		w, err := impair.Lay(c.yard, c.end, 1, impair.Impairment{Delay: delay}, nil)
		require.NoError(t, err)
		var all []time.Duration
		for range 15 {
			took := c.handshake(t, l)
			require.GreaterOrEqual(t, took, 2*delay, name)
			all = append(all, took)
		}
		slices.Sort(all)
		require.InDelta(t, 2*delay, all[0], float64(tolerance), name) // a busy machine adds to the others
		t.Logf("%s: handshake of %s at least, %s in the middle, %s at most", name, all[0], all[len(all)/2], all[len(all)-1])
		require.NoError(t, w.Err())
		require.NoError(t, w.Close())
		require.Less(t, min(c.handshake(t, l), c.handshake(t, l), c.handshake(t, l)), delay, name)
	}
}

func TestTheNodeIsAsItWasAfterwards(t *testing.T) {
	netnstest.NoLeaks(t)
	c := newCable(t)
	look := func() (links, qdiscs int, routes []string) {
		require.NoError(t, c.a.Do(func() error {
			ls, err := netlink.LinkList()
			require.NoError(t, err)
			qs, err := netlink.QdiscList(nil)
			require.NoError(t, err)
			rs, err := netlink.RouteList(nil, netlink.FAMILY_ALL)
			require.NoError(t, err)
			for _, r := range rs {
				routes = append(routes, r.String())
			}
			links, qdiscs = len(ls), len(qs)
			return nil
		}))
		return links, qdiscs, routes
	}
	links, qdiscs, routes := look()
	w, err := impair.Lay(c.yard, c.end, 1, impair.Impairment{Delay: time.Millisecond}, nil)
	require.NoError(t, err)
	_, _, during := look()
	require.Equal(t, routes, during)
	require.NoError(t, w.Close())
	require.NoError(t, w.Close(), "a second time")
	linksAfter, qdiscsAfter, routesAfter := look()
	require.Equal(t, links, linksAfter)
	require.Equal(t, qdiscs, qdiscsAfter)
	require.Equal(t, routes, routesAfter)
}

func TestBytesArriveWhole(t *testing.T) {
	c := newCable(t)
	sent := make([]byte, 4<<20)
	_, _ = rand.Read(sent)
	for name, i := range map[string]impair.Impairment{
		"no delay": {}, "delay": {Delay: time.Millisecond}, "loss": {Loss: 0.01, Seed: 3}, "reordering": {Delay: time.Millisecond, Reorder: 0.05, Seed: 3},
	} {
		t.Run(name, func(t *testing.T) {
			w := c.lay(t, i, nil)
			l := listen(t, c.z, addrs4[1])
			conn, err := c.a.Dial(t.Context(), netip.AddrPort{}, l.Addr().(*net.TCPAddr).AddrPort())
			require.NoError(t, err)
			other, err := l.Accept()
			require.NoError(t, err)
			go func() { _, _ = conn.Write(sent); _ = conn.Close() }()
			began := time.Now()
			got, err := io.ReadAll(other)
			require.NoError(t, err)
			require.True(t, bytes.Equal(sent, got))
			t.Logf("%.0f Mbit/s", float64(len(sent))*8/1e6/time.Since(began).Seconds())
			require.NoError(t, other.Close())
			require.NoError(t, w.Err())
		})
	}
}

// datagrams sends numbered datagrams one way and returns those that arrive, until a last one has that is sent after the wire is gone.
func (c cable) datagrams(t *testing.T, n int, i impair.Impairment, lost func(impair.Loss)) (got []uint32, w *impair.Wire) {
	t.Helper()
	w, err := impair.Lay(c.yard, c.end, 1, i, lost)
	require.NoError(t, err)
	from, err := c.z.ListenPacket(t.Context(), netip.AddrPortFrom(addrs4[1], 0))
	require.NoError(t, err)
	defer from.Close()
	to, err := c.a.ListenPacket(t.Context(), netip.AddrPortFrom(addrs4[0], 0))
	require.NoError(t, err)
	defer to.Close()
	require.NoError(t, to.SetReadDeadline(time.Now().Add(30*time.Second)))
	send := func(k int) {
		_, err := from.WriteToUDPAddrPort(binary.BigEndian.AppendUint32(nil, uint32(k)), to.LocalAddr().(*net.UDPAddr).AddrPort())
		require.NoError(t, err)
	}
	receive := func() uint32 {
		var b [4]byte
		_, err := to.Read(b[:])
		require.NoError(t, err)
		return binary.BigEndian.Uint32(b[:])
	}
	const ahead = 32 // what fits into the receiver's buffer
	for k := 0; k < n; k += ahead {
		for j := range ahead {
			send(k + j)
		}
		for _, in := w.Counts(); in.Carried+in.Lost < uint64(k+ahead); _, in = w.Counts() {
			if uint64(len(got)) < in.Carried {
				got = append(got, receive())
			}
		}
		for _, in := w.Counts(); uint64(len(got)) < in.Carried; {
			got = append(got, receive())
		}
	}
	require.NoError(t, w.Err())
	require.NoError(t, w.Close())
	return got, w
}

func TestWhatIsLostIsWithinBoundsAndRepeatable(t *testing.T) {
	netnstest.NoLeaks(t)
	c := newCable(t)
	const n, p = 6400, 0.02
	var known atomic.Int64
	count := func(l impair.Loss) { known.Add(1) }
	first, w := c.datagrams(t, n, impair.Impairment{Loss: p, Seed: 7}, count)
	lost := n - len(first)
	require.InDelta(t, n*p, lost, 5*math.Sqrt(n*p*(1-p)), "five standard deviations of the binomial distribution")
	require.EqualValues(t, lost, known.Load(), "the wire tells of each")
	_, in := w.Counts()
	require.EqualValues(t, lost, in.Lost)
	again, _ := c.datagrams(t, n, impair.Impairment{Loss: p, Seed: 7}, nil)
	require.Equal(t, first, again, "the same seed")
	other, _ := c.datagrams(t, n, impair.Impairment{Loss: p, Seed: 8}, nil)
	require.NotEqual(t, first, other, "another seed")
	t.Logf("%d of %d lost", lost, n)
}

func TestOrderIsKeptUnlessReorderingIsAskedFor(t *testing.T) {
	c := newCable(t)
	const n = 1600
	ordered, _ := c.datagrams(t, n, impair.Impairment{Delay: 3 * time.Millisecond}, nil)
	require.Len(t, ordered, n)
	require.True(t, slices.IsSorted(ordered))
	mixed, w := c.datagrams(t, n, impair.Impairment{Delay: 3 * time.Millisecond, Reorder: 0.1, Seed: 1}, nil)
	require.Len(t, mixed, n)
	require.False(t, slices.IsSorted(mixed))
	_, in := w.Counts()
	require.InDelta(t, n*0.1, in.Hurried, n*0.05)
}

func TestALinkIsImpairedWhileItIsInUse(t *testing.T) {
	netnstest.NoLeaks(t)
	c := newCable(t)
	l := listen(t, c.z, addrs4[1])
	conn, err := c.a.Dial(t.Context(), netip.AddrPort{}, l.Addr().(*net.TCPAddr).AddrPort())
	require.NoError(t, err)
	defer conn.Close()
	other, err := l.Accept()
	require.NoError(t, err)
	go func() { _, _ = io.Copy(other, other); _ = other.Close() }()
	echo := func() time.Duration {
		began := time.Now()
		_, err := conn.Write([]byte("x"))
		require.NoError(t, err)
		_, err = io.ReadFull(conn, make([]byte, 1))
		require.NoError(t, err)
		return time.Since(began)
	}
	quickest := func() time.Duration { return min(echo(), echo(), echo(), echo(), echo()) } // a busy machine adds to some
	const delay = 50 * time.Millisecond
	require.Less(t, quickest(), delay)
	w, err := impair.Lay(c.yard, c.end, 1, impair.Impairment{Delay: delay}, nil)
	require.NoError(t, err)
	require.GreaterOrEqual(t, echo(), 2*delay)
	require.NoError(t, w.Change(impair.Impairment{Delay: 3 * delay}))
	require.GreaterOrEqual(t, echo(), 6*delay)
	require.NoError(t, w.Close())
	require.Less(t, quickest(), delay)
}

func TestNoWireIsLaidByHalves(t *testing.T) {
	netnstest.NoLeaks(t)
	c := newCable(t)
	_, err := impair.Lay(c.yard, c.end, 1, impair.Impairment{Loss: 2}, nil)
	require.ErrorIs(t, err, impair.ErrImpairment)
	w := c.lay(t, impair.Impairment{Delay: time.Millisecond}, nil)
	_, err = impair.Lay(c.yard, c.end, 1, impair.Impairment{}, nil)
	require.Error(t, err, "there is one")
	require.NoError(t, w.Err())
	l := listen(t, c.z, addrs4[1])
	require.GreaterOrEqual(t, c.handshake(t, l), 2*time.Millisecond, "the first one holds")
}

func BenchmarkWire(b *testing.B) {
	for name, i := range map[string]*impair.Impairment{"bare": nil, "passes at once": {}, "delay of 1 ms": {Delay: time.Millisecond}} {
		b.Run(name, func(b *testing.B) {
			c := newCable(b)
			if i != nil {
				c.lay(b, *i, nil)
			}
			l := listen(b, c.z, addrs4[1])
			conn, err := c.a.Dial(context.Background(), netip.AddrPort{}, l.Addr().(*net.TCPAddr).AddrPort())
			require.NoError(b, err)
			defer conn.Close()
			other, err := l.Accept()
			require.NoError(b, err)
			piece := make([]byte, 1<<16)
			b.SetBytes(int64(len(piece)))
			go func() {
				for {
					if _, err := conn.Write(piece); err != nil {
						return
					}
				}
			}()
			for b.Loop() {
				_, err := io.ReadFull(other, piece)
				require.NoError(b, err)
			}
			_ = other.Close()
		})
	}
}
