package reach

import (
	"net/netip"
	"strings"

	"drawbridge/enforcer/addrset"
	"drawbridge/enforcer/ruleset"
)

// Letters of a pattern, which says what is known of the parts of a key that is looked up.
const (
	partKnown   = 'k'
	partClient  = 'c'
	partUnknown = 'u'
)

// entry is what a lookup finds: the clients for which it does, and what a verdict map says to them.
type entry struct {
	verdict ruleset.Verdict
	clients addrset.Set
}

// index holds a set's elements by the known parts of their keys.
type index map[string][]entry

// find looks a key up in a set that is not dynamic. Not ok: nobody finds anything. Not certain: whether those who may find
// it do depends on what is not known.
func (m *Machine) find(p *Packet, name string, key []ruleset.Field, in flow) (found []entry, certain, ok bool) {
	s := m.sets[name]
	pattern, sought := m.pattern[:0], m.sought[:0]
	certain, several := true, false
	for i, f := range key {
		v := p.field(f, in)
		switch v.certainty {
		case broken:
			return nil, true, false
		case known:
			pattern = append(pattern, partKnown)
			sought = append(sought, v.bytes...)
		case client:
			pattern, several = append(pattern, partClient), true
		default:
			pattern, certain = append(pattern, partUnknown), false
		}
		if i >= len(s.Key) {
			return nil, false, false
		}
	}
	m.pattern, m.sought = pattern, sought
	switch {
	case s.Interval && string(pattern) == string(partKnown):
		found = inIntervals(p, s, sought)
	case several:
		found = m.indexed(s, pattern, p)[string(sought)]
	default: // for whom an element holds that says nothing of the client
		m.pattern = append(pattern, p.familyLetter())
		found = m.indexed(s, m.pattern, p)[string(sought)]
	}
	return found, certain, len(found) > 0
}

// inIntervals finds a known key in a set of intervals.
func inIntervals(p *Packet, s ruleset.Set, key []byte) []entry {
	for _, e := range s.Elements {
		if string(e.Key) <= string(key) && string(key) <= string(e.End) {
			return []entry{{verdict: e.Verdict, clients: p.everybody()}}
		}
	}
	return nil
}

// is4 tells whether the client is one of IPv4.
func (p *Packet) is4() bool { return p.Client == ruleset.IPSaddr || p.Client == ruleset.IPDaddr }

// everybody is all clients of the packet's family.
func (p *Packet) everybody() addrset.Set { return addrset.All(p.is4()) }

func (p *Packet) familyLetter() byte {
	if p.is4() {
		return '4'
	}
	return '6'
}

// indexed returns a set's elements by the known parts of their keys.
func (m *Machine) indexed(s ruleset.Set, pattern []byte, p *Packet) index {
	m.key = append(append(append(m.key[:0], s.Name...), 0), pattern...)
	if known, ok := m.index.get(m.key); ok {
		return known
	}
	type place struct {
		knownPart string
		verdict   ruleset.Verdict
	}
	var order []place
	everybody := p.everybody().Intervals()
	clients := map[place][]addrset.Interval{}
	for _, e := range s.Elements {
		knownPart, some := cut(s, e, pattern)
		if len(some) == 0 {
			some = everybody
		}
		at := place{knownPart, e.Verdict}
		list, seen := clients[at]
		if !seen {
			order = append(order, at)
		}
		clients[at] = append(list, some...)
	}
	out := make(index, len(order))
	for _, at := range order {
		out[at.knownPart] = append(out[at.knownPart], entry{verdict: at.verdict, clients: addrset.Of(clients[at]...)})
	}
	m.index.put(string(m.key), out)
	return out
}

// cut takes an element's key apart: its known parts, and the clients that its client part means.
func cut(s ruleset.Set, e ruleset.Element, pattern []byte) (knownPart string, clients []addrset.Interval) {
	rest, end := string(e.Key), string(e.End)
	for i, t := range s.Key {
		n := t.Len()
		if i >= len(pattern) || n > len(rest) {
			break
		}
		switch pattern[i] {
		case partKnown:
			knownPart += rest[:n]
		case partClient:
			first, ok := netip.AddrFromSlice([]byte(rest[:n]))
			last := first
			if s.Interval {
				last, _ = netip.AddrFromSlice([]byte(end))
			}
			if ok {
				clients = append(clients, addrset.Interval{First: first, Last: last})
			}
		}
		rest = rest[n:]
	}
	return knownPart, clients
}

func (s *step) inSet(l ruleset.InSet, in flow) (yes, no flow) {
	if s.machine.sets[l.Set].Dynamic {
		return s.inDynamic(l, in)
	}
	for _, f := range l.Key {
		if s.packet.field(f, in).certainty == broken {
			return decided(in, false) // negated or not
		}
	}
	found, certain, ok := s.machine.find(s.packet, l.Set, l.Key, in)
	if l.Negate && !certain {
		return s.either(in) // what is not known may be missing, and then the rule ends
	}
	if !ok {
		return decided(in, l.Negate)
	}
	var there addrset.Set
	for _, e := range found {
		there = s.machine.calc.Union(there, e.clients)
	}
	if hit := s.machine.calc.Intersect(in.clients, there); !l.Negate && !hit.IsEmpty() {
		s.note(l.Set, l.Key, in, entry{clients: hit})
	}
	if certain {
		return s.split(in, there, l.Negate)
	}
	s.maybe = true
	return in.of(s.machine.calc.Intersect(in.clients, there)), in
}

// inDynamic looks a key up in what rules have remembered.
func (s *step) inDynamic(l ruleset.InSet, in flow) (yes, no flow) {
	key, c := s.packet.key(l.Key, in)
	switch {
	case c == broken:
		return decided(in, false)
	case c != known || s.packet.Memory == nil:
		return s.either(in)
	}
	_, there := s.packet.Memory[l.Set][key]
	return decided(in, there != l.Negate)
}

// key is the key that a packet looks up. certainty is client if it is not known because there are several of those.
func (p *Packet) key(fields []ruleset.Field, in flow) (string, certainty) {
	var out strings.Builder
	several, anything := false, false
	for _, f := range fields {
		v := p.field(f, in)
		switch v.certainty {
		case broken:
			return "", broken
		case unknown:
			anything = true
		case client:
			one, ok := in.clients.One()
			several = several || !ok
			v.bytes = one.AsSlice()
		}
		out.Write(v.bytes)
	}
	switch {
	case anything:
		return "", unknown
	case several:
		return "", client
	}
	return out.String(), known
}

// dynset remembers something. A rule ends where there is no room, and where it asks for more than a limit and that is not
// exceeded.
func (s *step) dynset(d ruleset.Dynset, in flow) (yes, no flow) {
	key, c := s.packet.key(d.Key, in)
	data := exactly(nil)
	if d.Data.Kind != ruleset.FieldInvalid {
		data = s.packet.field(d.Data, in)
	}
	switch {
	case c == broken || data.certainty == broken:
		return decided(in, false)
	case d.Over != (ruleset.Limit{}) && (s.packet.Room || s.packet.Memory != nil):
		return decided(in, false)
	case d.Over != (ruleset.Limit{}):
		return s.either(in)
	case s.packet.Memory != nil && c == known:
		s.packet.Memory.change(d, key, data.bytes)
		return in, flow{}
	case c != unknown && data.certainty != unknown && (d.Op == ruleset.DeleteElement || s.packet.Room):
		return in, flow{}
	}
	return s.either(in)
}

// change adds an element or deletes it. One that is there keeps its value.
func (m Memory) change(d ruleset.Dynset, key string, data []byte) {
	if m[d.Set] == nil {
		m[d.Set] = map[string][]byte{}
	}
	if d.Op == ruleset.DeleteElement {
		delete(m[d.Set], key)
		return
	}
	if _, there := m[d.Set][key]; !there {
		m[d.Set][key] = append([]byte{}, data...)
	}
}

// elementText writes the element that a packet of one of the clients finds.
func (m *Machine) elementText(p *Packet, name string, key []ruleset.Field, in flow, found entry) string {
	s := m.sets[name]
	hit := in.clients.Intersect(found.clients).Intervals()
	for _, e := range s.Elements {
		if len(hit) > 0 && e.Verdict == found.verdict && matchesElement(p, s, e, key, in, hit[0].First) {
			return "@" + name + " { " + ruleset.PrintElement(s, e) + " }"
		}
	}
	return "@" + name
}

func matchesElement(p *Packet, s ruleset.Set, e ruleset.Element, key []ruleset.Field, in flow, client1 netip.Addr) bool {
	rest := string(e.Key)
	for i, f := range key {
		if i >= len(s.Key) || s.Key[i].Len() > len(rest) {
			return false
		}
		part := rest[:s.Key[i].Len()]
		rest = rest[len(part):]
		v := p.field(f, in)
		if v.certainty == client {
			v = exactly(client1.AsSlice())
		}
		switch {
		case v.certainty != known:
		case s.Interval && (string(v.bytes) < part || string(v.bytes) > string(e.End)):
			return false
		case !s.Interval && string(v.bytes) != part:
			return false
		}
	}
	return true
}
