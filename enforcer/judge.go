package enforcer

import (
	"net/netip"
	"slices"
	"time"

	"drawbridge/enforcer/compile"
	"drawbridge/enforcer/cut"
	"drawbridge/enforcer/policy"
)

// judge tells which established connections a policy lets go on. It implements cut.Judge. Zones are not asked for: the
// tables of the kernel do not tell them, and a connection that was made came in by the right one.
type judge struct {
	mark compile.Mark
	// fresh: the table is new, and what the one before knew about handshakes under way is gone.
	fresh     bool
	region    []netip.Prefix
	ranges    map[string][]netip.Prefix
	endpoints map[netip.AddrPort]endpoint
	ports     map[netip.AddrPort]policy.Database // what nodes that are here listen on
	pairs     map[pair]bool                      // who reaches which port of its own cluster
	addresses map[netip.Addr]bool                // dedicated: nothing else lives there
	now       time.Time                          // rules that have expired admit nobody
}

type endpoint struct {
	policy.Endpoint
	database policy.Database
}

type pair struct {
	source netip.Addr
	to     netip.AddrPort
}

func newJudge(p *policy.Policy, mark compile.Mark, fresh bool, now time.Time) *judge {
	j := &judge{
		now: now, mark: mark, fresh: fresh, region: p.Region().Networks, ranges: map[string][]netip.Prefix{},
		endpoints: map[netip.AddrPort]endpoint{}, ports: map[netip.AddrPort]policy.Database{},
		pairs: map[pair]bool{}, addresses: map[netip.Addr]bool{},
	}
	for _, r := range p.ManagedRanges() {
		j.ranges[r.Name] = r.Networks
	}
	for db := range p.EachDatabase() {
		for _, e := range db.Endpoints() {
			j.endpoints[e.Addr] = endpoint{e, db}
			j.addresses[e.Addr.Addr()] = p.Model() == policy.Dedicated
		}
		for _, n := range db.Nodes() {
			if n.Here {
				j.node(db, n, p.Model())
			}
		}
	}
	return j
}

func (j *judge) node(db policy.Database, n policy.Node, model policy.Model) {
	for _, a := range n.Addresses {
		j.addresses[a] = model == policy.Dedicated
		for _, p := range n.Ports {
			to := netip.AddrPortFrom(a, p.Number)
			j.ports[to] = db
			isCluster := slices.ContainsFunc(db.ClusterPorts(), func(c policy.ClusterPort) bool { return c.Number == p.Number })
			if !isCluster || p.TLS == policy.TLSNone {
				continue // nodes speak to each other over TLS, or not at all (SPEC C-03)
			}
			for _, other := range db.Nodes() {
				for _, source := range other.Addresses {
					if other.Name != n.Name && !slices.Contains(n.Addresses, source) {
						j.pairs[pair{source, to}] = true
					}
				}
			}
		}
	}
}

// Protects tells whether the connection is to an endpoint or a node of a database that is here.
func (j *judge) Protects(c cut.Connection) bool {
	_, isEndpoint := j.endpoints[c.Endpoint]
	_, isPort := j.ports[c.Endpoint]
	return isEndpoint || isPort || j.addresses[c.Endpoint.Addr()]
}

// Allows tells whether the policy lets the connection go on.
func (j *judge) Allows(c cut.Connection) bool {
	client := c.Client.Addr()
	e, isEndpoint := j.endpoints[c.Endpoint]
	if j.pairs[pair{client, c.Endpoint}] {
		return j.speaksTLS(c, j.ports[c.Endpoint])
	}
	if !isEndpoint || !j.admits(e.database, client) {
		return false
	}
	if !e.database.ForceTLS() && !ownNode(e.database, client) {
		return true
	}
	return e.TLS != policy.TLSNone && j.speaksTLS(c, e.database)
}

// ownNode tells whether a client is a node of the cluster itself, which speaks TLS whatever Force TLS says (SPEC C-03).
func ownNode(db policy.Database, client netip.Addr) bool {
	return len(db.Nodes()) > 1 && slices.ContainsFunc(db.Nodes(), func(n policy.Node) bool { return slices.Contains(n.Addresses, client) })
}

// admits tells whether a database lets this client in at all.
func (j *judge) admits(db policy.Database, client netip.Addr) bool {
	covers := func(networks []netip.Prefix) bool {
		return slices.ContainsFunc(networks, func(n netip.Prefix) bool { return n.Contains(client) })
	}
	if db.Model() == policy.Shared {
		return db.InternetAccessible() || db.OpenUntil().After(j.now) || covers(j.region)
	}
	return slices.ContainsFunc(db.Rules(), func(r policy.Rule) bool {
		if !r.InForce(j.now) {
			return false
		}
		if r.Range != "" {
			return covers(j.ranges[r.Range])
		}
		return r.CIDR.Contains(client)
	})
}

// speaksTLS tells whether Force TLS lets the connection go on (SPEC X-05).
func (j *judge) speaksTLS(c cut.Connection, db policy.Database) bool {
	class := j.mark.Class(c.Mark)
	if !c.Tracked {
		class = compile.ClassUnknown
	}
	if class == compile.ClassUnknown {
		return db.KeepUnknown()
	}
	if j.fresh {
		return class == compile.ClassTLS
	}
	return class.Survives()
}
