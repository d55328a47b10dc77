// Package policy owns the policy document of one enforcement point (docs/DRIVERS.md, section 4): strict decoding into
// a validated, immutable Policy, the defaults by architecture model, and the refusals.
//
// Nothing here touches a kernel. What Parse returns is consistent: families match, no address and port is claimed
// twice, every managed range that a rule names is there.
package policy

import (
	"iter"
	"net/netip"
	"slices"
	"time"
)

// MaxRules is the greatest number of firewall rules of one database (SPEC D-12).
const MaxRules = 30

// Model is the architecture model of a database (SPEC, Words). The zero value is no model.
type Model string

// The architecture models.
const (
	Shared    Model = "shared"
	Dedicated Model = "dedicated"
)

// Engine names a database engine.
type Engine string

// The engines whose way to TLS is known.
const (
	PostgreSQL    Engine = "postgresql"
	MySQL         Engine = "mysql"
	MariaDB       Engine = "mariadb"
	Redis         Engine = "redis"
	Valkey        Engine = "valkey"
	MongoDB       Engine = "mongodb"
	OpenSearch    Engine = "opensearch"
	Elasticsearch Engine = "elasticsearch"
	InfluxDB      Engine = "influxdb"
)

// KnownEngines lists the engines whose way to TLS is known, in a fixed order.
func KnownEngines() []Engine {
	return []Engine{PostgreSQL, MySQL, MariaDB, Redis, Valkey, MongoDB, OpenSearch, Elasticsearch, InfluxDB}
}

// Speaks tells whether the engine speaks another's protocol, as its successors and forks do.
func (e Engine) Speaks(protocol Engine) bool {
	return e == protocol || protocol == MySQL && e == MariaDB || protocol == Redis && e == Valkey || protocol == OpenSearch && e == Elasticsearch
}

// Zone is where the packets that arrive at an interface come from.
type Zone string

// The zones.
const (
	ZoneInternet Zone = "internet"
	ZoneRegional Zone = "regional"
	ZonePeering  Zone = "peering"
	ZoneCluster  Zone = "cluster"
)

// Kind says what sort of endpoint it is. The zero value is none.
type Kind string

// The kinds of endpoint.
const (
	PublicRW  Kind = "public-rw"
	PeeringRW Kind = "private-peering-rw"
)

// TLS says what a port speaks.
type TLS string

// What a port speaks.
const (
	TLSInBand TLS = "in-band" // plaintext and TLS, negotiated inside the engine's own protocol
	TLSEither TLS = "either"  // plaintext or TLS from the first byte
	TLSOnly   TLS = "only"    // TLS from the first byte
	TLSNone   TLS = "none"    // never TLS
)

// Policy is the validated policy of one enforcement point. It is immutable: every accessor returns a copy.
type Policy struct {
	point      string
	model      Model
	interfaces []Interface
	region     Region
	ranges     []ManagedRange
	databases  []*Database // shared by the versions of a policy in which they are the same: nobody changes one
}

// Interface is one interface of the point.
type Interface struct {
	Name string // at most 15 bytes
	Zone Zone
}

// Region is the region in which the point stands.
type Region struct {
	Name     string // empty if the document has none (dedicated points only)
	Networks []netip.Prefix
}

// ManagedRange is a named set of networks, as it stands now.
type ManagedRange struct {
	Name     string
	Networks []netip.Prefix // masked; they may overlap
}

// Endpoint is where clients connect.
type Endpoint struct {
	Kind Kind
	Addr netip.AddrPort
	TLS  TLS
	// DNAT is where the fabric sends the endpoint's traffic now; the zero value if the document does not say.
	DNAT netip.AddrPort
}

// Node is one node of a database.
type Node struct {
	Name      string
	Here      bool // its server is on this host or behind this gateway
	Addresses []netip.Addr
	Ports     []Port
}

// Port is a port that a node listens on.
type Port struct {
	Number uint16
	TLS    TLS
}

// ClusterPort is a port on which the nodes of one database reach each other.
type ClusterPort struct {
	Number uint16
	Shared bool // clients use the port as well
}

// Rule is one firewall rule: exactly one of CIDR and Range is set.
type Rule struct {
	CIDR  netip.Prefix // custom_range; masked
	Range string       // managed_range: the name of a ManagedRange of the same policy
	Label string
	// Expires is when the rule ends by itself; the zero value: never.
	Expires time.Time
}

// InForce tells whether a rule has not expired at a time.
func (r Rule) InForce(now time.Time) bool { return r.Expires.IsZero() || r.Expires.After(now) }

// Database is one database with its defaults filled in. The zero value is reachable from nowhere.
type Database struct {
	name               string
	model              Model
	engine             Engine
	endpoints          []Endpoint
	nodes              []Node
	clusterPorts       []ClusterPort
	forceTLS           bool
	internetAccessible bool
	rules              []Rule
	ends               bool // one of the rules has an end
	keepUnknown        bool
	openUntil          time.Time
	warnings           []Warning
}

// Warning is something that the user should know though it is allowed.
type Warning struct {
	Database string // empty: it is about the policy as a whole
	Text     string
}

// Point returns the enforcement point's name.
func (p *Policy) Point() string { return p.point }

// Model returns the architecture model of the point and of all its databases.
func (p *Policy) Model() Model { return p.model }

// Interfaces returns the point's interfaces in document order; none if the document does not tell zones.
func (p *Policy) Interfaces() []Interface { return slices.Clone(p.interfaces) }

// Region returns the region of the point.
func (p *Policy) Region() Region {
	r := p.region
	r.Networks = slices.Clone(r.Networks)
	return r
}

// ManagedRanges returns the managed ranges, sorted by name.
func (p *Policy) ManagedRanges() []ManagedRange {
	out := slices.Clone(p.ranges)
	for i := range out {
		out[i].Networks = slices.Clone(out[i].Networks)
	}
	return out
}

// Databases returns the databases in document order.
func (p *Policy) Databases() []Database {
	return slices.AppendSeq(make([]Database, 0, len(p.databases)), p.EachDatabase())
}

// EachDatabase goes over Databases without a copy of them all.
func (p *Policy) EachDatabase() iter.Seq[Database] {
	return func(yield func(Database) bool) {
		for _, db := range p.databases {
			if !yield(*db) {
				return
			}
		}
	}
}

// Warnings returns what users should be told, in document order: of rules that let in everybody (SPEC D-11), and of a policy that
// protects nothing, which is what is left when the last database was removed.
func (p *Policy) Warnings() []Warning {
	var out []Warning
	if len(p.databases) == 0 {
		out = append(out, Warning{Text: "the policy protects no database: nothing is denied here; " +
			"if that is meant for good, drawbridge enforce reset takes the tables away as well"})
	}
	for _, db := range p.databases {
		out = append(out, db.warnings...)
	}
	return out
}

// Name returns the database's name, unique at its point.
func (d Database) Name() string { return d.name }

// Model returns the database's architecture model.
func (d Database) Model() Model { return d.model }

// Engine returns the database's engine; one of KnownEngines whenever TLS is enforced for it.
func (d Database) Engine() Engine { return d.engine }

// Endpoints returns where clients connect.
func (d Database) Endpoints() []Endpoint { return slices.Clone(d.endpoints) }

// Nodes returns every node, here or elsewhere.
func (d Database) Nodes() []Node {
	out := slices.Clone(d.nodes)
	for i := range out {
		out[i].Addresses, out[i].Ports = slices.Clone(out[i].Addresses), slices.Clone(out[i].Ports)
	}
	return out
}

// ClusterPorts returns the ports on which the nodes reach each other; none if the database is alone.
func (d Database) ClusterPorts() []ClusterPort { return slices.Clone(d.clusterPorts) }

// ForceTLS reports whether plaintext clients are refused: what the user said, or by default false for a shared
// (SPEC S-05) and true for a dedicated database (SPEC D-04).
func (d Database) ForceTLS() bool { return d.forceTLS }

// InternetAccessible reports whether every source may connect (SPEC S-08); only ever true for a shared database with
// Force TLS (S-09, S-10). By default false (S-02).
func (d Database) InternetAccessible() bool { return d.internetAccessible }

// Rules returns the firewall rules; always empty for a shared database (SPEC S-10), at most MaxRules.
func (d Database) Rules() []Rule { return slices.Clone(d.rules) }

// EachRule goes over Rules, by their index, without a copy of them all.
func (d Database) EachRule() iter.Seq2[int, Rule] { return slices.All(d.rules) }

// KeepUnknown reports whether Force TLS spares connections whose beginning the enforcer never saw (SPEC X-05). By
// default it cuts them.
func (d Database) KeepUnknown() bool { return d.keepUnknown }

// defaultForceTLS is the model's default of the toggle (SPEC S-05, D-04). Anything but shared gets the safe one.
func defaultForceTLS(m Model) bool { return m != Shared }

// Timed tells whether the policy has rules or openings with an end, passed ones included. A nil policy has none.
func (p *Policy) Timed() bool {
	return p != nil && slices.ContainsFunc(p.databases, (*Database).Timed)
}

// Timed tells whether the database has rules or an opening with an end, passed ones included.
func (d Database) Timed() bool {
	return d.ends || !d.openUntil.IsZero()
}
