package enforcer

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"drawbridge/enforcer/compile"
	"drawbridge/enforcer/cut"
	"drawbridge/enforcer/policy"
)

const judgedShared = `{"version": 1, "point": {"name": "h", "model": "shared"}, "region": {"name": "r", "networks": ["10.10.0.0/16"]},
 "databases": [
  {"name": "plain", "model": "shared", "engine": "mongodb", "endpoints": [{"kind": "public-rw", "address": "198.51.100.129", "port": 1, "family": "ipv4", "tls": "either"}],
   "nodes": [{"name": "plain-1", "here": true, "addresses": ["198.51.100.129"], "ports": [{"port": 1, "tls": "either"}, {"port": 9, "tls": "either"}]}]},
  {"name": "public", "model": "shared", "engine": "redis", "force_tls": true, "internet_accessibility": true, "endpoints": [
    {"kind": "public-rw", "address": "198.51.100.129", "port": 2, "family": "ipv4", "tls": "only"},
    {"kind": "public-rw", "address": "198.51.100.129", "port": 3, "family": "ipv4", "tls": "none"}],
   "nodes": [{"name": "public-1", "here": true, "addresses": ["198.51.100.129"], "ports": [{"port": 2, "tls": "only"}, {"port": 3, "tls": "none"}]},
             {"name": "public-2", "here": false, "addresses": ["198.51.100.130"], "ports": [{"port": 2, "tls": "only"}]}],
   "cluster_ports": [{"port": 2, "shared": true}]},
  {"name": "kept", "model": "shared", "engine": "mongodb", "force_tls": true, "unknown_connections": "keep", "endpoints": [{"kind": "public-rw", "address": "198.51.100.129", "port": 4, "family": "ipv4", "tls": "either"}],
   "nodes": [{"name": "kept-1", "here": true, "addresses": ["198.51.100.129"], "ports": [{"port": 4, "tls": "either"}]}]}
 ]}`

const judgedDedicated = `{"version": 1, "point": {"name": "g", "model": "dedicated"}, "managed_ranges": {"m": ["192.0.2.128/30"]},
 "databases": [{"name": "d", "model": "dedicated", "engine": "postgresql", "force_tls": false,
   "endpoints": [{"kind": "public-rw", "address": "203.0.113.140", "port": 1, "family": "ipv4", "tls": "in-band"}],
   "nodes": [{"name": "d-1", "here": true, "addresses": ["10.64.1.11"], "ports": [{"port": 1, "tls": "in-band"}, {"port": 8, "tls": "only"}]},
             {"name": "d-2", "here": true, "addresses": ["10.64.1.12"], "ports": [{"port": 1, "tls": "in-band"}, {"port": 8, "tls": "only"}]}],
   "cluster_ports": [{"port": 8, "shared": false}],
   "firewall_rules": [{"type": "custom_range", "cidr": "198.51.100.0/28"}, {"type": "managed_range", "name": "m"}]}]}`

func TestJudge(t *testing.T) {
	const unknown, begun, tls, plaintext = compile.ClassUnknown, compile.ClassBegun, compile.ClassTLS, compile.ClassPlaintext
	for _, tt := range []struct {
		name, document, client, endpoint string
		class                            compile.Class
		untracked, fresh                 bool
		protected, allowed               bool
	}{
		{name: "another service", document: judgedShared, client: "10.10.0.1", endpoint: "198.51.100.129:22"},
		{name: "from the region", document: judgedShared, client: "10.10.255.255", endpoint: "198.51.100.129:1", class: plaintext, protected: true, allowed: true},
		{name: "just outside the region", document: judgedShared, client: "10.11.0.0", endpoint: "198.51.100.129:1", class: tls, protected: true},
		{name: "a port that is no endpoint", document: judgedShared, client: "10.10.0.1", endpoint: "198.51.100.129:9", class: tls, protected: true},
		{name: "from the Internet over TLS", document: judgedShared, client: "192.0.2.7", endpoint: "198.51.100.129:2", class: tls, protected: true, allowed: true},
		{name: "from the Internet in plaintext", document: judgedShared, client: "192.0.2.7", endpoint: "198.51.100.129:2", class: plaintext, protected: true},
		{name: "a handshake under way", document: judgedShared, client: "192.0.2.7", endpoint: "198.51.100.129:2", class: begun, protected: true, allowed: true},
		{name: "a handshake that the new table knows nothing of", document: judgedShared, client: "192.0.2.7", endpoint: "198.51.100.129:2", class: begun, fresh: true, protected: true},
		{name: "TLS from before the new table", document: judgedShared, client: "192.0.2.7", endpoint: "198.51.100.129:2", class: tls, fresh: true, protected: true, allowed: true},
		{name: "unknown", document: judgedShared, client: "192.0.2.7", endpoint: "198.51.100.129:2", class: unknown, protected: true},
		{name: "untracked", document: judgedShared, client: "192.0.2.7", endpoint: "198.51.100.129:2", class: tls, untracked: true, protected: true},
		{name: "a port that never speaks TLS", document: judgedShared, client: "10.10.0.1", endpoint: "198.51.100.129:3", class: tls, protected: true},
		{name: "a node over TLS", document: judgedShared, client: "198.51.100.130", endpoint: "198.51.100.129:2", class: tls, protected: true, allowed: true},
		{name: "a node in plaintext", document: judgedShared, client: "198.51.100.130", endpoint: "198.51.100.129:2", class: plaintext, protected: true},
		{name: "unknown, kept", document: judgedShared, client: "10.10.0.1", endpoint: "198.51.100.129:4", class: unknown, protected: true, allowed: true},
		{name: "untracked, kept", document: judgedShared, client: "10.10.0.1", endpoint: "198.51.100.129:4", untracked: true, protected: true, allowed: true},
		{name: "plaintext is never kept", document: judgedShared, client: "10.10.0.1", endpoint: "198.51.100.129:4", class: plaintext, protected: true},

		{name: "custom range, last", document: judgedDedicated, client: "198.51.100.15", endpoint: "203.0.113.140:1", class: plaintext, protected: true, allowed: true},
		{name: "custom range, just outside", document: judgedDedicated, client: "198.51.100.16", endpoint: "203.0.113.140:1", class: tls, protected: true},
		{name: "managed range", document: judgedDedicated, client: "192.0.2.131", endpoint: "203.0.113.140:1", protected: true, allowed: true},
		{name: "another port of a dedicated address", document: judgedDedicated, client: "198.51.100.1", endpoint: "203.0.113.140:22", protected: true},
		{name: "round the endpoint", document: judgedDedicated, client: "198.51.100.1", endpoint: "10.64.1.11:1", class: tls, protected: true},
		{name: "node to node", document: judgedDedicated, client: "10.64.1.12", endpoint: "10.64.1.11:8", class: tls, protected: true, allowed: true},
		{name: "node to node in plaintext", document: judgedDedicated, client: "10.64.1.12", endpoint: "10.64.1.11:8", class: plaintext, protected: true},
		{name: "node to a port that is not the cluster's", document: judgedDedicated, client: "10.64.1.12", endpoint: "10.64.1.11:1", class: tls, protected: true},
		{name: "a node to the world", document: judgedDedicated, client: "10.64.1.11", endpoint: "192.0.2.1:443"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, err := policy.Parse("test", []byte(tt.document))
			require.NoError(t, err)
			mark, err := compile.NewMark(compile.DefaultMarkMask)
			require.NoError(t, err)
			c := cut.Connection{Client: netip.AddrPortFrom(netip.MustParseAddr(tt.client), 40000), Endpoint: netip.MustParseAddrPort(tt.endpoint), Tracked: !tt.untracked, Mark: uint32(tt.class) << 20}
			j := newJudge(p, mark, tt.fresh, time.Now())
			require.Equal(t, tt.protected, j.Protects(c))
			require.Equal(t, tt.allowed, j.Allows(c))
		})
	}
}
