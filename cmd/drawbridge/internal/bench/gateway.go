package bench

import (
	"fmt"
	"net/netip"
	"strings"

	"drawbridge/features/driver"
)

// RulesEach is how many rules each database of a Gateway has, which is as many as it may (SPEC D-12).
const RulesEach = 30

// MostDatabases is how many a Gateway may have: its addresses go no further.
const MostDatabases = 30_000

// Port of every database of a Gateway.
const Port = 5432

// Gateway is a policy of many dedicated databases, told in the words of several firewalls. It is the same each time.
type Gateway struct {
	Databases int // up to MostDatabases
	// Last is in the place of a database's last rule, by its number: one network, or none.
	Last map[int][]netip.Prefix
	// Plaintext: Force TLS is off everywhere.
	Plaintext bool
}

// Endpoint is where clients reach a database.
func (g Gateway) Endpoint(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, byte(i / 250), byte(i % 250), 1}), Port)
}

// Node is where a database's server is.
func (g Gateway) Node(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(100 + i/250), byte(i % 250), 1}), Port)
}

// sources are the networks that a database's rules let in, which neither overlap nor touch.
func (g Gateway) sources(i int) []netip.Prefix {
	out := make([]netip.Prefix, 0, RulesEach)
	for r := range RulesEach - 1 {
		out = append(out, netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 51, byte(i % 250), byte(2 * r)}), 32))
	}
	if last, ok := g.Last[i]; ok {
		return append(out, last...)
	}
	return append(out, netip.MustParsePrefix("198.18.0.0/24"))
}

// Document is the policy as an enforcer of this project is given it.
func (g Gateway) Document() ([]byte, error) {
	d := driver.Document{
		Version: driver.Version, Point: driver.Point{Name: "gw", Model: "dedicated"}, ManagedRanges: map[string][]netip.Prefix{},
		Interfaces: []driver.Interface{{Name: "eth0", Zone: "internet"}},
		Region:     driver.Region{Name: "r", Networks: []netip.Prefix{netip.MustParsePrefix("10.10.0.0/16")}},
	}
	for i := range g.Databases {
		e, n := g.Endpoint(i), g.Node(i)
		db := driver.Database{
			Name: g.name(i), Model: "dedicated", Engine: "postgresql",
			Endpoints: []driver.Endpoint{{Kind: "public-rw", Address: e.Addr(), Port: e.Port(), Family: "ipv4", TLS: "in-band",
				DNAT: &driver.Target{Address: n.Addr(), Port: n.Port()}}},
			Nodes: []driver.Node{{Name: fmt.Sprint("n", i), Here: true, Addresses: []netip.Addr{n.Addr()}, Ports: []driver.Port{{Port: n.Port(), TLS: "in-band"}}}},
		}
		if g.Plaintext {
			db.ForceTLS = new(bool)
		}
		for _, s := range g.sources(i) {
			db.FirewallRules = append(db.FirewallRules, driver.Rule{Type: driver.CustomRange, CIDR: &s})
		}
		d.Databases = append(d.Databases, db)
	}
	return d.Encode()
}

func (g Gateway) name(i int) string { return fmt.Sprint("db", i) }

// The chain that iptables(8) keeps the policy in: as ours, it judges every packet by itself, before connections are tracked.
const (
	IPTable = "raw"
	IPChain = "PREROUTING"
)

// linearEach is how many rules a database has in a linear chain: its own, and one that denies the rest.
const linearEach = RulesEach + 1

// Linear is the policy as one chain, in the words of iptables-restore(8).
func (g Gateway) Linear() string {
	return g.restore(func(b *strings.Builder, i int) {
		for _, s := range g.sources(i) {
			fmt.Fprintf(b, "-A %s %s -s %s -j ACCEPT\n", IPChain, g.match(i), s)
		}
	})
}

// LinearPlace is the number of the rule before which a further one of a database belongs, for iptables -I: the one that denies
// the rest. The databases before it have all their rules.
func (g Gateway) LinearPlace(i int) int { return i*linearEach + len(g.sources(i)) + 1 }

// LinearRule are the words of a rule that lets a network in to a database.
func (g Gateway) LinearRule(i int, s netip.Prefix) []string {
	return append(strings.Fields(g.match(i)), "-s", s.String(), "-j", "ACCEPT")
}

func (g Gateway) match(i int) string {
	e := g.Endpoint(i)
	return fmt.Sprintf("-d %s/32 -p tcp -m tcp --dport %d", e.Addr(), e.Port())
}

// restore writes a file for iptables-restore(8): for each database what lets in, and then the rule that denies the rest.
func (g Gateway) restore(letIn func(b *strings.Builder, i int)) string {
	var b strings.Builder
	fmt.Fprintf(&b, "*%s\n:%s ACCEPT [0:0]\n", IPTable, IPChain)
	for i := range g.Databases {
		letIn(&b, i)
		fmt.Fprintf(&b, "-A %s %s -j DROP\n", IPChain, g.match(i))
	}
	b.WriteString("COMMIT\n")
	return b.String()
}

// Sets are the policy's networks as one set for each database, in the words of ipset-restore.
func (g Gateway) Sets() string {
	var b strings.Builder
	for i := range g.Databases {
		fmt.Fprintf(&b, "create %s hash:net family inet\n", g.SetName(i))
		for _, s := range g.sources(i) {
			fmt.Fprintf(&b, "add %s %s\n", g.SetName(i), s)
		}
	}
	return b.String()
}

// SetName is the name of a database's set.
func (g Gateway) SetName(i int) string { return g.name(i) }

// SetRules are the rules that ask the sets, in the words of iptables-restore(8).
func (g Gateway) SetRules() string {
	return g.restore(func(b *strings.Builder, i int) {
		fmt.Fprintf(b, "-A %s %s -m set --match-set %s src -j ACCEPT\n", IPChain, g.match(i), g.SetName(i))
	})
}
