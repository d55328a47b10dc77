package compile

import "drawbridge/enforcer/ruleset"

// What the table tells of packets that it denies, to whoever listens (enforcer/denied).
const (
	// DeniedGroup is the nflog group. Each group has one listener in a network namespace; low numbers are what other programs
	// begin with.
	DeniedGroup = 2277
	// DeniedNoRule and DeniedPlaintext are the reasons: nothing in the policy lets the source in, or Force TLS refused what it said.
	DeniedNoRule    = "no rule"
	DeniedPlaintext = "plaintext"

	// deniedRate is how many packets are told in a second, for each reason, so that a flood costs a comparison; at once it may be
	// twice as many.
	deniedRate = 50
	// deniedSnaplen is enough for an IPv6 header and a TCP header.
	deniedSnaplen = 64
)

// tell copies the head of some packets to the group.
func (c *compiler) tell(why string, when ...ruleset.Statement) []ruleset.Rule {
	if c.silent {
		return nil
	}
	return []ruleset.Rule{{Statements: append(when, ruleset.Limit{Rate: deniedRate, Burst: 2 * deniedRate},
		ruleset.Log{Group: DeniedGroup, Prefix: why, Snaplen: deniedSnaplen})}}
}
