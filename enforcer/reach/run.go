package reach

import (
	"encoding/binary"

	"drawbridge/enforcer/addrset"
	"drawbridge/enforcer/ruleset"
)

// walk is one way through one base chain.
type walk struct {
	machine           *Machine
	packet            *Packet
	trace             func(Step)
	accepted          flow
	dropped, rejected addrset.Set
	last              mark // the mark of what ended last
}

// policy decides about packets that no rule of a base chain did.
func (r *walk) policy(c ruleset.Chain, rest flow) {
	if rest.isEmpty() {
		return
	}
	if r.trace != nil {
		r.trace(Step{Chain: c.Name, Rule: 0, Text: "policy " + c.Policy.String(), Verdict: c.Policy.String()})
	}
	r.end(c.Policy, rest)
}

// end lets packets pass, or not.
func (r *walk) end(v ruleset.Verdict, f flow) {
	r.last = f.mark
	if v.Kind == ruleset.Accept {
		r.accepted = r.machine.join(r.accepted, f)
		return
	}
	r.dropped = r.machine.calc.Union(r.dropped, f.clients)
}

// rules sends packets through a chain's rules.
func (r *walk) rules(name string, in flow) flow {
	var returned flow
	for i, rule := range r.machine.chains[name].Rules {
		if in.isEmpty() {
			break
		}
		at := step{walk: r, in: name, index: i, rule: rule}
		in, returned = at.run(in, returned)
	}
	return r.machine.join(in, returned)
}

// step is a rule under evaluation.
type step struct {
	*walk
	in       string // the chain
	index    int
	rule     ruleset.Rule
	elements []string
	maybe    bool
}

// run sends packets through the rule. rest go on with the next rule; returned are those that leave the chain, added to
// those that did before.
func (s *step) run(in, returned flow) (rest, back flow) {
	for _, statement := range s.rule.Statements {
		switch statement := statement.(type) {
		case ruleset.Verdict:
			return s.follow(statement, in, rest, returned)
		case ruleset.Reject:
			s.told("reject")
			s.last = in.mark
			s.rejected = s.machine.calc.Union(s.rejected, in.clients)
			return rest, returned
		case ruleset.VerdictMap:
			return s.verdictMap(statement, in, rest, returned)
		default:
			yes, no := s.statement(statement, in)
			rest = s.machine.join(rest, no)
			if in = yes; in.isEmpty() {
				return rest, returned
			}
		}
	}
	s.told("")
	return s.machine.join(rest, in), returned
}

// told reports the rule.
func (s *step) told(verdict string) {
	if s.trace != nil {
		s.trace(Step{
			Chain: s.in, Rule: s.index + 1, Text: ruleset.PrintRule(s.rule), Comment: s.rule.Comment,
			Elements: s.elements, Verdict: verdict, Maybe: s.maybe,
		})
	}
}

// follow obeys a verdict.
func (s *step) follow(v ruleset.Verdict, in, rest, returned flow) (flow, flow) {
	if s.trace != nil {
		s.told(v.String())
	}
	switch v.Kind {
	case ruleset.Return:
		return rest, s.machine.join(returned, in)
	case ruleset.Jump:
		return s.machine.join(rest, s.chain(v.Chain, in)), returned
	case ruleset.Goto:
		return rest, s.machine.join(returned, s.chain(v.Chain, in))
	}
	s.end(v, in)
	return rest, returned
}

// verdictMap follows the verdict of each element that some client's packets find.
func (s *step) verdictMap(v ruleset.VerdictMap, in, rest, returned flow) (flow, flow) {
	found, certain, ok := s.machine.find(s.packet, v.Map, v.Key, in)
	if !ok {
		return s.machine.join(rest, in), returned
	}
	missed := in.clients
	outer := s.maybe
	for _, e := range found {
		hit := in.of(s.machine.calc.Intersect(in.clients, e.clients))
		if hit.isEmpty() {
			continue
		}
		if certain {
			missed = s.machine.calc.Minus(missed, e.clients)
		}
		s.maybe = outer || !certain
		s.note(v.Map, v.Key, in, e)
		rest, returned = s.follow(e.verdict, hit, rest, returned)
	}
	return s.machine.join(rest, in.of(missed)), returned
}

// note keeps the element that was found for the trace.
func (s *step) note(set string, key []ruleset.Field, in flow, e entry) {
	if s.trace != nil {
		s.elements = append(s.elements, s.machine.elementText(s.packet, set, key, in, e))
	}
}

// statement tells with whose packets a rule goes on, and with whose it ends.
func (s *step) statement(statement ruleset.Statement, in flow) (yes, no flow) {
	switch statement := statement.(type) {
	case ruleset.Match:
		return s.match(statement, in)
	case ruleset.InSet:
		return s.inSet(statement, in)
	case ruleset.InAnonymous:
		return s.inAnonymous(statement, in)
	case ruleset.Dynset:
		return s.dynset(statement, in)
	case ruleset.Limit:
		return s.either(in)
	case ruleset.SetTCPAckSeq:
		return s.setAck(statement, in)
	case ruleset.SetMark:
		in.mark = in.mark.set(statement)
	case ruleset.SetTCPFlags:
		w := in.cells()
		w.flags = cell{true, exactly([]byte{statement.Flags})}
		in = in.with(w)
	case ruleset.ResetTCPOption:
		absent := value{}
		if s.isAbsent(ruleset.TCPOptionMPTCP, in) {
			absent = exactly([]byte{0})
		}
		w := in.cells()
		w.option = cell{true, absent}
		in = in.with(w)
	case ruleset.NoTrack:
		w := in.cells()
		w.state = cell{true, exactly(binary.NativeEndian.AppendUint32(nil, ctUntracked))}
		in = in.with(w)
	case ruleset.Counter, ruleset.Log, ruleset.Duplicate:
	default:
		return s.either(in) // a statement that this package does not know yet may do either
	}
	return in, flow{}
}

// isAbsent tells whether packets are known not to have an option: resetting it changes nothing about that.
func (s *step) isAbsent(option ruleset.FieldKind, in flow) bool {
	v := s.packet.field(ruleset.F(option), in)
	return v.certainty == known && len(v.bytes) == 1 && v.bytes[0] == 0
}

func (s *step) either(in flow) (yes, no flow) {
	s.maybe = true
	return in, in
}

// split sends some clients on.
func (s *step) split(in flow, matching addrset.Set, negate bool) (yes, no flow) {
	hit := in.of(s.machine.calc.Intersect(in.clients, matching))
	miss := in.of(s.machine.calc.Minus(in.clients, matching))
	if negate {
		return miss, hit
	}
	return hit, miss
}

func decided(in flow, matches bool) (yes, no flow) {
	if matches {
		return in, flow{}
	}
	return flow{}, in
}

func (s *step) setAck(set ruleset.SetTCPAckSeq, in flow) (yes, no flow) {
	v := exactly([]byte{0, 0, 0, 0})
	if set.From.Kind != ruleset.FieldInvalid {
		v = s.packet.field(set.From, in)
	}
	if v.certainty == broken {
		return decided(in, false)
	}
	w := in.cells()
	w.ack = cell{true, v}
	changed := in.with(w)
	if v.certainty == known {
		return changed, flow{}
	}
	s.maybe = true
	return changed, in
}
