package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

func (d *decoder) database(it value, p *Policy, c *claims) Database {
	o := d.object(it)
	db := Database{name: o.name("name"), model: choice(&o, "model", Shared, Dedicated), engine: Engine(o.name("engine"))}
	if first, ok := c.names[db.name]; ok {
		d.fail(it.offset, fmt.Sprintf("the database %s is there twice, first at %s", db.name, d.path(first)), "one entry per database")
	}
	c.names[db.name] = it.offset
	if db.model != p.model {
		d.fail(it.offset, fmt.Sprintf("a %s database at a %s point", db.model, p.model), "a point carries databases of its own model")
	}
	for _, e := range o.list("endpoints", true) {
		db.endpoints = append(db.endpoints, d.endpoint(e, p, db, c))
	}
	for _, n := range o.list("nodes", true) {
		db.nodes = append(db.nodes, d.node(n, db, c))
	}
	for _, e := range o.list("cluster_ports", false) {
		db.clusterPorts = append(db.clusterPorts, d.clusterPort(e, db))
	}
	d.consistent(it, db)
	db.rules = d.rules(&o, db, p)
	db.ends = slices.ContainsFunc(db.rules, func(r Rule) bool { return !r.Expires.IsZero() })
	d.toggles(&o, &db)
	o.close()
	db.warnings = openRules(db, p.ranges)
	return db
}

func (d *decoder) endpoint(it value, p *Policy, db Database, c *claims) Endpoint {
	o := d.object(it)
	e := Endpoint{Kind: choice(&o, "kind", PublicRW, PeeringRW), TLS: choice(&o, "tls", TLSInBand, TLSEither, TLSOnly, TLSNone)}
	a := o.address("address")
	e.Addr = netip.AddrPortFrom(a, o.port("port"))
	if f := choice(&o, "family", "ipv4", "ipv6"); (f == "ipv4") != a.Is4() {
		d.fail(it.offset, fmt.Sprintf("%v is not an %s address", a, f), "the family is that of the address")
	}
	if n, ok := o.get("dnat"); ok {
		no := d.object(n)
		to := no.address("address")
		e.DNAT = netip.AddrPortFrom(to, no.port("port"))
		no.close()
		if to.Is4() != a.Is4() {
			d.fail(n.offset, fmt.Sprintf("%v is translated to the other address family, %v", a, to), "")
		}
		if db.model == Shared {
			d.fail(n.offset, "destination NAT at a shared point", "the servers of a shared host have its addresses")
		}
	}
	if db.model == Shared && e.Kind == PeeringRW {
		d.fail(it.offset, "a peering endpoint of a shared database", "only dedicated databases can be peered")
	}
	if e.Kind == PeeringRW && !slices.ContainsFunc(p.interfaces, func(i Interface) bool { return i.Zone == ZonePeering }) {
		// Without knowing where the peering arrives, the endpoint would be open to whoever a rule covers (SPEC D-14).
		d.fail(it.offset, "a peering endpoint, and no interface has the zone peering", "say in interfaces where the peering arrives")
	}
	o.close()
	c.take(it, claimKey{addr: e.Addr, endpoint: true}, claim{database: db.name, tls: e.TLS})
	return e
}

func (d *decoder) node(it value, db Database, c *claims) Node {
	o := d.object(it)
	n := Node{Name: o.name("name")}
	if slices.ContainsFunc(db.nodes, func(other Node) bool { return other.Name == n.Name }) {
		d.fail(it.offset, "the node "+n.Name+" is there twice", "one entry per node")
	}
	if here, ok := o.need("here", kindBool); ok {
		n.Here = here.truth
	}
	for _, a := range o.list("addresses", true) {
		address := d.address(a)
		if slices.Contains(n.Addresses, address) {
			d.fail(a.offset, fmt.Sprintf("%v is there twice", address), "leave one of them out")
		}
		n.Addresses = append(n.Addresses, address)
	}
	for _, p := range o.list("ports", true) {
		po := d.object(p)
		port := Port{Number: po.port("port"), TLS: choice(&po, "tls", TLSInBand, TLSEither, TLSOnly, TLSNone)}
		po.close()
		n.Ports = append(n.Ports, port)
		// A node elsewhere is only a source of traffic; its ports are guarded where it stands.
		for _, a := range n.Addresses {
			if n.Here {
				c.take(p, claimKey{addr: netip.AddrPortFrom(a, port.Number)}, claim{database: db.name, tls: port.TLS})
			}
		}
	}
	o.close()
	if len(n.Addresses) == 0 || len(n.Ports) == 0 {
		d.fail(it.offset, "a node without address or port", "say where it listens")
	}
	return n
}

func (d *decoder) clusterPort(it value, db Database) ClusterPort {
	o := d.object(it)
	p := ClusterPort{Number: o.port("port")}
	if shared, ok := o.need("shared", kindBool); ok {
		p.Shared = shared.truth
	}
	o.close()
	if slices.ContainsFunc(db.clusterPorts, func(other ClusterPort) bool { return other.Number == p.Number }) {
		d.fail(it.offset, fmt.Sprintf("port %d is there twice", p.Number), "leave one of them out")
	}
	listening := func(n Node) bool {
		return slices.ContainsFunc(n.Ports, func(other Port) bool { return other.Number == p.Number })
	}
	if !slices.ContainsFunc(db.nodes, listening) {
		d.fail(it.offset, fmt.Sprintf("no node listens on cluster port %d", p.Number), "list it among the nodes' ports")
	}
	return p
}

// consistent checks what needs the whole database. Ports of an unknown engine, or in-band ports of one that does not
// negotiate, can be described, but no one can tell TLS from plaintext there: toggles looks after that.
func (d *decoder) consistent(it value, db Database) {
	if len(db.nodes) == 0 {
		d.fail(it.offset, "a database without nodes", "name at least one")
	}
	for _, e := range db.endpoints {
		if !e.DNAT.IsValid() {
			continue
		}
		if !slices.ContainsFunc(db.nodes, func(n Node) bool { return n.Here && n.listens(e.DNAT) }) {
			d.fail(it.offset, fmt.Sprintf("%v is translated to %v, where no node of the database listens", e.Addr, e.DNAT), "name a node that is here, and one of its ports")
		}
	}
}

func (n Node) listens(a netip.AddrPort) bool {
	return slices.Contains(n.Addresses, a.Addr()) && slices.ContainsFunc(n.Ports, func(p Port) bool { return p.Number == a.Port() })
}

// rules reads the firewall rules and applies SPEC S-10 and D-12.
func (d *decoder) rules(o *object, db Database, p *Policy) []Rule {
	items := o.list("firewall_rules", false)
	if len(items) > 0 && db.model == Shared {
		d.refuse(ErrRulesOnShared, items[0].offset, "firewall rule on "+db.name, "use internet_accessibility, or a dedicated database")
	}
	if len(items) > MaxRules {
		d.refuse(ErrTooManyRules, items[MaxRules].offset, fmt.Sprintf("rule %d of %s", MaxRules+1, db.name), "merge networks, or remove a rule")
		items = items[:MaxRules]
	}
	if len(items) == 0 {
		return nil
	}
	out := make([]Rule, 0, len(items))
	for _, it := range items {
		r := d.rule(it, p.ranges)
		same := func(other Rule) bool { return other.CIDR == r.CIDR && other.Range == r.Range }
		if first := slices.IndexFunc(out, same); first >= 0 { // they are few: a map takes longer
			d.fail(it.offset, "the same rule is there twice, first at "+d.path(items[first].offset), "leave one of them out")
		}
		out = append(out, r)
	}
	return out
}

// maxLabel bounds a rule's label, in bytes.
const maxLabel = 256

// label is text of people, who are shown it among other text: it must neither end a line nor speak to their terminal.
func (d *decoder) label(it value) string {
	if len(it.text) > maxLabel {
		d.fail(it.offset, fmt.Sprintf("%d bytes of label", len(it.text)), fmt.Sprintf("at most %d", maxLabel))
	}
	if d.kept {
		return strings.Map(harmless, it.text)
	}
	if i := strings.IndexFunc(it.text, IsControl); i >= 0 {
		c, _ := utf8.DecodeRuneInString(it.text[i:])
		d.fail(it.offset, fmt.Sprintf("the control character %U in a label", c), "leave it out: a label is one line of text, without escapes for a terminal")
	}
	return it.text
}

// harmless is a character, or in the place of one that is none in a label the one that stands for it.
func harmless(c rune) rune {
	if IsControl(c) {
		return utf8.RuneError
	}
	return c
}

// IsControl tells what moves a terminal's cursor or reorders its text: control characters (Unicode's Cc), what ends lines or
// paragraphs, and embeddings, overrides and isolates of writing directions (UAX 9, 2.1 to 2.4).
func IsControl(c rune) bool {
	return unicode.IsControl(c) || c >= 0x2028 && c <= 0x202e || c >= 0x2066 && c <= 0x2069
}

func (d *decoder) rule(it value, ranges []ManagedRange) Rule {
	o := d.object(it)
	var r Rule
	switch choice(&o, "type", "custom_range", "managed_range") {
	case "custom_range":
		if cidr, ok := o.need("cidr", kindString); ok {
			r.CIDR = d.network(cidr)
		}
	case "managed_range":
		r.Range = o.name("name")
		if !slices.ContainsFunc(ranges, func(m ManagedRange) bool { return m.Name == r.Range }) {
			d.fail(it.offset, "unknown managed range "+r.Range, "name one out of managed_ranges")
		}
	}
	if label, ok := o.get("label"); ok && d.is(label, kindString) {
		r.Label = d.label(label)
	}
	if expires, ok := o.get("expires"); ok && d.is(expires, kindString) {
		t, err := time.Parse(time.RFC3339, expires.text)
		if err != nil || t.IsZero() {
			d.fail(expires.offset, fmt.Sprintf("%q is not a time", expires.text), "a time of RFC 3339, for example 2027-01-31T18:00:00Z")
		}
		r.Expires = t
	}
	o.close()
	return r
}

// toggles reads the two toggles, fills in the model's defaults and applies SPEC S-09 and S-10.
func (d *decoder) toggles(o *object, db *Database) {
	force, access := o.boolean("force_tls"), o.boolean("internet_accessibility")
	db.forceTLS = defaultForceTLS(db.model)
	if force != nil {
		db.forceTLS = *force
	}
	db.internetAccessible = access != nil && *access
	if _, ok := o.get("unknown_connections"); ok {
		db.keepUnknown = choice(o, "unknown_connections", "cut", "keep") == "keep"
	}
	at := func(name string) int {
		if it, ok := o.get(name); ok {
			return it.offset
		}
		return o.item.offset
	}
	if db.internetAccessible {
		offset := at("internet_accessibility")
		switch {
		case db.model == Dedicated:
			d.refuse(ErrAccessibilityOnDedicated, offset, db.name, "add the firewall rules 0.0.0.0/0 and ::/0 instead")
		case !db.forceTLS:
			d.refuse(ErrAccessibilityNeedsForceTLS, offset, db.name, "set force_tls to true, or internet_accessibility to false")
		}
	}
	// Between nodes TLS is always required (SPEC C-03), whatever the toggle says.
	if db.forceTLS || len(db.clusterPorts) > 0 {
		d.negotiation(o, *db, at)
	}
}

// negotiation refuses to enforce TLS where nobody can tell it from plaintext (SPEC X-08).
func (d *decoder) negotiation(o *object, db Database, at func(string) int) {
	hint := fmt.Sprintf("known engines are %q; others need force_tls false and no cluster_ports", KnownEngines())
	if !slices.Contains(KnownEngines(), db.engine) {
		d.refuse(ErrNegotiationUnknown, at("engine"), fmt.Sprintf("Force TLS for %s, engine %q", db.name, db.engine), hint)
	}
	if db.engine.Speaks(PostgreSQL) || db.engine.Speaks(MySQL) {
		return
	}
	inBand := slices.ContainsFunc(db.endpoints, func(e Endpoint) bool { return e.TLS == TLSInBand })
	for _, n := range db.nodes {
		inBand = inBand || slices.ContainsFunc(n.Ports, func(p Port) bool { return p.TLS == TLSInBand })
	}
	if inBand {
		d.refuse(ErrNegotiationUnknown, o.item.offset,
			fmt.Sprintf("an in-band port of %s, engine %q", db.name, db.engine), "only postgresql, mysql and mariadb negotiate TLS in-band")
	}
}

// openRules finds the rules that let in every address of a family (SPEC D-11): allowed, but worth a word.
func openRules(db Database, ranges []ManagedRange) []Warning {
	var out []Warning
	for _, r := range db.rules {
		if r.Range == "" {
			if lettingInAll(r.CIDR) {
				out = append(out, openWarning(db, "the rule "+r.CIDR.String(), r.CIDR))
			}
			continue
		}
		i := slices.IndexFunc(ranges, func(m ManagedRange) bool { return m.Name == r.Range })
		if i < 0 {
			continue // refused already
		}
		for _, n := range ranges[i].Networks {
			if lettingInAll(n) {
				out = append(out, openWarning(db, "the managed range "+r.Range, n))
			}
		}
	}
	return out
}

func lettingInAll(n netip.Prefix) bool { return n.IsValid() && n.Bits() == 0 }

func openWarning(db Database, what string, n netip.Prefix) Warning {
	return Warning{Database: db.name, Text: fmt.Sprintf("%s of database %s lets in every %s source", what, db.name, familyName(n))}
}

func familyName(p netip.Prefix) string {
	if p.Addr().Is4() {
		return "IPv4"
	}
	return "IPv6"
}
