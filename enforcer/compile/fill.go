package compile

import (
	"net/netip"
	"slices"

	"drawbridge/enforcer/policy"
	"drawbridge/enforcer/ruleset"
)

// Names of sets. Those without a family are followed by 4 or 6.
const (
	setProtected = "protected" // address . port of every endpoint, and of every port of a node that is here
	setOpen      = "open"      // endpoints with Internet accessibility
	setRegion    = "region"    // the region's networks
	setRegional  = "regional"  // endpoints that the region's network reaches
	setPeering   = "peering"   // endpoints of the peering
	setCluster   = "cluster"   // node . address . port: who reaches which port of its cluster
	setRules     = "rules"     // map: endpoint to the chain with its database's custom ranges, by source
	setAnswers   = "answers"   // map: the same by destination, for the answers

	setPeeringRules   = "peering_rules"   // the same for endpoints of the peering
	setPeeringAnswers = "peering_answers" // and for their answers

	setEndpoints = "endpoints" // addresses of a gateway's endpoints
	setNodes     = "nodes"     // addresses of the nodes that are here
	setOurs      = "ours"      // both

	setTLSFirst  = "tlsfirst"   // ports that begin with TLS
	setEither    = "either"     // ports that begin with TLS or plaintext
	setPG        = "pg"         // ports that negotiate as PostgreSQL does
	setMySQL     = "mysql"      // ports that negotiate as MySQL does
	setForce     = "force"      // where Force TLS is on
	setForcePair = "force_pair" // node . address . port: where it is on for that source
	setKeep      = "keep"       // where connections of unknown beginning are spared

	setZoneRegional = "zone_regional" // interfaces of the regional network
	setZonePeering  = "zone_peering"  // interfaces of peerings
	setZoneNodes    = "zone_nodes"    // interfaces where nodes of a cluster arrive
)

// Names with a part that comes from the policy. The family is put in front of that part: a name may end in a digit.
func setRange(f family, managed string) string { return "range" + f.suffix + "_" + managed }
func setUsers(f family, managed string) string { return "users" + f.suffix + "_" + managed }
func setCustom(f family, database string) string {
	return "custom" + f.suffix + "_" + database
}
func chainFrom(database string) string { return "from_" + database }
func chainTo(database string) string   { return "to_" + database }

// negotiations are the sets of gated endpoints, by how they arrive at TLS. Each gated endpoint is in exactly one.
var negotiations = []string{setTLSFirst, setEither, setPG, setMySQL}

func (c *compiler) declareSets(p *policy.Policy) {
	if c.zones {
		for _, name := range []string{setZoneRegional, setZonePeering, setZoneNodes} {
			c.declare(interfaceSet(name))
		}
	}
	for _, f := range families {
		c.declareAdmission(f)
		if c.blind {
			continue
		}
		for _, name := range append(slices.Clone(negotiations), setForce, setKeep) {
			c.declare(f.endpointSet(name + f.suffix))
		}
		c.declare(f.pairSet(setForcePair))
		c.declare(budgetSet(f))
		c.declareTally(f)
	}
	if !c.blind {
		for _, s := range memorySets(c.memory) {
			c.declare(s)
		}
	}
	if c.dedicated {
		for _, db := range p.Databases() {
			for _, f := range families {
				custom := f.rangeSet(setCustom(f, db.Name()))
				custom.HasTimeout, custom.Counter = true, true // each rule's packets, see Coverage
				c.declare(custom)
			}
		}
	}
}

func (c *compiler) declareAdmission(f family) {
	c.declare(f.endpointSet(setProtected + f.suffix))
	c.declare(f.addressSet(setNodes))
	c.declare(f.pairSet(setCluster))
	if !c.dedicated {
		c.declare(f.endpointSet(setOpen + f.suffix))
		c.declare(f.endpointSet(setRegional + f.suffix))
		c.declare(f.rangeSet(setRegion + f.suffix))
		return
	}
	c.declare(f.addressSet(setEndpoints))
	c.declare(f.addressSet(setOurs))
	c.declare(f.endpointSet(setPeering + f.suffix))
	c.declare(f.endpointMap(setRules))
	c.declare(f.endpointMap(setAnswers))
	c.declare(f.endpointMap(setPeeringRules))
	c.declare(f.endpointMap(setPeeringAnswers))
	for _, r := range c.ranges {
		c.declare(f.rangeSet(setRange(f, r.Name)))
		users := f.endpointSet(setUsers(f, r.Name))
		users.HasTimeout, users.Counter = true, true
		c.declare(users)
	}
}

func (c *compiler) fill(p *policy.Policy) {
	for _, i := range p.Interfaces() {
		c.fillZone(i)
	}
	if c.dedicated {
		for _, r := range c.ranges {
			c.fillRanges(func(f family) string { return setRange(f, r.Name) }, r.Networks)
		}
	} else {
		c.fillRanges(func(f family) string { return setRegion + f.suffix }, p.Region().Networks)
	}
	for _, db := range p.Databases() {
		for _, e := range db.Endpoints() {
			c.fillEndpoint(db, e)
		}
		for _, n := range db.Nodes() {
			if n.Here {
				c.fillNode(db, n)
			}
		}
		c.fillCustom(db)
	}
}

// fillZone sorts an interface into its zone. Nodes of shared clusters on other hosts arrive by the regional network;
// behind a gateway they have interfaces of their own.
func (c *compiler) fillZone(i policy.Interface) {
	e := ruleset.Element{Key: ifnameKey(i.Name)}
	switch i.Zone {
	case policy.ZoneRegional:
		c.put(setZoneRegional, e)
		if !c.dedicated {
			c.put(setZoneNodes, e)
		}
	case policy.ZonePeering:
		c.put(setZonePeering, e)
	case policy.ZoneCluster:
		c.put(setZoneNodes, e)
	}
}

func (c *compiler) fillRanges(set func(family) string, networks []netip.Prefix) {
	for _, f := range families {
		own := slices.DeleteFunc(slices.Clone(networks), func(p netip.Prefix) bool { return p.Addr().Is4() != f.is4 })
		for _, i := range union(own) {
			c.put(set(f), i.element())
		}
	}
}

// fillEndpoint protects an endpoint and opens it to whom the policy lets in.
func (c *compiler) fillEndpoint(db policy.Database, e policy.Endpoint) {
	f := familyOf(e.Addr.Addr())
	address := ruleset.Element{Key: addrKey(e.Addr.Addr())}
	c.protect(db, e.Addr, e.TLS)
	if !c.dedicated {
		c.put(setNodes+f.suffix, address)
	} else {
		c.put(setEndpoints+f.suffix, address)
		c.put(setOurs+f.suffix, address)
	}
	if e.Kind == policy.PeeringRW {
		c.endpoint(setPeering, e.Addr)
	}
	if db.ForceTLS() && (e.TLS == policy.TLSNone || c.blind) {
		return // a port that never speaks TLS, or where nobody can tell, is closed altogether (SPEC S-05)
	}
	if !c.dedicated {
		c.endpoint(setRegional, e.Addr) // SPEC S-01
		if db.InternetAccessible() {
			c.endpoint(setOpen, e.Addr) // SPEC S-08
		}
		return
	}
	c.forceOnNodes(db, e.Addr)
	key := endpointKey(e.Addr)
	from, to := setRules, setAnswers
	if e.Kind == policy.PeeringRW {
		from, to = setPeeringRules, setPeeringAnswers // behind the check of the zone
	}
	c.put(from+f.suffix, ruleset.Element{Key: key, Verdict: jump(chainFrom(db.Name()))})
	c.put(to+f.suffix, ruleset.Element{Key: key, Verdict: jump(chainTo(db.Name()))})
	for _, r := range db.Rules() {
		if left, ok := c.lifetime(r); ok && r.Range != "" {
			c.put(setUsers(f, r.Range), ruleset.Element{Key: key, Timeout: left})
		}
	}
}

// forceOnNodes makes the nodes of a cluster speak TLS at the cluster's own endpoint as well (SPEC C-03): whether they
// get in there is the rules' affair.
func (c *compiler) forceOnNodes(db policy.Database, endpoint netip.AddrPort) {
	if len(db.Nodes()) < 2 || c.blind {
		return
	}
	f := familyOf(endpoint.Addr())
	for _, n := range db.Nodes() {
		for _, a := range n.Addresses {
			if a.Is4() == f.is4 {
				c.put(setForcePair+f.suffix, ruleset.Element{Key: pairKey(a, endpoint)})
			}
		}
	}
}

// fillNode protects every port of a node that is here and opens the cluster's ports to the other nodes (SPEC C-04).
func (c *compiler) fillNode(db policy.Database, n policy.Node) {
	for _, a := range n.Addresses {
		c.put(setNodes+familyOf(a).suffix, ruleset.Element{Key: addrKey(a)})
		if c.dedicated {
			c.put(setOurs+familyOf(a).suffix, ruleset.Element{Key: addrKey(a)})
		}
		for _, p := range n.Ports {
			to := netip.AddrPortFrom(a, p.Number)
			c.protect(db, to, p.TLS)
			if !isClusterPort(db, p.Number) || p.TLS == policy.TLSNone || c.blind {
				continue // nodes speak to each other over TLS, or not at all (SPEC C-03)
			}
			for _, peer := range peers(db, n) {
				if peer.Is4() == a.Is4() {
					c.put(setCluster+familyOf(a).suffix, ruleset.Element{Key: pairKey(peer, to)})
					c.put(setForcePair+familyOf(a).suffix, ruleset.Element{Key: pairKey(peer, to)})
				}
			}
		}
	}
}

func isClusterPort(db policy.Database, number uint16) bool {
	return slices.ContainsFunc(db.ClusterPorts(), func(p policy.ClusterPort) bool { return p.Number == number })
}

// peers returns the addresses of a node's fellow nodes. Those that it shares with them, on one host, speak over
// loopback; from outside nobody has them.
func peers(db policy.Database, n policy.Node) []netip.Addr {
	var out []netip.Addr
	for _, other := range db.Nodes() {
		if other.Name == n.Name {
			continue
		}
		for _, a := range other.Addresses {
			if !slices.Contains(n.Addresses, a) {
				out = append(out, a)
			}
		}
	}
	return out
}

// protect puts an address and port under the judgement of all chains, and under the gate if it can speak TLS.
func (c *compiler) protect(db policy.Database, a netip.AddrPort, tls policy.TLS) {
	f := familyOf(a.Addr())
	c.put(setProtected+f.suffix, ruleset.Element{Key: endpointKey(a), Comment: db.Name()})
	set := negotiation(db.Engine(), tls)
	if set == "" || c.blind {
		return
	}
	c.endpoint(set, a)
	if db.ForceTLS() {
		c.endpoint(setForce, a)
	}
	if db.KeepUnknown() {
		c.endpoint(setKeep, a)
	}
}

// negotiation returns the set of endpoints that arrive at TLS in this way; none for a port that never does, or whose
// engine is not known: policy refuses to force TLS there.
func negotiation(e policy.Engine, tls policy.TLS) string {
	switch {
	case tls == policy.TLSOnly:
		return setTLSFirst
	case tls == policy.TLSEither:
		return setEither
	case tls == policy.TLSInBand && e.Speaks(policy.PostgreSQL):
		return setPG
	case tls == policy.TLSInBand && e.Speaks(policy.MySQL):
		return setMySQL
	}
	return ""
}

// fillCustom fills the database's own intervals. Rules that overlap are cut into disjoint pieces: what one of them covers is
// open, and stays open until the last one goes (SPEC D-10).
func (c *compiler) fillCustom(db policy.Database) {
	if !c.dedicated {
		return
	}
	for _, f := range families {
		for _, p := range c.pieces(db, f) {
			e := p.element()
			e.Timeout = p.left
			c.put(setCustom(f, db.Name()), e)
		}
	}
}
