package reach

import (
	"cmp"
	"fmt"
	"slices"

	"drawbridge/enforcer/addrset"
	"drawbridge/enforcer/ruleset"
)

// maxDepth is how deep jumps may nest (include/net/netfilter/nf_tables.h: NFT_JUMP_STACK_SIZE).
const maxDepth = 16

// What a machine keeps at most, twice: a table's common sets and chains are some dozens, which are asked for all the time, and
// those of a single database are asked for while that is looked at.
const (
	keptIndexes = 1 << 9
	keptWalks   = 1 << 12
)

// Machine evaluates one table. Use it from one goroutine at a time: it keeps indexes of the sets that it has met.
type Machine struct {
	sets   map[string]ruleset.Set
	chains map[string]ruleset.Chain
	bases  map[ruleset.Hook][]string // by priority
	index  recent[index]             // by set and pattern

	footprints map[string]footprint // by chain
	memo       recent[*remembered]
	calc       *addrset.Arithmetic

	key, pattern, sought []byte // room for a key of memo, and for what is looked up in an index
}

// New prepares a table. It is an error if a rule names a chain or set that is not there, or if jumps go round in circles
// or nest too deep: the kernel takes no such table.
func New(t ruleset.Table) (*Machine, error) {
	m := &Machine{
		sets: map[string]ruleset.Set{}, chains: map[string]ruleset.Chain{}, bases: map[ruleset.Hook][]string{}, index: recent[index]{bound: keptIndexes},
		footprints: map[string]footprint{}, memo: recent[*remembered]{bound: keptWalks}, calc: &addrset.Arithmetic{},
	}
	for _, s := range t.Sets {
		m.sets[s.Name] = s
	}
	for _, c := range t.Chains {
		m.chains[c.Name] = c
		if c.Hook != ruleset.HookNone {
			m.bases[c.Hook] = append(m.bases[c.Hook], c.Name)
		}
	}
	for _, names := range m.bases {
		slices.SortStableFunc(names, func(a, b string) int { return cmp.Compare(m.chains[a].Priority, m.chains[b].Priority) })
	}
	heights := map[string]int{}
	for name := range m.chains {
		if _, err := m.height(name, heights); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// height is how many chains are on the longest way that begins in this one. While a chain is being measured its height is
// 0, so that a way back to it shows.
func (m *Machine) height(name string, heights map[string]int) (int, error) {
	if h, ok := heights[name]; ok {
		if h == 0 {
			return 0, fmt.Errorf("chain %s leads back to itself", name)
		}
		return h, nil
	}
	heights[name] = 0
	below := 0
	for _, r := range m.chains[name].Rules {
		targets, err := m.targets(r)
		if err != nil {
			return 0, fmt.Errorf("chain %s: %w", name, err)
		}
		for _, target := range targets {
			h, err := m.height(target, heights)
			if err != nil {
				return 0, err
			}
			below = max(below, h)
		}
	}
	if below >= maxDepth {
		return 0, fmt.Errorf("chain %s: jumps nest more than %d deep", name, maxDepth)
	}
	heights[name] = below + 1
	return below + 1, nil
}

// targets are the chains to which a rule may lead; it checks that everything which the rule names is there.
func (m *Machine) targets(r ruleset.Rule) ([]string, error) {
	var verdicts []ruleset.Verdict
	var sets []string
	for _, s := range r.Statements {
		switch s := s.(type) {
		case ruleset.Verdict:
			verdicts = append(verdicts, s)
		case ruleset.InSet:
			sets = append(sets, s.Set)
		case ruleset.Dynset:
			sets = append(sets, s.Set)
		case ruleset.VerdictMap:
			sets = append(sets, s.Map)
			for _, e := range m.sets[s.Map].Elements {
				verdicts = append(verdicts, e.Verdict)
			}
		}
	}
	for _, name := range sets {
		if _, ok := m.sets[name]; !ok {
			return nil, fmt.Errorf("no set %s", name)
		}
	}
	var out []string
	for _, v := range verdicts {
		if v.Kind != ruleset.Jump && v.Kind != ruleset.Goto {
			continue
		}
		if _, ok := m.chains[v.Chain]; !ok {
			return nil, fmt.Errorf("no chain %s", v.Chain)
		}
		out = append(out, v.Chain)
	}
	return slices.Compact(out), nil
}

// Arithmetic is what the machine computes with: its outcomes are the quicker to be compared by it.
func (m *Machine) Arithmetic() *addrset.Arithmetic { return m.calc }

// Outcome is what becomes of packets of a set of clients. A client is in more than one of the sets where that depends on
// what is not known.
type Outcome struct {
	Accept, Drop, Reject addrset.Set

	calc *addrset.Arithmetic
}

// Certain are the clients whose packets pass whatever is not known.
func (o Outcome) Certain() addrset.Set { return o.calc.Minus(o.calc.Minus(o.Accept, o.Drop), o.Reject) }

// Step is a rule that packets met and that did not end before its last statement.
type Step struct {
	Chain string `json:"chain"`
	// Rule is its number in the chain, from 1; 0: the end of a base chain, where its policy decides.
	Rule int `json:"rule"`
	// Text is the rule, or the policy, in nft(8) syntax, and Comment the rule's.
	Text    string `json:"text"`
	Comment string `json:"comment,omitempty"`
	// Elements are the elements of sets and maps that were found, in nft(8) syntax.
	Elements []string `json:"elements"`
	// Verdict is what the rule said; "" if packets go on with the next one.
	Verdict string `json:"verdict,omitempty"`
	// Maybe: whether the rule matches depends on what is not known.
	Maybe bool `json:"maybe,omitempty"`
}

// Run sends packets of these clients through the base chains of the hook, in their order: accepting ends one base chain,
// not the others. trace, unless nil, is called for each step.
func (m *Machine) Run(p Packet, clients addrset.Set, trace func(Step)) Outcome {
	out, _ := m.run(&p, clients, trace)
	return out
}

// RunMark is Run for one packet; it also tells which mark the connection has afterwards.
func (m *Machine) RunMark(p Packet, clients addrset.Set, trace func(Step)) (Outcome, uint32) {
	out, last := m.run(&p, clients, trace)
	return out, last.value
}

func (m *Machine) run(p *Packet, clients addrset.Set, trace func(Step)) (Outcome, mark) {
	out := Outcome{calc: m.calc}
	in := flow{clients: clients, mark: p.mark()}
	last := in.mark
	for _, name := range m.bases[p.Hook] {
		if in.isEmpty() {
			break
		}
		r := &walk{machine: m, packet: p, trace: trace}
		rest := r.chain(name, in)
		r.policy(m.chains[name], rest)
		out.Drop, out.Reject = m.calc.Union(out.Drop, r.dropped), m.calc.Union(out.Reject, r.rejected)
		in = r.accepted
		last = r.last
	}
	out.Accept = in.clients
	return out, last
}
