package policy

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
)

// version is the version of the document that this package reads.
const version = "1"

// Parse reads one policy document (docs/DRIVERS.md, section 4). name stands for the document in errors. Every error is
// an *Error; errors.Is(err, ErrRefused) tells a refusal by a rule from a malformed document. On error the Policy is nil.
func Parse(name string, data []byte) (*Policy, error) {
	p, _, err := parse(document{name: name, data: data})
	if err != nil {
		return nil, err
	}
	return p, nil
}

// parse returns the policy with the value that it was read from.
func parse(doc document) (*Policy, whole, error) {
	root, failed := doc.read()
	if failed != nil {
		return nil, whole{}, failed
	}
	d := &decoder{document: doc, root: root.value}
	p := d.policy(root.value)
	if d.err != nil {
		return nil, whole{}, d.err
	}
	return p, root, nil
}

func (d *decoder) policy(root value) *Policy {
	o := d.object(root)
	if v, ok := o.need("version", kindNumber); ok && v.text != version {
		d.fail(v.offset, "version "+v.text+" is not known", "write "+version)
	}
	p := &Policy{}
	if point, ok := o.need("point", kindObject); ok {
		po := d.object(point)
		p.point = po.name("name")
		p.model = choice(&po, "model", Shared, Dedicated)
		po.close()
	}
	p.interfaces = d.interfaces(&o)
	p.region = d.region(&o, p.model)
	if ranges, ok := o.get("managed_ranges"); ok {
		p.ranges = d.ranges(ranges)
	}
	c := &claims{d: d, names: map[string]int{}, keys: map[claimKey]claim{}}
	for _, it := range o.list("databases", true) {
		p.databases = append(p.databases, new(d.database(it, p, c)))
	}
	o.close()
	return p
}

// interfaces reads the zones. Without the member no zone is known; an empty list would look the same by mistake.
func (d *decoder) interfaces(o *object) []Interface {
	it, ok := o.get("interfaces")
	if !ok {
		return nil
	}
	var out []Interface
	seen := map[string]bool{}
	for _, entry := range d.items(it) {
		io := d.object(entry)
		i := Interface{Name: io.text("name"), Zone: choice(&io, "zone", ZoneInternet, ZoneRegional, ZonePeering, ZoneCluster)}
		io.close()
		if !validInterface(i.Name) {
			d.fail(entry.offset, fmt.Sprintf("%q is not the name of an interface other than loopback", i.Name), "1 to 15 printable characters without '/', '\"' and '*'")
		}
		if seen[i.Name] {
			d.fail(entry.offset, "the interface "+i.Name+" is there twice", "an interface has one zone")
		}
		seen[i.Name] = true
		out = append(out, i)
	}
	if len(out) == 0 {
		d.fail(it.offset, "no interface", "name the interfaces, or leave the member out if their zones are not known")
	}
	return out
}

// validInterface follows dev_valid_name (net/core/dev.c), less what nft(8) reads as a wildcard or a quote. Loopback is
// never judged (SPEC G-02), so it has no zone.
func validInterface(name string) bool {
	if name == "" || name == "." || name == ".." || name == "lo" || len(name) > 15 {
		return false
	}
	for i := range len(name) {
		if c := name[i]; c <= ' ' || c > '~' || c == '/' || c == '"' || c == '*' || c == ':' || c == '\\' {
			return false
		}
	}
	return true
}

// region reads the point's region. A shared point needs it: its databases are open to that region's networks (S-01).
func (d *decoder) region(o *object, m Model) Region {
	it, ok := o.get("region")
	if !ok {
		if m == Shared {
			o.need("region", kindObject)
		}
		return Region{}
	}
	ro := d.object(it)
	r := Region{Name: ro.name("name")}
	if n, ok := ro.need("networks", kindArray); ok {
		r.Networks = d.networks(n)
	}
	ro.close()
	return r
}

func (d *decoder) ranges(it value) []ManagedRange {
	if !d.is(it, kindObject) {
		return nil
	}
	var out []ManagedRange
	for _, m := range it.members {
		d.checkName(value{offset: m.offset, text: m.name})
		out = append(out, ManagedRange{Name: m.name, Networks: d.networks(m.value)})
	}
	slices.SortFunc(out, func(a, b ManagedRange) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// claims remembers who has which name, and which address and port, at this point.
type claims struct {
	d     *decoder
	names map[string]int // of databases: where it was first used
	keys  map[claimKey]claim
}

// claimKey is what an endpoint or a node claims. On a shared host an endpoint is a node's own address and port, so that
// one of each may claim the same.
type claimKey struct {
	addr     netip.AddrPort
	endpoint bool
}

type claim struct {
	database string
	tls      TLS
	offset   int // of what claims it
}

// take claims an address and port: once as an endpoint, once as a node's port, both for one database and both saying
// the same of it.
func (c *claims) take(it value, key claimKey, mine claim) {
	mine.offset = it.offset
	if first, taken := c.keys[key]; taken {
		c.d.fail(it.offset, fmt.Sprintf("%v is there twice, first at %s (database %s)", key.addr, c.d.path(first.offset), first.database), "give each its own address or port")
	}
	c.keys[key] = mine
	other, taken := c.keys[claimKey{addr: key.addr, endpoint: !key.endpoint}]
	switch {
	case taken && other.database != mine.database:
		c.d.fail(it.offset, fmt.Sprintf("%v belongs to database %s, by %s", key.addr, other.database, c.d.path(other.offset)), "give each its own address or port")
	case taken && other.tls != mine.tls:
		c.d.fail(it.offset, fmt.Sprintf("%v speaks tls %q here and %q at %s", key.addr, mine.tls, other.tls, c.d.path(other.offset)), "one port speaks one way")
	}
}

// CheckSyntax tells whether data is JSON as Parse takes it, whatever it says. The error is an *Error.
func CheckSyntax(name string, data []byte) error {
	if _, err := (document{name: name, data: data}).read(); err != nil {
		return err
	}
	return nil
}
