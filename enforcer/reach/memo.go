package reach

import (
	"encoding/binary"
	"maps"
	"slices"

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
	key := r.memoKey(name, in)
	if key == nil {
		return r.rules(name, in)
	}
	known, ok := r.machine.memo.get(key)
	if !ok || !known.in.clients.Same(in.clients) {
		at := string(key) // which is overwritten on the way
		apart := &walk{machine: r.machine, packet: r.packet}
		back := apart.rules(name, in)
		known = &remembered{in: in, back: back, accepted: apart.accepted, dropped: apart.dropped, rejected: apart.rejected, last: apart.last}
		r.machine.memo.put(at, known)
	}
	r.accepted = r.machine.join(r.accepted, known.accepted)
	calc := r.machine.calc
	r.dropped, r.rejected, r.last = calc.Union(r.dropped, known.dropped), calc.Union(r.rejected, known.rejected), known.last
	return known.back
}

// memoKey is all that what a chain does can depend on, besides the clients; nil if it is not worth remembering. It is there
// until the next one is asked for.
func (r *walk) memoKey(name string, in flow) []byte {
	p := r.packet
	if r.trace != nil || p.Memory != nil || p.Payload.Length == Exact || in.written != nil {
		return nil
	}
	reads := r.machine.reads(name)
	if reads.ofServer(p) {
		return nil
	}
	b := append(r.machine.key[:0], name...)
	b = append(b, 0, byte(p.Client), byte(p.Payload.Length), flag(p.NotLoopback), flag(p.Room), flag(p.tracked()))
	// The mark, whether or not the chain looks at it, as it comes back with the packets.
	b = binary.NativeEndian.AppendUint32(binary.NativeEndian.AppendUint32(b, in.mark.known), in.mark.value)
	for _, k := range reads.fields {
		v := p.field(ruleset.F(k), in)
		b = append(b, byte(v.certainty), byte(len(v.bytes)))
		b = append(b, v.bytes...)
	}
	r.machine.key = b
	return b
}

func flag(b bool) byte {
	if b {
		return 1
	}
	return 0
}

// footprint is what a chain, or one that it leads to, looks at. The payload is not among it.
type footprint struct {
	fields []ruleset.FieldKind
	// Among it is where a packet goes to, or where it comes from.
	to, from bool
}

// ofServer tells whether among it is what says which server a packet is about.
func (f footprint) ofServer(p *Packet) bool {
	switch p.Client {
	case ruleset.IPSaddr, ruleset.IP6Saddr:
		return f.to
	}
	return f.from
}

func (m *Machine) reads(name string) footprint {
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
			for _, k := range m.reads(t).fields {
				all[k] = true
			}
		}
	}
	delete(all, ruleset.Inner)
	out := footprint{
		fields: slices.Sorted(maps.Keys(all)),
		to:     all[ruleset.IPDaddr] || all[ruleset.IP6Daddr] || all[ruleset.THDport],
		from:   all[ruleset.IPSaddr] || all[ruleset.IP6Saddr] || all[ruleset.THSport],
	}
	m.footprints[name] = out
	return out
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
