package endpoint

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/stretchr/testify/require"

	"drawbridge/topology"
)

// patience is how long a test waits for what must come; nothing waits that long when all is well.
const patience = 20 * time.Second

var testTLS = sync.OnceValue(func() *tls.Config {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	cert := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, &key.PublicKey, key)
	if err != nil {
		panic(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
})

// peer is a client that sends what it likes.
type peer struct {
	*net.TCPConn
	t      testing.TB
	server *Server
}

func connect(t testing.TB, cfg Config) peer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s, err := Serve(l, cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return connectTo(t, s)
}

func connectTo(t testing.TB, s *Server) peer {
	t.Helper()
	c, err := net.Dial("tcp", s.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	require.NoError(t, c.SetDeadline(time.Now().Add(patience)))
	return peer{c.(*net.TCPConn), t, s}
}

func postgres(tlsConfig *tls.Config) Config {
	return Config{Engine: topology.PostgreSQL, Transport: InBand, TLS: tlsConfig}
}

func (p peer) send(b ...byte) {
	p.t.Helper()
	_, err := p.Write(b)
	require.NoError(p.t, err)
}

func (p peer) receive(n int) []byte {
	p.t.Helper()
	b := make([]byte, n)
	_, err := io.ReadFull(p, b)
	require.NoError(p.t, err)
	return b
}

// rest returns everything until the server closes; a reset counts as closing.
func (p peer) rest() []byte {
	p.t.Helper()
	b, err := io.ReadAll(p)
	var timeout net.Error
	require.False(p.t, errors.As(err, &timeout) && timeout.Timeout(), "the server keeps the connection open")
	return b
}

// saw returns what the server recorded until it closed the connection.
func (p peer) saw(kind Kind) []Event {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	defer cancel()
	port := p.LocalAddr().(*net.TCPAddr).AddrPort().Port()
	_, err := p.server.Journal().Wait(ctx, port, func(e Event) bool { return e.Kind == Closed })
	require.NoError(p.t, err)
	var out []Event
	for _, e := range p.server.Journal().Events(port) {
		if e.Kind == kind {
			out = append(out, e)
		}
	}
	return out
}

func (p peer) fatal(code string) {
	p.t.Helper()
	msg, err := pgproto3.NewFrontend(p, p).Receive()
	require.NoError(p.t, err)
	require.Equal(p.t, code, msg.(*pgproto3.ErrorResponse).Code)
	require.Equal(p.t, "FATAL", msg.(*pgproto3.ErrorResponse).Severity)
	require.NoError(p.t, p.CloseWrite())
	require.Empty(p.t, p.rest())
	require.Len(p.t, p.saw(Refused), 1)
}

func startup(code uint32) []byte {
	return binary.BigEndian.AppendUint32([]byte{0, 0, 0, 8}, code)
}

func TestBytesBehindSSLRequestAreRefused(t *testing.T) {
	for _, request := range []uint32{sslRequestCode, gssEncRequestCode} {
		p := connect(t, postgres(testTLS()))
		p.send(append(startup(request), 'x')...)
		p.fatal(codeProtocolViolation)
		require.Empty(t, p.saw(TLS))
	}
}

func TestPostgreSQLAnswersToRequests(t *testing.T) {
	p := connect(t, postgres(nil))
	p.send(startup(gssEncRequestCode)...)
	require.Equal(t, "N", string(p.receive(1)))
	p.send(startup(sslRequestCode)...)
	require.Equal(t, "N", string(p.receive(1)))
	p.send(startup(0x00020000)...) // protocol 2.0
	p.fatal(codeFeatureUnsupported)

	p = connect(t, postgres(testTLS()))
	p.send(startup(sslRequestCode)...)
	require.Equal(t, "S", string(p.receive(1)))
	p.send([]byte("plaintext after all, as if there had been no S")...)
	_ = p.rest()
	require.Empty(t, p.saw(TLS))
	require.Len(t, p.saw(Refused), 1)
}

func TestPostgreSQLClosesWithoutAnAnswer(t *testing.T) {
	cancel := append([]byte{0, 0, 0, 16}, binary.BigEndian.AppendUint32(nil, cancelRequestCode)...)
	for name, sent := range map[string][]byte{
		"CancelRequest": append(cancel, make([]byte, 8)...),
		"too short":     {0, 0, 0, 7, 0, 0, 0},
		"too long":      {0, 0, 0x27, 0x11},
		"HTTP":          []byte("GET / HTTP/1.1\r\n\r\n"),
		"negative":      {0xff, 0xff, 0xff, 0xff, 0, 3, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			p := connect(t, postgres(testTLS()))
			p.send(sent...)
			require.Empty(t, p.rest())
			require.Len(t, p.saw(Query), map[bool]int{true: 1}[name == "CancelRequest"])
		})
	}
}

func TestSecondSSLRequestInsideTLSIsRefused(t *testing.T) {
	p := connect(t, postgres(testTLS()))
	p.send(startup(sslRequestCode)...)
	require.Equal(t, "S", string(p.receive(1)))
	c := tls.Client(p, &tls.Config{InsecureSkipVerify: true}) // the certificate is not the subject
	_, err := c.Write(startup(sslRequestCode))
	require.NoError(t, err)
	msg, err := pgproto3.NewFrontend(c, c).Receive()
	require.NoError(t, err)
	require.Equal(t, codeFeatureUnsupported, msg.(*pgproto3.ErrorResponse).Code)
	require.NoError(t, c.Close())
	require.True(t, p.saw(Refused)[0].TLS)
}

func TestDirectTLSNeedsALPN(t *testing.T) {
	for _, c := range []struct {
		offered []string
		served  bool
	}{{[]string{"postgresql"}, true}, {nil, false}, {[]string{"http/1.1"}, false}} {
		p := connect(t, postgres(testTLS()))
		conn := tls.Client(p, &tls.Config{InsecureSkipVerify: true, NextProtos: c.offered}) // the certificate is not the subject
		f := pgproto3.NewFrontend(conn, conn)
		f.Send(&pgproto3.StartupMessage{ProtocolVersion: pgproto3.ProtocolVersion30, Parameters: map[string]string{"user": User}})
		flushed := f.Flush()
		msg, err := f.Receive()
		if !c.served {
			require.Error(t, errors.Join(flushed, err), "%v", c.offered)
			require.Len(t, p.saw(Refused), 1)
			continue
		}
		require.NoError(t, err)
		require.Equal(t, []string{"SCRAM-SHA-256"}, msg.(*pgproto3.AuthenticationSASL).AuthMechanisms)
		require.NoError(t, conn.Close())
		require.Len(t, p.saw(TLS), 1)
	}
	p := connect(t, postgres(nil))
	p.send(0x16, 3, 1)
	require.Empty(t, p.rest())
	require.Len(t, p.saw(Refused), 1)
}

func TestPostgreSQLAuthenticates(t *testing.T) {
	p := connect(t, postgres(nil))
	for _, c := range []struct{ user, password, code string }{
		{User, Password, ""}, {User, "wrong", codeInvalidPassword}, {"postgres", Password, codeInvalidPassword},
	} {
		conn, err := pgconn.Connect(t.Context(), "sslmode=disable host="+p.server.Addr().(*net.TCPAddr).IP.String()+
			" port="+strconv.Itoa(p.server.Addr().(*net.TCPAddr).Port)+" dbname=any user="+c.user+" password="+c.password)
		if c.code == "" {
			require.NoError(t, err)
			require.NoError(t, conn.Close(t.Context()))
			continue
		}
		var refused *pgconn.PgError
		require.ErrorAs(t, err, &refused)
		require.Equal(t, c.code, refused.Code)
	}
}

func TestHTTPAuthenticates(t *testing.T) {
	p := connect(t, Config{Engine: topology.InfluxDB, Transport: PlainOnly})
	for _, c := range []struct {
		method, path, user, password string
		status                       int
	}{
		{"GET", "/ping", User, Password, http.StatusNoContent},
		{"GET", "/query", User, Password, http.StatusOK},
		{"GET", "/ping", "", "", http.StatusUnauthorized},
		{"GET", "/ping", User, "wrong", http.StatusUnauthorized},
		{"GET", "/ping", "root", Password, http.StatusUnauthorized},
		{"GET", "/", User, Password, http.StatusNotFound},
		{"POST", "/query", User, Password, http.StatusMethodNotAllowed},
	} {
		req, err := http.NewRequestWithContext(t.Context(), c.method, "http://"+p.server.Addr().String()+c.path, nil)
		require.NoError(t, err)
		if c.user != "" {
			req.SetBasicAuth(c.user, c.password)
		}
		res, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		require.NoError(t, res.Body.Close())
		require.Equal(t, c.status, res.StatusCode, c)
	}
	http.DefaultClient.CloseIdleConnections()
}

func TestMySQLAuthenticates(t *testing.T) {
	p := connect(t, Config{Engine: topology.MySQL, Transport: InBand})
	p.mysqlPacket()
	p.send(mysqlLogin()...) // its password is wrong
	answer := p.mysqlPacket()
	require.Equal(t, byte(0xff), answer[0])
	require.EqualValues(t, 1045, binary.LittleEndian.Uint16(answer[1:]))
	require.Len(t, p.saw(Refused), 1)
}

// pgx asks for integers in binary.
func TestColumnFormats(t *testing.T) {
	require.Equal(t, []byte{0, 0, 1, 0}, column{value: "256", number: true}.encode(binaryFormat))
	require.Equal(t, []byte("256"), column{value: "256", number: true}.encode(0))
	require.Equal(t, []byte("x"), column{value: "x"}.encode(binaryFormat))
}

func TestMySQLErrorForInsecureTransport(t *testing.T) {
	p := connect(t, Config{Engine: topology.MySQL, Transport: InBand, TLS: testTLS()})
	p.server.RequireTLS(func(netip.Addr) bool { return true })
	p.mysqlPacket() // the greeting
	p.send(mysqlLogin()...)
	answer := p.mysqlPacket()
	require.Equal(t, byte(0xff), answer[0])
	require.EqualValues(t, 3159, binary.LittleEndian.Uint16(answer[1:]))
	require.Contains(t, string(answer), "Connections using insecure transport are prohibited")
	require.Empty(t, p.rest())
	require.Len(t, p.saw(Refused), 1)
}

// TestWhoIsCutOffIsNotRefused: a connection that somebody ends, at once or half-way through its first words, was not turned down by the server.
func TestWhoIsCutOffIsNotRefused(t *testing.T) {
	login := mysqlLogin()
	for name, c := range map[string]struct {
		engine    topology.Engine
		transport Transport
		said      []byte
	}{
		"MySQL, nothing said":      {topology.MySQL, InBand, nil},
		"MySQL, half a login":      {topology.MySQL, InBand, login[:len(login)/2]},
		"PostgreSQL, half a login": {topology.PostgreSQL, InBand, startup(0x00030000)[:5]},
		"TLS only, nothing said":   {topology.Redis, TLSOnly, nil},
		"TLS only, half a record":  {topology.Redis, TLSOnly, []byte{0x16, 3, 1}},
	} {
		t.Run(name, func(t *testing.T) {
			for _, abort := range []bool{false, true} {
				p := connect(t, Config{Engine: c.engine, Transport: c.transport, TLS: testTLS()})
				if c.engine == topology.MySQL {
					p.mysqlPacket() // the greeting
				}
				p.send(c.said...)
				if abort {
					require.NoError(t, p.SetLinger(0)) // a reset, as a firewall sends it
				}
				require.NoError(t, p.Close())
				require.Empty(t, p.saw(Refused), "abort %v", abort)
			}
		})
	}
}

// mysqlPacket reads one packet and returns its payload.
func (p peer) mysqlPacket() []byte {
	p.t.Helper()
	h := p.receive(4)
	return p.receive(int(h[0]) | int(h[1])<<8 | int(h[2])<<16)
}

// mysqlLogin is a HandshakeResponse41 without TLS, its password wrong.
func mysqlLogin() []byte {
	b := binary.LittleEndian.AppendUint32(nil, 0x00088200) // PLUGIN_AUTH, SECURE_CONNECTION, PROTOCOL_41
	b = append(b, make([]byte, 4+1+23)...)
	b = append(b, User+"\x00"...)
	b = append(b, 20)
	b = append(b, make([]byte, 20)...)
	b = append(b, "mysql_native_password\x00"...)
	return append([]byte{byte(len(b)), 0, 0, 1}, b...)
}

func TestMySQLSurvivesPacketsThatItsLibraryPanicsOn(t *testing.T) {
	p := connect(t, Config{Engine: topology.MySQL, Transport: InBand})
	p.mysqlPacket()
	login := mysqlLogin()
	name := bytes.Index(login, []byte(User))
	short := append([]byte{byte(name - 4 + 3), 0, 0, 1}, login[4:name+3]...) // the name does not end
	p.send(short...)
	_ = p.rest()
	require.Len(t, p.saw(Refused), 1)
	again := connectTo(t, p.server)
	require.Equal(t, byte(10), again.mysqlPacket()[0])
}

func TestRedis(t *testing.T) {
	p := connect(t, Config{Engine: topology.Redis, Transport: PlainOnly})
	for _, c := range []struct{ send, want string }{
		{"PING\r\n", "-NOAUTH Authentication required.\r\n"},
		{"AUTH wrong\r\n", "-" + wrongPass + "\r\n"},
		{"AUTH nobody " + Password + "\r\n", "-" + wrongPass + "\r\n"},
		{"HELLO 4\r\n", "-NOPROTO unsupported protocol version\r\n"},
		{"AUTH " + Password + "\r\n", "+OK\r\n"},
		{"PING\r\n", "+PONG\r\n"},
		{"*2\r\n$4\r\necho\r\n$2\r\nab\r\n", "$2\r\nab\r\n"},
		{"SELECT 0\r\n", "+OK\r\n"},
		{"FLUSHALL\r\n", "-ERR unknown command 'flushall'\r\n"},
		{"QUIT\r\n", "+OK\r\n"},
	} {
		p.send([]byte(c.send)...)
		require.Equal(t, c.want, string(p.receive(len(c.want))), c.send)
	}
	require.Empty(t, p.rest())

	p = connectTo(t, p.server)
	p.send([]byte("HELLO 3 AUTH " + User + " " + Password + "\r\n")...)
	require.Equal(t, "%6\r\n", string(p.receive(4)))
}

func TestWhoeverSendsTooMuchIsCutOff(t *testing.T) {
	for name, c := range map[string]struct {
		cfg   Config
		start string
	}{
		"redis bulk":   {Config{Engine: topology.Redis, Transport: PlainOnly}, "*1\r\n$500000000\r\n"},
		"redis inline": {Config{Engine: topology.Redis, Transport: PlainOnly}, ""},
		"http header":  {Config{Engine: topology.OpenSearch, Transport: PlainOnly}, "GET / HTTP/1.1\r\nX: "},
		"mongodb":      {Config{Engine: topology.MongoDB, Transport: Either}, "\xff\xff\xff\x7f"},
		"mysql":        {Config{Engine: topology.MySQL, Transport: InBand}, "\xff\xff\xff\x01"},
		"tls record":   {Config{Engine: topology.Redis, Transport: TLSOnly, TLS: testTLS()}, "\x16\x03\x01\xff\xff"},
	} {
		t.Run(name, func(t *testing.T) {
			p := connect(t, c.cfg)
			// The server may close before everything is written.
			_, _ = p.Write([]byte(c.start + strings.Repeat("x", 4*unitLimit)))
			_ = p.rest()
			events := p.saw(Closed)
			require.LessOrEqual(t, events[0].Received, uint64(unitLimit), "more was read than any request holds")
		})
	}
}

func TestCloseEndsEveryConnection(t *testing.T) {
	for _, cfg := range everyConfig() {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		s, err := Serve(l, cfg)
		require.NoError(t, err)
		p := connectTo(t, s)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		_, err = s.Journal().Wait(ctx, p.LocalAddr().(*net.TCPAddr).AddrPort().Port(), func(e Event) bool { return e.Kind == Accepted })
		cancel()
		require.NoError(t, err)
		require.NoError(t, s.Close())
		require.Len(t, p.saw(Closed), 1)
		_ = p.rest()
		_, err = net.Dial("tcp", s.Addr().String())
		require.Error(t, err)
		require.NoError(t, s.Close())
	}
}

func TestAuthenticationHasALimit(t *testing.T) {
	for _, cfg := range everyConfig() {
		long := time.Now().Add(-2 * authenticationLimit)
		cfg.Now = func() time.Time { return long } // the limit was over a minute ago
		p := connect(t, cfg)
		_ = p.rest()
		require.Empty(t, p.saw(Query))
	}
}

func TestConfigsThatAreNoServer(t *testing.T) {
	for name, cfg := range map[string]Config{
		"zero":                  {},
		"unknown engine":        {Engine: "oracle", Transport: InBand},
		"no transport":          {Engine: topology.PostgreSQL},
		"postgresql tls only":   {Engine: topology.PostgreSQL, Transport: TLSOnly, TLS: testTLS()},
		"redis in band":         {Engine: topology.Redis, Transport: InBand, TLS: testTLS()},
		"tls without a config":  {Engine: topology.Redis, Transport: TLSOnly},
		"cluster in band":       {Engine: topology.PostgreSQL, Cluster: true, Transport: InBand, TLS: testTLS()},
		"cluster of no engine":  {Cluster: true, Transport: PlainOnly},
		"no such transport":     {Engine: topology.Redis, Transport: PlainOnly + 1},
		"opensearch either way": {Engine: topology.OpenSearch, Transport: Either, TLS: testTLS()},
	} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		_, err = Serve(l, cfg)
		require.ErrorIs(t, err, ErrConfig, name)
		_, err = l.Accept()
		require.ErrorIs(t, err, net.ErrClosed, "the listener is the server's")
	}
}

// everyConfig returns every engine at every transport that it has.
func everyConfig() []Config {
	var out []Config
	for _, engine := range topology.Engines() {
		for _, cluster := range []bool{false, true} {
			cfg := Config{Engine: engine, Cluster: cluster, TLS: testTLS()}
			transports, _ := transportsOf(cfg)
			for _, cfg.Transport = range transports {
				out = append(out, cfg)
			}
		}
	}
	return out
}
