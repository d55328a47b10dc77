package cut

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"drawbridge/sim/netns"
	"drawbridge/sim/netns/netnstest"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

// triangle is a client, a gateway that translates its public addresses to a server, and that server.
type triangle struct {
	client, gateway, server *netns.Handle
	listeners               map[bool]net.Listener // by: is IPv6
}

// Addresses of the triangle, IPv4 first.
var (
	clientAddrs = [2]netip.Addr{netip.MustParseAddr("198.51.100.10"), netip.MustParseAddr("2001:db8:51::10")}
	outerAddrs  = [2]netip.Addr{netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("2001:db8:51::1")}
	publicAddrs = [2]netip.Addr{netip.MustParseAddr("203.0.113.140"), netip.MustParseAddr("2001:db8:113::140")}
	innerAddrs  = [2]netip.Addr{netip.MustParseAddr("10.64.1.1"), netip.MustParseAddr("fd00:64::1")}
	serverAddrs = [2]netip.Addr{netip.MustParseAddr("10.64.1.11"), netip.MustParseAddr("fd00:64::11")}
)

const databasePort = 5432

func newTriangle(t *testing.T) *triangle {
	t.Helper()
	tri := &triangle{client: netnstest.New(t), gateway: netnstest.New(t), server: netnstest.New(t), listeners: map[bool]net.Listener{}}
	for _, ns := range []*netns.Handle{tri.client, tri.gateway, tri.server} {
		require.NoError(t, ns.Do(func() error { return setSysctl("net/ipv6/conf/default/accept_dad", "0") }))
	}
	require.NoError(t, tri.gateway.Do(func() error {
		return errors.Join(
			setSysctl("net/ipv4/ip_forward", "1"), setSysctl("net/ipv6/conf/all/forwarding", "1"),
			addVeth("inet0", tri.client, outerAddrs), addVeth("vpc0", tri.server, innerAddrs),
			addAddresses("inet0", publicAddrs), translate())
	}))
	require.NoError(t, tri.client.Do(func() error { return addUplink(clientAddrs, outerAddrs) }))
	require.NoError(t, tri.server.Do(func() error { return addUplink(serverAddrs, innerAddrs) }))
	for i, a := range serverAddrs {
		l, err := tri.server.Listen(t.Context(), netip.AddrPortFrom(a, databasePort))
		require.NoError(t, err)
		t.Cleanup(func() { _ = l.Close() })
		tri.listeners[i == 1] = l
	}
	return tri
}

// addVeth joins the present namespace with another by a veth pair.
func addVeth(name string, peer *netns.Handle, addrs [2]netip.Addr) error {
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: "eth0", PeerNamespace: netlink.NsFd(peer.Fd())}
	if err := netlink.LinkAdd(veth); err != nil {
		return fmt.Errorf("add %s: %w", name, err)
	}
	return errors.Join(netlink.LinkSetUp(veth), addAddresses(name, addrs))
}

func addAddresses(name string, addrs [2]netip.Addr) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	for _, a := range addrs {
		bits := 24
		if a.Is6() {
			bits = 64
		}
		ip := &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(bits, a.BitLen())}
		if err := netlink.AddrAdd(link, &netlink.Addr{IPNet: ip, Flags: unix.IFA_F_NODAD}); err != nil {
			return fmt.Errorf("add %v to %s: %w", a, name, err)
		}
	}
	return nil
}

func addUplink(addrs, gateways [2]netip.Addr) error {
	link, err := netlink.LinkByName("eth0")
	if err != nil {
		return err
	}
	if err := errors.Join(netlink.LinkSetUp(link), addAddresses("eth0", addrs)); err != nil {
		return err
	}
	for _, gw := range gateways {
		if err := netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: gw.AsSlice()}); err != nil {
			return fmt.Errorf("route via %v: %w", gw, err)
		}
	}
	return nil
}

// translate sends connections for the public addresses to the server.
func translate() error {
	c, err := nftables.New()
	if err != nil {
		return err
	}
	table := c.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "fabric"})
	chain := c.AddChain(&nftables.Chain{Name: "dnat", Table: table, Type: nftables.ChainTypeNAT, Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityNATDest})
	for i, public := range publicAddrs {
		family, offset := byte(unix.NFPROTO_IPV4), uint32(ipv4DstAt)
		if i == 1 {
			family, offset = unix.NFPROTO_IPV6, ipv6DstAt
		}
		c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
			&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1}, &expr.Cmp{Register: 1, Data: []byte{family}},
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: uint32(public.BitLen() / 8)},
			&expr.Cmp{Register: 1, Data: public.AsSlice()},
			&expr.Immediate{Register: 1, Data: serverAddrs[i].AsSlice()},
			&expr.Immediate{Register: 2, Data: binaryutil.BigEndian.PutUint16(databasePort)},
			&expr.NAT{Type: expr.NATTypeDestNAT, Family: uint32(family), RegAddrMin: 1, RegProtoMin: 2},
		}})
	}
	return c.Flush()
}

// mute drops everything that the present namespace sends.
func mute() error {
	c, err := nftables.New()
	if err != nil {
		return err
	}
	table := c.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "mute"})
	policy := nftables.ChainPolicyDrop
	c.AddChain(&nftables.Chain{Name: "out", Table: table, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookOutput, Priority: nftables.ChainPriorityFilter, Policy: &policy})
	return c.Flush()
}

// session is an established connection, seen from both ends.
type session struct{ client, server net.Conn }

// connect opens a connection from the client, through the gateway, and has it carry a byte both ways.
func (tri *triangle) connect(t *testing.T, family int, from uint16) session {
	t.Helper()
	client, err := tri.client.Dial(t.Context(), netip.AddrPortFrom(clientAddrs[family], from), netip.AddrPortFrom(publicAddrs[family], databasePort))
	require.NoError(t, err)
	server, err := tri.listeners[family == 1].Accept()
	require.NoError(t, err)
	s := session{client, server}
	t.Cleanup(func() { _ = client.Close(); _ = server.Close() })
	require.NoError(t, s.alive())
	return s
}

// alive carries a byte both ways.
func (s session) alive() error {
	b := make([]byte, 1)
	for _, way := range [][2]net.Conn{{s.client, s.server}, {s.server, s.client}} {
		if _, err := way[0].Write([]byte("x")); err != nil {
			return err
		}
		if _, err := io.ReadFull(way[1], b); err != nil {
			return err
		}
	}
	return nil
}

// ended waits until both ends have been told that the connection is over.
func (s session) ended(t *testing.T, within time.Duration) {
	t.Helper()
	for name, c := range map[string]net.Conn{"server": s.server, "client": s.client} {
		require.NoError(t, c.SetReadDeadline(time.Now().Add(within)))
		_, err := c.Read(make([]byte, 1))
		require.ErrorIs(t, err, syscall.ECONNRESET, name)
	}
}

// judge protects the database's port and allows what it is told to.
type judge struct{ allows func(Connection) bool }

func (j judge) Protects(c Connection) bool {
	return c.Server.Port() == databasePort || c.Endpoint.Port() == databasePort
}
func (j judge) Allows(c Connection) bool { return j.allows(c) }

func allowAllBut(ports ...uint16) judge {
	return judge{func(c Connection) bool {
		for _, p := range ports {
			if c.Client.Port() == p {
				return false
			}
		}
		return true
	}}
}

// once is a cut by a cutter of its own, which looks twice: what it ended is not found again.
func once(ctx context.Context, j Judge, options Options) (Report, error) {
	c, err := Open()
	if err != nil {
		return Report{}, err
	}
	report, err := c.Run(ctx, j, options)
	if err == nil && report.Unanswered == 0 {
		var again Report
		again, err = c.Run(ctx, j, options)
		if n := again.Destroyed + again.Reset; err == nil && n > 0 {
			err = fmt.Errorf("%d connections were ended again", n)
		}
	}
	return report, errors.Join(err, c.Close())
}

func run(t *testing.T, ns *netns.Handle, behind bool, j Judge) Report {
	t.Helper()
	var report Report
	require.NoError(t, ns.Do(func() (err error) {
		report, err = once(t.Context(), j, Options{Behind: behind, Limit: DefaultLimit})
		return err
	}))
	t.Logf("%+v", report)
	return report
}

func TestGatewayEndsBothHalves(t *testing.T) {
	tri := newTriangle(t)
	for family, name := range []string{"ipv4", "ipv6"} {
		t.Run(name, func(t *testing.T) {
			doomed := tri.connect(t, family, 20001)
			second := tri.connect(t, family, 20002)
			spared := tri.connect(t, family, 20003)

			report := run(t, tri.gateway, true, allowAllBut(20001, 20002))
			require.Equal(t, 2, report.Reset)
			require.Zero(t, report.Unanswered)
			require.Less(t, report.Took, DefaultLimit)
			doomed.ended(t, time.Second)
			second.ended(t, time.Second)
			require.NoError(t, spared.alive())

			again := run(t, tri.gateway, true, allowAllBut(20001, 20002))
			require.Zero(t, again.Cut(), "their tracking entries must be gone")
			require.Equal(t, report.Protected-2, again.Protected)
		})
	}
}

func TestGatewayEndsManyAtOnce(t *testing.T) {
	tri := newTriangle(t)
	var sessions []session
	for port := range uint16(200) {
		sessions = append(sessions, tri.connect(t, 0, 20000+port))
	}
	report := run(t, tri.gateway, true, judge{func(c Connection) bool { return c.Client.Port()%2 == 0 }})
	require.Equal(t, 100, report.Reset)
	for i, s := range sessions {
		if i%2 == 0 {
			require.NoError(t, s.alive())
		} else {
			s.ended(t, time.Second)
		}
	}
}

// A server that does not answer must not hold the change up for longer than the limit.
func TestTheLimitHolds(t *testing.T) {
	tri := newTriangle(t)
	tri.connect(t, 0, 20001)
	require.NoError(t, tri.server.Do(mute))
	report := run(t, tri.gateway, true, allowAllBut(20001))
	require.Equal(t, 1, report.Unanswered)
	require.GreaterOrEqual(t, report.Took, DefaultLimit)
	require.Less(t, report.Took, 2*DefaultLimit)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	tri = newTriangle(t)
	tri.connect(t, 0, 20001)
	require.ErrorIs(t, tri.gateway.Do(func() error {
		_, err := once(ctx, judge{func(Connection) bool { return false }}, Options{Behind: true, Limit: DefaultLimit})
		return err
	}), context.Canceled)
}

func TestHostEndsBothHalves(t *testing.T) {
	tri := newTriangle(t)
	for family, name := range []string{"ipv4", "ipv6"} {
		t.Run(name, func(t *testing.T) {
			doomed, spared := tri.connect(t, family, 20001), tri.connect(t, family, 20002)
			report := run(t, tri.server, false, allowAllBut(20001))
			require.Equal(t, 1, report.Destroyed)
			for end, c := range map[string]net.Conn{"server": doomed.server, "client": doomed.client} {
				require.NoError(t, c.SetReadDeadline(time.Now().Add(time.Second)))
				_, err := c.Read(make([]byte, 1))
				require.Error(t, err, end)
				require.False(t, errors.Is(err, context.DeadlineExceeded) || isTimeout(err), "%s was not told: %v", end, err)
			}
			require.NoError(t, spared.alive())
		})
	}
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

// A connection between two sockets of one host is loopback traffic, whatever address it uses.
func TestLoopbackIsNotJudged(t *testing.T) {
	tri := newTriangle(t)
	inside, err := tri.server.Dial(t.Context(), netip.AddrPortFrom(serverAddrs[0], 20001), netip.AddrPortFrom(serverAddrs[0], databasePort))
	require.NoError(t, err)
	defer inside.Close()
	server, err := tri.listeners[false].Accept()
	require.NoError(t, err)
	defer server.Close()
	report := run(t, tri.server, false, judge{func(Connection) bool { return false }})
	require.Zero(t, report.Protected)
	require.NoError(t, session{inside, server}.alive())
}

func setSysctl(name, value string) error { return os.WriteFile("/proc/sys/"+name, []byte(value), 0) }
