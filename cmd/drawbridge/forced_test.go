//go:build !operator

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"drawbridge/enforcer"
	"drawbridge/enforcer/compile"
	"drawbridge/enforcer/nft"
	"drawbridge/enforcer/ruleset"
	"drawbridge/features/driver"
	"drawbridge/features/platform"
	"drawbridge/sim"
	"drawbridge/sim/client"
	"drawbridge/sim/endpoint"
	"drawbridge/sim/netns"
	"drawbridge/sim/netns/netnstest"
	"drawbridge/topology"
)

// forced is a lab in which the reference enforcer forces TLS on every database, and lets everybody in.
type forced struct {
	*sim.Lab
	office  *netns.Handle
	sources map[bool]netip.Addr // by: is IPv6
}

func newForced(t *testing.T, options compile.Options) *forced {
	t.Helper()
	netnstest.NoLeaks(t)
	lab, err := sim.Up(t.Context(), topology.Default(), sim.Options{AllowForged: true})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, lab.Close()) })
	require.NoError(t, lab.StartServers(t.Context()))
	f := &forced{Lab: lab, sources: map[bool]netip.Addr{}}
	vantage, ok := lab.World().Vantage("office")
	require.True(t, ok)
	for _, a := range vantage.Addresses {
		f.sources[a.Is6()] = a
	}
	f.office, ok = lab.Node("office")
	require.True(t, ok)
	f.openToAll(t, options)
	return f
}

// openToAll forces TLS on every database and lets everybody in.
func (f *forced) openToAll(t *testing.T, options compile.Options) {
	t.Helper()
	f.apply(t, options, func(d topology.Database) platform.Settings {
		if d.Model == topology.Dedicated {
			return platform.Settings{Rules: everybody}
		}
		return platform.Settings{ForceTLS: platform.On, InternetAccessibility: platform.On}
	})
}

var everybody = []platform.Rule{{CIDR: netip.MustParsePrefix("0.0.0.0/0")}, {CIDR: netip.MustParsePrefix("::/0")}}

// apply brings settings into force at every point, and returns how many connections that ended.
func (f *forced) apply(t *testing.T, options compile.Options, of func(topology.Database) platform.Settings) (ended int) {
	t.Helper()
	state := platform.Start(f.World())
	for _, d := range f.World().Databases() {
		state.Set(d.Name, of(d))
	}
	for _, p := range f.World().Points() {
		document, err := driver.Build(state, p.Name)
		require.NoError(t, err)
		text, err := json.Marshal(document)
		require.NoError(t, err)
		node, ok := f.Node(p.Name)
		require.True(t, ok)
		require.NoError(t, node.Do(func() error {
			receipt, err := enforcer.Apply(t.Context(), text, enforcer.Options{Name: p.Name, Compile: options})
			ended += receipt.Cut.Cut()
			return err
		}))
	}
	return ended
}

// gated lists the public endpoints that can speak TLS.
func (f *forced) gated() (out []topology.Endpoint) {
	for _, e := range f.World().Endpoints() {
		if e.TLS != topology.TLSNone && e.Kind == topology.PublicRW {
			out = append(out, e)
		}
	}
	return out
}

// dial connects from the office, from a port that no other connection has.
func (f *forced) dial(ctx context.Context, to netip.AddrPort, port uint16) (net.Conn, error) {
	return f.office.Dial(ctx, netip.AddrPortFrom(f.sources[to.Addr().Is6()], port), to)
}

// Bounds of SPEC X-08 and of the refusals that people notice.
const (
	clientLearns = 300 * time.Millisecond
	serverLearns = 5 * time.Second
)

// TestBothHalvesOfARefusalEnd: whoever speaks plaintext under Force TLS learns of it at once, and no server goes on
// waiting for it, on the database's host and behind a gateway, over IPv4 and IPv6 (SPEC X-08).
func TestBothHalvesOfARefusalEnd(t *testing.T) {
	f := newForced(t, compile.Options{})
	var slowest time.Duration
	for i, e := range f.gated() {
		port := uint16(24000 + i)
		ctx, cancel := context.WithTimeout(t.Context(), serverLearns)
		c, err := f.dial(ctx, e.Addr, port)
		require.NoError(t, err, "%s", e.Addr)
		if e.Engine == topology.MySQL {
			_, err := io.ReadFull(c, make([]byte, 4)) // it greets first
			require.NoError(t, err)
		}
		_, err = f.Journal().Wait(ctx, port, func(e endpoint.Event) bool { return e.Kind == endpoint.Accepted })
		require.NoError(t, err)
		said := time.Now()
		_, err = io.WriteString(c, "drawbridge plaintext\n")
		require.NoError(t, err)
		require.NoError(t, c.SetReadDeadline(said.Add(serverLearns)))
		_, err = io.Copy(io.Discard, c)
		require.ErrorIs(t, err, syscall.ECONNRESET, "%s at %s", e.Database, e.Addr)
		slowest = max(slowest, time.Since(said))
		_, err = f.Journal().Wait(ctx, port, func(e endpoint.Event) bool { return e.Kind == endpoint.Closed })
		require.NoError(t, err, "%s at %s: the server still waits", e.Database, e.Addr)
		require.Zero(t, f.Journal().Received(port), "%s at %s", e.Database, e.Addr)
		require.NoError(t, c.Close())
		cancel()
	}
	require.Less(t, slowest, clientLearns)
	t.Logf("%d endpoints, the slowest refusal after %v", len(f.gated()), slowest)
}

// A flood of more SYNs than can be remembered, and than one endpoint's budget is: outside of this test these are 2^20, and
// 10,000 in a second. With 400,000 SYNs and the kernel's tracking table full, the others are served as well; that takes a
// minute on two processors.
const (
	floodSize = 20_000
	memory    = 4096
	budget    = 100
)

// flood sends SYNs that nobody completes to an endpoint, each from another source.
func (f *forced) flood(to netip.AddrPort, n int) error {
	fd, err := f.office.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_RAW)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	buf := gopacket.NewSerializeBuffer()
	ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolTCP, SrcIP: net.IP{11, 0, 0, 0}, DstIP: to.Addr().AsSlice()}
	tcp := &layers.TCP{SrcPort: 40000, DstPort: layers.TCPPort(to.Port()), SYN: true, Window: 65535}
	if err := errors.Join(tcp.SetNetworkLayerForChecksum(ip), gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, ip, tcp)); err != nil {
		return err
	}
	packet := buf.Bytes()
	for i := range n {
		// The kernel fills in the IP checksum (raw(7)). What the source's lower half adds to the TCP checksum, the sequence
		// number's takes away again.
		packet[13], packet[14], packet[15] = byte(i>>16), byte(i>>8), byte(i)
		packet[24], packet[25] = ^byte(0), ^byte(i>>16)
		packet[26], packet[27] = ^byte(i>>8), ^byte(i)
		if err := unix.Sendto(fd, packet, 0, &unix.SockaddrInet4{Addr: to.Addr().As4()}); err != nil && !errors.Is(err, unix.ENOBUFS) {
			return err
		}
	}
	return nil
}

// session is a driver's connection to a database.
func (f *forced) session(ctx context.Context, dial client.Dial, e topology.Endpoint, tls bool) (client.Session, error) {
	return client.Open(ctx, dial, client.Target{Engine: e.Engine, Addr: e.Addr, TLS: tls, RootCAs: f.CA(), ServerName: e.Database})
}

// query asks a database one question over TLS.
func (f *forced) query(ctx context.Context, e topology.Endpoint, port uint16) error {
	session, err := f.session(ctx, func(ctx context.Context) (net.Conn, error) { return f.dial(ctx, e.Addr, port) }, e, true)
	if err != nil {
		return err
	}
	return errors.Join(session.Query(ctx, fmt.Sprintf("marker%d", port)), session.Close())
}

// turns is how often Force TLS is turned on and off again under load.
const turns = 4

// TestForceTLSUnderLoad: turning Force TLS on cuts the connections that speak plaintext and no others; those that speak
// TLS and ask without pause lose not one query, at both placements (SPEC X-05).
func TestForceTLSUnderLoad(t *testing.T) {
	f := newForced(t, compile.Options{})
	force := func(to platform.Toggle) int {
		return f.apply(t, compile.Options{}, func(d topology.Database) platform.Settings {
			if d.Model == topology.Dedicated {
				return platform.Settings{ForceTLS: to, Rules: everybody}
			}
			return platform.Settings{ForceTLS: to}
		})
	}
	force(platform.Off)
	app, ok := f.World().Vantage("osc-fr1/web")
	require.True(t, ok)
	node, _ := f.Node("osc-fr1/web")
	port := uint16(26000)
	open := func(e topology.Endpoint, tls bool) client.Session {
		port++
		local := netip.AddrPortFrom(app.Addresses[slices.IndexFunc(app.Addresses, netip.Addr.Is4)], port)
		s, err := f.session(t.Context(), func(ctx context.Context) (net.Conn, error) { return node.Dial(ctx, local, e.Addr) }, e, tls)
		require.NoError(t, err, "%s, TLS %v", e.Database, tls)
		t.Cleanup(func() { _ = s.Close() }) // which may have been cut
		return s
	}
	var databases []topology.Endpoint
	for _, name := range []string{"pg-shared", "my-shared", "pg-dedicated", "mongo-dedicated"} {
		databases = append(databases, f.endpointOf(t, name))
	}
	var stop atomic.Bool
	var asked atomic.Int64
	var wg sync.WaitGroup
	for _, e := range databases {
		s := open(e, true)
		wg.Go(func() {
			for n := 0; !stop.Load(); n++ {
				if err := s.Query(t.Context(), "marker"); err != nil {
					t.Errorf("%s, query %d: %v", e.Database, n, err)
					return
				}
				asked.Add(1)
			}
		})
	}
	for turn := range turns {
		var plain []client.Session
		for _, e := range databases {
			s := open(e, false)
			require.NoError(t, s.Query(t.Context(), "marker"), e.Database)
			plain = append(plain, s)
		}
		// A late acknowledgement that meets the new rules before the cut does is refused by the gate, which ends both halves.
		require.LessOrEqual(t, force(platform.On), len(plain), "turn %d", turn)
		for i, s := range plain {
			require.Error(t, s.Query(t.Context(), "marker"), "turn %d, %s", turn, databases[i].Database)
		}
		force(platform.Off)
	}
	stop.Store(true)
	wg.Wait()
	require.Greater(t, asked.Load(), int64(turns))
	t.Logf("%d queries over TLS while Force TLS was turned on and off %d times", asked.Load(), turns)
}

// TestAFloodAtOneDatabase: SYNs from allowed sources at one database, more than its memory holds, change no other
// database's connect success (SPEC X-10), on a shared host and at a gateway.
func TestAFloodAtOneDatabase(t *testing.T) {
	f := newForced(t, compile.Options{Memory: memory, Budget: budget})
	for _, tt := range []struct{ flooded, other string }{{"pg-shared", "my-shared"}, {"pg-dedicated", "mongo-dedicated"}} {
		t.Run(tt.flooded, func(t *testing.T) {
			target, other := f.endpointOf(t, tt.flooded), f.endpointOf(t, tt.other)
			var done atomic.Bool
			var wg sync.WaitGroup
			wg.Go(func() {
				defer done.Store(true)
				if err := f.flood(target.Addr, floodSize); err != nil {
					t.Error(err)
				}
			})
			asked := 0
			for ; !done.Load(); asked++ {
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				require.NoError(t, f.query(ctx, other, uint16(30000+asked%20000)), "question %d", asked)
				cancel()
			}
			wg.Wait()
			require.Greater(t, asked, 10)
			require.Less(t, f.remembered(t, tt.flooded), memory*9/10, "the flooded endpoint's budget leaves room for others")
			t.Logf("%d questions answered during %d SYNs", asked, floodSize)
		})
	}
}

func (f *forced) endpointOf(t *testing.T, database string) topology.Endpoint {
	t.Helper()
	for _, e := range f.gated() {
		if e.Database == database && e.Addr.Addr().Is4() {
			return e
		}
	}
	require.Fail(t, "no endpoint", database)
	return topology.Endpoint{}
}

// remembered is how many elements the point in front of a database holds for its connections that begin.
func (f *forced) remembered(t *testing.T, database string) (n int) {
	t.Helper()
	for _, p := range f.World().Points() {
		if !slices.Contains(p.Databases, database) {
			continue
		}
		node, _ := f.Node(p.Name)
		require.NoError(t, node.Do(func() error {
			kernel, err := nft.Open(compile.TableName)
			if err != nil {
				return err
			}
			set := ruleset.Set{Name: "expected", Key: []ruleset.DataType{ruleset.TypeMark, ruleset.TypeMark}}
			elements, err := kernel.ReadCounted(t.Context(), set)
			n = len(elements)
			return errors.Join(err, kernel.Close())
		}))
	}
	return n
}
