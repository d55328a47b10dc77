package compile

import (
	"slices"

	"drawbridge/enforcer/ruleset"
)

// Chains of the witness.
const (
	chainWitness       = "witness" // per family
	chainForcedAnswer  = "forced_answer"
	chainForcedReply   = "forced_answer_by" // per family
	chainWatchedAnswer = "watched_answer"
	chainWatchedReply  = "watched_answer_by" // per family
	chainForcedBegin   = "forced_begin"
	chainWatchedBegin  = "watched_begin"
	chainNothingNew    = "nothing_new"
	chainJudge         = "judge"
	chainJudgeBy       = "judge_by" // per family
	chainJudgePG       = "judge_pg"
	chainJudgeMySQL    = "judge_mysql"
)

// witness reads what the server itself says: where the client's first byte must be (its SYN-ACK), what it took (its
// acknowledgements) and what it speaks (its first bytes). The gate alone cannot know: it sees segments that the server
// discards (SPEC X-08). Only answers of protected endpoints that admission let out come here, whatever their class: a
// connection that speaks TLS is revoked like any other.
//
// The chains judge* accept an answer that fits the handshake so far. They come back with one that does not, and the
// caller, who knows whether Force TLS is on, says what that means.
func (c *compiler) witness() {
	for _, f := range c.families {
		begins := append([]ruleset.Rule{rule(flags(syn, 0), c.mark.is(ClassTLS), accept)}, unjudged(toLo, accept)...)
		forced := goTo(chainForcedReply + f.suffix)
		c.regular(chainWitness+f.suffix, slices.Concat(begins,
			c.paired(f, forced, f.daddr, f.saddr, ruleset.THSport),
			[]ruleset.Rule{
				because("never speaks TLS", negate(f.from(setWatched)), accept),
				rule(f.from(setForce), forced),
				rule(goTo(chainWatchedReply + f.suffix)),
			})...)
		c.regular(chainForcedReply+f.suffix, append([]ruleset.Rule{
			because("spared by unknown_connections", flags(syn, 0), c.mark.is(ClassUnknown), f.from(setKeep), accept),
			rule(jump(chainForcedAnswer)), rule(jump(chainJudgeBy + f.suffix)),
		}, c.refusedAnswer()...)...)
		c.regular(chainWatchedReply+f.suffix, rule(jump(chainWatchedAnswer)), rule(jump(chainJudgeBy+f.suffix)), rule(c.mark.set(ClassPlaintext), goTo(chainPlaintextTaken)))
		c.regular(chainJudgeBy+f.suffix,
			rule(c.mark.stage(ClassRequested), f.from(setMySQL), goTo(chainJudgeMySQL)),
			rule(c.mark.stage(ClassRequested, ClassGSS), goTo(chainJudgePG)),
			rule(goTo(chainJudge)))
	}
	c.answers()
	c.judges()
}

// refusedAnswer ends an answer that does not fit, under Force TLS. A single byte gets out, because it is what a
// PostgreSQL server says to a request ('N', 'G'), and its client falls back on a new connection when it has read it
// and is reset after that; so does an error message to a request. Everything else stays in.
func (c *compiler) refusedAnswer() []ruleset.Rule {
	return []ruleset.Rule{
		because("an error in answer to a request", c.mark.stage(ClassRequested, ClassGSS), bytesAt(0, 'E'), c.mark.set(ClassRefused), accept),
		rule(c.mark.set(ClassRefused), jump(chainTallyAnswer)),
		rule(reaches(1), drop),
		rule(accept),
	}
}

// answers sort the server's packets. They come back only with one that acknowledges more than the locked sequence
// number, or says something that no server says there.
//
// A SYN-ACK locks the client's first byte and clears the class; never a client's SYN does, which anyone can forge:
// addresses and ports are used again.
func (c *compiler) answers() {
	m := c.mark
	synAck := flags(syn|ack, syn|ack)
	c.regular(chainForcedAnswer,
		rule(state(stateInvalid|stateUntracked), goTo(chainBare)),
		rule(synAck, goTo(chainForcedBegin)),
		rule(anyFlag(rst), goTo(chainBare)),
		because("cut: no byte of it gets out (X-05)", m.is(ClassUnknown, ClassPlaintext, ClassRefused), goTo(chainBare)),
		rule(jump(chainAnswer)))
	c.regular(chainForcedBegin, rule(jump(chainAnswer)), because("no room: the server repeats it", drop))
	c.regular(chainWatchedAnswer,
		rule(state(stateInvalid|stateUntracked), accept),
		rule(synAck, goTo(chainWatchedBegin)),
		rule(anyFlag(rst), accept),
		rule(m.is(ClassUnknown, ClassPlaintext, ClassRefused), accept),
		rule(jump(chainAnswer)))
	c.regular(chainWatchedBegin, rule(jump(chainAnswer)), because("no room: never classified", m.set(ClassUnknown)), rule(accept))
	// After its SSLRequest a MySQL server has nothing to say before the ClientHello; the greeting that it may repeat is
	// packet 0 of protocol 10. Anything else is a plaintext answer: the server took other bytes than the gate saw.
	c.regular(chainNothingNew,
		rule(m.stage(ClassAnswered), ruleset.Match{Field: ruleset.InnerField(3, 2), Op: ruleset.Neq, Value: []byte{0, 10}}, back),
		rule(accept))
}

// judges compare an answer beyond the locked sequence number with the connection's class.
func (c *compiler) judges() {
	m := c.mark
	// MongoDB's op codes are where a ServerHello has random bytes (bytes 12 to 15, little-endian: OP_REPLY, OP_COMPRESSED,
	// OP_MSG). Other engines' plaintext never begins like a record.
	plaintext := oneOf(12, []byte{1, 0, 0, 0}, []byte{0xdc, 7, 0, 0}, []byte{0xdd, 7, 0, 0})
	plaintext.Negate = true
	untested := m.notStage(ClassAcknowledged, ClassTLS)
	c.regular(chainJudge,
		because("the server took the ClientHello", m.stage(ClassHello), m.setStage(ClassAcknowledged)),
		because("the server took what nobody tested", untested, back),
		because("ServerHello", records(0, recordHandshake), bytesAt(5, helloServer, 0), oneOf(9, tlsVersions...), plaintext, m.set(ClassTLS), goTo(chainSpeaksTLS)),
		because("a warning, then ServerHello", bytesAt(0, recordAlert, 3), bytesAt(3, 0, 2), records(7, recordHandshake), bytesAt(12, helloServer, 0), m.set(ClassTLS), goTo(chainSpeaksTLS)),
		because("alert", bytesAt(0, recordAlert, 3), bytesAt(3, 0, 2), accept),
		because("another packet has settled it", m.is(ClassTLS), accept),
		rule(payload, back),
		rule(accept))
	c.regular(chainJudgePG,
		rule(reaches(1), back),
		because("the server agrees; it speaks nothing but TLS from here", m.stage(ClassRequested), bytesAt(0, 'S'), m.set(ClassAnswered), jump(chainLock)),
		because("no GSSAPI; an SSLRequest may follow", m.stage(ClassGSS), bytesAt(0, 'N'), jump(chainLock)),
		rule(payload, back),
		rule(accept))
	c.regular(chainJudgeMySQL,
		rule(payload, back),
		rule(m.setStage(ClassAnswered), jump(chainLock)))
}
