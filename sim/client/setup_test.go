package client_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"drawbridge/sim/client"
	"drawbridge/sim/endpoint"
	"drawbridge/topology"
)

const serverName = "db.drawbridge.example"

// authority is a certificate authority with one server certificate.
type authority struct {
	pool   *x509.CertPool
	config *tls.Config
}

func newAuthority(t testing.TB) authority {
	t.Helper()
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, &caKey.PublicKey, caKey)
	require.NoError(t, err)
	ca, err = x509.ParseCertificate(der)
	require.NoError(t, err)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: serverName}, DNSNames: []string{serverName},
		NotBefore: ca.NotBefore, NotAfter: ca.NotAfter, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err = x509.CreateCertificate(rand.Reader, leaf, ca, &key.PublicKey, caKey)
	require.NoError(t, err)
	pool := x509.NewCertPool()
	pool.AddCert(ca)
	return authority{pool, &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}}
}

// dialer counts how often it is called and remembers the connection's source port.
type dialer struct {
	addr  net.Addr
	calls atomic.Int32
	port  uint16
}

func (d *dialer) dial(ctx context.Context) (net.Conn, error) {
	d.calls.Add(1)
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", d.addr.String())
	if err == nil {
		d.port = conn.LocalAddr().(*net.TCPAddr).AddrPort().Port()
	}
	return conn, err
}

func serve(t testing.TB, cfg endpoint.Config) *endpoint.Server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	cfg.Database, cfg.Node = "orders", "orders-1"
	s, err := endpoint.Serve(l, cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

func target(a authority, s *endpoint.Server, c port, encrypted bool) client.Target {
	return client.Target{
		Engine: c.engine, Cluster: c.cluster, TLS: encrypted, RootCAs: a.pool, ServerName: serverName,
		Addr: netip.MustParseAddrPort(s.Addr().String()),
	}
}

// port is one way in which an engine is published.
type port struct {
	name      string
	engine    topology.Engine
	cluster   bool
	transport endpoint.Transport
}

func ports() []port {
	return []port{
		{"postgresql", topology.PostgreSQL, false, endpoint.InBand},
		{"mysql", topology.MySQL, false, endpoint.InBand},
		{"redis tls", topology.Redis, false, endpoint.TLSOnly},
		{"redis plain", topology.Redis, false, endpoint.PlainOnly},
		{"mongodb", topology.MongoDB, false, endpoint.Either},
		{"mongodb tls", topology.MongoDB, false, endpoint.TLSOnly},
		{"opensearch tls", topology.OpenSearch, false, endpoint.TLSOnly},
		{"opensearch plain", topology.OpenSearch, false, endpoint.PlainOnly},
		{"influxdb tls", topology.InfluxDB, false, endpoint.TLSOnly},
		{"influxdb plain", topology.InfluxDB, false, endpoint.PlainOnly},
		{"cluster tls", topology.PostgreSQL, true, endpoint.TLSOnly},
		{"cluster plain", topology.Redis, true, endpoint.PlainOnly},
	}
}

func (p port) config(a authority) endpoint.Config {
	return endpoint.Config{Engine: p.engine, Cluster: p.cluster, Transport: p.transport, TLS: a.config}
}

// ways returns how a client can be served there: without TLS, with it, or both.
func (p port) ways() []bool {
	switch p.transport {
	case endpoint.TLSOnly:
		return []bool{true}
	case endpoint.PlainOnly:
		return []bool{false}
	}
	return []bool{false, true}
}

func way(encrypted bool) string {
	if encrypted {
		return "tls"
	}
	return "plain"
}
