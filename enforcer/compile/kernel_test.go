package compile_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestEvasion: no byte of plaintext reaches the server's application under Force TLS (SPEC X-08), with packets that no
// ordinary client sends.
func TestEvasion(t *testing.T) {
	w := newWire(t)
	w.enforce(gateDocument(true, "cut"))
	port := gatePorts["redis"]
	app := w.application(port)
	ping := []byte("PING\r\n")
	for i, tt := range []struct {
		name string
		play func(g *ghost)
	}{
		{"plaintext", func(g *ghost) { g.connect().data(0, ping); g.awaitReset() }},
		{"a hello that the server discards, then plaintext", func(g *ghost) {
			g.connect().send(segment{flags: ack | psh, data: hello, old: true})
			require.Zero(t, g.taken())
			g.data(0, ping)
			g.awaitReset()
		}},
		{"a hello that the server discards, then plaintext across the first byte", func(g *ghost) {
			g.connect().send(segment{flags: ack | psh, data: hello, old: true})
			g.data(-1, append([]byte("x"), ping...))
			require.Zero(t, g.taken())
		}},
		{"plaintext in front of a hello", func(g *ghost) {
			g.connect().data(3, ping)
			g.data(0, hello[:3])
			g.awaitReset()
		}},
		{"a hello with a bad checksum, then plaintext", func(g *ghost) {
			g.connect().send(segment{flags: ack | psh, data: hello, badSum: true})
			g.data(0, ping)
			g.awaitReset()
		}},
		{"plaintext in fragments", func(g *ghost) {
			g.connect().send(segment{flags: ack | psh, data: ping, fragment: true})
			g.awaitReset()
		}},
		{"data in the SYN", func(g *ghost) {
			g.send(segment{at: -1, flags: syn, data: ping})
			require.Zero(t, g.connect().taken())
		}},
		{"the same ports again", func(g *ghost) {
			g.connect().data(0, hello)
			g.awaitData(string(serverHi))
			g.send(segment{at: len(hello), flags: rst | ack})
			app.forget(g.port)
			g.isn += 1 << 20
			g.connect().data(0, ping)
			g.awaitReset()
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := w.ghost(t, uint16(21000+i), port)
			tt.play(g)
			require.Zero(t, app.queued(g.port))
		})
	}
}

// TestOrdinaryTrouble costs at most a retransmission (SPEC X-08).
func TestOrdinaryTrouble(t *testing.T) {
	w := newWire(t)
	w.enforce(gateDocument(true, "cut"))
	port := gatePorts["redis"]
	app := w.application(port)
	for i, tt := range []struct {
		name string
		play func(g *ghost)
	}{
		{"none", func(g *ghost) { g.data(0, hello) }},
		{"in fragments", func(g *ghost) { g.send(segment{flags: ack | psh, data: hello, fragment: true}) }},
		{"sent twice", func(g *ghost) { g.data(0, hello); g.data(0, hello) }},
		{"seven bytes, then the rest", func(g *ghost) {
			g.data(0, hello7)
			g.await("acknowledgement", func(a answer) bool { return a.taken == len(hello7) })
			g.data(len(hello7), hello[len(hello7):])
		}},
		{"the second segment first", func(g *ghost) {
			g.data(7, hello[7:])
			g.data(0, hello7)
			g.await("acknowledgement", func(a answer) bool { return a.taken == len(hello7) })
			g.data(7, hello[7:])
		}},
		{"the first copy lost behind the gate", func(g *ghost) {
			g.send(segment{flags: ack | psh, data: hello, old: true})
			g.data(0, hello)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := w.ghost(t, uint16(22000+i), port).connect()
			tt.play(g)
			g.await("all of it", func(a answer) bool { return a.taken == len(hello) })
			require.Equal(t, len(hello), g.taken())
			require.Equal(t, string(hello), app.awaitReceived(g.port, len(hello)))
			g.data(len(hello), []byte("anything"))
			g.await("more", func(a answer) bool { return a.taken == len(hello)+len("anything") })
		})
	}
}

// TestTurningForceTLSOn cuts plaintext connections, those in disguise as well, and leaves TLS alone (SPEC X-05).
func TestTurningForceTLSOn(t *testing.T) {
	w := newWire(t)
	w.enforce(gateDocument(false, "cut"))
	port := gatePorts["redis"]
	app := w.application(port)
	ping := []byte("PING\r\n")

	plain := w.ghost(t, 23000, port).connect()
	plain.data(0, ping)
	plain.awaitData("+PONG\r\n")
	disguised := w.ghost(t, 23001, port).connect()
	disguised.send(segment{flags: ack | psh, data: hello, old: true})
	disguised.data(-1, append([]byte("x"), ping...))
	disguised.awaitData("+PONG\r\n")
	secure := w.ghost(t, 23002, port).connect()
	secure.data(0, hello)
	secure.awaitData(string(serverHi))
	begun := []*ghost{w.ghost(t, 23003, port).connect(), w.ghost(t, 23004, port).connect()}
	for _, g := range begun {
		require.Zero(t, g.taken(), "the handshake is complete")
	}

	w.enforce(gateDocument(true, "cut"))
	for _, g := range []*ghost{plain, disguised} {
		before := app.queued(g.port)
		require.Equal(t, len(ping), before)
		g.data(len(ping), ping)
		g.awaitReset()
		require.Equal(t, before, app.queued(g.port))
	}
	secure.data(len(hello), []byte("more"))
	secure.await("acknowledgement", func(a answer) bool { return a.taken == len(hello)+len("more") })
	begun[0].data(0, hello)
	begun[0].awaitData(string(serverHi))
	begun[1].data(0, ping)
	begun[1].awaitReset()
	require.Zero(t, app.queued(begun[1].port))
}

// certificate is good for one test.
func certificate(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{hostAddr.AsSlice()}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// serveTLS is every engine's server once it speaks TLS: it says everything back.
func serveTLS(c net.Conn, cert tls.Certificate) {
	s := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{cert}})
	_, _ = io.Copy(s, s) // until the client leaves
}

// preface is what client and server say before TLS.
type preface struct{ greeting, request, consent []byte }

var prefaces = map[string]preface{
	"pg":    {request: pgSSL, consent: []byte("S")},
	"mysql": {greeting: myGreeting, request: mySSL},
	"mongo": {},
	"redis": {},
}

func (p preface) serve(c net.Conn, cert tls.Certificate) {
	if _, err := c.Write(p.greeting); err != nil {
		return
	}
	request := make([]byte, len(p.request))
	if _, err := io.ReadFull(c, request); err != nil || !bytes.Equal(request, p.request) {
		return
	}
	if _, err := c.Write(p.consent); err == nil {
		serveTLS(c, cert)
	}
}

func (p preface) dial(t *testing.T, c net.Conn) *tls.Conn {
	t.Helper()
	_, err := io.ReadFull(c, make([]byte, len(p.greeting)))
	require.NoError(t, err)
	_, err = c.Write(p.request)
	require.NoError(t, err)
	_, err = io.ReadFull(c, make([]byte, len(p.consent)))
	require.NoError(t, err)
	return tls.Client(c, &tls.Config{InsecureSkipVerify: true}) // the lab's business is another
}

// TestRealTLS: ordinary TLS stacks, post-quantum key shares included, over every engine's way to TLS, with Force TLS
// off, on, and turned on in between.
func TestRealTLS(t *testing.T) {
	cert := certificate(t)
	for engine, p := range prefaces {
		t.Run(engine, func(t *testing.T) {
			w := newWire(t)
			w.listen(gatePorts[engine], func(c net.Conn) { p.serve(c, cert) })
			to := netip.AddrPortFrom(hostAddr, gatePorts[engine])
			var held []*tls.Conn
			for _, force := range []bool{false, true} {
				w.enforce(gateDocument(force, "cut"))
				raw, err := w.client.Dial(t.Context(), netip.AddrPortFrom(clientAddr, 0), to)
				require.NoError(t, err)
				defer raw.Close()
				require.NoError(t, raw.SetDeadline(time.Now().Add(10*time.Second)))
				held = append(held, p.dial(t, raw))
				for _, c := range held {
					echo(t, c)
				}
			}
			raw, err := w.client.Dial(t.Context(), netip.AddrPortFrom(clientAddr, 0), to)
			require.NoError(t, err)
			defer raw.Close()
			require.NoError(t, raw.SetDeadline(time.Now().Add(10*time.Second)))
			_, err = io.ReadFull(raw, make([]byte, len(p.greeting)))
			require.NoError(t, err)
			_, err = raw.Write([]byte("\x00\x00\x00\x08\x00\x03\x00\x00 plaintext of forty bytes or even more"))
			require.NoError(t, err)
			_, err = raw.Read(make([]byte, 1))
			require.ErrorIs(t, err, syscall.ECONNRESET)
		})
	}
}

func echo(t *testing.T, c *tls.Conn) {
	t.Helper()
	_, err := c.Write([]byte("marker"))
	require.NoError(t, err)
	got := make([]byte, len("marker"))
	_, err = io.ReadFull(c, got)
	require.NoError(t, err)
	require.Equal(t, "marker", string(got))
}

// TestOpeningLeavesNoGap: on a shared host, Internet accessibility changes the verdict of an element that every packet of
// the region's clients meets. None of them is denied while that happens: it would be told by a reset.
func TestOpeningLeavesNoGap(t *testing.T) {
	w := newWire(t)
	closed := gateDocument(true, "cut")
	open := bytes.ReplaceAll(closed, []byte(`"force_tls"`), []byte(`"internet_accessibility": true, "force_tls"`))
	require.NotEqual(t, closed, open)
	w.enforce(closed)
	port := gatePorts["redis"]
	w.listen(port, func(c net.Conn) {
		if _, err := io.ReadFull(c, make([]byte, len(hello))); err == nil {
			_, _ = c.Write(serverHi)
			_, _ = io.Copy(c, c) // until the client leaves
		}
	})
	c, err := w.client.Dial(t.Context(), netip.AddrPortFrom(clientAddr, 0), netip.AddrPortFrom(hostAddr, port))
	require.NoError(t, err)
	defer c.Close()
	require.NoError(t, c.SetDeadline(time.Now().Add(time.Minute)))
	_, err = c.Write(hello)
	require.NoError(t, err)
	_, err = io.ReadFull(c, make([]byte, len(serverHi)))
	require.NoError(t, err)
	var trips int
	stop, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		for got := make([]byte, 1); ; trips++ {
			select {
			case <-stop:
				ended <- nil
				return
			default:
			}
			_, err := c.Write(got)
			if err == nil {
				_, err = io.ReadFull(c, got)
			}
			if err != nil {
				ended <- err
				return
			}
		}
	}()
	for range 30 {
		w.enforce(open)
		w.enforce(closed)
	}
	close(stop)
	require.NoError(t, <-ended)
	require.NotZero(t, trips)
	t.Logf("%d questions while it was opened and closed 30 times", trips)
}
