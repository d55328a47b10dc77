package compile

import (
	"drawbridge/enforcer/policy"
	"drawbridge/enforcer/ruleset"
)

// Chains of admission; those but the base chain and the ends are per family, and those of a way follow its name.
const (
	chainAdmission  = "admission"
	chainNodeSpeaks = "node_speaks" // a packet has a node's address
	chainForged     = "forged"
	chainFragments  = "fragments"
	chainDenied     = "denied"
	chainReply      = "replies" // reply is a word of nft(8)
	chainSilenced   = "silenced"
	chainMuted      = "muted" // drops what silenced keeps in
)

// admission decides who reaches a protected endpoint, packet by packet and without state: what it denies costs no
// conntrack entry (SPEC X-10), and taking an element away ends established connections at once.
//
// In front of that, nobody outside speaks in a server's name: a forged SYN-ACK would tell the witness a lie.
//
// Most packets here belong to endpoints that let them in, or to nobody's endpoint, as a server's answers do. At a gateway
// one look-up tells which: where it finds nothing, the packet is not judged, so that its elements stay as they are whatever
// users change. On a shared host, where every packet of a server passes either here or in reply, who is let in comes first.
//
// No chain is left by falling off its end, but for node_speaks, which is only jumped to: behind a goto from a base chain
// that would be the chain's policy, accept.
func (c *compiler) admission() {
	c.baseChain(chainAdmission, ruleset.HookPrerouting, priorityAdmission, c.perFamily(chainAdmission)...)
	c.speakers()
	for _, f := range c.families {
		c.regular(chainAdmission+f.suffix, append([]ruleset.Rule{
			because("nobody outside speaks in a server's name (X-03)", ruleset.VerdictMap{Key: fields(f.saddr), Map: setSpeakers + f.suffix}),
			rule(f.fragment(), goTo(chainFragments+f.suffix)),
		}, c.asked(inbound(f))...)...)
		// Reassembly comes first, at priority -400, in every namespace with a ct expression in its rules, so that here no
		// fragments are left, unless somebody exempted them from conntrack before: then no chain could tell what they carry
		// (SPEC X-08). Fragments for others are theirs.
		c.regular(chainFragments+f.suffix, rule(in(setOurs+f.suffix, f.daddr), goTo(chainDenied)), rule(accept))
		c.wayChains(inbound(f))
	}
	denied := append(unjudged(fromLo, accept), rule(ruleset.Counter{}))
	c.regular(chainDenied, append(append(denied, c.tell(DeniedNoRule)...),
		because("the client of a revoked connection learns of it (X-04)", flags(syn, 0), ruleset.Reject{TCPReset: true}),
		rule(drop))...)
}

// unjudged are the packets that admission does not judge. They are few, and asked for only where a packet would be dropped:
// on the way there they meet nothing but verdicts that let them pass.
func unjudged(lo ruleset.Statement, verdict ruleset.Verdict) []ruleset.Rule {
	return []ruleset.Rule{because("loopback is not judged (G-02)", lo, verdict), because("nor is anything but TCP", notTCP, verdict)}
}

// speakers drop packets with the address of a server that is here, but that do not come from it (SPEC X-03), and come back
// with all others. A node behind the gateway speaks from the zone of its cluster; where zones are not known, and on a
// shared host, the way back to the source must lead out of the interface that the packet came in by, which for an address
// of the host itself none does. The addresses of a gateway's endpoints are only translated to, and nobody speaks from there.
func (c *compiler) speakers() {
	elsewhere := ruleset.Statement(noWayBack)
	if c.dedicated && c.zones {
		elsewhere = notIn(setZoneNodes, ruleset.MetaIIFName)
	}
	c.regular(chainNodeSpeaks, rule(elsewhere, goTo(chainForged)))
	c.regular(chainForged, append(unjudged(fromLo, back), rule(drop))...)
}

// way is a direction in which admission is asked: which fields hold the client, the endpoint and the client's interface.
type way struct {
	family
	client, addr, port, iface ruleset.FieldKind
	name                      string // begins the names of its chains
	judged                    string // map: address and port to what says who gets through
	rules                     string // map: of a gateway's endpoints that are not always open, the chains of their databases
	through                   ruleset.Verdict
	denial                    string
}

func inbound(f family) way {
	return way{
		family: f, client: f.saddr, addr: f.daddr, port: ruleset.THDport, iface: ruleset.MetaIIFName,
		name: "from", judged: setInbound + f.suffix, rules: setRules + f.suffix, through: accept, denial: chainDenied,
	}
}

// outbound is the way of the answers; what gets through is then heard by the witness, if there is one.
func (c *compiler) outbound(f family) way {
	w := way{
		family: f, client: f.daddr, addr: f.saddr, port: ruleset.THSport, iface: ruleset.MetaOIFName,
		name: "to", judged: setOutbound + f.suffix, rules: setAnswers + f.suffix, through: goTo(chainWitness + f.suffix), denial: chainSilenced,
	}
	if c.blind {
		w.through = accept
	}
	return w
}

// Chains of a way.
func (w way) database(name string) string { return w.name + w.suffix + "_" + name }
func (w way) ranges() string              { return w.name + "_ranges" + w.suffix }
func (w way) peering() string             { return w.name + "_peering" + w.suffix }
func (w way) sometimes() string           { return w.name + "_sometimes" + w.suffix }
func (w way) region() string              { return w.name + "_region" + w.suffix }
func (w way) strangers() string           { return w.name + "_strangers" + w.suffix }
func (w way) nodes() string               { return w.name + "_nodes" + w.suffix }

// endpoint matches packets of a set's endpoints.
func (w way) endpoint(set string) ruleset.Statement { return in(set, w.addr, w.port) }

// asked sends the packets of protected endpoints to the chains that judge them, and lets others pass. On a shared host an
// element changes its verdict when Internet accessibility is turned on or off; what is not found is still protected.
func (c *compiler) asked(w way) []ruleset.Rule {
	rules := []ruleset.Rule{rule(ruleset.VerdictMap{Key: fields(w.addr, w.port), Map: w.judged})}
	if !c.dedicated {
		rules = append(rules, rule(w.endpoint(setProtected+w.suffix), goTo(w.nodes())))
	}
	return append(rules, because("not ours", accept))
}

// zone matches packets of a zone's interfaces; nothing is asked where the policy does not tell zones.
func (c *compiler) zone(set string, w way) []ruleset.Statement {
	if !c.zones {
		return nil
	}
	return []ruleset.Statement{in(set, w.iface)}
}

// wayChains let through what the policy admits. They are the one place that says so, for both directions. Each hands on
// what it does not admit, to the cluster's own nodes in the end, behind which is denial.
func (c *compiler) wayChains(w way) {
	if c.dedicated {
		c.gatewayChains(w)
	} else {
		regional := append(c.zone(setZoneRegional, w), in(setRegion+w.suffix, w.client), w.through)
		var opened []ruleset.Rule
		if c.glass {
			opened = []ruleset.Rule{because("break-glass", w.endpoint(setOpened+w.suffix), w.through)}
		}
		c.regular(w.region(), append(opened, rule(regional...), rule(goTo(w.nodes())))...)
		if c.clustered {
			c.regular(w.strangers(), append(c.paired(w.family, goTo(w.nodes()), w.client, w.addr, w.port), rule(goTo(w.region())))...)
		}
	}
	node := append(c.zone(setZoneNodes, w), in(setCluster+w.suffix, w.client, w.addr, w.port), w.through)
	c.regular(w.nodes(), because("the cluster's own nodes (C-04)", node...), rule(goTo(w.denial)))
}

// gatewayChains are those for rules. A database's chain asks for its custom ranges first, as most clients come from one.
func (c *compiler) gatewayChains(w way) {
	var ranges []ruleset.Rule
	for _, r := range c.ranges {
		// In this order, since an element counts whoever finds it: only the range's own clients get to the endpoint.
		ranges = append(ranges, rule(in(setRange(w.family, r.Name), w.client), w.endpoint(setUsers(w.family, r.Name)), w.through))
	}
	c.regular(w.ranges(), append(ranges, rule(goTo(w.nodes())))...)
	if c.zones {
		c.regular(w.peering(),
			because("only over the peering (D-14)", notIn(setZonePeering, w.iface), goTo(w.denial)),
			rule(goTo(w.sometimes())))
	}
	c.regular(w.sometimes(), rule(ruleset.VerdictMap{Key: fields(w.addr, w.port), Map: w.rules}), rule(goTo(w.nodes())))
}

// databaseChains hold the custom ranges of each dedicated database, in the families of its endpoints. They exist whether
// or not it has such rules, so that adding the first and removing the last changes elements only.
func (c *compiler) databaseChains(p *policy.Policy) {
	if !c.dedicated {
		return
	}
	for db := range p.EachDatabase() {
		for _, f := range families {
			if hasEndpoint(db, f) {
				c.databaseChain(f, db.Name())
			}
		}
	}
}

// databaseChain is one database's pair of chains in one family.
func (c *compiler) databaseChain(f family, database string) {
	for _, w := range []way{inbound(f), c.outbound(f)} {
		c.regular(w.database(database), rule(in(setCustom(f, database), w.client), w.through), rule(goTo(w.ranges())))
	}
}

// reply asks the same admission of the server's answers, so that a revoked connection carries no byte back either
// (SPEC X-04), and then has the witness listen. A reset without payload gets out: it ends the client's half.
func (c *compiler) reply() {
	c.baseChain(chainReply, ruleset.HookPostrouting, priorityReply, c.perFamily(chainReply)...)
	for _, f := range c.families {
		c.regular(chainReply+f.suffix, c.asked(c.outbound(f))...)
		c.wayChains(c.outbound(f))
	}
	silenced := unjudged(toLo, accept)
	if !c.blind {
		silenced = append(silenced, rule(payload, goTo(chainMuted)))
	}
	c.regular(chainSilenced, append(silenced,
		because("a bare reset ends the other half", anyFlag(rst), accept),
		rule(goTo(chainMuted)))...)
	c.regular(chainMuted, rule(ruleset.Counter{}), rule(drop))
}
