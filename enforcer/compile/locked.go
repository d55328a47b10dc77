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
// No lock may be believed that is not the connection's latest: a segment at an earlier one reaches over bytes that the
// server has into those that it takes. Two things see to that. Where a request was sent to the server, its place is noted
// in a second set, and nothing but a repetition of a request passes there. And what is left of a connection goes when the
// next one of its addresses and ports begins, since the kernel may give that one the same entry or the same ct id: maps
// tell its latest lock and its latest request. No rule can delete an element by the value that a map holds, but a client's
// SYN acknowledges nothing, and its acknowledgement number is a place to put that value for the time of one rule. (A SYN
// can be forged; a forged one stops a connection that is in its handshake, and opens none.)
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
	// noteMargin is how much longer than a lock that lasts what says where it is, and what says that a request was there.
	noteMargin = 2 * time.Second
)

// Chains that lead to the chains of a database, and the beginnings of their names.
const (
	chainPlace  = "place"  // client's packet: is it at the locked byte?
	chainAnswer = "answer" // server's packet: a new lock, nothing new, or more
	chainLock   = "lock"   // server's packet: what it acknowledges is the next locked byte
	chainAsked  = "asked"  // client's packet: a request that passed its test
	chainForget = "forget" // client's SYN: forgets the connection before
)

// memoryChains are the chains that lead to those of a database.
var memoryChains = []string{chainPlace, chainAnswer, chainLock, chainAsked, chainForget}

func setExpected(database string) string  { return "expected_" + database }
func setRequested(database string) string { return "requested_" + database }
func mapLatest(database string) string    { return "latest_" + database }
func mapAsked(database string) string     { return "asked_" + database }

// memorySets are what one database remembers.
func memorySets(database string, size uint32) []ruleset.Set {
	pair := []ruleset.DataType{ruleset.TypeMark, ruleset.TypeMark}
	return []ruleset.Set{
		{Name: setExpected(database), Key: pair, Dynamic: true, Timeout: synTimeout, Size: size},
		{Name: setRequested(database), Key: pair, Dynamic: true, Timeout: synTimeout, Size: size},
		{Name: mapLatest(database), Key: pair[:1], Data: ruleset.TypeMark, Dynamic: true, Timeout: synTimeout, Size: size},
		{Name: mapAsked(database), Key: pair[:1], Data: ruleset.TypeMark, Dynamic: true, Timeout: synTimeout, Size: size},
	}
}

// memory writes the rules on what one database remembers.
type memory struct {
	expected, requested string // sets
	latest, asked       string // maps
	sent                time.Duration
}

func memoryOf(database string, sent time.Duration) memory {
	return memory{setExpected(database), setRequested(database), mapLatest(database), mapAsked(database), sent}
}

// several are statements that belong together. They are carried out one after the other, as if each stood for itself.
type several []ruleset.Statement

// statements puts statements and several of them in a row.
func statements(parts ...any) (out []ruleset.Statement) {
	for _, p := range parts {
		if more, ok := p.(several); ok {
			out = append(out, more...)
		} else {
			out = append(out, p.(ruleset.Statement))
		}
	}
	return out
}

// at matches packets of the client at a locked sequence number.
func (m memory) at() ruleset.Statement { return in(m.expected, ruleset.CTID, ruleset.TCPSeq) }

// atRequest matches packets of the client where a request went to the server.
func (m memory) atRequest() ruleset.Statement { return in(m.requested, ruleset.CTID, ruleset.TCPSeq) }

// waits matches answers of a server that has taken nothing beyond a locked sequence number.
func (m memory) waits() ruleset.Statement { return in(m.expected, ruleset.CTID, ruleset.TCPAckSeq) }

// stale matches connections whose client has not sent a tested segment lately.
func (m memory) stale() ruleset.Statement { return notIn(m.expected, ruleset.CTID, ruleset.CTID) }

func (m memory) element(op ruleset.SetOp, set string, timeout time.Duration, key ...ruleset.FieldKind) ruleset.Statement {
	return ruleset.Dynset{Op: op, Set: set, Key: fields(key...), Timeout: timeout}
}

// note has a map hold a sequence number of the packet for its connection.
func (m memory) note(op ruleset.SetOp, of string, seq ruleset.FieldKind, timeout time.Duration) ruleset.Statement {
	return ruleset.Dynset{Op: op, Set: of, Key: fields(ruleset.CTID), Data: ruleset.F(seq), Timeout: timeout}
}

// renew keeps the lock of a packet of the client that is at it, and what says where it is.
func (m memory) renew(timeout time.Duration) several {
	return several{
		m.element(ruleset.UpdateElement, m.expected, timeout, ruleset.CTID, ruleset.TCPSeq),
		m.note(ruleset.UpdateElement, m.latest, ruleset.TCPSeq, timeout+noteMargin),
	}
}

func (m memory) refresh() ruleset.Statement {
	return m.element(ruleset.UpdateElement, m.expected, m.sent-freshMargin, ruleset.CTID, ruleset.CTID)
}

// lock makes what the server acknowledges now the locked sequence number. An update leaves a map's value as it is, so that
// the one before is deleted first.
func (m memory) lock(timeout time.Duration) several {
	return several{
		m.note(ruleset.DeleteElement, m.latest, ruleset.TCPAckSeq, 0),
		m.note(ruleset.UpdateElement, m.latest, ruleset.TCPAckSeq, timeout+noteMargin),
		m.element(ruleset.UpdateElement, m.expected, timeout, ruleset.CTID, ruleset.TCPAckSeq),
	}
}

// request notes that a request goes to the server from here.
func (m memory) request() several {
	return several{
		m.element(ruleset.UpdateElement, m.requested, m.sent+noteMargin, ruleset.CTID, ruleset.TCPSeq),
		m.note(ruleset.DeleteElement, m.asked, ruleset.TCPSeq, 0),
		m.note(ruleset.UpdateElement, m.asked, ruleset.TCPSeq, m.sent+noteMargin),
	}
}

// forget deletes what a map says of the connection before, and what stands there.
func (m memory) forget(of string) several {
	return several{
		ruleset.SetTCPAckSeq{From: ruleset.Field{Kind: ruleset.CTID, Map: of}},
		m.element(ruleset.DeleteElement, m.expected, 0, ruleset.CTID, ruleset.TCPAckSeq),
		m.element(ruleset.DeleteElement, m.requested, 0, ruleset.CTID, ruleset.TCPAckSeq),
		m.element(ruleset.DeleteElement, m.expected, 0, ruleset.CTID, ruleset.CTID),
		m.note(ruleset.DeleteElement, of, ruleset.TCPAckSeq, 0),
		ruleset.SetTCPAckSeq{},
	}
}

// locked adds the chains that hold databases' memories, and those that lead there: by source for the server's packets, by
// destination for the client's.
func (c *compiler) locked(p *policy.Policy) {
	for _, db := range p.Databases() {
		if c.gated[db.Name()] {
			c.remember(memoryOf(db.Name(), c.sent), db.Name())
		}
	}
	for _, chain := range memoryChains {
		var rules []ruleset.Rule
		for _, f := range families {
			key := fields(f.daddr, ruleset.THDport)
			if chain == chainAnswer || chain == chainLock {
				key = fields(f.saddr, ruleset.THSport)
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
// lock and asked do not come back if there was room.
func (c *compiler) remember(db memory, name string) {
	m := c.mark
	synAck := flags(syn|ack, syn|ack)
	tentative := m.stage(ClassRequested, ClassHello, ClassGSS)
	c.regular(chainPlace+"_"+name,
		because("only a request may be repeated there", db.atRequest(), m.notStage(ClassRequested, ClassGSS), back),
		rule(statements(payload, db.at(), db.renew(db.sent), db.refresh(), goTo(chainInPlace))...),
		because("it ends without a word", anyFlag(fin|rst), db.at(),
			db.element(ruleset.DeleteElement, db.expected, 0, ruleset.CTID, ruleset.TCPSeq), back),
		because("the client has completed the TCP handshake", statements(db.at(), db.renew(requestTimeout))...))
	c.regular(chainAnswer+"_"+name,
		because("repeated, while a first segment is on its way", synAck, db.waits(), tentative, accept),
		rule(statements(synAck, db.lock(synTimeout), m.set(ClassBegun), accept)...),
		because("no room", synAck, back),
		rule(db.waits(), goTo(chainNothingNew)),
		because("the lock may have expired: nobody knows what the server took", tentative, db.stale(), m.set(ClassUnknown)))
	c.regular(chainLock+"_"+name, rule(statements(db.lock(requestTimeout), accept)...))
	c.regular(chainAsked+"_"+name, rule(statements(db.request(), accept)...))
	c.regular(chainForget+"_"+name, rule(statements(db.forget(db.latest))...), rule(statements(db.forget(db.asked))...))
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
