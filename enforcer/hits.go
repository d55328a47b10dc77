package enforcer

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"drawbridge/enforcer/compile"
	"drawbridge/enforcer/intent"
	"drawbridge/enforcer/nft"
	"drawbridge/enforcer/policy"
	"drawbridge/enforcer/proof"
	"drawbridge/enforcer/ruleset"
)

// Hit is how much a rule of a policy is used.
type Hit struct {
	Database string `json:"database"`
	// Rule is its number in the document, from 1, and Words what it says.
	Rule  int    `json:"rule"`
	Words string `json:"words"`
	// Packets that the rule let pass, of clients and of the answers to them, since its element is there: a change of the
	// rules that overlap it begins anew. Each rule that covers a packet counts it. What a custom range lets in does not get
	// to a managed range.
	Packets uint64 `json:"packets"`
	// Expired: it lets in nobody any more.
	Expired bool `json:"expired,omitempty"`
	// NotInForce: the policy in force is another one, which does not let in whom the rule would, so that nothing counts for it.
	NotInForce bool `json:"not_in_force,omitempty"`
	// LastSeen is when it was found to have been used last, by whoever looks again and again (HitMemory): not before the time
	// of the look before. Zero: nobody looked, or it never was.
	LastSeen time.Time `json:"last_seen,omitzero"`
}

// ReadHits asks the kernel of the calling thread's network namespace how much each rule of a policy is used, unused ones
// first. It is ErrNothingInForce if there is no table. Elements of other policies count for nothing; inForce tells whether it is this one
// that stands there.
func ReadHits(ctx context.Context, document []byte, options Options) (hits []Hit, inForce bool, err error) {
	options = options.withDefaults()
	p, err := options.parse(document)
	if err != nil {
		return nil, false, err
	}
	kernel, err := nft.Open(compile.TableName)
	if err != nil {
		return nil, false, err
	}
	defer func() { err = errors.Join(err, kernel.Close()) }()
	if options, err = options.within(ctx, kernel); err != nil {
		return nil, false, err
	}
	table, err := standing(ctx, kernel)
	if err != nil {
		return nil, false, err
	}
	want, err := options.table(p)
	if err != nil {
		return nil, false, err
	}
	if hits, err = readHits(ctx, kernel, table.Sets, p, options.Clock()); err != nil {
		return nil, false, err
	}
	if inForce = ruleset.Diff(table, want).IsEmpty(); !inForce {
		err = markUnenforced(hits, table, intent.Of(p, intent.Options{Blind: options.Compile.WithoutGate, Now: options.Clock()}))
	}
	return hits, inForce, err
}

// markUnenforced marks the rules of a policy that the table of another one does not enforce: it protects no such port, or keeps out at
// each of them some of those whom the rule would let in.
func markUnenforced(hits []Hit, t ruleset.Table, p *intent.Point) error {
	if len(hits) == 0 {
		return nil
	}
	admission, err := proof.AdmissionOf(t)
	if err != nil {
		return err
	}
	ports := compile.InventoryOf(t).Ports()
	type rule struct{ database, words string }
	enforced := map[rule]bool{} // of rules that let in anybody anywhere
	for _, target := range p.Targets() {
		for _, iface := range p.Interfaces() {
			admitted := admission.Admits(target.At, iface)
			j := p.TCP(iface, target.At)
			for _, g := range j.Grants {
				if sources := g.Sources().Minus(j.Forged); !sources.IsEmpty() {
					key := rule{target.Database, j.Why(g)}
					enforced[key] = enforced[key] || ports[target.At] == target.Database && admission.Minus(sources, admitted).IsEmpty()
				}
			}
		}
	}
	for i, h := range hits {
		is, somewhere := enforced[rule{h.Database, h.Words}]
		hits[i].NotInForce = somewhere && !is
	}
	return nil
}

// InForce is what HitCounters must know of a session. The zero value: nothing is in force.
type InForce struct {
	policy *policy.Policy
	sets   []ruleset.Set // those that count, without their elements
}

// InForce says what the session has in force now.
func (s *Session) InForce() InForce {
	in := InForce{policy: s.policy}
	for _, set := range s.want.Sets {
		if set.Counter {
			set.Elements = nil
			in.sets = append(in.sets, set)
		}
	}
	return in
}

// HitCounters reads hits over a socket of its own, so that whoever looks again and again keeps no session waiting: at 1,000
// databases there are 2,000 sets to read. Use it from one goroutine at a time.
type HitCounters struct {
	kernel *nft.Conn
	clock  func() time.Time
}

// OpenHitCounters opens the socket in the network namespace of the calling thread. The caller closes it.
func OpenHitCounters(options Options) (*HitCounters, error) {
	kernel, err := nft.Open(compile.TableName)
	if err != nil {
		return nil, err
	}
	return &HitCounters{kernel: kernel, clock: options.withDefaults().Clock}, nil
}

// Close closes the socket.
func (h *HitCounters) Close() error { return h.kernel.Close() }

// Read is ReadHits for the policy that was in force when the session was asked. What has changed since is not counted.
func (h *HitCounters) Read(ctx context.Context, in InForce) ([]Hit, error) {
	if in.policy == nil {
		return nil, ErrNothingApplied
	}
	return readHits(ctx, h.kernel, in.sets, in.policy, h.clock())
}

func readHits(ctx context.Context, kernel *nft.Conn, sets []ruleset.Set, p *policy.Policy, now time.Time) ([]Hit, error) {
	packets := map[compile.Covering]uint64{}
	coverage := compile.Coverage(p, now)
	for _, s := range sets {
		covered := coverage[s.Name]
		if len(covered) == 0 || !s.Counter {
			continue
		}
		counted, err := kernel.ReadCounted(ctx, s)
		if err != nil {
			return nil, err
		}
		for _, e := range counted {
			for _, by := range covered[e.Key] {
				packets[by] += e.Packets
			}
		}
	}
	var hits []Hit
	for _, db := range p.Databases() {
		for i, r := range db.Rules() {
			hits = append(hits, Hit{
				Database: db.Name(), Rule: i + 1, Words: intent.RuleName(i, r), Packets: packets[compile.Covering{Database: db.Name(), Rule: i}],
				Expired: !r.InForce(now),
			})
		}
	}
	slices.SortStableFunc(hits, func(a, b Hit) int { return cmp.Compare(a.Packets, b.Packets) })
	return hits, nil
}

// HitMemory remembers when rules were found used. The zero value remembers nothing. Whoever looks at hits again and again shows
// them to it; kernels keep a count for an element, and no time that nft(8) could list.
type HitMemory struct{ seen map[ruleKey]use }

// ruleKey tells a rule from others, also after the document has changed.
type ruleKey struct{ database, words string }

// use is what was found of a rule last.
type use struct {
	packets  uint64
	lastSeen time.Time
}

// Observe fills in when each rule was seen to be used last. A count that fell begins anew.
func (m *HitMemory) Observe(hits []Hit, now time.Time) []Hit {
	next := make(map[ruleKey]use, len(hits))
	out := slices.Clone(hits)
	for i := range out {
		key := ruleKey{database: out[i].Database, words: out[i].Words}
		before, known := m.seen[key]
		switch {
		case known && out[i].Packets == before.packets:
			out[i].LastSeen = before.lastSeen
		case out[i].Packets > 0 && (known || m.seen != nil):
			out[i].LastSeen = now
		}
		next[key] = use{packets: out[i].Packets, lastSeen: out[i].LastSeen}
	}
	m.seen = next
	return out
}
