// Package intent says what a policy means, from first principles: which sources may reach which port, and by what rule or
// default of the document. It shares no code with the compiler, so that what the compiler's rules do can be held against
// it. It is pure.
//
// The words are those of docs/DRIVERS.md, section 5.
package intent

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"drawbridge/enforcer/addrset"
	"drawbridge/enforcer/policy"
)

// Point is one enforcement point's policy, ready to be asked. It is immutable.
type Point struct {
	model    policy.Model
	zones    map[string]policy.Zone // by interface; empty: not known
	region   policy.Region
	regional addrset.Set
	ranges   map[string]addrset.Set
	ports    map[netip.AddrPort]port
	here     map[netip.Addr]address
	blind    bool
	now      time.Time
	// Sources that are servers': endpoints only, and nodes as well.
	endpoints, servers addrset.Set
}

// port is what a policy knows of an address and port.
type port struct {
	database policy.Database
	endpoint *policy.Endpoint
	node     *policy.Node // a node that is here and listens there
	tls      policy.TLS
}

// address is what a policy knows of an address that it protects.
type address struct {
	database       string
	endpoint, node bool
}

// Options are what a policy does not say.
type Options struct {
	// Blind: nobody can tell TLS from plaintext there, so that what needs TLS is closed.
	Blind bool
	// Now is the time at which rules that expire are looked at.
	Now time.Time
}

// Of reads a policy.
func Of(p *policy.Policy, o Options) *Point {
	i := &Point{
		model: p.Model(), zones: map[string]policy.Zone{}, region: p.Region(), regional: addrset.Prefixes(p.Region().Networks...),
		ranges: map[string]addrset.Set{}, ports: map[netip.AddrPort]port{}, here: map[netip.Addr]address{}, blind: o.Blind, now: o.Now,
	}
	for _, f := range p.Interfaces() {
		i.zones[f.Name] = f.Zone
	}
	for _, r := range p.ManagedRanges() {
		i.ranges[r.Name] = addrset.Prefixes(r.Networks...)
	}
	for _, db := range p.Databases() {
		i.database(db)
	}
	var endpoints, servers []netip.Addr
	for a, is := range i.here {
		if servers = append(servers, a); is.endpoint {
			endpoints = append(endpoints, a)
		}
	}
	i.endpoints, i.servers = addrset.Addrs(endpoints...), addrset.Addrs(servers...)
	return i
}

func (i *Point) database(db policy.Database) {
	for _, e := range db.Endpoints() {
		at := i.ports[e.Addr]
		at.database, at.endpoint, at.tls = db, &e, e.TLS
		i.ports[e.Addr] = at
		known := i.here[e.Addr.Addr()]
		known.database, known.endpoint = db.Name(), true
		i.here[e.Addr.Addr()] = known
	}
	for _, n := range db.Nodes() {
		if !n.Here {
			continue
		}
		for _, a := range n.Addresses {
			known := i.here[a]
			known.database, known.node = db.Name(), true
			i.here[a] = known
			for _, p := range n.Ports {
				to := netip.AddrPortFrom(a, p.Number)
				at := i.ports[to]
				at.database, at.node, at.tls = db, &n, p.TLS
				i.ports[to] = at
			}
		}
	}
}

// Grant is a rule or default of the document that lets sources in.
type Grant struct {
	// One network, as most rules have it, or a set.
	network netip.Prefix
	set     addrset.Set
	// A rule by its number, from 1, or words: a proof asks for neither.
	rule  int
	words string
}

// Sources are those that it lets in.
func (g Grant) Sources() addrset.Set {
	if g.network.IsValid() {
		return addrset.Prefixes(g.network)
	}
	return g.set
}

// Judgement is what a policy says of TCP to one address and port, by one interface.
type Judgement struct {
	// Database that the port belongs to; "" for none.
	Database string
	// Judged: the policy has a say there. Otherwise everybody passes.
	Judged bool
	Grants []Grant
	// Expired are rules that let in nobody any more.
	Expired []Grant
	// Default is what holds for sources that no grant covers.
	Default string
	// Forged are sources that no packet from outside can have, whoever is let in.
	Forged addrset.Set

	database policy.Database // whose rules the grants are
}

// Why names a grant.
func (j Judgement) Why(g Grant) string {
	for n, r := range j.database.EachRule() {
		if n+1 == g.rule {
			return RuleName(n, r)
		}
	}
	return g.words
}

// Sources are all that may reach it.
func (j Judgement) Sources() addrset.Set { return j.admitted().Minus(j.Forged) }

// Answers are all to whom it may answer.
func (j Judgement) Answers() addrset.Set { return j.admitted() }

func (j Judgement) admitted() (all addrset.Set) {
	networks := make([]netip.Prefix, 0, len(j.Grants))
	for _, g := range j.Grants {
		if g.network.IsValid() {
			networks = append(networks, g.network)
		} else {
			all = all.Union(g.set)
		}
	}
	return all.Union(addrset.Prefixes(networks...))
}

// anyone is everybody of an address's family.
func anyone(a netip.Addr) addrset.Set { return addrset.All(a.Is4()) }

// TCP judges TCP to an address and port that arrives by an interface, or answers from there that leave by it.
func (i *Point) TCP(iface string, to netip.AddrPort) Judgement {
	if iface == loopback {
		return unjudged(i.here[to.Addr()].database, to.Addr(), "not judged: a process of this host itself, over loopback (G-02)")
	}
	at, isPort := i.ports[to]
	j := Judgement{Database: at.database.Name(), Judged: isPort, Forged: i.forged(iface), database: at.database}
	if !isPort {
		j.Judged = i.model != policy.Shared && i.Protects(to.Addr())
		j.Database = i.here[to.Addr()].database
		if !j.Judged {
			return unjudged(j.Database, to.Addr(), "not judged: nothing of this policy is there")
		}
		j.Default = "nothing but its endpoints is open at a dedicated address"
		return j
	}
	if at.endpoint != nil {
		i.endpoint(&j, at, iface)
	} else {
		j.Default = fmt.Sprintf("no endpoint of %s: the port is for its own nodes alone", at.database.Name())
	}
	if at.node != nil {
		i.cluster(&j, at, iface, to)
	}
	return j
}

// loopback is the interface that no policy names: what a host says to itself is not judged (SPEC G-02).
const loopback = "lo"

// unjudged lets everybody pass.
func unjudged(database string, to netip.Addr, why string) Judgement {
	return Judgement{Database: database, Grants: []Grant{{set: anyone(to), words: why}}, Default: "not judged"}
}

// Protects tells whether an address belongs to a database of this policy.
func (i *Point) Protects(a netip.Addr) bool {
	_, ok := i.here[a]
	return ok
}

// in tells whether an interface is of a zone; where zones are not known, every interface is.
func (i *Point) in(iface string, z policy.Zone) bool {
	return len(i.zones) == 0 || i.zones[iface] == z
}

// forged are the sources that packets by this interface cannot have: endpoints of a gateway never speak themselves, and
// nodes behind it arrive from their cluster. Elsewhere it is the routes that tell, which a policy does not know.
func (i *Point) forged(iface string) addrset.Set {
	if i.model == policy.Shared {
		return addrset.Set{}
	}
	if len(i.zones) == 0 || i.zones[iface] == policy.ZoneCluster {
		return i.endpoints
	}
	return i.servers
}

// endpoint adds what lets clients in.
func (i *Point) endpoint(j *Judgement, at port, iface string) {
	db, to := at.database, at.endpoint.Addr.Addr()
	switch {
	case db.ForceTLS() && at.endpoint.TLS == policy.TLSNone:
		j.Default = "Force TLS is on, and the port never speaks TLS: it is closed (S-05)"
		return
	case db.ForceTLS() && i.blind:
		j.Default = "Force TLS is on, and this kernel cannot tell TLS from plaintext: the database is closed"
		return
	case i.model == policy.Shared:
		i.shared(j, at, iface)
		return
	case at.endpoint.Kind == policy.PeeringRW && i.zones[iface] != policy.ZonePeering:
		j.Default = "a peering endpoint, reached from elsewhere than the peering (D-14)"
		return
	}
	j.Default = fmt.Sprintf("no rule of %s covers it", db.Name())
	none := true
	for n, r := range db.EachRule() {
		none = false
		if g := i.rule(n, r, to); r.InForce(i.now) {
			j.Grants = append(j.Grants, g)
		} else {
			j.Expired = append(j.Expired, g)
		}
	}
	if none {
		j.Default = fmt.Sprintf("%s has no rules: nobody reaches it (D-03)", db.Name())
	}
}

// rule is what a rule lets in of an address's family.
func (i *Point) rule(n int, r policy.Rule, to netip.Addr) Grant {
	g := Grant{rule: n + 1}
	switch {
	case r.Range != "":
		g.set = i.ranges[r.Range].Intersect(anyone(to))
	case r.CIDR.Addr().Is4() == to.Is4():
		g.network = r.CIDR
	}
	return g
}

// RuleName names a rule by its number in the document, from 1, and by what it says.
func RuleName(index int, r policy.Rule) string {
	what := "custom range " + r.CIDR.String()
	if r.Range != "" {
		what = "managed range " + r.Range
	}
	if r.Label != "" {
		what += fmt.Sprintf(" (%s)", r.Label)
	}
	if !r.Expires.IsZero() {
		what += ", until " + r.Expires.UTC().Format(time.RFC3339)
	}
	return fmt.Sprintf("rule %d, %s", index+1, what)
}

// shared lets in the region, and with Internet accessibility everybody.
func (i *Point) shared(j *Judgement, at port, iface string) {
	to := at.endpoint.Addr.Addr()
	if at.database.InternetAccessible() {
		j.Grants = append(j.Grants, Grant{set: anyone(to), words: "Internet accessibility is on (S-08)"})
	}
	if until := at.database.OpenUntil(); until.After(i.now) {
		j.Grants = append(j.Grants, Grant{set: anyone(to), words: "break-glass, until " + until.UTC().Format(time.RFC3339)})
	}
	if i.in(iface, policy.ZoneRegional) {
		regional := i.regional.Intersect(anyone(to))
		if at.tls == policy.TLSNone || i.blind {
			regional = regional.Minus(members(at.database, to.Is4())) // of which TLS cannot be asked (C-03)
		}
		j.Grants = append(j.Grants, Grant{set: regional, words: "the networks of region " + i.region.Name + " (S-01)"})
	}
	j.Default = "Internet accessibility is off (S-02), and it does not come from the region's networks over the regional network"
}

// cluster lets the other nodes reach the cluster's own ports, over TLS (C-03, C-04). They arrive by interfaces of their
// cluster, and those of shared databases by the regional network as well.
func (i *Point) cluster(j *Judgement, at port, iface string, to netip.AddrPort) {
	arrive := i.in(iface, policy.ZoneCluster) || i.model == policy.Shared && i.in(iface, policy.ZoneRegional)
	isCluster := slices.ContainsFunc(at.database.ClusterPorts(), func(p policy.ClusterPort) bool { return p.Number == to.Port() })
	if !isCluster || at.tls == policy.TLSNone || i.blind || !arrive {
		return
	}
	j.Grants = append(j.Grants, Grant{set: peers(at.database, *at.node, to.Addr().Is4()), words: "a node of its own cluster (C-04)"})
}

// peers are the addresses of a node's fellow nodes, less those that it shares with them.
func peers(db policy.Database, n policy.Node, is4 bool) addrset.Set {
	return members(db, is4).Minus(addrset.Addrs(n.Addresses...))
}

// members are the addresses of a cluster's nodes; none of a database that has one node.
func members(db policy.Database, is4 bool) addrset.Set {
	if len(db.Nodes()) < 2 {
		return addrset.Set{}
	}
	var all []netip.Addr
	for _, n := range db.Nodes() {
		for _, a := range n.Addresses {
			if a.Is4() == is4 {
				all = append(all, a)
			}
		}
	}
	return addrset.Addrs(all...)
}

// Other are the sources whose packets of other protocols than TCP may begin something at an address.
func (i *Point) Other(to netip.Addr) addrset.Set {
	if i.model != policy.Shared && i.Protects(to) {
		return addrset.Set{}
	}
	return anyone(to)
}

// ForcesTLS tells whether a source must speak TLS to a port, and which of the document's words says so.
func (i *Point) ForcesTLS(from netip.Addr, to netip.AddrPort) (forced bool, why string) {
	at, ok := i.ports[to]
	if !ok || at.tls == policy.TLSNone {
		return false, ""
	}
	if at.database.ForceTLS() {
		return true, "Force TLS is on for " + at.database.Name()
	}
	isNode := slices.ContainsFunc(at.database.Nodes(), func(n policy.Node) bool { return slices.Contains(n.Addresses, from) })
	if isNode && (at.endpoint == nil || len(at.database.Nodes()) > 1) {
		return true, "nodes of a cluster speak TLS to each other (C-03)"
	}
	return false, ""
}

// Target is a port that a policy protects.
type Target struct {
	Database string
	At       netip.AddrPort
	// Endpoint: clients connect there. Otherwise it is a port of a node only.
	Endpoint bool
	Engine   policy.Engine
	TLS      policy.TLS
}

// Targets lists the ports that the policy protects, by address and port.
func (i *Point) Targets() []Target {
	out := make([]Target, 0, len(i.ports))
	for at, p := range i.ports {
		out = append(out, Target{Database: p.database.Name(), At: at, Endpoint: p.endpoint != nil, Engine: p.database.Engine(), TLS: p.tls})
	}
	slices.SortFunc(out, func(a, b Target) int {
		return cmp.Or(a.At.Addr().Compare(b.At.Addr()), cmp.Compare(a.At.Port(), b.At.Port()))
	})
	return out
}

// Port tells whether the policy protects an address and port, and whose it is.
func (i *Point) Port(at netip.AddrPort) (database string, ok bool) {
	p, ok := i.ports[at]
	return p.database.Name(), ok
}

// Blind tells whether nobody there can tell TLS from plaintext.
func (i *Point) Blind() bool { return i.blind }

// Addresses lists the addresses that the policy protects, in order.
func (i *Point) Addresses() []netip.Addr {
	out := make([]netip.Addr, 0, len(i.here))
	for a := range i.here {
		out = append(out, a)
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return out
}

// Interfaces lists the interfaces that a policy tells apart, and last one that it does not name.
func (i *Point) Interfaces() []string {
	out := make([]string, 0, len(i.zones)+1)
	for name := range i.zones {
		out = append(out, name)
	}
	slices.Sort(out)
	return append(out, i.unnamed())
}

// unnamed is the name of an interface that the policy does not name.
func (i *Point) unnamed() string {
	for n := 0; ; n++ {
		name := fmt.Sprintf("other%d", n)
		if _, taken := i.zones[name]; !taken {
			return name
		}
	}
}

// InterfaceWords names an interface of Interfaces for people, with its zone.
func (i *Point) InterfaceWords(iface string) string {
	switch z := i.zones[iface]; {
	case len(i.zones) == 0:
		return "any interface"
	case z == "":
		return "any other interface"
	default:
		return fmt.Sprintf("%s (%s)", iface, z)
	}
}

// Zone is what the policy says of an interface; "" if nothing.
func (i *Point) Zone(iface string) policy.Zone { return i.zones[iface] }
