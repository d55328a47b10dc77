package client_test

import (
	"context"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"drawbridge/sim/client"
	"drawbridge/sim/endpoint"
	"drawbridge/topology"
)

// patience is how long a test waits for what must come; nothing waits that long when all is well.
const patience = 20 * time.Second

func deadline(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// events waits until the connection of the port is closed and returns what the server saw of it.
func events(t testing.TB, s *endpoint.Server, port uint16) []endpoint.Event {
	t.Helper()
	_, err := s.Journal().Wait(deadline(t), port, func(e endpoint.Event) bool { return e.Kind == endpoint.Closed })
	require.NoError(t, err)
	return s.Journal().Events(port)
}

func of(kind endpoint.Kind, events []endpoint.Event) []endpoint.Event {
	var out []endpoint.Event
	for _, e := range events {
		if e.Kind == kind {
			out = append(out, e)
		}
	}
	return out
}

// eachWay runs a test for every port and every way in which a client can be served there.
func eachWay(t *testing.T, run func(t *testing.T, p port, encrypted bool)) {
	for _, p := range ports() {
		for _, encrypted := range p.ways() {
			t.Run(p.name+"/"+way(encrypted), func(t *testing.T) { run(t, p, encrypted) })
		}
	}
}

// tired returns from each Write long after the bytes are gone, as on a busy machine: the answer may be there before.
type tired struct {
	net.Conn
	rest time.Duration
}

func (c tired) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	<-time.After(c.rest)
	return n, err
}

// TestSessionSurvivesABusyMachine: net/http gives a connection up whose writer has not come back 50 ms after the answer.
func TestSessionSurvivesABusyMachine(t *testing.T) {
	const rest = 80 * time.Millisecond
	a := newAuthority(t)
	eachWay(t, func(t *testing.T, p port, encrypted bool) {
		t.Parallel()
		s := serve(t, p.config(a))
		d := &dialer{addr: s.Addr()}
		dial := func(ctx context.Context) (net.Conn, error) {
			conn, err := d.dial(ctx)
			return tired{conn, rest}, err
		}
		session, err := client.Open(deadline(t), dial, target(a, s, p, encrypted))
		require.NoError(t, err)
		require.NoError(t, session.Query(deadline(t), "marker-1"))
		require.NoError(t, session.Query(deadline(t), "marker-2"))
		require.NoError(t, session.Close())
	})
}

func TestSessionIsServedAndJournalled(t *testing.T) {
	a := newAuthority(t)
	eachWay(t, func(t *testing.T, p port, encrypted bool) {
		s := serve(t, p.config(a))
		d := &dialer{addr: s.Addr()}
		session, err := client.Open(deadline(t), d.dial, target(a, s, p, encrypted))
		require.NoError(t, err)
		require.NoError(t, session.Query(deadline(t), "marker-1"))
		require.NoError(t, session.Query(deadline(t), "marker-2"))
		require.NoError(t, session.Close())
		require.EqualValues(t, 1, d.calls.Load())

		seen := events(t, s, d.port)
		require.Equal(t, endpoint.Accepted, seen[0].Kind)
		require.Equal(t, endpoint.Closed, seen[len(seen)-1].Kind)
		require.Len(t, of(endpoint.Accepted, seen), 1)
		require.Empty(t, of(endpoint.Refused, seen))
		var asked []string
		for _, e := range of(endpoint.Query, seen) {
			require.Equal(t, encrypted, e.TLS)
			asked = append(asked, e.Query)
		}
		require.Contains(t, strings.Join(asked, "\n"), "marker-1")
		require.Contains(t, strings.Join(asked, "\n"), "marker-2")
		checkTLS(t, seen, encrypted)
		checkEnds(t, s, d, seen)
	})
}

func checkTLS(t *testing.T, seen []endpoint.Event, encrypted bool) {
	t.Helper()
	if !encrypted {
		require.Empty(t, of(endpoint.TLS, seen))
		return
	}
	require.Len(t, of(endpoint.TLS, seen), 1)
	first := of(endpoint.Bytes, seen)
	// A ClientHello: at once, or behind an SSLRequest of 8 (PostgreSQL) or 36 bytes (MySQL).
	require.Contains(t, string(first[len(first)-1].First), "\x16\x03\x01")
	require.Len(t, first[len(first)-1].First, endpoint.FirstBytes)
}

func checkEnds(t *testing.T, s *endpoint.Server, d *dialer, seen []endpoint.Event) {
	t.Helper()
	last := seen[len(seen)-1]
	require.Equal(t, s.Journal().Received(d.port), last.Received)
	require.Equal(t, netip.MustParseAddrPort(s.Addr().String()), last.Local)
	require.Equal(t, d.port, last.Remote.Port())
	require.Equal(t, "orders", last.Database)
	require.Equal(t, "orders-1", last.Node)
}

func TestDatabaseThatRequiresTLSRefusesPlaintextOnly(t *testing.T) {
	a := newAuthority(t)
	eachWay(t, func(t *testing.T, p port, encrypted bool) {
		s := serve(t, p.config(a))
		s.RequireTLS(func(remote netip.Addr) bool { return remote.IsLoopback() })
		d := &dialer{addr: s.Addr()}
		session, err := client.Open(deadline(t), d.dial, target(a, s, p, encrypted))
		if encrypted {
			require.NoError(t, err)
			require.NoError(t, session.Query(deadline(t), "marker"))
			require.NoError(t, session.Close())
			return
		}
		require.ErrorIs(t, err, client.ErrRefusedByDatabase)
		require.Equal(t, client.StageNegotiate, stage(t, err))
		seen := events(t, s, d.port)
		require.Len(t, of(endpoint.Refused, seen), 1)
		require.Empty(t, of(endpoint.Query, seen))

		s.RequireTLS(func(netip.Addr) bool { return false })
		session, err = client.Open(deadline(t), (&dialer{addr: s.Addr()}).dial, target(a, s, p, false))
		require.NoError(t, err)
		require.NoError(t, session.Close())
	})
}

func TestTLSThatIsNotOffered(t *testing.T) {
	a := newAuthority(t)
	for _, p := range ports() {
		if p.transport == endpoint.TLSOnly {
			continue
		}
		t.Run(p.name, func(t *testing.T) {
			cfg := p.config(a)
			cfg.TLS = nil
			s := serve(t, cfg)
			d := &dialer{addr: s.Addr()}
			_, err := client.Open(deadline(t), d.dial, target(a, s, p, true))
			require.Equal(t, client.StageNegotiate, stage(t, err))
			// MongoDB has no way to say so: it closes the connection.
			require.Equal(t, p.engine != topology.MongoDB, errors.Is(err, client.ErrTLSNotOffered), "%v", err)
			require.Empty(t, of(endpoint.Query, events(t, s, d.port)))
		})
	}
}

func TestPlaintextAtTLSPort(t *testing.T) {
	a := newAuthority(t)
	for _, p := range ports() {
		if p.transport != endpoint.TLSOnly {
			continue
		}
		t.Run(p.name, func(t *testing.T) {
			s := serve(t, p.config(a))
			d := &dialer{addr: s.Addr()}
			_, err := client.Open(deadline(t), d.dial, target(a, s, p, false))
			require.Equal(t, client.StageNegotiate, stage(t, err))
			// Only HTTP has words for it.
			words := p.cluster || p.engine == topology.OpenSearch || p.engine == topology.InfluxDB
			require.Equal(t, words, errors.Is(err, client.ErrRefusedByDatabase), "%v", err)
			seen := events(t, s, d.port)
			require.NotEmpty(t, of(endpoint.Bytes, seen), "plaintext has to be on the wire")
			require.Len(t, of(endpoint.Refused, seen), 1)
			require.Empty(t, of(endpoint.Query, seen))
		})
	}
}

func TestStrangersAreNotTrusted(t *testing.T) {
	a, stranger := newAuthority(t), newAuthority(t)
	for _, p := range ports() {
		if p.transport == endpoint.PlainOnly {
			continue
		}
		s := serve(t, p.config(a))
		for name, change := range map[string]func(*client.Target){
			"another authority": func(t *client.Target) { t.RootCAs = stranger.pool },
			"no authority":      func(t *client.Target) { t.RootCAs = nil },
			"another name":      func(t *client.Target) { t.ServerName = "elsewhere.example" },
			"no name":           func(t *client.Target) { t.ServerName = "" },
		} {
			t.Run(p.name+"/"+name, func(t *testing.T) {
				d := &dialer{addr: s.Addr()}
				to := target(a, s, p, true)
				change(&to)
				_, err := client.Open(deadline(t), d.dial, to)
				require.Equal(t, client.StageNegotiate, stage(t, err))
				require.NotErrorIs(t, err, client.ErrTLSNotOffered)
				var unknown x509.UnknownAuthorityError
				var hostname x509.HostnameError
				require.True(t, errors.As(err, &unknown) || errors.As(err, &hostname), "%v", err)
				require.Empty(t, of(endpoint.Query, events(t, s, d.port)))
			})
		}
	}
}

func TestSessionIsOneConnection(t *testing.T) {
	a := newAuthority(t)
	eachWay(t, func(t *testing.T, p port, encrypted bool) {
		s := serve(t, p.config(a))
		d := &dialer{addr: s.Addr()}
		session, err := client.Open(deadline(t), d.dial, target(a, s, p, encrypted))
		require.NoError(t, err)
		require.NoError(t, s.Close())
		err = session.Query(deadline(t), "marker")
		require.Equal(t, client.StageQuery, stage(t, err))
		require.NotErrorIs(t, err, client.ErrMarker)
		_ = session.Close() // what a driver says about closing a dead connection is its own affair
		require.EqualValues(t, 1, d.calls.Load())
	})
}

// joined holds back the client's second write until the third, so that the end of the TLS handshake and the first request
// arrive together.
type joined struct {
	net.Conn
	mu     sync.Mutex
	writes int
	held   []byte
}

func (c *joined) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.writes++
	if c.writes == 2 {
		c.held = append(c.held, p...)
		return len(p), nil
	}
	_, err := c.Conn.Write(append(c.held, p...))
	c.held = nil
	return len(p), err
}

func TestRequestInTheSegmentThatEndsTheHandshake(t *testing.T) {
	a := newAuthority(t)
	for _, p := range ports() {
		if p.transport == endpoint.InBand || p.transport == endpoint.PlainOnly {
			continue
		}
		t.Run(p.name, func(t *testing.T) {
			s := serve(t, p.config(a))
			d := &dialer{addr: s.Addr()}
			dial := func(ctx context.Context) (net.Conn, error) {
				c, err := d.dial(ctx)
				return &joined{Conn: c}, err
			}
			session, err := client.Open(deadline(t), dial, target(a, s, p, true))
			require.NoError(t, err)
			require.NoError(t, session.Query(deadline(t), "marker"))
			require.NoError(t, session.Close())
		})
	}
}

// silent is a connection to nobody: it tells when the client waits for an answer, which never comes.
type silent struct {
	net.Conn
	waiting context.CancelFunc
}

func (c silent) Read(p []byte) (int, error) {
	c.waiting()
	return c.Conn.Read(p)
}

func TestOpenEndsWithItsContext(t *testing.T) {
	a := newAuthority(t)
	eachWay(t, func(t *testing.T, p port, encrypted bool) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		defer func() { require.NoError(t, l.Close()) }()
		limit := deadline(t)
		ctx, cancel := context.WithCancel(limit)
		defer cancel()
		d := &dialer{addr: l.Addr()}
		_, err = client.Open(ctx, func(ctx context.Context) (net.Conn, error) {
			c, err := d.dial(ctx)
			return silent{c, cancel}, err
		}, client.Target{
			Engine: p.engine, Cluster: p.cluster, TLS: encrypted, RootCAs: a.pool, ServerName: serverName,
			Addr: netip.MustParseAddrPort(l.Addr().String()),
		})
		require.ErrorIs(t, err, context.Canceled)
		require.NoError(t, limit.Err(), "Open went on after its context had ended")
		require.Equal(t, client.StageNegotiate, stage(t, err))
		require.EqualValues(t, 1, d.calls.Load())
	})
}

func TestQueryEndsWithItsContext(t *testing.T) {
	a := newAuthority(t)
	eachWay(t, func(t *testing.T, p port, encrypted bool) {
		s := serve(t, p.config(a))
		d := &dialer{addr: s.Addr()}
		limit := deadline(t)
		ctx, cancel := context.WithCancel(limit)
		defer cancel()
		var deaf atomic.Bool
		session, err := client.Open(limit, func(ctx context.Context) (net.Conn, error) {
			c, err := d.dial(ctx)
			return &mute{Conn: c, deaf: &deaf, swallowed: cancel}, err
		}, target(a, s, p, encrypted))
		require.NoError(t, err)
		deaf.Store(true)
		err = session.Query(ctx, "marker")
		require.ErrorIs(t, err, context.Canceled)
		require.NoError(t, limit.Err(), "Query went on after its context had ended")
		require.Equal(t, client.StageQuery, stage(t, err))
		_ = session.Close() // what a driver says about closing a dead connection is its own affair
	})
}

// mute swallows what the client writes while deaf is set, like a firewall that began to drop.
type mute struct {
	net.Conn
	deaf      *atomic.Bool
	swallowed context.CancelFunc
}

func (c *mute) Write(p []byte) (int, error) {
	if c.deaf.Load() {
		c.swallowed()
		return len(p), nil
	}
	return c.Conn.Write(p)
}

func TestAnswerWithoutMarkerIsNoAnswer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	other := http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(endpoint.OpaqueID, "something else")
		_, _ = io.WriteString(w, r.Header.Get(endpoint.OpaqueID))
	})}
	var wg sync.WaitGroup
	wg.Go(func() { _ = other.Serve(l) })
	t.Cleanup(func() { require.NoError(t, other.Close()); wg.Wait() })
	d := &dialer{addr: l.Addr()}
	session, err := client.Open(deadline(t), d.dial, client.Target{
		Engine: topology.OpenSearch, Addr: netip.MustParseAddrPort(l.Addr().String()),
	})
	require.NoError(t, err)
	err = session.Query(deadline(t), "marker")
	require.ErrorIs(t, err, client.ErrMarker)
	require.Equal(t, client.StageQuery, stage(t, err))
	require.NoError(t, session.Close())
}

func TestMarkersThatStandForThemselves(t *testing.T) {
	a := newAuthority(t)
	p := ports()[0]
	s := serve(t, p.config(a))
	d := &dialer{addr: s.Addr()}
	session, err := client.Open(deadline(t), d.dial, target(a, s, p, false))
	require.NoError(t, err)
	for _, bad := range []string{"", "it's", "a b", "a\\b", "a\nb", "é", strings.Repeat("m", 129)} {
		require.ErrorIs(t, session.Query(deadline(t), bad), client.ErrMarker, "%q", bad)
	}
	require.NoError(t, session.Query(deadline(t), strings.Repeat("m", 128)))
	require.NoError(t, session.Close())
	require.Len(t, of(endpoint.Query, events(t, s, d.port)), 1)
}

func TestErrorsBeforeTheFirstByte(t *testing.T) {
	broken := errors.New("broken")
	_, err := client.Open(t.Context(), func(context.Context) (net.Conn, error) { return nil, broken },
		client.Target{Engine: topology.Redis})
	require.ErrorIs(t, err, broken)
	require.Equal(t, client.StageDial, stage(t, err))
	for _, unknown := range []client.Target{{}, {Engine: "oracle"}, {Cluster: true}} {
		_, err = client.Open(t.Context(), func(context.Context) (net.Conn, error) {
			t.Error("dialed")
			return nil, broken
		}, unknown)
		require.ErrorIs(t, err, client.ErrTarget)
	}
}

func stage(t testing.TB, err error) client.Stage {
	t.Helper()
	var e *client.Error
	require.ErrorAs(t, err, &e)
	return e.Stage
}
