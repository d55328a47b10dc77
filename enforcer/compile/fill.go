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
	setRegion    = "region"    // the region's networks
	setCluster   = "cluster"   // node . address . port: who reaches which port of its cluster
	setSpeakers  = "speakers"  // map: addresses of servers to what becomes of packets that come from there
	setOurs      = "ours"      // addresses of endpoints and of nodes that are here

	// What says who gets through to an endpoint, by destination, and for the answers by source. At a gateway there is one for
	// every protected address and port, and nothing that users change changes it. On a shared host only those that somebody
	// reaches from outside are here, by Internet accessibility.
	setInbound  = "inbound"  // map
	setOutbound = "outbound" // map
	// A shared host's endpoints that are open to everybody for a while. It is there as long as one is, and its elements end by
	// themselves, unlike those of a verdict map, whose end would close an endpoint to its region too.
	setOpened = "opened"

	// The chains of a gateway's databases, by endpoint, for those that are not open all the time or from everywhere: of the
	// peering, and closed by Force TLS for want of TLS.
	setRules   = "rules"   // map
	setAnswers = "answers" // map

	setTLSFirst  = "tlsfirst"   // ports that begin with TLS
	setEither    = "either"     // ports that begin with TLS or plaintext
	setPG        = "pg"         // ports that negotiate as PostgreSQL does
	setMySQL     = "mysql"      // ports that negotiate as MySQL does
	setWatched   = "watched"    // all four
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

// negotiations are the sets of gated endpoints, by how they arrive at TLS. Each gated endpoint is in exactly one.
var negotiations = []string{setTLSFirst, setEither, setPG, setMySQL}

func (c *compiler) declareSets(p *policy.Policy) {
	if c.zones {
		for _, name := range []string{setZoneRegional, setZonePeering, setZoneNodes} {
			c.declare(interfaceSet(name))
		}
	}
	for _, f := range c.families {
		c.declareAdmission(f)
		if c.blind {
			if !c.dedicated {
				c.declare(f.pairSet(setForcePair)) // a shared host's nodes stay out of ports that never speak TLS
			}
			continue
		}
		for _, name := range append(slices.Clone(negotiations), setWatched, setForce, setKeep) {
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
		for db := range p.EachDatabase() {
			for _, f := range families {
				if !hasEndpoint(db, f) {
					continue // each set costs the kernel a walk over all sets of the table when it is made
				}
				c.declare(customSet(f, db.Name()))
			}
		}
	}
}

// customSet is the set of a database's own intervals.
func customSet(f family, database string) ruleset.Set {
	s := f.rangeSet(setCustom(f, database))
	s.HasTimeout, s.Counter = true, true // each rule's packets, see Coverage
	return s
}

func (c *compiler) declareAdmission(f family) {
	c.declare(f.endpointSet(setProtected + f.suffix))
	c.declare(f.addressMap(setSpeakers))
	c.declare(f.addressSet(setOurs))
	c.declare(f.pairSet(setCluster))
	c.declare(f.endpointMap(setInbound))
	c.declare(f.endpointMap(setOutbound))
	if !c.dedicated {
		c.declare(f.rangeSet(setRegion + f.suffix))
		if c.glass {
			opened := f.endpointSet(setOpened + f.suffix)
			opened.HasTimeout = true
			c.declare(opened)
		}
		return
	}
	c.declare(f.endpointMap(setRules))
	c.declare(f.endpointMap(setAnswers))
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
	for db := range p.EachDatabase() {
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
	for _, f := range c.families {
		own := slices.DeleteFunc(slices.Clone(networks), func(p netip.Prefix) bool { return p.Addr().Is4() != f.is4 })
		for _, i := range union(own) {
			c.put(set(f), i.element())
		}
	}
}

// fillEndpoint protects an endpoint and opens it to whom the policy lets in.
func (c *compiler) fillEndpoint(db policy.Database, e policy.Endpoint) {
	f := familyOf(e.Addr.Addr())
	c.protect(db, e.Addr, e.TLS)
	c.put(setOurs+f.suffix, ruleset.Element{Key: addrKey(e.Addr.Addr())})
	c.speaker(e.Addr.Addr(), c.dedicated)
	neverTLS := e.TLS == policy.TLSNone || c.blind // or nobody can tell
	closed := db.ForceTLS() && neverTLS            // altogether (SPEC S-05)
	for _, w := range []way{inbound(f), c.outbound(f)} {
		if c.dedicated {
			c.judge(w, db, e, neverTLS, closed)
		} else if !closed {
			c.put(w.judged, ruleset.Element{Key: endpointKey(e.Addr), Verdict: w.shared(db, neverTLS)})
		}
	}
	if left, ok := c.left(db.OpenUntil()); ok && c.glass && !closed {
		c.put(setOpened+f.suffix, ruleset.Element{Key: endpointKey(e.Addr), Timeout: left})
	}
	if closed {
		return
	}
	c.forceOnNodes(db, e.Addr)
	if !c.dedicated {
		return
	}
	for _, r := range db.EachRule() {
		if left, ok := c.lifetime(r); ok && r.Range != "" {
			c.put(setUsers(f, r.Range), ruleset.Element{Key: endpointKey(e.Addr), Timeout: left})
		}
	}
}

// shared is the verdict for a shared host's endpoint: the region reaches it (SPEC S-01), or everybody does (S-08). Nodes of the same cluster
// may be in the region, and where no TLS can be asked of them they stay out (C-03).
func (w way) shared(db policy.Database, neverTLS bool) ruleset.Verdict {
	switch {
	case db.InternetAccessible():
		return w.through
	case neverTLS && len(db.Nodes()) > 1:
		return goTo(w.strangers())
	}
	return goTo(w.region())
}

// judge sends the packets of a gateway's endpoint to the chain of its database: at once, or where it is not open all the
// time or from everywhere, behind a second look-up, so that no toggle changes what the first one finds.
func (c *compiler) judge(w way, db policy.Database, e policy.Endpoint, neverTLS, closed bool) {
	at, own := endpointKey(e.Addr), goTo(w.database(db.Name()))
	first := own
	switch {
	case e.Kind == policy.PeeringRW && c.zones:
		first = goTo(w.peering())
	case neverTLS:
		first = goTo(w.sometimes())
	}
	c.put(w.judged, ruleset.Element{Key: at, Verdict: first})
	if first != own && !closed {
		c.put(w.rules, ruleset.Element{Key: at, Verdict: own})
	}
}

// speaker guards a server's address (SPEC X-03). Nobody ever speaks from a gateway's endpoint, and a node with the same
// address changes nothing about that.
func (c *compiler) speaker(a netip.Addr, never bool) {
	set, forged := setSpeakers+familyOf(a).suffix, jump(chainForged)
	e := ruleset.Element{Key: addrKey(a), Verdict: jump(chainNodeSpeaks)}
	if never || c.elements[set][e.Key].Verdict == forged {
		e.Verdict = forged
	}
	c.put(set, e)
}

// hasEndpoint tells whether a database has endpoints of the family.
func hasEndpoint(db policy.Database, f family) bool {
	return slices.ContainsFunc(db.Endpoints(), func(e policy.Endpoint) bool { return e.Addr.Addr().Is4() == f.is4 })
}

// forceOnNodes makes the nodes of a cluster speak TLS at the cluster's own endpoint as well (SPEC C-03): whether they
// get in there is the rules' affair, but for a shared host's endpoint that never speaks TLS.
func (c *compiler) forceOnNodes(db policy.Database, endpoint netip.AddrPort) {
	if len(db.Nodes()) < 2 || c.blind && c.dedicated {
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
		c.put(setOurs+familyOf(a).suffix, ruleset.Element{Key: addrKey(a)})
		c.speaker(a, false)
		for _, p := range n.Ports {
			to := netip.AddrPortFrom(a, p.Number)
			c.protect(db, to, p.TLS)
			c.judgeNode(to)
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

// judgeNode has the cluster's own nodes asked for at a node's port behind a gateway. An endpoint at the same place has been
// asked for more.
func (c *compiler) judgeNode(at netip.AddrPort) {
	if !c.dedicated {
		return
	}
	f := familyOf(at.Addr())
	for _, w := range []way{inbound(f), c.outbound(f)} {
		if _, there := c.elements[w.judged][endpointKey(at)]; !there {
			c.put(w.judged, ruleset.Element{Key: endpointKey(at), Verdict: goTo(w.nodes())})
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
	c.endpoint(setWatched, a)
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
		if !hasEndpoint(db, f) {
			continue // nobody comes to it in this family
		}
		c.list(setCustom(f, db.Name()), elements(c.pieces(db, f)))
	}
}
