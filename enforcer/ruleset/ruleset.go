// Package ruleset is the typed intermediate form between a compiled policy and the kernel: one nftables table as
// plain values. It decides nothing and touches no kernel. Diff compares two tables, Print writes nft(8) syntax; the
// package enforcer/nft encodes to and decodes from netlink.
//
// A Table is a value: build it, then treat it as read-only.
package ruleset

import (
	"slices"
	"time"
)

// Aged returns the table as it stands some time later: elements that end by themselves have less to live, or are gone.
func (t Table) Aged(by time.Duration) Table {
	sets := slices.Clone(t.Sets)
	for i, s := range sets {
		if s.Dynamic || !s.HasTimeout {
			continue
		}
		var left []Element
		for _, e := range s.Elements {
			if e.Timeout > by || e.Timeout == 0 {
				e.Timeout = max(e.Timeout-by.Truncate(time.Second), 0)
				left = append(left, e)
			}
		}
		sets[i].Elements = left
	}
	t.Sets = sets
	return t
}

// Family is the nftables address family of a table.
type Family string

// Families (nft(8), ADDRESS FAMILIES).
const (
	FamilyINET Family = "inet" // IPv4 and IPv6
	FamilyIP   Family = "ip"
	FamilyIP6  Family = "ip6"
)

// Table is one nftables table. Chains keep their order; sets and elements have none.
type Table struct {
	Family Family
	Name   string
	Sets   []Set
	Chains []Chain
}

// Title is what nft(8) calls the table, as in "table inet drawbridge".
func (t Table) Title() string { return "table " + string(t.Family) + " " + t.Name }

// Set is a named set or, with Verdicts, a named verdict map.
type Set struct {
	Name string
	// Key holds the types of the key's parts in order; more than one makes a concatenation.
	Key []DataType
	// Verdicts makes the set a verdict map: every element carries a Verdict.
	Verdicts bool
	// Data makes the set a map: every element carries a value of the type. Only for Dynamic sets.
	Data DataType
	// Interval elements are closed ranges Key..End (rbtree). Only for keys of one part.
	Interval bool
	// Dynamic sets are filled by rules in the kernel: Diff ignores their elements.
	Dynamic bool
	// Timeout is the default lifetime of an element; 0: for ever. It implies the timeout flag.
	Timeout time.Duration
	// HasTimeout allows single elements to expire though Timeout is 0.
	HasTimeout bool
	// Size is the greatest number of elements; 0: unbounded (not for Dynamic sets).
	Size uint32
	// Counter gives every element a packet and byte counter.
	Counter  bool
	Elements []Element
}

// Element is one element of a set. Keys are compared as bytes.
type Element struct {
	// Key holds the parts' bytes one after the other, each in its DataType's length and on-the-wire byte order, unpadded.
	Key Key
	// End is the last key of a closed range; empty for a set that is not Interval. A single address repeats Key.
	End Key
	// Verdict is what a verdict map's element says.
	Verdict Verdict
	// Timeout is how long the element has to live from now on, whole seconds; 0: as the set says. Diff allows for
	// TimeoutTolerance.
	Timeout time.Duration
	// Comment is for people, and says whose the element is; at most 128 bytes. Empty: Diff takes any.
	Comment string
}

// Key is the bytes of an element's key. It is a string so that it can be compared and used in maps.
type Key string

// DataType is the type of one part of a key, chosen so that nft(8) can print it.
type DataType int

// Data types, with their nft(8) names and lengths.
const (
	TypeInvalid     DataType = iota
	TypeIPv4Addr             // ipv4_addr, 4 bytes
	TypeIPv6Addr             // ipv6_addr, 16 bytes
	TypeInetService          // inet_service, 2 bytes, network order
	TypeIfname               // ifname, 16 bytes, NUL-padded
	TypeMark                 // mark, 4 bytes; stands in for any 32-bit integer (ct id, tcp sequence), which nft 1.0.6 cannot name
)

// Chain is a regular chain, or with Hook a base chain.
type Chain struct {
	Name     string
	Hook     Hook // HookNone: a regular chain, reached by jump and goto
	Priority int32
	// Policy of a base chain. Protected endpoints are dropped by rules; everything else must pass, so this is accept.
	Policy Verdict
	Rules  []Rule
}

// Hook is a netfilter hook of a base chain of type filter.
type Hook int

// The hooks that the enforcer uses.
const (
	HookNone Hook = iota
	HookPrerouting
	HookInput
	HookForward
	HookOutput
	HookPostrouting
)

// Rule is a list of statements, evaluated from left to right until one does not match.
type Rule struct {
	Statements []Statement
	// Comment is for people reading nft list ruleset; at most 128 bytes.
	Comment string
}

// Statement is one expression or action of a rule. The set of implementations is closed.
type Statement interface{ statement() }

// Field is something a rule can look at: a header field, a piece of metadata, a property of the connection.
type Field struct {
	Kind FieldKind
	// OffsetBits and LengthBits locate an Inner field in the TCP payload; both are multiples of 8. Zero for all others.
	OffsetBits, LengthBits int
	// Map, if not empty, puts the value that this map holds for the field in its place; where it holds none, the rule ends.
	Map string
}

// FieldKind names a field.
type FieldKind int

// Fields by their nft(8) names. The header offsets behind them are constants of enforcer/nft.
const (
	FieldInvalid      FieldKind = iota
	MetaNFProto                 // meta nfproto
	MetaL4Proto                 // meta l4proto
	MetaIIF                     // meta iif (index)
	MetaOIF                     // meta oif (index)
	MetaIIFName                 // meta iifname
	MetaOIFName                 // meta oifname
	IPSaddr                     // ip saddr
	IPDaddr                     // ip daddr
	IP6Saddr                    // ip6 saddr
	IP6Daddr                    // ip6 daddr
	THSport                     // th sport, of any transport with ports
	THDport                     // th dport
	TCPFlags                    // tcp flags, 1 byte
	TCPSeq                      // tcp sequence
	TCPAckSeq                   // tcp ackseq
	Inner                       // @ih,offset,length: the TCP payload
	CTState                     // ct state, bit mask in host order
	CTDirection                 // ct direction
	CTStatus                    // ct status, bit mask in host order
	CTMark                      // ct mark, host order
	CTID                        // ct id, 4 bytes
	TCPOptionMPTCP              // exists tcp option 30 (RFC 8684): 1 byte boolean
	TCPOptionFastOpen           // exists tcp option 34 (RFC 7413): 1 byte boolean
	ICMPType                    // icmp type
	ICMPv6Type                  // icmpv6 type
	FibSaddrIIFOIF              // fib saddr . iif oif (index, 0: no route back)
	IPFragOff                   // ip frag-off, 2 bytes, network order
	ExthdrFragExists            // exthdr frag exists: 1 byte boolean
)

// F is a Field without parameters.
func F(kind FieldKind) Field { return Field{Kind: kind} }

// InnerField is the part of the TCP payload at a byte offset. A packet whose payload ends before it does not match any
// statement on it (nft payload expression: NFT_BREAK).
func InnerField(offset, length int) Field {
	return Field{Kind: Inner, OffsetBits: offset * 8, LengthBits: length * 8}
}

// Op compares a field with a value.
type Op int

// Comparison operators.
const (
	OpInvalid Op = iota
	Eq
	Neq
	Lt
	Lte
	Gt
	Gte
)

// Match compares a field, masked if Mask is given, with Value. All byte strings have the field's length; multi-byte
// header fields are in network order, meta and ct fields in host order as the kernel keeps them.
type Match struct {
	Field Field
	Mask  []byte
	Op    Op
	Value []byte
}

// InSet looks a key up in a named set: matches if it is there (or not, with Negate).
type InSet struct {
	Key    []Field
	Set    string
	Negate bool
}

// InAnonymous looks a masked field up in a constant anonymous set.
type InAnonymous struct {
	Field  Field
	Mask   []byte
	Values [][]byte
	Negate bool
}

// VerdictMap looks a key up in a verdict map and follows the verdict found; without one the rule does not match.
type VerdictMap struct {
	Key []Field
	Map string
}

// SetOp is what a rule does to a dynamic set.
type SetOp int

// Operations on dynamic sets.
const (
	SetOpInvalid  SetOp = iota
	AddElement          // add: keeps the timeout of an element that is there
	UpdateElement       // update: refreshes it
	DeleteElement       // delete (kernel 5.x and later)
)

// Dynset changes a dynamic set with a key taken from the packet. The rule goes on only if the kernel could do it. An update of a
// map's element renews it and leaves its value as it is.
type Dynset struct {
	Op      SetOp
	Key     []Field
	Set     string
	Timeout time.Duration // 0: the set's default
	Data    Field         // of a map: the value; otherwise the zero value
	// Over, unless it is the zero value, counts packets by element, and the rule goes on only with those beyond this limit.
	Over Limit
}

// SetMark sets ct mark to (mark & ^Mask) | Value: other bits stay as they are.
type SetMark struct{ Mask, Value uint32 }

// Counter counts packets and bytes. Named counters survive a replacement of the rule; the empty name is anonymous.
type Counter struct{ Name string }

// Limit matches up to Rate packets per second, with a burst.
type Limit struct {
	Rate  uint64
	Burst uint32
}

// Log copies the packet's head to an nflog group.
type Log struct {
	Group   uint16
	Prefix  string
	Snaplen uint32
}

// ResetTCPOption overwrites a TCP option with NOPs (nft: reset tcp option).
type ResetTCPOption struct{ Kind uint8 }

// SetTCPFlags overwrites the TCP flags (RFC 9293 section 3.1), and mends the checksum. The data offset stays.
type SetTCPFlags struct{ Flags byte }

// SetTCPAckSeq overwrites the acknowledgement number with the value of a field, which must be looked up in a map, or with 0.
// It is for segments that acknowledge nothing.
type SetTCPAckSeq struct{ From Field }

// Duplicate sends a copy of the packet to the address that a field holds, untracked; the packet itself goes on (families
// ip and ip6 only).
type Duplicate struct{ To Field }

// NoTrack exempts the packet from connection tracking; only in chains that run before it.
type NoTrack struct{}

// Reject answers with a TCP reset (TCP only), or with ICMP "administratively prohibited", and ends the packet.
type Reject struct{ TCPReset bool }

// VerdictKind ends the evaluation of a rule.
type VerdictKind int

// Verdicts. The zero value is Drop: what was left out is denied.
const (
	Drop VerdictKind = iota
	Accept
	Return
	Jump
	Goto
)

// Verdict ends a rule; Chain names the target of Jump and Goto. The zero value drops.
type Verdict struct {
	Kind  VerdictKind
	Chain string
}

func (Match) statement()          {}
func (InSet) statement()          {}
func (InAnonymous) statement()    {}
func (VerdictMap) statement()     {}
func (Dynset) statement()         {}
func (SetMark) statement()        {}
func (Counter) statement()        {}
func (Limit) statement()          {}
func (Log) statement()            {}
func (ResetTCPOption) statement() {}
func (SetTCPFlags) statement()    {}
func (SetTCPAckSeq) statement()   {}
func (Duplicate) statement()      {}
func (NoTrack) statement()        {}
func (Reject) statement()         {}
func (Verdict) statement()        {}
