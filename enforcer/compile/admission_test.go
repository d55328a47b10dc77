package compile_test

import (
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"drawbridge/enforcer/compile"
	"drawbridge/enforcer/policy"
	"drawbridge/enforcer/ruleset"
)

const (
	fin = 0x01
	syn = 0x02
	rst = 0x04
	psh = 0x08
	ack = 0x10
)

func parse(t require.TestingT, name string, data []byte) *policy.Policy {
	p, err := policy.Parse(name, data)
	require.NoError(t, err)
	return p
}

func compiled(t require.TestingT, name string, data []byte) ruleset.Table {
	table, err := compile.Compile(parse(t, name, data))
	require.NoError(t, err)
	return table
}

func fixture(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name+".json"))
	require.NoError(t, err)
	return data
}

// entrance is what a packet meets on its way in.
func entrance(w *walker, p packet) outcome { return w.hook(ruleset.HookPrerouting, p) }

// exit is what an answer meets on its way out, in a connection that the gate and the witness have nothing against.
func exit(w *walker, p packet) outcome {
	w.mark = uint32(compile.ClassTLS) << markShift
	defer func() { w.mark = 0 }()
	return w.hook(ruleset.HookPostrouting, p)
}

// markShift is where DefaultMarkMask begins.
const markShift = 20

// TestVerdicts reads the fixtures' tables as the policy that they are: who, by which interface, to where, with what.
func TestVerdicts(t *testing.T) {
	for _, tt := range []struct {
		policy, who, via, to, with string
		want                       outcome
	}{
		// SPEC, at a glance, shared: from the regional network by default, nobody else.
		{"shared_default", "10.10.1.1", "reg0", "192.0.2.10:5432", "syn", accepted},
		{"shared_default", "fd00:10::1", "reg0", "[2001:db8:10::10]:5432", "syn", accepted},
		{"shared_default", "10.10.1.1", "inet0", "192.0.2.10:5432", "syn", dropped}, // forged
		{"shared_default", "198.51.100.1", "inet0", "192.0.2.10:5432", "syn", dropped},
		{"shared_default", "198.51.100.1", "inet0", "192.0.2.10:5432", "data", rejected},
		{"shared_default", "198.51.100.1", "inet0", "192.0.2.10:22", "syn", accepted}, // none of its business
		{"shared_default", "198.51.100.1", "inet0", "192.0.2.10:5432", "udp", accepted},
		{"shared_default", "198.51.100.1", "inet0", "192.0.2.10:5432", "fragment", dropped},
		{"shared_default", "198.51.100.1", "inet0", "9.9.9.9:5432", "fragment", accepted},
		{"dedicated", "198.51.100.1", "inet0", "203.0.113.140:5432", "fragment", dropped},
		{"ipv6", "2001:db8:77::1", "inet0", "[2001:db8:6::1]:27017", "fragment", dropped},
		{"ipv6", "2001:db8:77::1", "inet0", "[2001:db8:6::2]:27017", "fragment", accepted},
		{"shared_default", "192.0.2.10", "lo", "192.0.2.10:5432", "syn", accepted},      // G-02
		{"shared_default", "10.10.1.1", "reg0", "192.0.2.11:5432", "syn", dropped},      // a way round (G-03)
		{"shared_default", "10.10.1.1", "reg0", "192.0.2.10:6379", "syn", accepted},     // plaintext port, Force TLS off
		{"shared_default", "192.0.2.10", "reg0", "192.0.2.10:5432", "syn", dropped},     // in the server's name
		{"shared_toggles", "198.51.100.1", "inet0", "192.0.2.10:5432", "syn", accepted}, // S-08
		{"shared_toggles", "198.51.100.1", "inet0", "192.0.2.10:6380", "syn", accepted},
		{"shared_toggles", "10.10.1.1", "reg0", "192.0.2.10:6379", "syn", dropped}, // S-05: Force TLS closes it
		// Shared cluster: other nodes reach the cluster's ports, and only those (C-04).
		{"cluster", "192.0.2.21", "reg0", "192.0.2.20:7000", "syn", accepted},
		{"cluster", "192.0.2.21", "inet0", "192.0.2.20:7000", "syn", dropped},
		{"cluster", "10.10.1.1", "reg0", "192.0.2.20:7000", "syn", dropped},
		{"cluster", "192.0.2.21", "reg0", "192.0.2.20:5432", "syn", accepted},
		{"cluster", "2001:db8:20::21", "reg0", "[2001:db8:20::20]:7000", "syn", accepted},
		{"cluster", "2001:db8:20::22", "reg0", "[2001:db8:20::20]:7000", "syn", dropped},
		// Dedicated: rules only.
		{"dedicated", "198.51.100.0", "inet0", "203.0.113.140:5432", "syn", accepted},
		{"dedicated", "198.51.100.15", "inet0", "203.0.113.140:5432", "syn", accepted},
		{"dedicated", "198.51.100.16", "inet0", "203.0.113.140:5432", "syn", dropped}, // D-09
		{"dedicated", "198.51.99.255", "inet0", "203.0.113.140:5432", "syn", dropped},
		{"dedicated", "192.0.2.129", "inet0", "203.0.113.140:5432", "syn", accepted}, // D-06
		{"dedicated", "192.0.2.161", "inet0", "203.0.113.140:5432", "syn", dropped},  // D-07
		{"dedicated", "10.10.1.1", "inet0", "203.0.113.140:5432", "syn", dropped},    // D-01
		{"dedicated", "198.51.100.1", "inet0", "203.0.113.140:5433", "syn", dropped},
		{"dedicated", "198.51.100.1", "inet0", "203.0.113.140:5432", "udp", dropped},
		{"dedicated", "198.51.100.1", "inet0", "203.0.113.140:0", "echo", dropped},
		{"dedicated", "198.51.100.1", "inet0", "203.0.113.140:0", "related", accepted},
		{"dedicated", "198.51.100.1", "inet0", "10.64.1.11:5432", "syn", dropped}, // G-03
		{"dedicated", "198.51.100.1", "inet0", "10.64.1.11:9999", "syn", dropped},
		{"dedicated", "198.51.100.1", "inet0", "10.64.1.11:9999", "reply", accepted}, // the node opened it
		{"dedicated", "10.64.1.12", "vpc0", "10.64.1.11:8008", "syn", accepted},      // C-04
		{"dedicated", "10.64.1.12", "inet0", "10.64.1.11:8008", "syn", dropped},      // forged
		{"dedicated", "10.64.1.12", "vpc0", "10.64.1.11:22", "syn", dropped},
		{"dedicated", "10.64.9.9", "vpc0", "10.64.1.11:8008", "syn", dropped},             // another database's node
		{"dedicated", "198.51.100.1", "peer0", "172.20.0.5:5432", "syn", accepted},        // D-14
		{"dedicated", "198.51.100.1", "inet0", "172.20.0.5:5432", "syn", dropped},         // D-14
		{"dedicated", "198.51.100.99", "peer0", "172.20.0.5:5432", "syn", dropped},        // D-14
		{"dedicated", "8.8.8.8", "inet0", "203.0.113.250:6380", "syn", accepted},          // D-11
		{"dedicated", "8.8.8.8", "inet0", "203.0.113.250:6379", "syn", dropped},           // closed by Force TLS
		{"dedicated", "2001:db8::1", "inet0", "[2001:db8:ca::250]:6380", "syn", accepted},
		{"dedicated", "2001:db8::1", "inet0", "[2001:db8:ca::250]:0", "solicit", accepted},
		{"dedicated", "8.8.8.8", "inet0", "9.9.9.9:80", "syn", accepted}, // forwarded, nobody's
	} {
		name := strings.Join([]string{tt.policy, tt.who, tt.via, tt.to, tt.with}, " ")
		t.Run(name, func(t *testing.T) {
			w := walk(compiled(t, tt.policy, fixture(t, tt.policy)))
			p := made(tt.with)
			p.src, p.dst, p.iif = netip.AddrPortFrom(netip.MustParseAddr(tt.who), 40000), netip.MustParseAddrPort(tt.to), tt.via
			p.noWayBack = tt.who == p.dst.Addr().String()
			require.Equal(t, tt.want, entrance(w, p))
		})
	}
}

// TestNobodyElseSpeaksInAServersName: what comes from outside with a server's address is forged, wherever it goes.
func TestNobodyElseSpeaksInAServersName(t *testing.T) {
	for _, tt := range []struct {
		policy, who, via string
		noWayBack        bool
		want             outcome
	}{
		{"shared_default", "192.0.2.10", "inet0", true, dropped},
		{"shared_default", "192.0.2.11", "reg0", true, dropped}, // unpublished address of the host
		{"shared_default", "192.0.2.10", "lo", true, accepted},
		{"shared_default", "192.0.2.10", "docker0", false, accepted}, // its route leads there
		{"shared_default", "2001:db8:10::10", "inet0", true, dropped},
		{"shared_default", "192.0.2.99", "inet0", true, accepted}, // nobody's
		{"dedicated", "203.0.113.140", "inet0", false, dropped},   // the gateway translates to it
		{"dedicated", "203.0.113.140", "vpc0", false, dropped},
		{"dedicated", "10.64.1.11", "inet0", false, dropped},
		{"dedicated", "10.64.1.11", "vpc0", false, accepted}, // the node itself
		{"ipv6", "fd00:64::11", "any0", true, dropped},       // no zones: by the route
		{"ipv6", "fd00:64::11", "any0", false, accepted},
		{"ipv6", "2001:db8:6::1", "any0", false, dropped},
	} {
		t.Run(strings.Join([]string{tt.policy, tt.who, tt.via}, " "), func(t *testing.T) {
			w := walk(compiled(t, tt.policy, fixture(t, tt.policy)))
			p := made("reply")
			p.src, p.dst, p.iif, p.noWayBack = netip.AddrPortFrom(netip.MustParseAddr(tt.who), 5432), netip.MustParseAddrPort("9.9.9.9:40000"), tt.via, tt.noWayBack
			if p.src.Addr().Is6() {
				p.dst = netip.MustParseAddrPort("[2001:db8:9::9]:40000")
			}
			require.Equal(t, tt.want, entrance(w, p))
		})
	}
}

// made is a packet of a kind, without addresses.
func made(kind string) packet {
	switch kind {
	case "syn":
		return packet{proto: 6, flags: syn, state: stateNew}
	case "data":
		return packet{proto: 6, flags: psh | ack, payload: []byte("x"), state: stateEstablished}
	case "fragment":
		return packet{proto: 6, fragment: true, state: stateNew}
	case "udp":
		return packet{proto: 17, state: stateNew}
	case "echo":
		return packet{proto: 1, icmp: 8, state: stateNew}
	case "related":
		return packet{proto: 1, icmp: 3, state: stateRelated}
	case "solicit":
		return packet{proto: 58, icmp: 135, state: 64}
	case "reply":
		return packet{proto: 6, flags: syn | ack, state: stateEstablished, reply: true}
	}
	panic(kind)
}

// allows says from first principles whether a new TCP connection may be made (docs/DRIVERS.md section 5), and whether
// the address and port are under the policy's protection at all.
func (d document) allows(src netip.Addr, via string, dst netip.AddrPort) (allowed, protected bool) {
	for _, db := range d.Databases {
		for _, e := range db.Endpoints {
			if netip.MustParseAddr(e.Address) == dst.Addr() && e.Port == dst.Port() {
				protected = true
				allowed = allowed || d.client(db, e, src, via)
			}
		}
		for _, n := range db.Nodes {
			if n.Here && n.has(dst.Addr()) && n.listens(dst.Port()) {
				protected = true
				allowed = allowed || d.peer(db, n, src, via, dst)
			}
		}
	}
	return allowed, protected
}

func (d document) zone(via string) string {
	for _, i := range d.Interfaces {
		if i.Name == via {
			return i.Zone
		}
	}
	return ""
}

// arrives reports whether a packet comes from one of the zones, as far as the policy knows zones.
func (d document) arrives(via string, zones ...string) bool {
	for _, z := range zones {
		if len(d.Interfaces) == 0 || d.zone(via) == z {
			return true
		}
	}
	return false
}

func (d document) client(db database, e endpoint, src netip.Addr, via string) bool {
	force := d.Point.Model == "dedicated"
	if db.ForceTLS != nil {
		force = *db.ForceTLS
	}
	if force && e.TLS == "none" {
		return false
	}
	if d.Point.Model == "shared" {
		return db.Access != nil && *db.Access || covers(d.Region.Networks, src) && d.arrives(via, "regional")
	}
	if e.Kind == "private-peering-rw" && !d.arrives(via, "peering") {
		return false
	}
	for _, r := range db.Rules {
		if r.CIDR != "" && covers([]string{r.CIDR}, src) || r.Name != "" && covers(d.Ranges[r.Name], src) {
			return true
		}
	}
	return false
}

func (d document) peer(db database, n node, src netip.Addr, via string, dst netip.AddrPort) bool {
	zones := []string{"cluster"}
	if d.Point.Model == "shared" {
		zones = append(zones, "regional")
	}
	if !d.arrives(via, zones...) || n.has(src) || n.speaks(dst.Port()) == "none" {
		return false
	}
	for _, c := range db.Cluster {
		for _, other := range db.Nodes {
			if c.Port == dst.Port() && other.Name != n.Name && other.has(src) {
				return true
			}
		}
	}
	return false
}

func (n node) has(a netip.Addr) bool {
	for _, own := range n.Addresses {
		if netip.MustParseAddr(own) == a {
			return true
		}
	}
	return false
}

func (n node) listens(port uint16) bool { return n.speaks(port) != "" }

func (n node) speaks(port uint16) string {
	for _, p := range n.Ports {
		if p.Port == port {
			return p.TLS
		}
	}
	return ""
}

func covers(networks []string, a netip.Addr) bool {
	for _, n := range networks {
		if netip.MustParsePrefix(n).Contains(a) {
			return true
		}
	}
	return false
}

// dedicatedAddress reports whether an address is a dedicated database's: nothing else lives there.
func (d document) dedicatedAddress(a netip.Addr) bool {
	if d.Point.Model != "dedicated" {
		return false
	}
	for _, db := range d.Databases {
		for _, e := range db.Endpoints {
			if netip.MustParseAddr(e.Address) == a {
				return true
			}
		}
		for _, n := range db.Nodes {
			if n.Here && n.has(a) {
				return true
			}
		}
	}
	return false
}

// TestAdmissionIsThePolicy compares the compiled table with first principles, packet by packet, for random policies.
func TestAdmissionIsThePolicy(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := anyDocument(t)
		data, err := json.Marshal(d)
		require.NoError(t, err)
		table := compiled(t, "random", data)
		requireDisjoint(t, table)
		w := walk(table)
		for range 40 {
			src, dst := anySource(t), anyTarget(t, d)
			via := rapid.SampledFrom([]string{"inet0", "reg0", "vpc0", "peer0"}).Draw(t, "via")
			if src.Is4() != dst.Addr().Is4() || isServer(d, src) && via != "vpc0" {
				continue
			}
			allowed, protected := d.allows(src, via, dst)
			if !protected {
				allowed = !d.dedicatedAddress(dst.Addr())
			}
			in := made("syn")
			in.src, in.dst, in.iif = netip.AddrPortFrom(src, 40000), dst, via
			out := packet{src: dst, dst: in.src, oif: via, proto: 6, flags: psh | ack, payload: []byte("x"), state: stateEstablished, reply: true}
			want := dropped
			if allowed {
				want = accepted
			}
			if isServer(d, src) && d.Point.Model == "shared" {
				continue // its own address arrives over loopback only
			}
			require.Equal(t, want, entrance(w, in), "%v via %s to %v\n%s", src, via, dst, data)
			if protected {
				require.Equal(t, want, exit(w, out), "answer to %v via %s from %v\n%s", src, via, dst, data)
			}
		}
	})
}

// requireDisjoint: the kernel refuses intervals that overlap, and fewer are better: none touches the next, but in a database's
// own sets, where neighbours are of different rules.
func requireDisjoint(t require.TestingT, table ruleset.Table) {
	for _, s := range table.Sets {
		for i := 1; s.Interval && i < len(s.Elements); i++ {
			end, ok := netip.AddrFromSlice([]byte(s.Elements[i-1].End))
			require.True(t, ok)
			start, ok := netip.AddrFromSlice([]byte(s.Elements[i].Key))
			require.True(t, ok)
			own := strings.HasPrefix(s.Name, "custom")
			require.True(t, end.Next().IsValid() && (end.Next().Less(start) || own && end.Next() == start), "%s: %v and %v", s.Name, end, start)
		}
	}
}

// isServer reports whether an address is that of a server that is here: from outside it never arrives, which
// has tests of its own.
func isServer(d document, a netip.Addr) bool {
	for _, db := range d.Databases {
		for _, n := range db.Nodes {
			if n.Here && n.has(a) {
				return true
			}
		}
		for _, e := range db.Endpoints {
			if netip.MustParseAddr(e.Address) == a {
				return true
			}
		}
	}
	return false
}
