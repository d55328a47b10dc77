package compile

import (
	"slices"

	"drawbridge/enforcer/ruleset"
)

// Chains of the gate.
const (
	chainGate          = "gate"
	chainNever         = "never_tls"
	chainForced        = "forced"
	chainForcedTo      = "forced_to" // per family
	chainForcedPayload = "forced_payload"
	chainForcedSYN     = "forced_syn"
	chainWatched       = "watched"
	chainStrip         = "strip"
	chainStripWatched  = "strip_watched"
	chainBare          = "bare"
	chainTest          = "test" // per family
	chainTestHello     = "test_hello"
	chainTestEither    = "test_either"
	chainTestPG        = "test_pg"
	chainTestMySQL     = "test_mysql"
	chainSent          = "hello_sent"
	chainFailed        = "failed"
	chainLate          = "late"
	chainRefuse        = "refuse"
)

// gate is the base chain behind conntrack. At a gateway containment comes first, and sends on what is for an endpoint.
//
// A packet of a connection that speaks TLS costs one comparison, and at a gateway one look-up (see known); a SYN is looked
// at all the same, because it may begin another connection of the same addresses and ports.
func (c *compiler) gate() {
	if c.blind && !c.dedicated {
		return
	}
	speaksTLS := []ruleset.Statement{isTCP, flags(syn, 0), c.mark.is(ClassTLS)}
	entry, begins := chainGate, []ruleset.Rule{because("loopback is not judged (G-02)", fromLo, accept)}
	switch {
	case c.dedicated && c.blind:
		entry = chainContainment
	case c.dedicated:
		entry, begins = chainContainment, append([]ruleset.Rule{rule(append(speaksTLS, jump(chainKnown))...)}, begins...)
		c.known()
	default:
		begins = append([]ruleset.Rule{rule(append(speaksTLS, accept)...), rule(notTCP, accept)}, begins...)
	}
	c.baseChain(chainGate, ruleset.HookPrerouting, priorityGate, append(begins, c.perFamily(entry)...)...)
	c.containment()
	if !c.blind {
		c.gated()
	}
}

// gated sends the client's packets to the test that its endpoint asks for.
//
// Force TLS is one element: force has it for the endpoint, force_pair for one source at one endpoint, so that nodes of
// a cluster need TLS whatever the toggle says (SPEC C-03). Elsewhere the connection is watched: it is classified, and
// nothing happens to it. Ports that never speak TLS come first: the class of their connections never says that there is nothing more to
// look for, so that each packet of theirs comes here.
//
// unknown_connections: keep spares connections of ClassUnknown where Force TLS is on, those of nodes included, and
// nothing else: whoever's beginning was seen is judged by what it said. It is weaker than cut by nature: a client that
// gets conntrack to forget its connection is unknown afterwards.
func (c *compiler) gated() {
	for _, f := range c.families {
		var rules []ruleset.Rule
		if !c.dedicated {
			rules = append(rules, because("not ours", negate(f.to(setProtected)), accept))
		}
		c.regular(chainGate+f.suffix, slices.Concat(rules,
			c.paired(f, goTo(chainForcedTo+f.suffix), f.saddr, f.daddr, ruleset.THDport),
			[]ruleset.Rule{
				rule(negate(f.to(setWatched)), goTo(chainNever)),
				rule(f.to(setForce), goTo(chainForcedTo+f.suffix)),
				rule(goTo(chainWatched)),
			})...)
		c.regular(chainForcedTo+f.suffix,
			because("spared by unknown_connections", flags(syn, 0), c.mark.is(ClassUnknown), f.to(setKeep), accept),
			rule(goTo(chainForced)))
		c.regular(chainTest+f.suffix,
			rule(f.to(setPG), goTo(chainTestPG)),
			rule(f.to(setMySQL), goTo(chainTestMySQL)),
			rule(f.to(setEither), goTo(chainTestEither)),
			rule(goTo(chainTestHello)))
	}
	c.regular(chainNever, rule(anyFlag(syn), goTo(chainStrip)), because("never speaks TLS", accept))
	c.forced()
	c.watched()
	c.tests()
	c.verdicts()
}

// paired are the rules that send on the packets between nodes, which always need TLS (SPEC C-03). A point that has no cluster does without
// them, as they cost each packet of a handshake a look-up. Like all that chains depend on, that follows from what the policy claims
// (policy.Policy.SameClaims), and not from its toggles, of which some leave no elements.
func (c *compiler) paired(f family, to ruleset.Verdict, node, addr, port ruleset.FieldKind) []ruleset.Rule {
	if !c.clustered {
		return nil
	}
	return []ruleset.Rule{because("nodes always need TLS (C-03)", in(setForcePair+f.suffix, node, addr, port), to)}
}

// forced handles the client's packets where Force TLS is on.
//
// While a client's packet walks through the gate, the witness may move its connection on, on another CPU. So every rule
// here holds for the class that it reads itself, ClassTLS included, and what repeats a step writes no class.
func (c *compiler) forced() {
	m := c.mark
	c.regular(chainForced,
		because("conntrack cannot tell whose packet it is", state(stateInvalid|stateUntracked), drop),
		rule(anyFlag(syn), goTo(chainForcedSYN)),
		rule(anyFlag(rst), jump(chainPlace)),
		rule(anyFlag(rst), goTo(chainBare)),
		rule(m.is(ClassAcknowledged, ClassTLS), accept),
		because("it may end", anyFlag(fin), m.is(ClassUnknown, ClassPlaintext, ClassRefused), goTo(chainBare)),
		rule(m.is(ClassUnknown, ClassPlaintext, ClassRefused), goTo(chainRefuse)),
		rule(payload, goTo(chainForcedPayload)),
		rule(jump(chainPlace)),
		rule(accept))
	c.regular(chainForcedPayload,
		because("half a handshake from before: its server decides", m.is(ClassBegun|ungated, ClassRequested|ungated,
			ClassHello|ungated, ClassAcknowledged|ungated, ClassGSS|ungated), drop),
		rule(m.is(ClassAnswered|ungated), goTo(chainRefuse)),
		rule(jump(chainPlace)),
		because("out of place: loss, reordering, or a trick", drop))
	c.regular(chainForcedSYN, append([]ruleset.Rule{
		because("no SYN of a client", anyFlag(ack|rst|fin), drop),
		because("bytes before the handshake (RFC 7413)", payload, drop),
		rule(jump(chainForget)),
	}, stripOptions()...)...)
	c.regular(chainBare, rule(payload, drop), rule(accept))
}

// stripOptions ends with accept. Multipath TCP (RFC 8684) and TCP Fast Open (RFC 7413) move bytes around the sequence
// numbers that the gate watches.
func stripOptions() []ruleset.Rule {
	return []ruleset.Rule{
		rule(ruleset.ResetTCPOption{Kind: optionMPTCP}),
		because("a second one of the kind", match(ruleset.TCPOptionMPTCP, ruleset.Eq, 1), drop),
		rule(ruleset.ResetTCPOption{Kind: optionFastOpen}),
		rule(ruleset.ResetTCPOption{Kind: optionExperimental}),
		rule(accept),
	}
}

// watched handles the client's packets where Force TLS is off. The test of a segment at the locked byte says what the
// connection speaks; nothing happens to it. Only its SYN must be bare, here as at ports that never speak TLS: whoever sends
// bytes with it has not shown that its address is its own, and there are servers that take them. A client whom no server
// gave a cookie, as the option is taken out, sends none (RFC 7413 section 3).
func (c *compiler) watched() {
	m := c.mark
	c.regular(chainWatched,
		rule(anyFlag(syn), goTo(chainStripWatched)),
		rule(state(stateInvalid|stateUntracked), accept),
		rule(m.is(ClassUnknown, ClassPlaintext, ClassRefused, ClassAcknowledged, ClassAcknowledged|ungated, ClassTLS), accept),
		rule(jump(chainPlace)),
		because("the server may keep what comes out of place for later", payload,
			m.is(ClassBegun, ClassRequested, ClassHello, ClassAnswered, ClassGSS), m.setUngated()),
		rule(accept))
	bare := because("bytes before the handshake prove no address (X-03)", payload, drop)
	c.regular(chainStripWatched, append([]ruleset.Rule{bare, rule(flags(syn|ack, syn), jump(chainForget))}, stripOptions()...)...)
	c.regular(chainStrip, append([]ruleset.Rule{bare}, stripOptions()...)...)
}

// tests tell TLS from plaintext. Each takes a packet with payload at the locked sequence number, and ends it. A packet
// that comes again passes the same test.
func (c *compiler) tests() {
	m := c.mark
	// A TLS record of type handshake with a ClientHello shorter than 64 KiB: RFC 8446 sections 5.1 and 4. Seven bytes, and
	// no engine on a port that begins with TLS takes them for a command of its own.
	// Where there is more of it, the version that must follow the length is there as well.
	begins := []ruleset.Statement{m.stage(ClassBegun, ClassHello, ClassAcknowledged, ClassAnswered), records(0, recordHandshake), bytesAt(5, helloClient, 0)}
	c.regular(chainTestHello,
		rule(append(slices.Clone(begins), oneOf(9, tlsVersions...), goTo(chainSent))...),
		because("no version of TLS", reaches(10), goTo(chainFailed)),
		rule(append(slices.Clone(begins), goTo(chainSent))...),
		rule(goTo(chainFailed)))
	// MongoDB tells TLS by what its own header would say: bytes 8 to 11, responseTo, are zero in a command. The version
	// in a ClientHello (RFC 8446 section 4.1.2) is there, and it is not zero.
	c.regular(chainTestEither,
		rule(m.stage(ClassBegun, ClassHello, ClassAcknowledged), records(0, recordHandshake), bytesAt(5, helloClient, 0),
			oneOf(9, tlsVersions...), goTo(chainSent)),
		rule(goTo(chainFailed)))
	c.testPG()
	c.testMySQL()
	c.regular(chainSent,
		rule(m.stage(ClassBegun, ClassRequested, ClassAnswered), m.setStage(ClassHello), accept),
		because("sent again", accept))
}

// Parts of TLS (RFC 8446 sections 4, 5.1, 6; RFC 5246 for older versions).
const (
	recordAlert     = 0x15
	recordHandshake = 0x16
	helloClient     = 0x01
	helloServer     = 0x02
)

// tlsVersions are TLS 1.0 to 1.2 as records and hellos write them; TLS 1.3 writes 1.2.
var tlsVersions = [][]byte{{3, 1}, {3, 2}, {3, 3}}

// records matches the type and version of a TLS record at the offset.
func records(offset int, kind byte) ruleset.InAnonymous {
	var values [][]byte
	for _, v := range tlsVersions {
		values = append(values, append([]byte{kind}, v...))
	}
	return oneOf(offset, values...)
}

// PostgreSQL's requests before the startup packet ("Message Formats"): length 8, then a code. A CancelRequest is not
// among them: it is plaintext with the key of a session in it, so that Force TLS refuses it like any other, and
// clients must cancel over TLS (libpq 17 does; psql before that cannot, and its Ctrl-C does nothing).
var (
	pgSSLRequest    = []byte{0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f}
	pgGSSENCRequest = []byte{0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x30}
)

// testPG lets through exactly eight bytes of SSLRequest or GSSENCRequest, or a ClientHello at once (PostgreSQL 17:
// direct TLS) or after the server's 'S'. After GSSENCRequest only such eight bytes may follow: a longer packet at the
// old place could carry untested bytes to the new one.
func (c *compiler) testPG() {
	m := c.mark
	c.regular(chainTestPG,
		rule(bytesAt(0, pgSSLRequest...), goTo(chainTestPG+"_ssl")),
		rule(bytesAt(0, pgGSSENCRequest...), goTo(chainTestPG+"_gss")),
		rule(goTo(chainTestHello)))
	c.regular(chainTestPG+"_ssl",
		because("a ninth byte", reaches(len(pgSSLRequest)), goTo(chainFailed)),
		rule(m.stage(ClassBegun, ClassGSS), m.setStage(ClassRequested), jump(chainAsked)),
		because("sent again", m.stage(ClassRequested), jump(chainAsked)),
		rule(goTo(chainLate)))
	c.regular(chainTestPG+"_gss",
		because("a ninth byte", reaches(len(pgGSSENCRequest)), goTo(chainFailed)),
		rule(m.stage(ClassBegun), m.setStage(ClassGSS), jump(chainAsked)),
		because("sent again", m.stage(ClassGSS), jump(chainAsked)),
		rule(goTo(chainLate)))
}

// MySQL's SSLRequest (HandshakeResponse41, first part): a packet of 32 bytes with sequence number 1 whose capability
// flags have CLIENT_SSL, 0x0800, which is bit 3 of the second byte.
var mysqlSSLRequest = []byte{0x20, 0, 0, 1}

const (
	mysqlSSLRequestSize = 36 // with the packet's header of 4
	mysqlCapability     = 5  // offset of the byte with CLIENT_SSL
	mysqlClientSSL      = 0x08
)

// testMySQL lets through the SSLRequest, alone or with a ClientHello behind it, and after it a ClientHello. A bare TLS
// record opens nothing: a login packet of 790 bytes begins like one. A server that took an SSLRequest speaks nothing but
// TLS from there, so that a repeated one does no harm at any later stage.
func (c *compiler) testMySQL() {
	m := c.mark
	capability := ruleset.InnerField(mysqlCapability, 1)
	c.regular(chainTestMySQL,
		rule(bytesAt(0, mysqlSSLRequest...),
			ruleset.Match{Field: capability, Mask: []byte{mysqlClientSSL}, Op: ruleset.Eq, Value: []byte{mysqlClientSSL}},
			goTo(chainTestMySQL+"_ssl")),
		rule(m.stage(ClassAnswered, ClassHello, ClassAcknowledged), goTo(chainTestHello)),
		rule(goTo(chainFailed)))
	c.regular(chainTestMySQL+"_ssl",
		rule(records(mysqlSSLRequestSize, recordHandshake), bytesAt(mysqlSSLRequestSize+5, helloClient, 0), goTo(chainSent)),
		because("too little of a ClientHello: wait for more", records(mysqlSSLRequestSize, recordHandshake), goTo(chainLate)),
		because("a byte that is no ClientHello", reaches(mysqlSSLRequestSize), goTo(chainFailed)),
		rule(reaches(mysqlSSLRequestSize-1), m.stage(ClassBegun), m.setStage(ClassRequested), jump(chainAsked)),
		because("sent again", reaches(mysqlSSLRequestSize-1), m.stage(ClassRequested), jump(chainAsked)),
		because("the server has taken it since place was asked", reaches(mysqlSSLRequestSize-1), accept),
		rule(goTo(chainFailed)))
}

// verdicts end a tested packet. ungated says whether Force TLS is on for it.
//
// A refusal resets the client and leaves ClassRefused for whoever ends the server's half.
func (c *compiler) verdicts() {
	m := c.mark
	c.regular(chainFailed,
		because("the server has this byte, as TLS", m.is(ClassTLS), accept),
		rule(m.is(ungatedClasses...), m.set(ClassPlaintext), goTo(chainPlaintextSaid)),
		rule(goTo(chainRefuse)))
	c.regular(chainLate, rule(m.is(ungatedClasses...), accept), rule(drop))
	refuse := append([]ruleset.Rule{rule(ruleset.Counter{})}, c.tell(DeniedPlaintext, m.not(ClassRefused))...)
	c.regular(chainRefuse, append(refuse,
		because("once for each connection", m.not(ClassRefused), jump(chainTallyRefused)),
		rule(m.set(ClassRefused), ruleset.Reject{TCPReset: true}),
		rule(drop))...)
}
