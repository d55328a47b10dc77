package enforcer

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"drawbridge/enforcer/compile"
	"drawbridge/enforcer/policy"
	"drawbridge/enforcer/reconcile"
	"drawbridge/enforcer/ruleset"
)

// Target is what a denial keeps everybody away from: one port of an address, or with port 0 all of it.
type Target struct{ netip.AddrPort }

// String returns the address, or address:port.
func (t Target) String() string {
	if t.Port() == 0 {
		return t.Addr().String()
	}
	return t.AddrPort.String()
}

// MarshalText is String.
func (t Target) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText is ParseTarget.
func (t *Target) UnmarshalText(text []byte) (err error) {
	*t, err = ParseTarget(string(text))
	return err
}

// ParseTarget reads an address, or address:port with IPv6 addresses in brackets.
func ParseTarget(text string) (Target, error) {
	to, err := netip.ParseAddrPort(text)
	if err != nil {
		var a netip.Addr
		if a, err = netip.ParseAddr(text); err != nil {
			return Target{}, fmt.Errorf("%q is neither an address nor address:port", text)
		}
		to = netip.AddrPortFrom(a, 0)
	}
	if to.Addr().Zone() != "" || to.Addr().Is4In6() || to.Addr().IsUnspecified() || to.Addr().IsLoopback() || to.Addr().IsMulticast() {
		return Target{}, fmt.Errorf("%q is not the address of one host on a network", text)
	}
	return Target{to}, nil
}

// Protected lists what a policy protects: on a shared host addresses with ports, as the host has a life besides; at a gateway whole
// addresses. It is sorted.
func Protected(p *policy.Policy) []Target {
	var out []Target
	add := func(a netip.AddrPort) {
		if p.Model() == policy.Dedicated {
			a = netip.AddrPortFrom(a.Addr(), 0)
		}
		out = append(out, Target{a})
	}
	for db := range p.EachDatabase() {
		for _, e := range db.Endpoints() {
			add(e.Addr)
		}
		for _, n := range db.Nodes() {
			for _, a := range n.Addresses {
				for _, port := range n.Ports {
					if n.Here {
						add(netip.AddrPortFrom(a, port.Number))
					}
				}
			}
		}
	}
	slices.SortFunc(out, func(a, b Target) int { return a.Compare(b.AddrPort) })
	return slices.Compact(out)
}

// ErrNothingToDeny: a denial of nothing would look like one.
var ErrNothingToDeny = errors.New("nothing is named that is to be denied")

// BootDenying keeps everybody away from the targets, loopback excepted, in the network namespace of the calling thread, in the place of
// whatever was in force. It is for a machine that starts and has no policy. As with Boot, the table outlives its owner, and the
// first policy that comes takes its place in one transaction.
func BootDenying(ctx context.Context, targets []Target, options Options) (err error) {
	if len(targets) == 0 {
		return ErrNothingToDeny
	}
	s, err := Open(options)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if err := s.Own(ctx); err != nil && !errors.Is(err, ErrUnsupported) {
		return err
	}
	_, err = reconcile.Reconciler{Kernel: s.main, Clock: s.options.Clock}.Apply(ctx, denial(targets))
	return err
}

// The denial's chain stands where admission does, before connection tracking (package compile).
const (
	chainDenied    = "denied"
	priorityDenied = -300
)

// loopbackIndex is LOOPBACK_IFINDEX (include/net/flow.h).
const loopbackIndex = 1

// denial is the table that drops what is for the targets.
func denial(targets []Target) ruleset.Table {
	t := ruleset.Table{Family: ruleset.FamilyINET, Name: compile.TableName}
	loopback := ruleset.Match{Field: ruleset.F(ruleset.MetaIIF), Op: ruleset.Eq, Value: binary.NativeEndian.AppendUint32(nil, loopbackIndex)}
	c := ruleset.Chain{
		Name: chainDenied, Hook: ruleset.HookPrerouting, Priority: priorityDenied, Policy: ruleset.Verdict{Kind: ruleset.Accept},
		Rules: []ruleset.Rule{{Statements: []ruleset.Statement{loopback, ruleset.Verdict{Kind: ruleset.Accept}}, Comment: "loopback is never judged"}},
	}
	for _, f := range []struct {
		suffix string
		proto  byte // NFPROTO_IPV4, NFPROTO_IPV6 (include/uapi/linux/netfilter.h)
		is4    bool
		kind   ruleset.DataType
		daddr  ruleset.FieldKind
	}{{"4", 2, true, ruleset.TypeIPv4Addr, ruleset.IPDaddr}, {"6", 10, false, ruleset.TypeIPv6Addr, ruleset.IP6Daddr}} {
		whole := ruleset.Set{Name: setDenyAddress + f.suffix, Key: []ruleset.DataType{f.kind}}
		ports := ruleset.Set{Name: setDenyEndpoint + f.suffix, Key: []ruleset.DataType{f.kind, ruleset.TypeInetService}}
		for _, target := range targets {
			key := ruleset.Key(target.Addr().AsSlice())
			switch {
			case target.Addr().Is4() != f.is4:
			case target.Port() == 0:
				whole.Elements = append(whole.Elements, ruleset.Element{Key: key})
			default:
				ports.Elements = append(ports.Elements, ruleset.Element{Key: key + ruleset.Key(binary.BigEndian.AppendUint16(nil, target.Port()))})
			}
		}
		t.Sets = append(t.Sets, distinct(whole), distinct(ports))
		family := ruleset.Match{Field: ruleset.F(ruleset.MetaNFProto), Op: ruleset.Eq, Value: []byte{f.proto}}
		daddr, dport := ruleset.F(f.daddr), ruleset.F(ruleset.THDport)
		c.Rules = append(c.Rules,
			ruleset.Rule{Statements: []ruleset.Statement{family, ruleset.InSet{Key: []ruleset.Field{daddr}, Set: whole.Name}, ruleset.Verdict{}}, Comment: "no policy yet"},
			ruleset.Rule{Statements: []ruleset.Statement{family, ruleset.InSet{Key: []ruleset.Field{daddr, dport}, Set: ports.Name}, ruleset.Verdict{}}, Comment: "no policy yet"})
	}
	t.Chains = []ruleset.Chain{c}
	return t
}

// The sets of a denial, without the family's suffix.
const (
	setDenyAddress  = "deny_address"
	setDenyEndpoint = "deny_endpoint"
	setDenialProof  = "of_" // a Sentry's (Sentry.arm), followed by what nobody else knows
)

// isDenial tells whether a table is one.
func isDenial(t ruleset.Table) bool {
	return slices.ContainsFunc(t.Sets, func(s ruleset.Set) bool { return strings.HasPrefix(s.Name, setDenyAddress) })
}

// distinct sorts a set's elements and leaves out what is there twice.
func distinct(s ruleset.Set) ruleset.Set {
	slices.SortFunc(s.Elements, func(a, b ruleset.Element) int { return cmp.Compare(a.Key, b.Key) })
	s.Elements = slices.CompactFunc(s.Elements, func(a, b ruleset.Element) bool { return a.Key == b.Key })
	return s
}
