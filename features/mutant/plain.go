package mutant

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"drawbridge/features/driver"
)

var both = []string{driver.Core, driver.Extended}

// plain is an enforcer of one nftables table that is built anew with every policy. Its zero value is right for profile core and
// leaves Force TLS to the databases; every field makes it wrong.
type plain struct {
	profiles      []string        // declared; nil: core
	forceTLS      driver.ForceTLS // declared; "": database
	established   bool            // whatever is established passes, whatever the policy says
	no6           bool            // IPv6 is not looked at
	firstSYN      bool            // only a connection's first packet is denied
	openNodes     bool            // the nodes' own addresses are not guarded
	openProtocols bool            // only endpoints are guarded at dedicated addresses
	noFastOpen    bool            // SYNs that ask for TCP Fast Open are dropped
	anyInterface  bool            // regional addresses are believed on every interface
	redirects     bool            // what is denied is sent to a closed port
	oneRange      string          // Internet accessibility is for this network alone
}

// byNFT completes a mutant that is such an enforcer.
func byNFT(p plain, m Mutant) Mutant {
	m.call = p.call
	m.table = true
	return m
}

const plainTable = "mutant"

func (p plain) call(_ Door, verb string, in []byte) Answer {
	switch verb {
	case "describe":
		return p.describe()
	case "reset":
		if err := nft("table inet " + plainTable + "\ndelete table inet " + plainTable + "\n"); err != nil {
			return broken(err)
		}
		return Answer{}
	}
	doc, err := decode(in)
	if err != nil { // a mistake in the policy, not in the driver
		return Answer{Status: refused, Stderr: fmt.Appendf(nil, "mutant: %v\n", err)}
	}
	if why := refusal(doc); why != "" {
		return Answer{Status: refused, Stderr: []byte(why + "\n")}
	}
	if err := nft(p.script(doc)); err != nil {
		return broken(err)
	}
	a := receipt()
	for _, d := range doc.Databases {
		if slices.ContainsFunc(d.FirewallRules, func(r driver.Rule) bool { return r.CIDR != nil && r.CIDR.Bits() == 0 }) {
			a.Stderr = fmt.Appendf(a.Stderr, "warning: %s is open to everybody\n", d.Name)
		}
	}
	return a
}

func (p plain) describe() Answer {
	about := map[string]any{
		"protocol": driver.Protocol, "name": "mutant", "version": "1", "profiles": []string{driver.Core},
	}
	features := map[string]any{"force_tls": driver.ByDatabase, "revoke": driver.Cut}
	if p.profiles != nil {
		about["profiles"] = p.profiles
	}
	if p.forceTLS != "" {
		features["force_tls"] = p.forceTLS
	}
	about["features"] = features
	out, err := json.Marshal(about)
	if err != nil {
		return broken(err)
	}
	return Answer{Stdout: out}
}

// refusal says why a policy must be refused (SPEC S-09, S-10, D-12).
func refusal(doc *driver.Document) string {
	for _, d := range doc.Databases {
		switch accessible := on(d.InternetAccessibility); {
		case isDedicated(&d) && accessible:
			return d.Name + ": Internet accessibility of a dedicated database"
		case accessible && !on(d.ForceTLS):
			return d.Name + ": Internet accessibility without Force TLS"
		case !isDedicated(&d) && len(d.FirewallRules) > 0:
			return d.Name + ": firewall rules of a shared database"
		case len(d.FirewallRules) > maxRules:
			return d.Name + ": too many firewall rules"
		}
	}
	return ""
}

// script is the whole table. It stands before the fabric's destination NAT, where addresses are still those of the endpoints.
func (p plain) script(doc *driver.Document) string {
	var b strings.Builder
	fmt.Fprintf(&b, "table inet %[1]s\ndelete table inet %[1]s\ntable inet %[1]s {\n", plainTable)
	if p.firstSYN {
		b.WriteString("set seen { type inet_service . inet_service; flags dynamic, timeout; timeout 1m; }\n")
	}
	if p.redirects { // before the fabric's own translation
		fmt.Fprintf(&b, "chain away {\ntype nat hook prerouting priority -110\nmeta mark %[1]d tcp dport != %[2]d redirect to :%[2]d\n}\n"+
			"chain hush {\ntype filter hook output priority -300\ntcp sport %[2]d drop\n}\n", deniedMark, closedPort)
	}
	b.WriteString("chain entry {\ntype filter hook prerouting priority -150\niif lo accept\n")
	if p.no6 {
		b.WriteString("meta nfproto ipv6 accept\n")
	}
	if p.noFastOpen {
		b.WriteString("tcp option 34 exists drop\n")
	}
	if p.established {
		b.WriteString("ct state established accept\n")
	}
	b.WriteString("ct direction reply accept\nicmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept\n")
	for _, d := range doc.Databases {
		p.allow(&b, doc, &d)
	}
	for _, d := range doc.Databases {
		p.deny(&b, &d)
	}
	b.WriteString("}\n}\n")
	return b.String()
}

func (p plain) allow(b *strings.Builder, doc *driver.Document, d *driver.Database) {
	p.allowNodes(b, d)
	for _, e := range d.Endpoints {
		switch forced := isDedicated(d) && (d.ForceTLS == nil || *d.ForceTLS) || !isDedicated(d) && on(d.ForceTLS); {
		case forced && e.TLS == "none":
		case isDedicated(d):
			p.allowRules(b, doc, d, e)
		default:
			p.allowShared(b, doc, d, e)
		}
	}
}

// allowNodes lets the cluster's nodes reach each other, but not where TLS is never spoken.
func (p plain) allowNodes(b *strings.Builder, d *driver.Database) {
	for _, to := range d.Nodes {
		for _, from := range d.Nodes {
			for _, a := range to.Addresses {
				for _, s := range from.Addresses {
					if !to.Here || to.Name == from.Name || a.Is4() != s.Is4() {
						continue
					}
					for _, c := range d.ClusterPorts {
						fmt.Fprintf(b, "%s saddr %s %s daddr %s tcp dport %d accept\n", ip(s), s, ip(a), a, c.Port)
					}
				}
			}
		}
	}
}

func (p plain) allowShared(b *strings.Builder, doc *driver.Document, d *driver.Database, e driver.Endpoint) {
	to := fmt.Sprintf("%s daddr %s tcp dport %d", ip(e.Address), e.Address, e.Port)
	for _, n := range doc.Region.Networks {
		if n.Addr().Is4() == e.Address.Is4() {
			fmt.Fprintf(b, "iifname %s %s saddr %s %s accept\n", interfaces(doc, p.regional()...), ip(e.Address), n, to)
		}
	}
	switch {
	case !on(d.InternetAccessibility):
	case p.oneRange != "" && e.Address.Is4() && !isCanary(*d):
		fmt.Fprintf(b, "ip saddr %s %s accept\n", p.oneRange, to)
	default:
		fmt.Fprintf(b, "%s accept\n", to)
	}
}

// regional are the zones in which addresses of the region are believed.
func (p plain) regional() []string {
	if p.anyInterface {
		return []string{"regional", "internet"}
	}
	return []string{"regional"}
}

func (p plain) allowRules(b *strings.Builder, doc *driver.Document, d *driver.Database, e driver.Endpoint) {
	where := ""
	if e.Kind == "private-peering-rw" {
		where = "iifname " + interfaces(doc, "peering") + " "
	}
	for _, r := range d.FirewallRules {
		networks := doc.ManagedRanges[r.Name]
		if r.CIDR != nil {
			networks = []netip.Prefix{*r.CIDR}
		}
		for _, n := range networks {
			if n.Addr().Is4() == e.Address.Is4() {
				fmt.Fprintf(b, "%s%s saddr %s %s daddr %s tcp dport %d accept\n", where, ip(e.Address), n, ip(e.Address), e.Address, e.Port)
			}
		}
	}
}

// deny closes everything at a dedicated database's addresses, and the ports of a shared one.
func (p plain) deny(b *strings.Builder, d *driver.Database) {
	for _, e := range d.Endpoints {
		to := fmt.Sprintf("%s daddr %s", ip(e.Address), e.Address)
		if !isDedicated(d) || p.openProtocols {
			to += fmt.Sprintf(" tcp dport %d", e.Port)
		}
		p.drop(b, d, to)
	}
	for _, n := range d.Nodes {
		if !n.Here || p.openNodes {
			continue
		}
		for _, a := range n.Addresses {
			if isDedicated(d) {
				p.drop(b, d, fmt.Sprintf("%s daddr %s", ip(a), a))
				continue
			}
			for _, port := range n.Ports {
				p.drop(b, d, fmt.Sprintf("%s daddr %s tcp dport %d", ip(a), a, port.Port))
			}
		}
	}
}

func (p plain) drop(b *strings.Builder, d *driver.Database, what string) {
	if p.firstSYN && !isCanary(*d) {
		fmt.Fprintf(b, "%[1]s tcp sport . tcp dport @seen accept\n%[1]s add @seen { tcp sport . tcp dport } drop\n", what)
		return
	}
	if p.redirects && strings.Contains(what, "tcp dport") {
		fmt.Fprintf(b, "%s meta mark set %d accept\n", what, deniedMark)
		return
	}
	fmt.Fprintf(b, "%s reject\n", what)
}

// What is denied where it is redirected: a mark, and the port that it goes to, at which nobody listens. The reset that answers is dropped before
// connection tracking sees it, which would forget the attempt at once.
const (
	deniedMark = 1
	closedPort = 1
)

func ip(a netip.Addr) string {
	if a.Is4() {
		return "ip"
	}
	return "ip6"
}

// interfaces prints the set of a point's interfaces in some zones.
func interfaces(doc *driver.Document, zones ...string) string {
	var names []string
	for _, i := range doc.Interfaces {
		if slices.Contains(zones, i.Zone) {
			names = append(names, `"`+i.Name+`"`)
		}
	}
	if len(names) == 0 {
		names = append(names, `"none"`)
	}
	return "{ " + strings.Join(names, ", ") + " }"
}
