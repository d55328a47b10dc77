package enforcer_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"drawbridge/enforcer"
	"drawbridge/sim/netns"
	"drawbridge/sim/netns/netnstest"
)

// A shared host with one server on it, and a client in the region's network.
var (
	hostAddr   = netip.MustParseAddr("10.10.0.1")
	clientAddr = netip.MustParseAddr("10.10.0.2")
	endpoint   = netip.MustParseAddrPort("10.10.0.1:27017")
)

type host struct {
	host, client *netns.Handle
	server       net.Listener
	tls          *tls.Config
	accepted     chan net.Conn
}

func newHost(t *testing.T) *host {
	t.Helper()
	h := &host{host: netnstest.New(t), client: netnstest.New(t), tls: selfSigned(t), accepted: make(chan net.Conn, 16)}
	require.NoError(t, h.host.Do(func() error {
		veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "reg0"}, PeerName: "eth0", PeerNamespace: netlink.NsFd(h.client.Fd())}
		if err := netlink.LinkAdd(veth); err != nil {
			return err
		}
		return addressUp("reg0", hostAddr)
	}))
	require.NoError(t, h.client.Do(func() error { return addressUp("eth0", clientAddr) }))
	var err error
	h.server, err = h.host.Listen(t.Context(), endpoint)
	require.NoError(t, err)
	go h.serve()
	t.Cleanup(func() { _ = h.server.Close() })
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

func selfSigned(t *testing.T) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)},
		&x509.Certificate{SerialNumber: big.NewInt(1)}, &key.PublicKey, key)
	require.NoError(t, err)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, MinVersion: tls.VersionTLS12}
}

// serve echoes lines, over TLS for clients that begin with a TLS record.
func (h *host) serve() {
	for {
		c, err := h.server.Accept()
		if err != nil {
			return
		}
		h.accepted <- c
		go echo(c, h.tls)
	}
}

type peeked struct {
	net.Conn
	r *bufio.Reader
}

func (p peeked) Read(b []byte) (int, error) { return p.r.Read(b) }

func echo(c net.Conn, config *tls.Config) {
	defer c.Close()
	p := peeked{c, bufio.NewReader(c)}
	first, err := p.r.Peek(1)
	if err != nil {
		return
	}
	var stream net.Conn = p
	if first[0] == 0x16 {
		stream = tls.Server(p, config)
	}
	_, _ = io.Copy(stream, stream)
}

// dial connects; the raw connection is returned as well, for its errors.
func (h *host) dial(t *testing.T, overTLS bool) (stream, raw net.Conn) {
	t.Helper()
	raw, err := h.client.Dial(t.Context(), netip.AddrPortFrom(clientAddr, 0), endpoint)
	require.NoError(t, err)
	t.Cleanup(func() { _ = raw.Close() })
	<-h.accepted
	if !overTLS {
		return raw, raw
	}
	return tls.Client(raw, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}), raw
}

// say sends a line and waits for its echo.
func say(c net.Conn) error {
	if err := c.SetDeadline(time.Now().Add(2 * time.Second)); err != nil {
		return err
	}
	if _, err := io.WriteString(c, "ping\n"); err != nil {
		return err
	}
	_, err := io.ReadFull(c, make([]byte, 5))
	return err
}

// ended tells that the other end is gone, and that this was said rather than found out by waiting.
func ended(t *testing.T, c net.Conn) {
	t.Helper()
	require.NoError(t, c.SetDeadline(time.Now().Add(2*time.Second)))
	_, err := c.Read(make([]byte, 1))
	require.Error(t, err)
	var ne net.Error
	require.False(t, errors.As(err, &ne) && ne.Timeout(), "nobody said anything: %v", err)
}

// document is the policy of the host.
func document(region string, members string) []byte {
	return fmt.Appendf(nil, `{"version": 1, "point": {"name": "host-1", "model": "shared"},
		"interfaces": [{"name": "reg0", "zone": "regional"}],
		"region": {"name": "osc-fr1", "networks": [%q]},
		"databases": [{"name": "docs", "model": "shared", "engine": "mongodb",
			"endpoints": [{"kind": "public-rw", "address": "10.10.0.1", "port": 27017, "family": "ipv4", "tls": "either"}],
			"nodes": [{"name": "docs-1", "here": true, "addresses": ["10.10.0.1"], "ports": [{"port": 27017, "tls": "either"}]}]%s}]}`, region, members)
}

const wholeRegion = "10.10.0.0/16"

func TestForceTLSCutsPlaintextAndSparesTLS(t *testing.T) {
	h := newHost(t)
	mustApply(t, h.host, document(wholeRegion, ""))
	plain, _ := h.dial(t, false)
	idle, _ := h.dial(t, false)
	secure, _ := h.dial(t, true)
	require.NoError(t, say(plain))
	require.NoError(t, say(secure))

	receipt := mustApply(t, h.host, document(wholeRegion, `, "force_tls": true`))
	require.Equal(t, 3, receipt.Cut.Protected)
	require.Equal(t, 1, receipt.Cut.Destroyed, "only the one that spoke plaintext: %+v", receipt.Cut)
	ended(t, plain)
	require.NoError(t, say(secure))
	require.Error(t, say(idle), "its first bytes are judged by the new rules")

	late, _ := h.dial(t, false)
	require.Error(t, say(late))
	again, _ := h.dial(t, true)
	require.NoError(t, say(again))
}

// TestARefusalEndsBothHalves: the client learns of it at once, and the server does not wait for it (SPEC X-08).
func TestARefusalEndsBothHalves(t *testing.T) {
	h := newHost(t)
	mustApply(t, h.host, document(wholeRegion, `, "force_tls": true`))
	raw, err := h.client.Dial(t.Context(), netip.AddrPortFrom(clientAddr, 0), endpoint)
	require.NoError(t, err)
	defer raw.Close()
	server := <-h.accepted // echo reads from it; what it finds is the end, and it closes
	_, err = io.WriteString(raw, "ping\n")
	require.NoError(t, err)
	ended(t, raw)
	if err = server.SetDeadline(time.Now().Add(2 * time.Second)); err == nil {
		_, err = server.Read(make([]byte, 1))
	}
	require.True(t, errors.Is(err, syscall.ECONNRESET) || errors.Is(err, net.ErrClosed) || errors.Is(err, io.EOF), "%v", err)

	// Without the ending tables the client is told all the same.
	for _, family := range []string{"ip", "ip6"} {
		h.nft(t, "delete", "table", family, "drawbridge")
	}
	again, _ := h.dial(t, false)
	require.Error(t, say(again))
	mustApply(t, h.host, document(wholeRegion, `, "force_tls": true`))
	require.NoError(t, h.host.Do(func() error { return enforcer.Reset(t.Context()) }))
	require.Empty(t, h.nft(t, "list", "ruleset"))
}

func TestConnectionsOfUnknownBeginning(t *testing.T) {
	for _, tt := range []struct {
		name, members string
		cut           bool
	}{
		{"cut by default", `, "force_tls": true`, true},
		{"kept if the policy says so", `, "force_tls": true, "unknown_connections": "keep"`, false},
		{"left alone without Force TLS", ``, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newHost(t)
			plain, _ := h.dial(t, false)
			require.NoError(t, say(plain))
			receipt := mustApply(t, h.host, document(wholeRegion, tt.members))
			if tt.cut {
				require.Equal(t, 1, receipt.Cut.Destroyed)
				ended(t, plain)
			} else {
				require.Zero(t, receipt.Cut.Cut())
				require.NoError(t, say(plain))
			}
		})
	}
}

func TestRevocationEndsWhatWasAllowed(t *testing.T) {
	h := newHost(t)
	mustApply(t, h.host, document(wholeRegion, ""))
	plain, _ := h.dial(t, false)
	secure, raw := h.dial(t, true)
	require.NoError(t, say(plain))
	require.NoError(t, say(secure))

	opened := mustApply(t, h.host, document("10.0.0.0/8", ""))
	require.Zero(t, opened.Cut.Cut())
	require.NoError(t, say(plain))

	receipt := mustApply(t, h.host, document("10.10.7.0/24", ""))
	require.Equal(t, 2, receipt.Cut.Destroyed)
	ended(t, plain)
	ended(t, raw)

	require.NoError(t, h.host.Do(func() error { return enforcer.Reset(t.Context()) }))
	free, _ := h.dial(t, false)
	require.NoError(t, say(free))
}

// What was in force stays in force when a policy is refused, connections included.
func TestARefusedPolicyCutsNothing(t *testing.T) {
	h := newHost(t)
	mustApply(t, h.host, document(wholeRegion, ""))
	plain, _ := h.dial(t, false)
	require.NoError(t, say(plain))
	_, err := apply(t, h.host, document("10.10.7.0/24", `, "internet_accessibility": true`))
	require.ErrorIs(t, err, enforcer.ErrRefused)
	require.NoError(t, say(plain))
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	another, err := h.client.Dial(ctx, netip.AddrPortFrom(clientAddr, 0), endpoint)
	require.NoError(t, err)
	require.NoError(t, another.Close())
}

// nft runs nft(8) on the host.
func (h *host) nft(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), netnstest.Tool(t, "nft"), args...)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	require.NoError(t, h.host.Start(cmd))
	require.NoError(t, cmd.Wait(), out.String())
	return out.String()
}

// dialing tries to connect for a moment; where that is not possible it is not.
func (h *host) dialing(t *testing.T) (open bool, raw net.Conn) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	raw, err := h.client.Dial(ctx, netip.AddrPortFrom(clientAddr, 0), endpoint)
	if err != nil {
		return false, nil
	}
	t.Cleanup(func() { _ = raw.Close() })
	return true, raw
}
