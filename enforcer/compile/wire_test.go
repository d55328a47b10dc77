package compile_test

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"drawbridge/enforcer/compile"
	"drawbridge/enforcer/nft"
	"drawbridge/enforcer/policy"
	"drawbridge/enforcer/ruleset"
	"drawbridge/sim/netns"
	"drawbridge/sim/netns/netnstest"
)

// Addresses on the wire between a client's namespace and a host with databases. Nobody has ghost's: what comes from it
// is made by hand, and no kernel answers for it.
var (
	hostAddr   = netip.MustParseAddr("10.9.0.1")
	clientAddr = netip.MustParseAddr("10.9.0.2")
	ghostAddr  = netip.MustParseAddr("10.9.0.66")
)

// wire is a host that enforces, with a client on a cable.
type wire struct {
	t            *testing.T
	host, client *netns.Handle
	hostMAC, mac net.HardwareAddr
	index        int // of the client's interface
	conn         *nft.Conn
}

func newWire(t *testing.T) *wire {
	w := &wire{t: t, host: netnstest.New(t), client: netnstest.New(t)}
	require.NoError(t, w.host.Do(func() error {
		veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "reg0"}, PeerName: "c0", PeerNamespace: netlink.NsFd(w.client.Fd())}
		if err := netlink.LinkAdd(veth); err != nil {
			return err
		}
		return raise("reg0", "10.9.0.1/24", &w.hostMAC, new(int))
	}))
	require.NoError(t, w.client.Do(func() error { return raise("c0", "10.9.0.2/24", &w.mac, &w.index) }))
	require.NoError(t, w.host.Do(func() error {
		l, err := netlink.LinkByName("reg0")
		if err != nil {
			return err
		}
		return netlink.NeighSet(&netlink.Neigh{LinkIndex: l.Attrs().Index, State: netlink.NUD_PERMANENT, IP: ghostAddr.AsSlice(), HardwareAddr: w.mac})
	}))
	w.conn = openTable(t, w.host)
	return w
}

// openTable opens a socket inside a namespace.
func openTable(t testing.TB, ns *netns.Handle) *nft.Conn {
	t.Helper()
	var c *nft.Conn
	require.NoError(t, ns.Do(func() (err error) {
		c, err = nft.Open(compile.TableName)
		return err
	}))
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c
}

func raise(name, address string, mac *net.HardwareAddr, index *int) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	a, err := netlink.ParseAddr(address)
	if err != nil {
		return err
	}
	*mac, *index = l.Attrs().HardwareAddr, l.Attrs().Index
	return errors.Join(netlink.AddrAdd(l, a), netlink.LinkSetUp(l))
}

// enforce puts a policy into force by the least change.
func (w *wire) enforce(document []byte) {
	w.t.Helper()
	p, err := policy.Parse("wire", document)
	require.NoError(w.t, err)
	table, err := compile.Compile(p)
	require.NoError(w.t, err)
	state, err := w.conn.Read(w.t.Context())
	require.NoError(w.t, err)
	require.NoError(w.t, w.conn.Commit(w.t.Context(), ruleset.Diff(state.Table, table), state.Generation))
}

// listen serves a port of the host, one goroutine for each connection.
func (w *wire) listen(port uint16, serve func(net.Conn)) {
	w.t.Helper()
	l, err := w.host.Listen(w.t.Context(), netip.AddrPortFrom(hostAddr, port))
	require.NoError(w.t, err)
	var running sync.WaitGroup
	var mu sync.Mutex
	open := map[net.Conn]bool{}
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open[c] = true
			mu.Unlock()
			running.Go(func() {
				defer c.Close()
				serve(c)
			})
		}
	})
	w.t.Cleanup(func() {
		require.NoError(w.t, l.Close())
		mu.Lock()
		for c := range open {
			c.Close() // it may be closed already
		}
		mu.Unlock()
		running.Wait()
	})
}

// application is a server that answers a TLS record with a ServerHello and anything else with +PONG, and remembers what
// it was given, by the client's port.
type application struct {
	t       *testing.T
	mu      sync.Mutex
	changed *sync.Cond
	conns   map[uint16]net.Conn
	got     map[uint16][]byte
}

func (w *wire) application(port uint16) *application {
	a := &application{t: w.t, conns: map[uint16]net.Conn{}, got: map[uint16][]byte{}}
	a.changed = sync.NewCond(&a.mu)
	w.listen(port, func(c net.Conn) {
		remote := netip.MustParseAddrPort(c.RemoteAddr().String()).Port()
		a.note(func() { a.conns[remote] = c })
		buf := make([]byte, 4096)
		for {
			n, err := c.Read(buf)
			if err != nil {
				return
			}
			a.note(func() { a.got[remote] = append(a.got[remote], buf[:n]...) })
			answer := []byte("+PONG\r\n")
			if buf[0] == 0x16 {
				answer = serverHi
			}
			if _, err := c.Write(answer); err != nil {
				return
			}
		}
	})
	return a
}

func (a *application) note(what func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	what()
	a.changed.Broadcast()
}

// patience bounds every wait for the application.
const patience = 10 * time.Second

// wait waits, with mu held, for an event.
func (a *application) wait(happened func() bool) {
	a.t.Helper()
	late := false
	defer time.AfterFunc(patience, func() { a.note(func() { late = true }) }).Stop()
	for !happened() {
		if late {
			a.mu.Unlock() // the test's clean-up needs it
			a.t.Fatal("the application did not see it")
		}
		a.changed.Wait()
	}
}

// awaitReceived waits until the application has read so many bytes of a client, and returns them.
func (a *application) awaitReceived(port uint16, n int) string {
	a.mu.Lock()
	a.wait(func() bool { return len(a.got[port]) >= n })
	got := string(a.got[port])
	a.mu.Unlock()
	return got
}

// queued tells how many bytes of a client the server's kernel has taken for the application, read or not.
func (a *application) queued(port uint16) int {
	a.t.Helper()
	a.mu.Lock()
	a.wait(func() bool { return a.conns[port] != nil })
	c, ok := a.conns[port].(*net.TCPConn)
	a.mu.Unlock()
	require.True(a.t, ok)
	raw, err := c.SyscallConn()
	require.NoError(a.t, err)
	var info *unix.TCPInfo
	var failed error
	require.NoError(a.t, raw.Control(func(fd uintptr) { info, failed = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) }))
	require.NoError(a.t, failed)
	return int(info.Bytes_received)
}

func (a *application) forget(port uint16) {
	a.note(func() { delete(a.got, port); delete(a.conns, port) })
}

// ghost is a TCP client made by hand.
type ghost struct {
	*wire
	t        *testing.T
	fd       int
	port, to uint16
	isn      uint32 // its SYN's
	ack      uint32 // what it acknowledges
	clock    uint32 // its timestamps (RFC 7323)
	echo     uint32
	id       uint16
}

// etherIPv4 is ETH_P_IP in network order, as packet(7) wants it.
var etherIPv4 = binary.NativeEndian.Uint16([]byte{unix.ETH_P_IP >> 8, unix.ETH_P_IP & 0xff})

func (w *wire) ghost(t *testing.T, port, to uint16) *ghost {
	t.Helper()
	fd, err := w.client.Socket(unix.AF_PACKET, unix.SOCK_RAW, int(etherIPv4))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, unix.Close(fd)) })
	require.NoError(t, unix.SetNonblock(fd, false))
	require.NoError(t, unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: etherIPv4, Ifindex: w.index}))
	require.NoError(t, unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 5}))
	return &ghost{wire: w, t: t, fd: fd, port: port, to: to, isn: 0x10000000, clock: 1_000_000}
}

// segment is one of its packets. at is the distance from its first byte.
type segment struct {
	at       int
	flags    byte
	data     []byte
	old      bool // a timestamp that PAWS discards (RFC 7323 section 5)
	badSum   bool
	fragment bool // cut into two IP fragments
}

func (g *ghost) send(s segment) {
	g.t.Helper()
	clock := g.clock
	if s.old {
		clock -= 500_000
	}
	stamp := append(be32(clock), be32(g.echo)...)
	tcp := &layers.TCP{
		SrcPort: layers.TCPPort(g.port), DstPort: layers.TCPPort(g.to), Seq: g.isn + 1 + uint32(s.at), Ack: g.ack, Window: 65535,
		SYN: s.flags&syn != 0, ACK: s.flags&ack != 0, RST: s.flags&rst != 0, PSH: s.flags&psh != 0,
		Options: []layers.TCPOption{{OptionType: layers.TCPOptionKindNop}, {OptionType: layers.TCPOptionKindNop}, {OptionType: layers.TCPOptionKindTimestamps, OptionLength: 10, OptionData: stamp}},
	}
	g.id++
	ip := &layers.IPv4{Version: 4, IHL: 5, TTL: 64, Id: g.id, Protocol: layers.IPProtocolTCP, SrcIP: ghostAddr.AsSlice(), DstIP: hostAddr.AsSlice()}
	require.NoError(g.t, tcp.SetNetworkLayerForChecksum(ip))
	buf := gopacket.NewSerializeBuffer()
	sums := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	require.NoError(g.t, gopacket.SerializeLayers(buf, sums, tcp, gopacket.Payload(s.data)))
	whole := append([]byte(nil), buf.Bytes()...)
	if s.badSum {
		whole[16] ^= 0x55
	}
	if !s.fragment {
		g.transmit(ip, whole)
		return
	}
	const cut = 24 // behind the ports and flags, a multiple of 8
	ip.Flags = layers.IPv4MoreFragments
	g.transmit(ip, whole[:cut])
	ip.Flags, ip.FragOffset = 0, cut/8
	g.transmit(ip, whole[cut:])
}

func (g *ghost) transmit(ip *layers.IPv4, payload []byte) {
	g.t.Helper()
	buf := gopacket.NewSerializeBuffer()
	eth := &layers.Ethernet{SrcMAC: g.mac, DstMAC: g.hostMAC, EthernetType: layers.EthernetTypeIPv4}
	sums := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	require.NoError(g.t, gopacket.SerializeLayers(buf, sums, eth, ip, gopacket.Payload(payload)))
	_, err := unix.Write(g.fd, buf.Bytes())
	require.NoError(g.t, err)
}

// answer is a packet of the host. taken is the distance from the client's first byte that it acknowledges.
type answer struct {
	*layers.TCP
	taken int
}

// await reads until a packet of the host to this client fits.
func (g *ghost) await(what string, fits func(answer) bool) answer {
	g.t.Helper()
	buf := make([]byte, 65536)
	for {
		n, err := unix.Read(g.fd, buf)
		require.NoError(g.t, err, "waiting for %s", what)
		p := gopacket.NewPacket(append([]byte(nil), buf[:n]...), layers.LayerTypeEthernet, gopacket.Default)
		tcp, ok := p.Layer(layers.LayerTypeTCP).(*layers.TCP)
		if !ok || uint16(tcp.DstPort) != g.port || uint16(tcp.SrcPort) != g.to {
			continue
		}
		for _, o := range tcp.Options {
			if o.OptionType == layers.TCPOptionKindTimestamps && len(o.OptionData) == 8 {
				g.echo = uint32(o.OptionData[0])<<24 | uint32(o.OptionData[1])<<16 | uint32(o.OptionData[2])<<8 | uint32(o.OptionData[3])
			}
		}
		if a := (answer{TCP: tcp, taken: int(tcp.Ack - g.isn - 1)}); fits(a) {
			return a
		}
	}
}

// connect completes the TCP handshake.
func (g *ghost) connect() *ghost {
	g.t.Helper()
	g.ack = 0
	g.send(segment{at: -1, flags: syn})
	a := g.await("SYN-ACK", func(a answer) bool { return a.SYN && a.ACK })
	require.Zero(g.t, a.taken)
	g.ack = a.Seq + 1
	g.send(segment{flags: ack})
	return g
}

// data sends payload.
func (g *ghost) data(at int, data []byte) {
	g.t.Helper()
	g.send(segment{at: at, flags: ack | psh, data: data})
}

// taken asks the server's kernel how much of the stream it took: it answers a keep-alive at once, and after everything
// that was sent before (RFC 1122 section 4.2.3.6).
func (g *ghost) taken() int {
	g.t.Helper()
	g.clock++
	g.send(segment{at: -1000, flags: ack})
	return g.await("answer to a keep-alive", func(a answer) bool { return a.ACK && !a.SYN && len(a.Payload) == 0 }).taken
}

// awaitReset waits for the refusal.
func (g *ghost) awaitReset() {
	g.t.Helper()
	g.await("reset", func(a answer) bool { return a.RST })
}

// awaitData waits for the server's application.
func (g *ghost) awaitData(want string) {
	g.t.Helper()
	a := g.await("data", func(a answer) bool { return len(a.Payload) > 0 || a.RST })
	require.False(g.t, a.RST, "reset")
	require.Equal(g.t, want, string(a.Payload))
	g.ack = a.Seq + uint32(len(a.Payload))
	g.send(segment{at: a.taken, flags: ack})
}
