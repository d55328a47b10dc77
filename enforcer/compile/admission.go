package compile

import (
	"drawbridge/enforcer/policy"
	"drawbridge/enforcer/ruleset"
)

// Chains of admission.
const (
	chainNames       = "names"
	chainAdmission   = "admission"
	chainDenied      = "denied"
	chainContainment = "containment"
	chainContain     = "contain"
	chainReply       = "reply"
	chainSilenced    = "silenced"
)

// names drops packets that arrive from outside with the address of a server that is here (SPEC X-03): a forged
// SYN-ACK would tell the witness a lie. An endpoint of a gateway never sends from outside, it is only translated to.
// A node behind the gateway sends from the zone of its cluster; where zones are not known, and on a shared host, the
// way back to the source must lead out of the interface that the packet came in by, which for an address of the host
// itself none does.
func (c *compiler) names() {
	c.baseChain(chainNames, ruleset.HookPrerouting, priorityNames,
		append([]ruleset.Rule{because("loopback is not judged (G-02)", fromLo, accept), rule(notTCP, accept)}, perFamily(chainNames)...)...)
	for _, f := range families {
		var rules []ruleset.Rule
		elsewhere := ruleset.Statement(noWayBack)
		if c.dedicated {
			rules = append(rules, rule(notIn(setOurs+f.suffix, f.saddr), accept))
			rules = append(rules, because("only translated to", in(setEndpoints+f.suffix, f.saddr), drop))
			if c.zones {
				elsewhere = notIn(setZoneNodes, ruleset.MetaIIFName)
			}
		}
		rules = append(rules, because("nobody outside speaks in a node's name", in(setNodes+f.suffix, f.saddr), elsewhere, drop))
		c.regular(chainNames+f.suffix, rules...)
	}
}

// admission decides who reaches a protected endpoint, packet by packet and without state: what it denies costs no
// conntrack entry (SPEC X-10), and taking an element away ends established connections at once.
//
// No chain is left by falling off its end: behind a goto from a base chain that would be the chain's policy, accept.
func (c *compiler) admission() {
	c.baseChain(chainAdmission, ruleset.HookPrerouting, priorityAdmission,
		append([]ruleset.Rule{because("loopback is not judged (G-02)", fromLo, accept), rule(notTCP, accept)}, perFamily(chainAdmission)...)...)
	for _, f := range families {
		rules := append(c.fragments(f), c.usual(f, inbound(f))...)
		rules = append(rules, rule(negate(f.to(setProtected)), accept))
		rules = append(rules, c.admitted(f, inbound(f))...)
		c.regular(chainAdmission+f.suffix, append(rules, rule(goTo(chainDenied)))...)
	}
	denied := append([]ruleset.Rule{rule(ruleset.Counter{})}, c.tell(DeniedNoRule)...)
	c.regular(chainDenied, append(denied,
		because("the client of a revoked connection learns of it (X-04)", flags(syn, 0), ruleset.Reject{TCPReset: true}),
		rule(drop))...)
}

// fragments drops TCP fragments to the addresses of servers. Reassembly comes first, at priority -400, in every
// namespace with a ct expression in its rules, so that here none are left, unless somebody exempted them from
// conntrack before: then no chain could tell what they carry (SPEC X-08). Fragments for others are theirs.
func (c *compiler) fragments(f family) []ruleset.Rule {
	fragment := ruleset.Statement(v6Fragment)
	if f.is4 {
		fragment = v4Fragment
	}
	rules := []ruleset.Rule{rule(fragment, in(setNodes+f.suffix, f.daddr), goTo(chainDenied))}
	if c.dedicated {
		rules = append(rules, rule(fragment, in(setEndpoints+f.suffix, f.daddr), goTo(chainDenied)))
	}
	return append(rules, rule(fragment, accept))
}

func negate(s ruleset.InSet) ruleset.InSet {
	s.Negate = !s.Negate
	return s
}

// way is a direction in which admission is asked: which fields hold the client, the endpoint and the client's interface.
type way struct {
	client, addr, port, iface ruleset.FieldKind
	rules, peering            string // the verdict maps for this direction
}

func inbound(f family) way {
	return way{client: f.saddr, addr: f.daddr, port: ruleset.THDport, iface: ruleset.MetaIIFName, rules: setRules, peering: setPeeringRules}
}

func outbound(f family) way {
	return way{client: f.daddr, addr: f.saddr, port: ruleset.THSport, iface: ruleset.MetaOIFName, rules: setAnswers, peering: setPeeringAnswers}
}

// usual accepts what most packets of protected endpoints are, before anything else is asked: they belong to clients that a
// database's own rules let in, or at a shared host to an endpoint that is open or to the region.
func (c *compiler) usual(f family, w way) []ruleset.Rule {
	if c.dedicated {
		return []ruleset.Rule{rule(ruleset.VerdictMap{Key: fields(w.addr, w.port), Map: w.rules + f.suffix})}
	}
	regional := append(c.zone(setZoneRegional, w), in(setRegional+f.suffix, w.addr, w.port), in(setRegion+f.suffix, w.client), accept)
	return []ruleset.Rule{rule(in(setOpen+f.suffix, w.addr, w.port), accept), {Statements: regional}}
}

// zone matches packets of a zone's interfaces; nothing is asked where the policy does not tell zones.
func (c *compiler) zone(set string, w way) []ruleset.Statement {
	if !c.zones {
		return nil
	}
	return []ruleset.Statement{in(set, w.iface)}
}

// admitted accepts what else the policy lets in. Together with usual it is the one place that says so, for both directions.
func (c *compiler) admitted(f family, w way) []ruleset.Rule {
	var rules []ruleset.Rule
	endpoint := func(set string) ruleset.Statement { return in(set, w.addr, w.port) }
	if c.dedicated {
		if c.zones {
			rules = append(rules, because("only over the peering (D-14)", endpoint(setPeering+f.suffix), notIn(setZonePeering, w.iface), goTo(w.denial())))
		}
		for _, r := range c.ranges {
			// In this order, since an element counts whoever finds it: only the range's own clients get to the endpoint.
			rules = append(rules, rule(in(setRange(f, r.Name), w.client), endpoint(setUsers(f, r.Name)), accept))
		}
		rules = append(rules, rule(ruleset.VerdictMap{Key: fields(w.addr, w.port), Map: w.peering + f.suffix}))
	}
	node := ruleset.Statement(in(setCluster+f.suffix, w.client, w.addr, w.port))
	return append(rules, ruleset.Rule{Statements: append(c.zone(setZoneNodes, w), node, accept), Comment: "the cluster's own nodes (C-04)"})
}

// denial is where a way ends for those who are not admitted.
func (w way) denial() string {
	if w.rules == setAnswers {
		return chainSilenced
	}
	return chainDenied
}

// reply asks the same admission of the server's answers, so that a revoked connection carries no byte back either
// (SPEC X-04). A reset without payload gets out: it ends the client's half.
func (c *compiler) reply() {
	c.baseChain(chainReply, ruleset.HookPostrouting, priorityReply,
		append([]ruleset.Rule{because("loopback is not judged (G-02)", toLo, accept), rule(notTCP, accept)}, perFamily(chainReply)...)...)
	for _, f := range families {
		rules := append(c.usual(f, outbound(f)), rule(negate(f.from(setProtected)), accept))
		rules = append(rules, c.admitted(f, outbound(f))...)
		c.regular(chainReply+f.suffix, append(rules, rule(goTo(chainSilenced)))...)
	}
	var silenced []ruleset.Rule
	if !c.blind {
		silenced = append(silenced, rule(payload, goTo(chainMuted)))
	}
	c.regular(chainSilenced, append(silenced,
		because("a bare reset ends the other half", anyFlag(rst), accept),
		rule(goTo(chainMuted)))...)
	c.regular(chainMuted, rule(ruleset.Counter{}), rule(drop))
}

// chainMuted drops what silenced keeps in.
const chainMuted = "muted"

// databaseChains hold the custom ranges of each dedicated database. They exist whether or not it has such rules, so
// that adding the first and removing the last changes elements only.
func (c *compiler) databaseChains(p *policy.Policy) {
	if !c.dedicated {
		return
	}
	for _, db := range p.Databases() {
		var from, to []ruleset.Rule
		for _, f := range families {
			set := setCustom(f, db.Name())
			from = append(from, rule(f.is(), in(set, f.saddr), accept))
			to = append(to, rule(f.is(), in(set, f.daddr), accept))
		}
		c.regular(chainFrom(db.Name()), from...)
		c.regular(chainTo(db.Name()), to...)
	}
}

// containment drops everything at a dedicated address that is not a protected endpoint: other ports, other protocols,
// and whatever goes to a node itself (SPEC G-03, X-02). What passes: endpoints, which admission has judged; replies to
// connections that a node or the gateway opened; ICMP errors for connections that exist, in both directions, because
// an answer that is too big must be reported to the server that sent it; neighbour discovery.
func (c *compiler) containment() {
	if !c.dedicated {
		return
	}
	c.baseChain(chainContainment, ruleset.HookPrerouting, priorityContainment,
		append([]ruleset.Rule{because("loopback is not judged (G-02)", fromLo, accept)}, perFamily(chainContainment)...)...)
	for _, f := range families {
		c.regular(chainContainment+f.suffix,
			rule(notIn(setOurs+f.suffix, f.daddr), accept),
			rule(isTCP, f.to(setProtected), accept),
			rule(in(setEndpoints+f.suffix, f.daddr), goTo(chainContain)),
			rule(in(setNodes+f.suffix, f.daddr), goTo(chainContain)))
	}
	icmp := ruleset.InAnonymous{Field: ruleset.F(ruleset.MetaL4Proto), Values: [][]byte{{protoICMP}, {protoICMPv6}}}
	c.regular(chainContain,
		rule(state(stateEstablished), isReply, accept),
		rule(icmp, state(stateRelated), accept),
		because("neighbour discovery", match(ruleset.MetaL4Proto, ruleset.Eq, protoICMPv6),
			ruleset.InAnonymous{Field: ruleset.F(ruleset.ICMPv6Type), Values: [][]byte{{ndSolicit}, {ndAdvertise}}}, accept),
		rule(ruleset.Counter{}),
		rule(drop))
}
