package daemon_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"drawbridge/enforcer/daemon"
	"drawbridge/sim/netns"
	"drawbridge/sim/netns/netnstest"
)

// A gateway that is its database's node as well, and a client beside it.
var (
	gatewayAddr = netip.MustParseAddr("10.10.0.1")
	clientAddr  = netip.MustParseAddr("10.10.0.2")
	endpoint    = netip.MustParseAddrPort("10.10.0.1:27017")
)

// orders is the gateway's policy.
func orders(forceTLS bool, rules string) string {
	return fmt.Sprintf(`{"version": 1, "point": {"name": "gw", "model": "dedicated"}, "region": {"name": "r", "networks": []}, "managed_ranges": {},
		"databases": [{"name": "orders", "model": "dedicated", "engine": "mongodb", "force_tls": %t,
			"endpoints": [{"kind": "public-rw", "address": "10.10.0.1", "port": 27017, "family": "ipv4", "tls": "either"}],
			"nodes": [{"name": "one", "here": true, "addresses": ["10.64.2.1"], "ports": [{"port": 27017, "tls": "either"}]}],
			"firewall_rules": [%s]}]}`, forceTLS, rules)
}

// site is a scene with a server and a client.
type site struct {
	*scene
	client   *netns.Handle
	accepted chan net.Conn
}

// newSite starts a daemon at a gateway.
func newSite(t *testing.T, policy string, change func(*scene, *daemon.Options)) *site {
	t.Helper()
	h := &site{client: netnstest.New(t), accepted: make(chan net.Conn, 16)}
	h.scene = newScene(t, func(s *scene, o *daemon.Options) {
		s.write(t, s.policy, policy)
		o.Audit = filepath.Join(s.dir, "audit.log")
		if change != nil {
			change(s, o)
		}
	})
	require.NoError(t, h.ns.Do(func() error {
		veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "net0"}, PeerName: "eth0", PeerNamespace: netlink.NsFd(h.client.Fd())}
		if err := netlink.LinkAdd(veth); err != nil {
			return err
		}
		return addressUp("net0", gatewayAddr)
	}))
	require.NoError(t, h.client.Do(func() error { return addressUp("eth0", clientAddr) }))
	server, err := h.ns.Listen(t.Context(), endpoint)
	require.NoError(t, err)
	t.Cleanup(func() { _ = server.Close() })
	go func() {
		for {
			c, err := server.Accept()
			if err != nil {
				return
			}
			h.accepted <- c
			go func() { _, _ = io.Copy(c, c) }() // until the connection ends
		}
	}()
	return h
}

func addressUp(name string, a netip.Addr) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	ip := &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(24, 32)}
	return errors.Join(netlink.LinkSetUp(link), netlink.AddrAdd(link, &netlink.Addr{IPNet: ip, Flags: unix.IFA_F_NODAD}))
}

// dial connects as the client; both ends are returned.
func (h *site) dial(t *testing.T) (client, server net.Conn) {
	t.Helper()
	client, err := h.client.Dial(t.Context(), netip.AddrPortFrom(clientAddr, 0), endpoint)
	require.NoError(t, err, "%s", h.log)
	t.Cleanup(func() { _ = client.Close() })
	return client, <-h.accepted
}

// say sends a line and waits for its echo.
func say(c net.Conn) error {
	if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	if _, err := io.WriteString(c, "ping\n"); err != nil {
		return err
	}
	_, err := io.ReadFull(c, make([]byte, 5))
	return err
}

// ends waits until the other end is said to be gone.
func ends(t *testing.T, c net.Conn, within time.Duration) {
	t.Helper()
	require.NoError(t, c.SetDeadline(time.Now().Add(within)))
	_, err := c.Read(make([]byte, 1))
	require.True(t, errors.Is(err, syscall.ECONNRESET) || errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNABORTED) || errors.Is(err, net.ErrClosed), "nobody said anything: %v", err)
}

func (s *scene) audit(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(s.dir, "audit.log"))
	require.NoError(t, err)
	return string(text)
}

// temporary lets the client's network in until a time.
func temporary(end time.Time) string {
	return `{"type": "custom_range", "cidr": "10.10.0.0/24", "label": "for a while", "expires": "` + end.Format(time.RFC3339Nano) + `"}`
}

// TestARuleEndsAndBothEndsLearnOfIt: until its end it is in force; then the daemon ends what it let in, and says so.
func TestARuleEndsAndBothEndsLearnOfIt(t *testing.T) {
	h := newSite(t, orders(false, ""), nil)
	end := time.Now().Add(4 * time.Second)
	before := h.status(t).Read
	h.put([]byte(orders(false, temporary(end))))
	h.until(t, func(s daemon.Status) bool { return s.Read > before && s.Refused == "" })
	client, server := h.dial(t)
	require.NoError(t, say(client))
	ends(t, client, 20*time.Second)
	ended := time.Now()
	require.WithinRange(t, ended, end.Add(-time.Second), end.Add(10*time.Second), "not before its time")
	ends(t, server, 10*time.Second)
	t.Logf("ended %v after its time", ended.Sub(end))
	require.Eventually(t, func() bool { return strings.Contains(h.audit(t), `"what":"expired","why":"a rule ended at `) }, 10*time.Second, 10*time.Millisecond)
	require.NotContains(t, h.nft(t, "list", "set", "inet", "drawbridge", "custom4_orders"), "10.10.0.0")
	_, metrics := h.get(t, "/metrics")
	require.Contains(t, metrics, "drawbridge_connections_ended_total 1\n")
}

// TestTheClockIsSet: a rule that the new time has ended is ended within the daemon's look at the clock.
func TestTheClockIsSet(t *testing.T) {
	var ahead atomic.Int64
	h := newSite(t, orders(false, temporary(time.Now().Add(10*time.Hour))), func(_ *scene, o *daemon.Options) {
		o.Enforcer.Clock = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	})
	client, _ := h.dial(t)
	require.NoError(t, say(client))
	lifetime := func() string { return h.nft(t, "list", "set", "inet", "drawbridge", "custom4_orders") }
	require.Contains(t, lifetime(), "timeout 9h59m59s")
	ahead.Store(int64(9 * time.Hour))
	require.Eventually(t, func() bool { return strings.Contains(lifetime(), "timeout 59m") }, 20*time.Second, 20*time.Millisecond, "%s", h.log)
	require.NoError(t, say(client), "it has an hour left")
	ahead.Store(int64(11 * time.Hour))
	ends(t, client, 20*time.Second)
	require.Eventually(t, func() bool { return strings.Count(h.audit(t), `"what":"clock"`) == 2 }, 10*time.Second, 10*time.Millisecond)
	require.Contains(t, h.audit(t), "the clock jumped by 9h0m0s")
}
