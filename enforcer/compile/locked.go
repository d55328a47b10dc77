package compile

import (
	"time"

	"drawbridge/enforcer/policy"
	"drawbridge/enforcer/ruleset"
)

// The locked byte: by the server's own word, the sequence number that the client's next tested byte has.
//
// Each database that can speak TLS remembers it in a set of its own, so that a flood of connections at one database takes
// no memory from another (SPEC X-10). A set holds two kinds of elements:
//
//	ct id . sequence number   where the client's next byte must be (the lock)
//	ct id . ct id             a tested segment went to the server lately (the mark of freshness)
//
// An element that expires must never open anything. Without its lock a connection is stuck; but a witness that does not
// find the lock takes the server's repeated acknowledgement for a new one. So the witness also wants the mark of
// freshness, which is made together with the lock and expires before it. (A ct id is a keyed hash that nobody outside
// knows, net/netfilter/nf_conntrack_core.c: nf_ct_get_id, so that no client can choose a sequence number that equals it.)
const (
	// expectedSize bounds a database's memory for connections that begin: 26,000 new ones in a second, none of them
	// completed, for synTimeout.
	expectedSize = 1 << 18
	// synTimeout is for a connection whose client has not completed the TCP handshake: two retransmissions of the
	// SYN-ACK (1 s, 3 s, 7 s), each of which renews it.
	synTimeout = 10 * time.Second
	// requestTimeout is for a connection that stands and whose client owes the next byte. Servers that bound this wait
	// do so much sooner (PostgreSQL's authentication_timeout is at most 10 minutes); the keep-alives of those that do
	// not renew it (net.ipv4.tcp_keepalive_time is 2 hours).
	requestTimeout = 3 * time.Hour
	// sentTimeout is for a client that has sent it: the lock now only serves repetitions, each of which renews it. A
	// client that waits longer between two has lost six in a row (0.2 s, 0.4 s ... 6.4 s).
	sentTimeout = 8 * time.Second
	// freshMargin is how much sooner than the lock the mark of freshness expires; more than the kernel's rounding.
	freshMargin = 2 * time.Second
)

// Chains that lead to the chains of a database, and the beginnings of their names.
const (
	chainPlace  = "place"  // client's packet: is it at the locked byte?
	chainAnswer = "answer" // server's packet: a new lock, nothing new, or more
	chainLock   = "lock"   // server's packet: what it acknowledges is the next locked byte
)

func setExpected(database string) string { return "expected_" + database }

func expectedSet(database string, size uint32) ruleset.Set {
	return ruleset.Set{
		Name: setExpected(database), Key: []ruleset.DataType{ruleset.TypeMark, ruleset.TypeMark},
		Dynamic: true, Timeout: synTimeout, Size: size,
	}
}

// memory writes the rules on one database's expected set.
type memory struct {
	set  string
	sent time.Duration
}

// at matches packets of the client at the locked sequence number.
func (m memory) at() ruleset.Statement { return in(m.set, ruleset.CTID, ruleset.TCPSeq) }

// waits matches answers of a server that has taken nothing beyond the locked sequence number.
func (m memory) waits() ruleset.Statement { return in(m.set, ruleset.CTID, ruleset.TCPAckSeq) }

// stale matches connections whose client has not sent a tested segment lately.
func (m memory) stale() ruleset.Statement { return notIn(m.set, ruleset.CTID, ruleset.CTID) }

func (m memory) update(timeout time.Duration, key ...ruleset.FieldKind) ruleset.Statement {
	return ruleset.Dynset{Op: ruleset.UpdateElement, Set: m.set, Key: fields(key...), Timeout: timeout}
}

// renew keeps the lock of a packet of the client that is at it.
func (m memory) renew(timeout time.Duration) ruleset.Statement {
	return m.update(timeout, ruleset.CTID, ruleset.TCPSeq)
}

func (m memory) refresh() ruleset.Statement {
	return m.update(m.sent-freshMargin, ruleset.CTID, ruleset.CTID)
}

// lock makes what the server acknowledges now the next locked sequence number.
func (m memory) lock(timeout time.Duration) ruleset.Statement {
	return m.update(timeout, ruleset.CTID, ruleset.TCPAckSeq)
}

func (m memory) forget() ruleset.Statement {
	return ruleset.Dynset{Op: ruleset.DeleteElement, Set: m.set, Key: fields(ruleset.CTID, ruleset.TCPSeq)}
}

// locked adds the chains that hold databases' memories, and those that lead there: by destination for the client's
// packets, by source for the server's.
func (c *compiler) locked(p *policy.Policy) {
	for _, db := range p.Databases() {
		if c.gated[db.Name()] {
			c.remember(memory{set: setExpected(db.Name()), sent: c.sent}, db.Name())
		}
	}
	for _, chain := range []string{chainPlace, chainAnswer, chainLock} {
		var rules []ruleset.Rule
		for _, f := range families {
			key := fields(f.saddr, ruleset.THSport)
			if chain == chainPlace {
				key = fields(f.daddr, ruleset.THDport)
			}
			rules = append(rules, rule(f.is(), ruleset.VerdictMap{Key: key, Map: chain + f.suffix}))
		}
		c.regular(chain, rules...)
	}
	c.inPlace()
}

// remember adds a database's own chains.
//
// place does not come back with a segment at the locked byte; it goes to the test. It comes back with everything else.
//
// answer comes back with a SYN-ACK for which there was no room, with an answer that acknowledges more than the locked
// sequence number, and with one that says what no server says there.
//
// lock does not come back if there was room.
func (c *compiler) remember(db memory, name string) {
	m := c.mark
	synAck := flags(syn|ack, syn|ack)
	tentative := m.stage(ClassRequested, ClassHello, ClassGSS)
	c.regular(chainPlace+"_"+name,
		rule(payload, db.at(), db.renew(db.sent), db.refresh(), goTo(chainInPlace)),
		because("it ends without a word", anyFlag(fin|rst), db.forget(), back),
		because("the client has completed the TCP handshake", db.at(), db.renew(requestTimeout)))
	c.regular(chainAnswer+"_"+name,
		because("repeated, while a first segment is on its way", synAck, db.waits(), tentative, accept),
		rule(synAck, db.lock(synTimeout), m.set(ClassBegun), accept),
		because("no room", synAck, back),
		rule(db.waits(), goTo(chainNothingNew)),
		because("the lock may have expired: nobody knows what the server took", tentative, db.stale(), m.set(ClassUnknown)))
	c.regular(chainLock+"_"+name, rule(db.lock(requestTimeout), accept))
}

// chainInPlace is where a segment at the locked byte goes.
const chainInPlace = "in_place"

// inPlace sends a segment at the locked byte to the test of its endpoint. Where Force TLS is off, the class says from now
// on that a byte passed whatever the test finds.
func (c *compiler) inPlace() {
	m := c.mark
	c.regular(chainInPlace, perFamily(chainInPlace)...)
	for _, f := range families {
		c.regular(chainInPlace+f.suffix,
			rule(f.to(setForce), goTo(chainTest+f.suffix)),
			rule(in(setForcePair+f.suffix, f.saddr, f.daddr, ruleset.THDport), goTo(chainTest+f.suffix)),
			rule(m.is(ClassBegun, ClassRequested, ClassHello, ClassAnswered, ClassGSS), m.setUngated()),
			rule(goTo(chainTest+f.suffix)))
	}
}
