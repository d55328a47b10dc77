package compile

import (
	"encoding/binary"
	"fmt"
	"math/bits"

	"drawbridge/enforcer/ruleset"
)

// Class is what the gate knows about a connection. It lives in four bits of the connection's mark; the other bits
// belong to others and are preserved. The zero value is the safe one: nothing is known, which Force TLS refuses.
//
// A class says both how far the handshake got and whether every byte of it was held to the test: while Force TLS is
// off, bytes pass untested, and what is concluded then carries ungated until the server's own packets prove it.
type Class uint32

// The classes. Only ClassTLS lets everything through under Force TLS.
const (
	// ClassUnknown: its beginning was never seen.
	ClassUnknown Class = 0
	// ClassBegun: the server's SYN-ACK told where the client's first byte must be.
	ClassBegun Class = 1
	// ClassRequested: the client asked for TLS (PostgreSQL SSLRequest, MySQL SSLRequest).
	ClassRequested Class = 2
	// ClassHello: a ClientHello went to the server, which may yet discard it.
	ClassHello Class = 3
	// ClassAcknowledged: the server took the ClientHello and owes its answer.
	ClassAcknowledged Class = 4
	// ClassAnswered: the server agreed to TLS; only a ClientHello may follow.
	ClassAnswered Class = 5
	// ClassGSS: the client asked for GSSAPI encryption (PostgreSQL); refused by the server, an SSLRequest may follow.
	ClassGSS Class = 6
	// ClassTLS: the server answered a ClientHello with a ServerHello.
	ClassTLS Class = 7
	// ClassPlaintext: the connection speaks plaintext, seen while Force TLS was off.
	ClassPlaintext Class = 8
	// ClassRefused: Force TLS refused it. Both halves are to be ended; what the gate can do is reset the client.
	ClassRefused Class = 15

	// ungated marks the classes from ClassBegun to ClassGSS that were reached while Force TLS was off.
	ungated Class = 8
	// stages are the bits without ungated.
	stages Class = 7
	// classBits are all bits of a class.
	classBits Class = 15
)

// ungatedClasses are the classes of a packet that is being tested while Force TLS is off. ClassRefused has the bit too,
// and is none of them.
var ungatedClasses = []Class{
	ClassBegun | ungated, ClassRequested | ungated, ClassHello | ungated, ClassAcknowledged | ungated, ClassAnswered | ungated, ClassGSS | ungated,
}

// DefaultMarkMask are the bits of the connection's mark that hold the class.
const DefaultMarkMask uint32 = 0x00f00000

// Mark is where in the connection's mark the class is kept. The zero value is invalid; see NewMark.
type Mark struct{ shift int }

// NewMark checks a mask: four adjacent bits.
func NewMark(mask uint32) (Mark, error) {
	shift := bits.TrailingZeros32(mask)
	if mask == 0 || uint64(mask) != uint64(classBits)<<shift {
		return Mark{}, fmt.Errorf("mark mask %#08x: want four adjacent bits, for example %#08x", mask, DefaultMarkMask)
	}
	return Mark{shift: shift}, nil
}

// Mask returns the bits of the mark that hold the class.
func (m Mark) Mask() uint32 { return m.bits(classBits) }

// Class returns the class that a connection's mark holds.
func (m Mark) Class(mark uint32) Class { return Class(mark>>m.shift) & classBits }

func (m Mark) bits(c Class) uint32 { return uint32(c) << m.shift }

// is matches connections of one of the classes.
func (m Mark) is(classes ...Class) ruleset.Statement { return m.masked(classBits, classes) }

// not matches connections of any other class.
func (m Mark) not(c Class) ruleset.Statement {
	return ruleset.Match{Field: ruleset.F(ruleset.CTMark), Mask: native(m.bits(classBits)), Op: ruleset.Neq, Value: native(m.bits(c))}
}

// stage matches connections at one of the stages, however they got there.
func (m Mark) stage(classes ...Class) ruleset.Statement { return m.masked(stages, classes) }

// notStage matches connections at any other stage.
func (m Mark) notStage(classes ...Class) ruleset.Statement {
	s := ruleset.InAnonymous{Field: ruleset.F(ruleset.CTMark), Mask: native(m.bits(stages)), Negate: true}
	for _, c := range classes {
		s.Values = append(s.Values, native(m.bits(c)))
	}
	return s
}

func (m Mark) masked(of Class, classes []Class) ruleset.Statement {
	f, mask := ruleset.F(ruleset.CTMark), native(m.bits(of))
	if len(classes) == 1 {
		return ruleset.Match{Field: f, Mask: mask, Op: ruleset.Eq, Value: native(m.bits(classes[0]))}
	}
	s := ruleset.InAnonymous{Field: f, Mask: mask}
	for _, c := range classes {
		s.Values = append(s.Values, native(m.bits(c)))
	}
	return s
}

// set gives the connection a class.
func (m Mark) set(c Class) ruleset.Statement {
	return ruleset.SetMark{Mask: m.bits(classBits), Value: m.bits(c)}
}

// setStage moves the connection on and leaves ungated as it is.
func (m Mark) setStage(c Class) ruleset.Statement {
	return ruleset.SetMark{Mask: m.bits(stages), Value: m.bits(c)}
}

// setUngated notes that Force TLS is off for the present packet.
func (m Mark) setUngated() ruleset.Statement {
	return ruleset.SetMark{Mask: m.bits(ungated), Value: m.bits(ungated)}
}

// native is a 32-bit integer as the kernel keeps it in a register.
func native(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }
