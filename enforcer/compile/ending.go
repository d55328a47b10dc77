package compile

import (
	"time"

	"drawbridge/enforcer/ruleset"
)

// Priorities of the ending chains: with the filters, behind conntrack and destination NAT.
const (
	priorityEndingOutput  = 0
	priorityEndingForward = 0
)

// Chains of the ending tables.
const (
	chainEndingOutput  = "ending_output"
	chainEndingForward = "ending_forward"
)

// setEnded holds the connections that were ended lately. Each is ended once: whatever else on the host answers these segments
// with a reset, nothing goes round in circles. Where there is no room, a server's half is left to its time-out.
const (
	setEnded     = "ended"
	endedSize    = 1 << 16
	endedTimeout = 10 * time.Second
)

// Endings returns the tables, of families ip and ip6, that tell a server of a connection which the gate refused, so
// that neither half of it stays open (SPEC X-08). They admit nothing: without them a refused client still gets its
// reset, and the server finds out by its own time-out. They depend on nothing but the mark. Families of their own are
// needed because `dup` does not exist in inet.
//
// The gate may not let the client's segment go on, and "reject" answers it with one packet, the client's reset. So:
//
//  1. the client's reset passes output. A copy of it goes to the client. The reset itself loses its flags and is
//     rejected, which makes a reset towards the server, of a sequence number that means nothing there;
//  2. that one passes output as well, where it becomes a bare acknowledgement. No byte of the client is in it;
//  3. the server answers an acknowledgement out of its window with one that says where the connection stands (RFC 9293
//     section 3.10.7.4);
//  4. this answer is rejected, in output on a database host, in forward at a gateway: the server gets a reset at
//     exactly the sequence number that it expects next (RFC 5961 section 3.2).
//
// Conntrack's direction tells the resets to the client (reply) from those to the server (original). Where an entry is
// reversed, because its beginning was never seen, step 1 does not happen.
func (m Mark) Endings() []ruleset.Table {
	return []ruleset.Table{m.ending(ruleset.FamilyIP, ruleset.IPDaddr), m.ending(ruleset.FamilyIP6, ruleset.IP6Daddr)}
}

func (m Mark) ending(family ruleset.Family, daddr ruleset.FieldKind) ruleset.Table {
	refused := m.is(ClassRefused)
	// What reject sends is related to the connection (net/netfilter/core.c: nf_ct_attach). What a server's TCP sends, a reset
	// for a socket that is gone among it, belongs to it: asking again for each of those would never end.
	madeHere := state(stateRelated)
	answer := because("the server says where it stands", isTCP, refused, flags(syn|fin|rst|ack, ack), ruleset.Reject{TCPReset: true})
	ended := ruleset.Set{Name: setEnded, Key: []ruleset.DataType{ruleset.TypeMark}, Dynamic: true, Size: endedSize, Timeout: endedTimeout}
	return ruleset.Table{Family: family, Name: TableName, Sets: []ruleset.Set{ended}, Chains: []ruleset.Chain{
		{
			Name: chainEndingOutput, Hook: ruleset.HookOutput, Priority: priorityEndingOutput, Policy: accept,
			Rules: []ruleset.Rule{
				rule(notTCP, accept),
				because("the client's reset", refused, madeHere, flags(rst|ack, rst), isReply, notIn(setEnded, ruleset.CTID),
					ruleset.Dynset{Op: ruleset.UpdateElement, Set: setEnded, Key: fields(ruleset.CTID)}, ruleset.Duplicate{To: ruleset.F(daddr)},
					ruleset.SetTCPFlags{}, ruleset.Reject{TCPReset: true}),
				because("asks the server where it stands", refused, madeHere, flags(rst|ack, rst|ack), isOriginal, ruleset.SetTCPFlags{Flags: ack}, accept),
				answer,
			},
		},
		{Name: chainEndingForward, Hook: ruleset.HookForward, Priority: priorityEndingForward, Policy: accept, Rules: []ruleset.Rule{answer}},
	}}
}
