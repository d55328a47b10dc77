package reach

import (
	"maps"
	"slices"
	"strings"

	"drawbridge/enforcer/addrset"
	"drawbridge/enforcer/ruleset"
)

// What chains do that look at nothing of the server is remembered: with a thousand databases the same is asked of them
// thousands of times, about sets of thousands of intervals.

// remembered is what a chain did with a flow.
type remembered struct {
	in, back          flow
	accepted          flow
	dropped, rejected addrset.Set
	last              mark
}

// chain sends packets through a chain and returns those that come back: they fell off its end, or a rule returned them.
func (r *walk) chain(name string, in flow) flow {
	key, ok := r.memoKey(name, in)
	if !ok {
		return r.rules(name, in)
	}
	known, ok := r.machine.memo[key]
	if !ok || !known.in.clients.Same(in.clients) {
		apart := &walk{machine: r.machine, packet: r.packet}
		back := apart.rules(name, in)
		known = remembered{in: in, back: back, accepted: apart.accepted, dropped: apart.dropped, rejected: apart.rejected, last: apart.last}
		r.machine.memo[key] = known
	}
	r.accepted = r.machine.join(r.accepted, known.accepted)
	calc := r.machine.calc
	r.dropped, r.rejected, r.last = calc.Union(r.dropped, known.dropped), calc.Union(r.rejected, known.rejected), known.last
	return known.back
}

// memoKey is all that what a chain does can depend on, besides the clients; not ok if it is not worth remembering.
func (r *walk) memoKey(name string, in flow) (key string, ok bool) {
	p := r.packet
	changed := in.ack.written || in.flags.written || in.option.written || in.state.written
	if r.trace != nil || p.Memory != nil || p.Payload.Length == Exact || changed || in.mark != p.start(in.clients).mark {
		return "", false
	}
	reads := r.machine.reads(name)
	if slices.ContainsFunc(reads, p.isOfServer) {
		return "", false
	}
	var b strings.Builder
	b.WriteString(name)
	b.Write([]byte{0, byte(p.Client), byte(p.Payload.Length), flag(p.NotLoopback), flag(p.Room)})
	for _, k := range reads {
		v := p.field(ruleset.F(k), in)
		b.Write([]byte{byte(v.certainty), byte(len(v.bytes))})
		b.Write(v.bytes)
	}
	return b.String(), true
}

func flag(b bool) byte {
	if b {
		return 1
	}
	return 0
}

// isOfServer tells whether a field says which server a packet is about.
func (p *Packet) isOfServer(k ruleset.FieldKind) bool {
	switch p.Client {
	case ruleset.IPSaddr, ruleset.IP6Saddr:
		return k == ruleset.IPDaddr || k == ruleset.IP6Daddr || k == ruleset.THDport
	}
	return k == ruleset.IPSaddr || k == ruleset.IP6Saddr || k == ruleset.THSport
}

// reads are the fields that a chain, or one that it leads to, looks at. The payload is not among them.
func (m *Machine) reads(name string) []ruleset.FieldKind {
	if known, ok := m.footprints[name]; ok {
		return known
	}
	all := map[ruleset.FieldKind]bool{}
	for _, r := range m.chains[name].Rules {
		for _, s := range r.Statements {
			for _, f := range fieldsOf(s) {
				all[f.Kind] = true
			}
		}
		targets, _ := m.targets(r) // New has checked them
		for _, t := range targets {
			for _, k := range m.reads(t) {
				all[k] = true
			}
		}
	}
	delete(all, ruleset.Inner)
	m.footprints[name] = slices.Sorted(maps.Keys(all))
	return m.footprints[name]
}

func fieldsOf(s ruleset.Statement) []ruleset.Field {
	switch s := s.(type) {
	case ruleset.Match:
		return []ruleset.Field{s.Field}
	case ruleset.InAnonymous:
		return []ruleset.Field{s.Field}
	case ruleset.InSet:
		return s.Key
	case ruleset.VerdictMap:
		return s.Key
	case ruleset.Dynset:
		return append(slices.Clone(s.Key), s.Data)
	case ruleset.SetTCPAckSeq:
		return []ruleset.Field{s.From}
	case ruleset.ResetTCPOption:
		return []ruleset.Field{ruleset.F(ruleset.TCPOptionMPTCP)}
	case ruleset.SetMark:
		return []ruleset.Field{ruleset.F(ruleset.CTMark)}
	}
	return nil
}
