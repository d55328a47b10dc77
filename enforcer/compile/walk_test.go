package compile_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"net/netip"
	"slices"

	"drawbridge/enforcer/ruleset"
)

// packet is what a table can see of one packet.
type packet struct {
	src, dst  netip.AddrPort
	proto     byte
	flags     byte
	seq, ack  uint32
	payload   []byte
	iif, oif  string
	fragment  bool
	noWayBack bool // the route to src does not lead out of iif
	icmp      byte
	// Of the connection. Without one, state is invalid or untracked.
	state uint32
	reply bool
}

const (
	stateInvalid     = 1
	stateEstablished = 2
	stateRelated     = 4
	stateNew         = 8
)

// walker reads a table the way the kernel does. It knows nothing of policies and shares no code with the compiler, so
// that verdicts read off it are what the rules really say.
type walker struct {
	sets    map[string]ruleset.Set
	index   map[string]map[ruleset.Key]ruleset.Element
	chains  map[string]ruleset.Chain
	dynamic map[string]map[string][]byte // by set and key: a map's value
	mark    uint32                       // of the one connection
	cost    cost
	renewed map[string]int // by set: how often an element was added or renewed
}

// cost is what packets have met.
type cost struct{ chains, rules, lookups int }

func walk(t ruleset.Table) *walker {
	w := &walker{sets: map[string]ruleset.Set{}, index: map[string]map[ruleset.Key]ruleset.Element{}, chains: map[string]ruleset.Chain{}, dynamic: map[string]map[string][]byte{}, renewed: map[string]int{}}
	for _, s := range t.Sets {
		w.sets[s.Name], w.index[s.Name], w.dynamic[s.Name] = s, map[ruleset.Key]ruleset.Element{}, map[string][]byte{}
		for _, e := range s.Elements {
			w.index[s.Name][e.Key] = e
		}
	}
	for _, c := range t.Chains {
		w.chains[c.Name] = c
	}
	return w
}

type outcome string

const (
	accepted outcome = "accept"
	dropped  outcome = "drop"
	rejected outcome = "reject"
	fellOff  outcome = ""
	returned outcome = "return"
)

// hook runs the base chains of a hook, in order.
func (w *walker) hook(h ruleset.Hook, p packet) outcome { return w.hookFrom(h, math.MinInt32, p) }

// hookFrom leaves out those whose priority is less.
func (w *walker) hookFrom(h ruleset.Hook, from int32, p packet) outcome {
	var base []ruleset.Chain
	for _, c := range w.chains {
		if c.Hook == h && c.Priority >= from {
			base = append(base, c)
		}
	}
	slices.SortFunc(base, func(a, b ruleset.Chain) int { return int(a.Priority - b.Priority) })
	if len(base) == 0 {
		panic("no base chain there")
	}
	for _, c := range base {
		out := w.chain(c.Name, p)
		if out == fellOff || out == returned {
			out = verdictOutcome(c.Policy)
		}
		if out != accepted {
			return out
		}
	}
	return accepted
}

func verdictOutcome(v ruleset.Verdict) outcome {
	if v.Kind == ruleset.Accept {
		return accepted
	}
	return dropped
}

func (w *walker) chain(name string, p packet) outcome {
	c, ok := w.chains[name]
	if !ok {
		panic("no chain " + name)
	}
	w.cost.chains++
	for _, r := range c.Rules {
		w.cost.rules++
		v, decided := w.rule(r, p)
		if !decided {
			continue
		}
		if out, done := w.follow(v, p); done {
			return out
		}
	}
	return fellOff
}

// follow obeys a verdict; not done means: on with the next rule.
func (w *walker) follow(v verdict, p packet) (outcome, bool) {
	if v.reject {
		return rejected, true
	}
	switch v.Kind {
	case ruleset.Return:
		return returned, true
	case ruleset.Jump:
		if out := w.chain(v.Chain, p); out != fellOff && out != returned {
			return out, true
		}
		return fellOff, false
	case ruleset.Goto:
		return w.chain(v.Chain, p), true
	}
	return verdictOutcome(v.Verdict), true
}

type verdict struct {
	ruleset.Verdict
	reject bool
}

func (w *walker) rule(r ruleset.Rule, p packet) (verdict, bool) {
	for _, s := range r.Statements {
		switch s := s.(type) {
		case ruleset.Verdict:
			return verdict{Verdict: s}, true
		case ruleset.Reject:
			return verdict{reject: true}, true
		case ruleset.VerdictMap:
			w.cost.lookups++
			key, ok := w.key(s.Key, p)
			e, found := w.index[s.Map][ruleset.Key(key)]
			if !ok || !found {
				return verdict{}, false
			}
			return verdict{Verdict: e.Verdict}, true
		case ruleset.SetMark:
			w.mark = w.mark&^s.Mask | s.Value
		case ruleset.Dynset:
			key, ok := w.key(s.Key, p)
			if !ok {
				return verdict{}, false
			}
			if s.Over != (ruleset.Limit{}) {
				return verdict{}, false // never exceeded here
			}
			if s.Op == ruleset.DeleteElement {
				delete(w.dynamic[s.Set], string(key))
				continue
			}
			w.renewed[s.Set]++
			if _, there := w.dynamic[s.Set][string(key)]; there {
				continue // an update leaves the value alone
			}
			value := []byte{}
			if s.Data.Kind != ruleset.FieldInvalid {
				if value, ok = w.field(s.Data, p); !ok {
					return verdict{}, false
				}
			}
			w.dynamic[s.Set][string(key)] = value
		case ruleset.SetTCPAckSeq:
			p.ack = 0
			if s.From.Kind != ruleset.FieldInvalid {
				v, ok := w.key([]ruleset.Field{s.From}, p)
				if !ok {
					return verdict{}, false
				}
				p.ack = binary.BigEndian.Uint32(v)
			}
		case ruleset.Counter, ruleset.ResetTCPOption, ruleset.Log, ruleset.Limit: // a limit that is never reached
		default:
			if !w.matches(s, p) {
				return verdict{}, false
			}
		}
	}
	return verdict{}, false
}

func (w *walker) matches(s ruleset.Statement, p packet) bool {
	switch s := s.(type) {
	case ruleset.Match:
		v, ok := w.field(s.Field, p)
		return ok && compare(masked(v, s.Mask), s.Op, s.Value)
	case ruleset.InAnonymous:
		v, ok := w.field(s.Field, p)
		v = masked(v, s.Mask)
		return ok && s.Negate != slices.ContainsFunc(s.Values, func(x []byte) bool { return bytes.Equal(x, v) })
	case ruleset.InSet:
		key, ok := w.key(s.Key, p)
		return ok && s.Negate != w.contains(s.Set, key)
	}
	panic(fmt.Sprintf("the walker does not know %T", s))
}

func (w *walker) contains(name string, key []byte) bool {
	w.cost.lookups++
	s, ok := w.sets[name]
	switch {
	case !ok:
		panic("no set " + name)
	case s.Dynamic:
		_, there := w.dynamic[name][string(key)]
		return there
	case !s.Interval:
		_, ok := w.index[name][ruleset.Key(key)]
		return ok
	}
	return slices.ContainsFunc(s.Elements, func(e ruleset.Element) bool {
		return string(key) >= string(e.Key) && string(key) <= string(e.End)
	})
}

func (w *walker) key(fields []ruleset.Field, p packet) ([]byte, bool) {
	var key []byte
	for _, f := range fields {
		v, ok := w.field(ruleset.Field{Kind: f.Kind, OffsetBits: f.OffsetBits, LengthBits: f.LengthBits}, p)
		if ok && f.Map != "" {
			v, ok = w.dynamic[f.Map][string(v)]
		}
		if !ok {
			return nil, false
		}
		key = append(key, v...)
	}
	return key, true
}

func masked(v, mask []byte) []byte {
	if len(mask) == 0 || len(v) != len(mask) {
		return v
	}
	out := make([]byte, len(v))
	for i := range v {
		out[i] = v[i] & mask[i]
	}
	return out
}

func compare(v []byte, op ruleset.Op, want []byte) bool {
	c := bytes.Compare(v, want)
	switch op {
	case ruleset.Eq:
		return c == 0
	case ruleset.Neq:
		return c != 0
	case ruleset.Gte:
		return c >= 0
	}
	panic("operator the walker does not know")
}

func u32(v uint32) []byte  { return binary.NativeEndian.AppendUint32(nil, v) }
func be32(v uint32) []byte { return binary.BigEndian.AppendUint32(nil, v) }
func be16(v uint16) []byte { return binary.BigEndian.AppendUint16(nil, v) }

func name16(s string) []byte {
	b := make([]byte, 16)
	copy(b, s)
	return b
}

// field reads a field; false where the kernel would stop the rule (NFT_BREAK).
func (w *walker) field(f ruleset.Field, p packet) ([]byte, bool) {
	tcp := p.proto == 6 && !p.fragment
	is4 := p.dst.Addr().Is4()
	tracked := p.state != stateInvalid && p.state != 64
	switch f.Kind {
	case ruleset.MetaNFProto:
		if is4 {
			return []byte{2}, true
		}
		return []byte{10}, true
	case ruleset.MetaL4Proto:
		return []byte{p.proto}, true
	case ruleset.MetaIIF:
		return u32(ifindex(p.iif)), true
	case ruleset.MetaOIF:
		return u32(ifindex(p.oif)), true
	case ruleset.MetaIIFName:
		return name16(p.iif), true
	case ruleset.MetaOIFName:
		return name16(p.oif), true
	case ruleset.IPSaddr, ruleset.IP6Saddr:
		return p.src.Addr().AsSlice(), (f.Kind == ruleset.IPSaddr) == is4
	case ruleset.IPDaddr, ruleset.IP6Daddr:
		return p.dst.Addr().AsSlice(), (f.Kind == ruleset.IPDaddr) == is4
	case ruleset.THSport:
		return be16(p.src.Port()), (tcp || p.proto == 17 || p.proto == 132) && !p.fragment
	case ruleset.THDport:
		return be16(p.dst.Port()), (tcp || p.proto == 17 || p.proto == 132) && !p.fragment
	case ruleset.TCPFlags: // a byte at an offset, whatever the protocol
		return []byte{p.flags}, !p.fragment
	case ruleset.TCPSeq:
		return be32(p.seq), tcp
	case ruleset.TCPAckSeq:
		return be32(p.ack), tcp
	case ruleset.Inner:
		from, to := f.OffsetBits/8, (f.OffsetBits+f.LengthBits)/8
		if !tcp || to > len(p.payload) {
			return nil, false
		}
		return p.payload[from:to], true
	case ruleset.CTState:
		return u32(p.state), true
	case ruleset.CTMark:
		return u32(w.mark), tracked
	case ruleset.CTID:
		return u32(7), tracked
	case ruleset.CTDirection:
		if p.reply {
			return []byte{1}, tracked
		}
		return []byte{0}, tracked
	case ruleset.TCPOptionMPTCP:
		return []byte{0}, tcp
	case ruleset.ICMPv6Type:
		return []byte{p.icmp}, p.proto == 58
	case ruleset.FibSaddrIIFOIF:
		if p.noWayBack {
			return u32(0), true
		}
		return u32(ifindex(p.iif)), true
	case ruleset.IPFragOff:
		if p.fragment {
			return []byte{0x00, 0x10}, is4
		}
		return []byte{0x40, 0x00}, is4
	case ruleset.ExthdrFragExists:
		if p.fragment {
			return []byte{1}, !is4
		}
		return []byte{0}, !is4
	}
	panic(fmt.Sprintf("field %v the walker does not know", f))
}

func ifindex(name string) uint32 {
	if name == "lo" {
		return 1
	}
	return 2
}
