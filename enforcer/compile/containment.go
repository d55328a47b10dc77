package compile

import "drawbridge/enforcer/ruleset"

// Chains of containment.
const (
	chainContainment = "containment" // per family
	chainContain     = "contain"
	chainKnown       = "known"
)

// containment sends TCP to protected endpoints, which admission has judged, on to the gate, and drops everything else at a
// dedicated address: other ports, other protocols, and whatever goes to a node itself (SPEC G-03, X-02). What passes:
// replies to connections that a node or the gateway opened; ICMP errors for connections that exist, in both directions,
// because an answer that is too big must be reported to the server that sent it; neighbour discovery.
func (c *compiler) containment() {
	if !c.dedicated {
		return
	}
	protected := goTo(chainGate)
	for _, f := range c.families {
		if protected.Chain = chainGate + f.suffix; c.blind {
			protected = accept
		}
		// Each of the two that most packets here are meets one look-up: a server's answer, and a client's packet to an endpoint.
		c.regular(chainContainment+f.suffix,
			because("an answer", isReply, notIn(setOurs+f.suffix, f.daddr), accept),
			rule(isTCP, f.to(setProtected), protected),
			rule(in(setOurs+f.suffix, f.daddr), goTo(chainContain)),
			because("not ours", accept))
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

// known accepts packets of connections that speak TLS where containment would do so behind more look-ups, and comes back
// with all others. The class says that a server at a protected endpoint answered in TLS, and nothing of today: the endpoint
// may have gone since, and its address still be another's. So the client's packets are looked up once. What comes in the
// other direction of a TCP connection is its established reply (net/netfilter/nf_conntrack_core.c: resolve_normal_ct),
// which containment accepts wherever it goes.
//
// Only TCP comes here: an ICMP error, or a connection that a helper expects, has the mark of the connection that it belongs
// to, and the beginning of the latter is a SYN.
func (c *compiler) known() {
	rules := []ruleset.Rule{rule(isReply, accept)}
	for _, f := range c.families {
		rules = append(rules, rule(f.is(), f.to(setProtected), accept))
	}
	c.regular(chainKnown, rules...)
}
