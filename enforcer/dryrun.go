package enforcer

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"drawbridge/enforcer/compile"
	"drawbridge/enforcer/nft"
	"drawbridge/enforcer/policy"
	"drawbridge/enforcer/reconcile"
	"drawbridge/enforcer/ruleset"
)

// DryRunTable is the name of the table of a dry run, of family inet.
const DryRunTable = compile.TableName + "_dry"

// ErrEnforcing: a policy is in force here. A dry run beside it would write to the same bits of connections' marks.
var ErrEnforcing = errors.New("a policy is in force here: a dry run is for hosts without one, and enforce plan for those with one")

// DryRun holds a table that decides as a policy's would, drops nothing, and remembers what it would have dropped.
type DryRun struct {
	options Options
	kernel  *nft.Conn
	policy  *policy.Policy
}

// OpenDryRun opens a dry run in the network namespace of the calling thread. The caller closes it, which takes it away.
func OpenDryRun(ctx context.Context, options Options) (_ *DryRun, err error) {
	enforcing, err := nft.Open(compile.TableName)
	if err != nil {
		return nil, err
	}
	state, err := enforcing.Read(ctx)
	if err = errors.Join(err, enforcing.Close()); err != nil {
		return nil, err
	}
	if state.Exists {
		return nil, ErrEnforcing
	}
	kernel, err := nft.Open(DryRunTable)
	if err != nil {
		return nil, err
	}
	return &DryRun{options: options.withDefaults(), kernel: kernel}, nil
}

// Apply has a policy decide from now on. Errors are those of Apply.
func (d *DryRun) Apply(ctx context.Context, document []byte) error {
	p, err := policy.Parse(d.options.Name, document)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	want, err := d.options.Compile.Compile(p)
	if err != nil {
		return err
	}
	if _, err = (reconcile.Reconciler{Kernel: d.kernel, Clock: d.options.Clock}).Apply(ctx, dry(want)); err != nil {
		return err
	}
	d.policy = p
	return nil
}

// Close takes the table away.
func (d *DryRun) Close() error {
	return errors.Join(reconcile.Reconciler{Kernel: d.kernel}.Remove(context.Background()), d.kernel.Close())
}

// WouldDeny is traffic that a policy would deny.
type WouldDeny struct {
	Source   netip.Addr     `json:"source"`
	To       netip.AddrPort `json:"to"`
	Database string         `json:"database"`
	Packets  uint64         `json:"packets"`
	LastAt   time.Time      `json:"last_at"`
}

// Denied lists what would have been denied on the way to databases, latest first. Answers of databases are not listed: they belong to
// clients that are.
func (d *DryRun) Denied(ctx context.Context) ([]WouldDeny, error) {
	if d.policy == nil {
		return nil, ErrNothingApplied
	}
	names := map[netip.AddrPort]string{}
	for _, db := range d.policy.Databases() {
		for _, e := range db.Endpoints() {
			names[e.Addr] = db.Name()
		}
		for _, n := range db.Nodes() {
			for _, a := range n.Addresses {
				for _, p := range n.Ports {
					names[netip.AddrPortFrom(a, p.Number)] = db.Name()
				}
			}
		}
	}
	var out []WouldDeny
	for _, f := range dryFamilies {
		counted, err := d.kernel.ReadCounted(ctx, f.set())
		if err != nil {
			return nil, err
		}
		for _, c := range counted {
			w := f.decode(c, d.options.Clock())
			if w.Database = names[w.To]; w.Database != "" {
				out = append(out, w)
			}
		}
	}
	slices.SortFunc(out, func(a, b WouldDeny) int { return cmp.Or(b.LastAt.Compare(a.LastAt), a.Source.Compare(b.Source)) })
	return out, nil
}

// Of what would have been denied: the chain, how many sources and endpoints are remembered, and for how long.
const (
	chainWouldDeny  = "would_deny"
	wouldDenySize   = 1 << 16
	wouldDenyMemory = 24 * time.Hour
)

type dryFamily struct {
	suffix       string
	proto        byte // NFPROTO_IPV4, NFPROTO_IPV6 (include/uapi/linux/netfilter.h)
	kind         ruleset.DataType
	length       int // of an address
	saddr, daddr ruleset.FieldKind
}

var dryFamilies = []dryFamily{
	{"4", 2, ruleset.TypeIPv4Addr, 4, ruleset.IPSaddr, ruleset.IPDaddr},
	{"6", 10, ruleset.TypeIPv6Addr, 16, ruleset.IP6Saddr, ruleset.IP6Daddr},
}

func (f dryFamily) set() ruleset.Set {
	return ruleset.Set{Name: chainWouldDeny + f.suffix, Key: []ruleset.DataType{f.kind, f.kind, ruleset.TypeInetService}, Dynamic: true, Counter: true,
		Size: wouldDenySize, Timeout: wouldDenyMemory}
}

func (f dryFamily) decode(c nft.Counted, now time.Time) WouldDeny {
	key := []byte(c.Key)
	source, _ := netip.AddrFromSlice(key[:f.length])
	to, _ := netip.AddrFromSlice(key[f.length : 2*f.length])
	lifetime := cmp.Or(c.Timeout, wouldDenyMemory) // of an element that has the set's own the kernel names none
	return WouldDeny{
		Source: source, To: netip.AddrPortFrom(to, binary.BigEndian.Uint16(key[2*f.length:])), Packets: c.Packets, LastAt: now.Add(c.Expires - lifetime),
	}
}

// dry turns a table into one that lets everything pass: whatever would drop or reject a packet, or change it, notes it instead.
func dry(t ruleset.Table) ruleset.Table {
	t.Name = DryRunTable
	t.Sets, t.Chains = slices.Clone(t.Sets), slices.Clone(t.Chains)
	noted := ruleset.Verdict{Kind: ruleset.Goto, Chain: chainWouldDeny}
	for i, s := range t.Sets {
		if !s.Verdicts {
			continue
		}
		s.Elements = slices.Clone(s.Elements)
		for j, e := range s.Elements {
			if e.Verdict.Kind == ruleset.Drop {
				s.Elements[j].Verdict = noted
			}
		}
		t.Sets[i] = s
	}
	for i, c := range t.Chains {
		c.Rules = slices.Clone(c.Rules)
		for j := range c.Rules {
			c.Rules[j].Statements = dryStatements(c.Rules[j].Statements, noted)
		}
		if c.Hook != ruleset.HookNone {
			c.Policy = ruleset.Verdict{Kind: ruleset.Accept}
		}
		t.Chains[i] = c
	}
	note := ruleset.Chain{Name: chainWouldDeny, Rules: nil}
	for _, f := range dryFamilies {
		t.Sets = append(t.Sets, f.set())
		note.Rules = append(note.Rules, ruleset.Rule{Comment: "would be denied", Statements: []ruleset.Statement{
			ruleset.Match{Field: ruleset.F(ruleset.MetaNFProto), Op: ruleset.Eq, Value: []byte{f.proto}},
			ruleset.Dynset{Op: ruleset.UpdateElement, Set: f.set().Name, Key: []ruleset.Field{ruleset.F(f.saddr), ruleset.F(f.daddr), ruleset.F(ruleset.THDport)}},
		}})
	}
	note.Rules = append(note.Rules, ruleset.Rule{Statements: []ruleset.Statement{ruleset.Verdict{Kind: ruleset.Accept}}})
	t.Chains = append(t.Chains, note)
	return t
}

// dryStatements are a rule's statements without those that drop, answer or change a packet.
func dryStatements(in []ruleset.Statement, noted ruleset.Verdict) []ruleset.Statement {
	out := make([]ruleset.Statement, 0, len(in))
	for _, s := range in {
		switch s := s.(type) {
		case ruleset.Reject:
			return append(out, noted)
		case ruleset.Verdict:
			if s.Kind == ruleset.Drop {
				return append(out, noted)
			}
			out = append(out, s)
		case ruleset.ResetTCPOption, ruleset.SetTCPFlags, ruleset.Duplicate, ruleset.NoTrack:
		default:
			out = append(out, s)
		}
	}
	return out
}
