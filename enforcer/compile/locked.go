package compile

import (
	"slices"
	"time"

	"drawbridge/enforcer/ruleset"
)

// The locked byte: by the server's own word, the sequence number that the client's next tested byte has. A set holds two
// kinds of elements:
//
//	ct id . sequence number   where the client's next byte must be (the lock)
//	ct id . ct id             a tested segment went to the server lately (the mark of freshness)
//
// One set serves the whole table. So that a flood of connections at one database takes nothing from another (SPEC X-10), each
// endpoint has a budget of locks: beyond it, its SYN-ACKs are dropped. Sets of their own for all databases would part them
// altogether, and were tried; but the kernel looks sets up by walking a list, and checks the chains behind every path to
// them: 1,000 databases took half a minute to install.
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
	// memorySize bounds each of the sets. An endpoint whose budget is used up by connections that nobody completes holds
	// budgetRate * synTimeout and a burst of elements, so that eight of them may be flooded at the same time.
	memorySize = 1 << 20
	// budgetRate is how many connections may begin at an endpoint in a second, for long; at once it may be the budget of
	// budgetBurst seconds.
	budgetRate  = 10_000
	budgetBurst = 2
	// budgetSize bounds the set of budgets: more than a point has endpoints.
	budgetSize = 1 << 16
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

// Chains of the memory.
const (
	chainPlace         = "place"          // client's packet: is it at the locked byte?
	chainPlaceRepeated = "place_repeated" // the same, where a request went to the server
	chainAnswer        = "answer"         // server's packet: a new lock, nothing new, or more
	chainLock          = "lock"           // server's packet: what it acknowledges is the next locked byte
	chainAsked         = "asked"          // client's packet: a request that passed its test
	chainForget        = "forget"         // client's SYN: forgets the connection before
)

// Names of what is remembered; setBudget is followed by 4 or 6.
const (
	setExpected  = "expected"  // locks and marks of freshness
	setRequested = "requested" // where requests went to the server
	mapLatest    = "latest"    // a connection's latest lock
	mapAsked     = "asked"     // a connection's latest request
	setBudget    = "budget"    // endpoints, with what is left of their budgets
)

// memorySets are what the table remembers of connections that begin.
func memorySets(size uint32) []ruleset.Set {
	pair := []ruleset.DataType{ruleset.TypeMark, ruleset.TypeMark}
	return []ruleset.Set{
		{Name: setExpected, Key: pair, Dynamic: true, Timeout: synTimeout, Size: size},
		{Name: setRequested, Key: pair, Dynamic: true, Timeout: synTimeout, Size: size},
		{Name: mapLatest, Key: pair[:1], Data: ruleset.TypeMark, Dynamic: true, Timeout: synTimeout, Size: size},
		{Name: mapAsked, Key: pair[:1], Data: ruleset.TypeMark, Dynamic: true, Timeout: synTimeout, Size: size},
	}
}

func budgetSet(f family) ruleset.Set {
	s := f.endpointSet(setBudget + f.suffix)
	s.Dynamic, s.Size = true, budgetSize
	return s
}

// overBudget matches a server's packet that begins more connections at its endpoint than it may.
func (c *compiler) overBudget(f family) ruleset.Statement {
	return ruleset.Dynset{
		Op: ruleset.UpdateElement, Set: setBudget + f.suffix, Key: fields(f.saddr, ruleset.THSport),
		Over: ruleset.Limit{Rate: c.budget, Burst: uint32(budgetBurst * c.budget)},
	}
}

// memory writes the rules on what is remembered.
type memory struct{ sent time.Duration }

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
func (m memory) at() ruleset.Statement { return in(setExpected, ruleset.CTID, ruleset.TCPSeq) }

// atRequest matches packets of the client where a request went to the server.
func (m memory) atRequest() ruleset.Statement { return in(setRequested, ruleset.CTID, ruleset.TCPSeq) }

// waits matches answers of a server that has taken nothing beyond a locked sequence number.
func (m memory) waits() ruleset.Statement { return in(setExpected, ruleset.CTID, ruleset.TCPAckSeq) }

// stale matches connections whose client has not sent a tested segment lately.
func (m memory) stale() ruleset.Statement { return notIn(setExpected, ruleset.CTID, ruleset.CTID) }

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
		m.element(ruleset.UpdateElement, setExpected, timeout, ruleset.CTID, ruleset.TCPSeq),
		m.note(ruleset.UpdateElement, mapLatest, ruleset.TCPSeq, timeout+noteMargin),
	}
}

func (m memory) refresh() ruleset.Statement {
	return m.element(ruleset.UpdateElement, setExpected, m.sent-freshMargin, ruleset.CTID, ruleset.CTID)
}

// lock makes what the server acknowledges now the locked sequence number. An update leaves a map's value as it is, so that
// the one before is deleted first.
func (m memory) lock(timeout time.Duration) several {
	return several{
		m.note(ruleset.DeleteElement, mapLatest, ruleset.TCPAckSeq, 0),
		m.note(ruleset.UpdateElement, mapLatest, ruleset.TCPAckSeq, timeout+noteMargin),
		m.element(ruleset.UpdateElement, setExpected, timeout, ruleset.CTID, ruleset.TCPAckSeq),
	}
}

// request notes that a request goes to the server from here.
func (m memory) request() several {
	return several{
		m.element(ruleset.UpdateElement, setRequested, m.sent+noteMargin, ruleset.CTID, ruleset.TCPSeq),
		m.note(ruleset.DeleteElement, mapAsked, ruleset.TCPSeq, 0),
		m.note(ruleset.UpdateElement, mapAsked, ruleset.TCPSeq, m.sent+noteMargin),
	}
}

// forget deletes what a map says of the connection before, and what stands there.
func (m memory) forget(of string) several {
	return several{
		ruleset.SetTCPAckSeq{From: ruleset.Field{Kind: ruleset.CTID, Map: of}},
		m.element(ruleset.DeleteElement, setExpected, 0, ruleset.CTID, ruleset.TCPAckSeq),
		m.element(ruleset.DeleteElement, setRequested, 0, ruleset.CTID, ruleset.TCPAckSeq),
		m.element(ruleset.DeleteElement, setExpected, 0, ruleset.CTID, ruleset.CTID),
		m.note(ruleset.DeleteElement, of, ruleset.TCPAckSeq, 0),
		ruleset.SetTCPAckSeq{},
	}
}

// locked adds the chains of the memory.
//
// place does not come back with a segment at the locked byte; it goes to the test. It comes back with everything else.
//
// answer comes back with a SYN-ACK for which there was no room, with an answer that acknowledges more than the locked
// sequence number, and with one that says what no server says there.
//
// lock and asked do not come back if there was room.
func (c *compiler) locked() {
	m, db := c.mark, memory{c.sent}
	synAck := flags(syn|ack, syn|ack)
	tentative := m.stage(ClassRequested, ClassHello, ClassGSS)
	tested := []ruleset.Rule{
		rule(statements(payload, db.at(), db.renew(db.sent), db.refresh(), goTo(chainInPlace))...),
		because("it ends without a word", anyFlag(fin|rst), db.at(),
			db.element(ruleset.DeleteElement, setExpected, 0, ruleset.CTID, ruleset.TCPSeq), back),
	}
	c.regular(chainPlace, slices.Concat([]ruleset.Rule{rule(db.atRequest(), goTo(chainPlaceRepeated))}, tested, []ruleset.Rule{
		// Not where a request went: what says so expires, and a lock that outlived it would take other bytes for the repetition. It is
		// asked once more, since another CPU may have sent the request on meanwhile.
		because("the client has completed the TCP handshake", statements(db.at(), notIn(setRequested, ruleset.CTID, ruleset.TCPSeq), db.renew(requestTimeout))...)})...)
	c.regular(chainPlaceRepeated, append([]ruleset.Rule{
		because("only a request may be repeated there", m.notStage(ClassRequested, ClassGSS), back),
		// Whatever its test says of it, the rule below renews the lock: what says that a request is there must live longer.
		rule(payload, db.element(ruleset.UpdateElement, setRequested, db.sent+noteMargin, ruleset.CTID, ruleset.TCPSeq)),
	}, tested...)...)
	answer := []ruleset.Rule{because("repeated, while a first segment is on its way", synAck, tentative, db.waits(), accept)}
	for _, f := range c.families {
		answer = append(answer, because("the endpoint's budget is used up", f.is(), synAck, c.overBudget(f), back))
	}
	c.regular(chainAnswer, append(answer,
		rule(statements(synAck, db.lock(synTimeout), m.set(ClassBegun), accept)...),
		because("no room", synAck, back),
		rule(db.waits(), goTo(chainNothingNew)),
		because("the lock may have expired: nobody knows what the server took", tentative, db.stale(), m.set(ClassUnknown)))...)
	c.regular(chainLock, rule(statements(db.lock(requestTimeout), accept)...))
	c.regular(chainAsked, rule(statements(db.request(), accept)...))
	c.regular(chainForget, rule(statements(db.forget(mapLatest))...), rule(statements(db.forget(mapAsked))...))
	c.inPlace()
}

// chainInPlace is where a segment at the locked byte goes.
const chainInPlace = "in_place"

// inPlace sends a segment at the locked byte to the test of its endpoint. Where Force TLS is off, the class says from now
// on that a byte passed whatever the test finds.
func (c *compiler) inPlace() {
	m := c.mark
	c.regular(chainInPlace, c.perFamily(chainInPlace)...)
	for _, f := range c.families {
		c.regular(chainInPlace+f.suffix, slices.Concat(
			[]ruleset.Rule{rule(f.to(setForce), goTo(chainTest+f.suffix))},
			c.paired(f, goTo(chainTest+f.suffix), f.saddr, f.daddr, ruleset.THDport),
			[]ruleset.Rule{
				rule(m.is(ClassBegun, ClassRequested, ClassHello, ClassAnswered, ClassGSS), m.setUngated()),
				rule(goTo(chainTest + f.suffix)),
			})...)
	}
}

// LockSets names the sets that hold the locks, where requests went, and the connections' latest locks, in the order in which
// they are to be read: what belongs to a lock is made before it or with it, and outlives it.
func LockSets() [3]string { return [3]string{setExpected, setRequested, mapLatest} }

// challenged is what a server acknowledges that is asked where a connection stands (package cut: a SYN of sequence number 0) and has it
// no more: it begins one of the same addresses and ports. What that leaves in the map is not the connection's latest lock, and the
// lock before it lasts on, for some seconds, of a connection that is no more.
const challenged = "\x00\x00\x00\x01"

// IsLock tells whether an element of the first of LockSets is one that the rules would have made, by what the other two hold:
// a mark of freshness, a connection's latest lock, one where a request went, or one of a connection that was challenged.
func IsLock(key ruleset.Key, requests map[ruleset.Key]bool, latest map[ruleset.Key]string) bool {
	half := len(key) / 2
	connection, place := key[:half], string(key[half:])
	now := latest[connection]
	return string(connection) == place || now == place || now == challenged || requests[key]
}
