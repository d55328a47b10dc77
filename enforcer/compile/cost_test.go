package compile_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"drawbridge/enforcer/ruleset"
	"drawbridge/sim/netns"
	"drawbridge/sim/netns/netnstest"
)

// path is a client, a gateway that translates an endpoint's address, and the node behind it, all of them namespaces.
type path struct{ client, gateway, node *netns.Handle }

// Addresses of the path.
const (
	pathClient, pathOuter = "198.51.100.1", "198.51.100.254"
	pathInner, pathNode   = "10.64.1.254", "10.64.1.11"
	pathEndpoint          = "203.0.113.140:6380"
)

func newPath(b *testing.B) path {
	p := path{client: netnstest.New(b), gateway: netnstest.New(b), node: netnstest.New(b)}
	require.NoError(b, p.gateway.Do(func() error {
		return errors.Join(os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644),
			join("inet0", pathOuter, p.client), join("vpc0", pathInner, p.node))
	}))
	require.NoError(b, p.client.Do(func() error { return uplink(pathClient, pathOuter) }))
	require.NoError(b, p.node.Do(func() error { return uplink(pathNode, pathInner) }))
	address, port, _ := strings.Cut(pathEndpoint, ":")
	nat := exec.Command(netnstest.Tool(b, "nft"), "-f", "-")
	nat.Stdin = strings.NewReader(fmt.Sprintf("table ip fabric {\n chain translate {\n type nat hook prerouting priority -100\n ip daddr %s tcp dport %s dnat to %s\n }\n }\n", address, port, pathNode))
	var said bytes.Buffer
	nat.Stderr = &said
	require.NoError(b, p.gateway.Start(nat))
	require.NoError(b, nat.Wait(), said.String())
	return p
}

func join(name, address string, peer *netns.Handle) error {
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: "eth0", PeerNamespace: netlink.NsFd(peer.Fd())}
	if err := netlink.LinkAdd(veth); err != nil {
		return err
	}
	return raise(name, address+"/24", new(net.HardwareAddr), new(int))
}

func uplink(address, gateway string) error {
	var index int
	if err := raise("eth0", address+"/24", new(net.HardwareAddr), &index); err != nil {
		return err
	}
	return netlink.RouteAdd(&netlink.Route{LinkIndex: index, Gw: net.ParseIP(gateway)})
}

// pathDocument is the gateway's policy; its one database begins with TLS.
func pathDocument(t require.TestingT) []byte {
	at := netip.MustParseAddrPort(pathEndpoint)
	force := true
	data, err := json.Marshal(document{
		Version: 1, Point: point{"gw", "dedicated"}, Region: region{"r", []string{"10.10.0.0/16"}}, Ranges: map[string][]string{"fr1": {"192.0.2.1/32"}},
		Interfaces: []iface{{"inet0", "internet"}, {"vpc0", "cluster"}},
		Databases: []database{{
			Name: "cache", Model: "dedicated", Engine: "redis", ForceTLS: &force,
			Endpoints: []endpoint{{"public-rw", at.Addr().String(), at.Port(), "ipv4", "only"}},
			Nodes:     []node{{"n", true, []string{pathNode}, []nodePort{{at.Port(), "only"}}}},
			Rules:     []rule{{Type: "custom_range", CIDR: "198.51.100.0/28"}, {Type: "managed_range", Name: "fr1"}},
		}},
	})
	require.NoError(t, err)
	return data
}

// connect opens a connection over the path whose ends are descriptors.
func (p path) connect(b *testing.B) (client, server int) {
	at := netip.MustParseAddrPort(pathEndpoint)
	l, err := p.node.Listen(b.Context(), netip.AddrPortFrom(netip.MustParseAddr(pathNode), at.Port()))
	require.NoError(b, err)
	defer l.Close()
	c, err := p.client.Dial(b.Context(), netip.AddrPortFrom(netip.MustParseAddr(pathClient), 0), at)
	require.NoError(b, err)
	s, err := l.Accept()
	require.NoError(b, err)
	descriptor := func(c net.Conn) (fd int) {
		b.Cleanup(func() { _ = c.Close() })
		raw, err := c.(*net.TCPConn).SyscallConn()
		require.NoError(b, err)
		require.NoError(b, raw.Control(func(d uintptr) { fd = int(d) }))
		return fd
	}
	return descriptor(c), descriptor(s)
}

// pass sends data from one descriptor to the other. On a veth link it is there as soon as it was sent, unless the kernel
// has put that off. After a second it has been dropped.
func pass(from, to int, data, into []byte) error {
	if _, err := unix.Write(from, data); err != nil {
		return err
	}
	sent := time.Now()
	for got := 0; got < len(data); {
		n, err := unix.Read(to, into)
		if err != nil && (!errors.Is(err, unix.EAGAIN) || time.Since(sent) > time.Second) {
			return err
		}
		got += max(n, 0)
	}
	return nil
}

// BenchmarkRoundTrip is a question and its answer of one byte over an established connection through a gateway that only
// translates, and through one that enforces: what the kernel takes for them, as one thread plays both ends. Whatever else
// the machine does only adds to a batch, so that the least of many tells.
func BenchmarkRoundTrip(b *testing.B) {
	const batch = 20
	for _, enforced := range []bool{false, true} {
		b.Run(map[bool]string{false: "none", true: "enforced"}[enforced], func(b *testing.B) {
			p := newPath(b)
			if enforced {
				c := openTable(b, p.gateway)
				require.NoError(b, c.Commit(b.Context(), ruleset.Diff(ruleset.Table{}, compiled(b, "path", pathDocument(b))), 0))
			}
			client, server := p.connect(b)
			into := make([]byte, 1024)
			require.NoError(b, pass(client, server, hello, into))
			require.NoError(b, pass(server, client, serverHi, into))
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			var took []time.Duration
			for b.Loop() {
				begun := time.Now()
				for range batch {
					if err := errors.Join(pass(client, server, into[:1], into), pass(server, client, into[:1], into)); err != nil {
						b.Fatal(err)
					}
				}
				took = append(took, time.Since(begun)/batch)
			}
			b.ReportMetric(float64(slices.Min(took)), "min-ns/trip")
			b.ReportMetric(float64(b.Elapsed())/float64(b.N*batch), "ns/trip")
		})
	}
}
