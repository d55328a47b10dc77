package compile

import (
	"time"

	"drawbridge/enforcer/ruleset"
)

// The tally: what connections turned out to be, counted whether Force TLS is on or off, so that a user who is about to
// turn it on knows whom it would cut off. Rules fill these sets; every element counts packets, one for each connection.
const (
	// tallySize bounds each set. What finds no room is not counted, and nothing else happens.
	tallySize = 1 << 16
	// TallyTimeout is how long a source is remembered after its last connection without TLS.
	TallyTimeout = 30 * 24 * time.Hour
)

// Names of the tally's sets; those without a family are followed by 4 or 6.
const (
	// TallyTLS counts connections that speak TLS: address . port.
	TallyTLS = "seen_tls"
	// TallyPlaintext counts connections that speak plaintext, where Force TLS was off: source . address . port.
	TallyPlaintext = "seen_plaintext"
	// TallyRefused counts what Force TLS refused: source . address . port.
	TallyRefused = "seen_refused"
)

// Chains of the tally. Each is reached by goto and ends with accept, but for refused, which comes back.
const (
	chainSpeaksTLS      = "speaks_tls"       // a packet of the server
	chainPlaintextSaid  = "plaintext_said"   // a packet of the client
	chainPlaintextTaken = "plaintext_taken"  // a packet of the server
	chainTallyRefused   = "tally_refused"    // a packet of the client
	chainTallyAnswer    = "tally_no_consent" // a packet of the server
)

func (c *compiler) declareTally(f family) {
	tls := f.endpointSet(TallyTLS + f.suffix)
	tls.Dynamic, tls.Counter, tls.Size = true, true, tallySize
	c.declare(tls)
	for _, name := range []string{TallyPlaintext, TallyRefused} {
		s := f.pairSet(name)
		s.Dynamic, s.Counter, s.Size, s.Timeout = true, true, tallySize, TallyTimeout
		c.declare(s)
	}
}

func (c *compiler) tally() {
	up := func(f family) []ruleset.FieldKind { return []ruleset.FieldKind{f.saddr, f.daddr, ruleset.THDport} }
	down := func(f family) []ruleset.FieldKind { return []ruleset.FieldKind{f.daddr, f.saddr, ruleset.THSport} }
	endpoint := func(f family) []ruleset.FieldKind { return []ruleset.FieldKind{f.saddr, ruleset.THSport} }
	for _, t := range []struct {
		chain, set string
		key        func(family) []ruleset.FieldKind
		end        []ruleset.Rule
	}{
		{chainSpeaksTLS, TallyTLS, endpoint, []ruleset.Rule{rule(accept)}},
		{chainPlaintextSaid, TallyPlaintext, up, []ruleset.Rule{rule(accept)}},
		{chainPlaintextTaken, TallyPlaintext, down, []ruleset.Rule{rule(accept)}},
		{chainTallyRefused, TallyRefused, up, nil},
		{chainTallyAnswer, TallyRefused, down, nil},
	} {
		var rules []ruleset.Rule
		for _, f := range c.families {
			rules = append(rules, rule(f.is(), ruleset.Dynset{Op: ruleset.UpdateElement, Set: t.set + f.suffix, Key: fields(t.key(f)...)}))
		}
		c.regular(t.chain, append(rules, t.end...)...)
	}
}
