package proof

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"drawbridge/enforcer/addrset"
	"drawbridge/enforcer/compile"
	"drawbridge/enforcer/intent"
	"drawbridge/enforcer/policy"
	"drawbridge/enforcer/reach"
	"drawbridge/enforcer/ruleset"
)

// TestCheckAsAddressByAddress: on random policies and tables with random changes, Check finds exactly what an evaluation finds
// that asks about one address after the other. That one computes with no sets and remembers nothing. DRAWBRIDGE_TEST_CHECKS is
// how many tables are looked at.
func TestCheckAsAddressByAddress(t *testing.T) {
	tables := uint64(15)
	if n, err := strconv.ParseUint(os.Getenv("DRAWBRIDGE_TEST_CHECKS"), 10, 64); err == nil {
		tables = n
	}
	differing := 0
	for seed := range tables {
		random := rand.New(rand.NewPCG(seed, 0))
		document := randomPolicy(t, random)
		p, err := policy.Parse("random", document)
		require.NoError(t, err, "%s", document)
		blind := random.IntN(4) == 0
		table, err := compile.Options{WithoutGate: blind}.Compile(p)
		require.NoError(t, err)
		var changes []string
		for range random.IntN(4) {
			changes = append(changes, change(&table, random))
		}
		point := intent.Of(p, intent.Options{Blind: blind})
		fast, err := Check(table, point)
		slow, slowErr := check(table, point, func() (checker, error) { return pointwise(table, point) })
		require.Equal(t, slowErr, err, "seed %d: %s", seed, changes)
		require.Equal(t, slow, fast, "seed %d: %s", seed, changes)
		if len(changes) == 0 {
			require.Empty(t, fast.Differences)
		}
		if len(fast.Differences) > 0 {
			differing++
		}
	}
	require.Greater(t, differing, int(tables)/5, "changes that change nothing test little")
}

// pointwise is a checker that evaluates each client on its own. Of addresses between which the table draws no line it asks about
// the first.
func pointwise(t ruleset.Table, p *intent.Point) (checker, error) {
	m, err := reach.New(t)
	if err != nil {
		return checker{}, err
	}
	starts := map[bool][]netip.Addr{true: startsIn(t, true), false: startsIn(t, false)}
	run := func(packet reach.Packet, everybody addrset.Set) reach.Outcome {
		is4 := everybody.Contains(netip.IPv4Unspecified())
		var accept, drop, reject []addrset.Interval
		for i, first := range starts[is4] {
			section := addrset.Interval{First: first, Last: everybody.Intervals()[0].Last}
			if i+1 < len(starts[is4]) {
				section.Last = starts[is4][i+1].Prev()
			}
			// A trace keeps the machine from remembering.
			out := m.Run(packet, addrset.Addrs(first), func(reach.Step) {})
			for set, to := range map[*addrset.Set]*[]addrset.Interval{&out.Accept: &accept, &out.Drop: &drop, &out.Reject: &reject} {
				if set.Contains(first) {
					*to = append(*to, section)
				}
			}
		}
		return reach.Outcome{Accept: addrset.Of(accept...), Drop: addrset.Of(drop...), Reject: addrset.Of(reject...)}
	}
	return checker{evaluate: run, point: p}, nil
}

// startsIn are the addresses of a family at which a table may begin to treat clients in another way: the first one, each that is
// a value or an end in it, and the next.
func startsIn(t ruleset.Table, is4 bool) []netip.Addr {
	all := []netip.Addr{netip.IPv6Unspecified()}
	if is4 {
		all = []netip.Addr{netip.IPv4Unspecified()}
	}
	add := func(bytes []byte) {
		if a, ok := netip.AddrFromSlice(bytes); ok && a.Is4() == is4 {
			if all = append(all, a); a.Next().IsValid() {
				all = append(all, a.Next())
			}
		}
	}
	for _, s := range t.Sets {
		length := map[ruleset.DataType]int{ruleset.TypeIPv4Addr: 4, ruleset.TypeIPv6Addr: 16}[s.Key[0]]
		for _, e := range s.Elements {
			add([]byte(e.Key)[:length])
			add([]byte(e.End)[:min(length, len(e.End))])
		}
	}
	for _, c := range t.Chains {
		for _, r := range c.Rules {
			for _, s := range r.Statements {
				if m, ok := s.(ruleset.Match); ok {
					add(m.Value)
				}
			}
		}
	}
	slices.SortFunc(all, netip.Addr.Compare)
	return slices.Compact(all)
}

// randomPolicy is a document with some databases of random rules, some of which cover one another, servers among them.
func randomPolicy(t *testing.T, random *rand.Rand) []byte {
	type m = map[string]any
	pick := func(of ...string) string { return of[random.IntN(len(of))] }
	model := pick("shared", "dedicated", "dedicated")
	document := m{"version": 1, "point": m{"name": "p", "model": model}, "region": m{"name": "r", "networks": []string{"10.10.0.0/16", "fd00:10::/48"}},
		"managed_ranges": m{"fr1": []string{"192.0.2.128/30", "2001:db8:f1::/126"}}}
	if random.IntN(2) == 0 {
		document["interfaces"] = []m{{"name": "inet0", "zone": "internet"}, {"name": "vpc0", "zone": "cluster"}, {"name": "reg0", "zone": "regional"}}
	}
	var databases []m
	for i := range 1 + random.IntN(3) {
		port, tls := 5000+i, pick("in-band", "none")
		addresses := []string{fmt.Sprintf("10.64.%d.1", i), fmt.Sprintf("fd00:64:%d::1", i)}
		endpoints := []m{{"kind": "public-rw", "address": fmt.Sprintf("203.0.113.%d", i), "port": port, "family": "ipv4", "tls": tls}}
		if random.IntN(2) == 0 {
			endpoints = append(endpoints, m{"kind": "public-rw", "address": fmt.Sprintf("2001:db8:2::%d", i), "port": port, "family": "ipv6", "tls": tls})
		}
		if model == "shared" {
			addresses = []string{endpoints[0]["address"].(string), fmt.Sprintf("2001:db8:2::%d", i)}
		}
		ports := []m{{"port": port, "tls": tls}}
		db := m{"name": fmt.Sprint("db", i), "model": model, "engine": "postgresql", "force_tls": random.IntN(2) == 0 && tls != "none", "endpoints": endpoints, "nodes": []m{
			{"name": "one", "here": true, "addresses": addresses, "ports": ports},
			{"name": "two", "here": model == "dedicated", "addresses": []string{fmt.Sprintf("10.64.%d.2", i)}, "ports": ports}}}
		if random.IntN(2) == 0 {
			db["cluster_ports"] = []m{{"port": port, "shared": true}}
		}
		if model == "dedicated" {
			db["firewall_rules"] = randomRules(random)
		}
		databases = append(databases, db)
	}
	document["databases"] = databases
	out, err := json.Marshal(document)
	require.NoError(t, err)
	return out
}

func randomRules(random *rand.Rand) []map[string]any {
	rules := []map[string]any{}
	if random.IntN(2) == 0 {
		rules = append(rules, map[string]any{"type": "managed_range", "name": "fr1"})
	}
	networks := []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2000::/3"), netip.MustParsePrefix("203.0.113.0/31")}
	for range random.IntN(5) {
		n := networks[random.IntN(len(networks))]
		if random.IntN(3) > 0 {
			n = netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 51, byte(random.IntN(2)), byte(random.IntN(8))}), 28+random.IntN(5)).Masked()
		}
		rule := map[string]any{"type": "custom_range", "cidr": n.String()}
		if !slices.ContainsFunc(rules, func(r map[string]any) bool { return r["cidr"] == rule["cidr"] }) {
			rules = append(rules, rule)
		}
	}
	return rules
}

// change makes one thing wrong with a table, and tells what.
func change(t *ruleset.Table, random *rand.Rand) string {
	t.Sets, t.Chains = slices.Clone(t.Sets), slices.Clone(t.Chains)
	s, c := &t.Sets[random.IntN(len(t.Sets))], &t.Chains[random.IntN(len(t.Chains))]
	s.Elements, c.Rules = slices.Clone(s.Elements), slices.Clone(c.Rules)
	verdicts := []ruleset.Verdict{{}, {Kind: ruleset.Accept}, {Kind: ruleset.Return}}
	from := ruleset.Match{Field: ruleset.F(ruleset.IPSaddr), Op: ruleset.Op(1 + random.IntN(int(ruleset.Gte))), Value: []byte{198, 51, 0, byte(random.IntN(8))}}
	switch n := random.IntN(8); {
	case n < 4 && len(s.Elements) > 0 && !s.Dynamic:
		i := random.IntN(len(s.Elements))
		e := &s.Elements[i]
		what := fmt.Sprintf("element %s of %s: ", ruleset.PrintElement(*s, *e), s.Name)
		switch {
		case s.Verdicts && n < 3:
			chains := slices.DeleteFunc(slices.Clone(t.Chains), func(c ruleset.Chain) bool { return c.Hook != ruleset.HookNone })
			e.Verdict = append(verdicts, ruleset.Verdict{Kind: ruleset.Goto, Chain: chains[random.IntN(len(chains))].Name})[random.IntN(4)]
			return what + e.Verdict.String()
		case s.Interval && n == 1:
			e.End = e.Key
			return what + "narrowed"
		case n == 2: // another key; of an interval another end
			key := []byte(max(e.Key, e.End))
			if key[len(key)-1] < 255 {
				key[len(key)-1]++
			}
			if s.Interval {
				e.End = ruleset.Key(key)
			} else {
				e.Key = ruleset.Key(key)
			}
			return what + "moved"
		}
		s.Elements = slices.Delete(s.Elements, i, i+1)
		return what + "gone"
	case n < 6 && len(c.Rules) > 0:
		i := random.IntN(len(c.Rules))
		if i > 0 && n == 5 {
			c.Rules[i], c.Rules[i-1] = c.Rules[i-1], c.Rules[i]
			return fmt.Sprintf("rules %d and %d of %s", i-1, i, c.Name)
		}
		c.Rules = slices.Delete(c.Rules, i, i+1)
		return fmt.Sprintf("rule %d of %s gone", i, c.Name)
	case n == 6 && c.Hook != ruleset.HookNone:
		c.Policy = ruleset.Verdict{}
		return "policy of " + c.Name
	}
	r := ruleset.Rule{Statements: []ruleset.Statement{from, verdicts[random.IntN(len(verdicts))]}}
	if random.IntN(3) == 0 {
		mark := ruleset.Match{Field: ruleset.F(ruleset.CTMark), Op: ruleset.Eq, Value: native(uint32(random.IntN(2)))}
		r.Statements = slices.Insert(r.Statements, 0, ruleset.Statement(mark))
	}
	c.Rules = slices.Insert(c.Rules, 0, r)
	return fmt.Sprintf("%s in front of %s", ruleset.PrintRule(r), c.Name)
}

// TestSourcesAsAddressByAddress: whom a policy lets in is the same for sets of addresses and for each of them.
func TestSourcesAsAddressByAddress(t *testing.T) {
	for seed := range uint64(40) {
		random := rand.New(rand.NewPCG(seed, 0))
		p, err := policy.Parse("random", randomPolicy(t, random))
		require.NoError(t, err)
		table, err := compile.Compile(p)
		require.NoError(t, err)
		point := intent.Of(p, intent.Options{})
		for _, target := range point.Targets() {
			for _, iface := range point.Interfaces() {
				sources := point.TCP(iface, target.At).Sources()
				for _, a := range startsIn(table, target.At.Addr().Is4()) {
					require.Equal(t, point.Explain(a, iface, target.At, intent.SaysNothing).Allowed, sources.Contains(a), "seed %d: %v to %v by %s", seed, a, target.At, iface)
				}
			}
		}
	}
}
