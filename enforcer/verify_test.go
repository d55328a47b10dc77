package enforcer_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"drawbridge/enforcer"
	"drawbridge/enforcer/compile"
	"drawbridge/enforcer/nft"
	"drawbridge/enforcer/policy"
	"drawbridge/enforcer/ruleset"
	"drawbridge/sim/netns"
	"drawbridge/sim/netns/netnstest"
)

// planted is a policy in which every set of the table has something in it.
const planted = `{"version": 1, "point": {"name": "gw", "model": "dedicated"}, "region": {"name": "r", "networks": ["10.10.0.0/16"]},
"interfaces": [{"name": "inet0", "zone": "internet"}, {"name": "vpc0", "zone": "cluster"}, {"name": "peer0", "zone": "peering"}, {"name": "reg0", "zone": "regional"}],
"managed_ranges": {"fr1": ["192.0.2.128/30", "2001:db8:f1::/126"]},
"databases": [{"name": "orders", "model": "dedicated", "engine": "postgresql", "unknown_connections": "keep",
 "endpoints": [{"kind": "public-rw", "address": "203.0.113.1", "port": 5432, "family": "ipv4", "tls": "in-band"},
  {"kind": "public-rw", "address": "2001:db8:2::1", "port": 5432, "family": "ipv6", "tls": "in-band"},
  {"kind": "private-peering-rw", "address": "172.20.0.1", "port": 5432, "family": "ipv4", "tls": "in-band"}],
 "nodes": [{"name": "one", "here": true, "addresses": ["10.64.1.1", "fd00:64:1::1"], "ports": [{"port": 5432, "tls": "in-band"}, {"port": 8008, "tls": "only"}]},
  {"name": "two", "here": true, "addresses": ["10.64.1.2"], "ports": [{"port": 5432, "tls": "in-band"}]}],
 "cluster_ports": [{"port": 5432, "shared": true}, {"port": 8008, "shared": false}],
 "firewall_rules": [{"type": "custom_range", "cidr": "198.51.100.0/28"}, {"type": "custom_range", "cidr": "2001:db8:1::/64"}, {"type": "managed_range", "name": "fr1"}]},
 {"name": "docs", "model": "dedicated", "engine": "mongodb", "force_tls": false,
 "endpoints": [{"kind": "public-rw", "address": "203.0.113.2", "port": 27017, "family": "ipv4", "tls": "either"}],
 "nodes": [{"name": "one", "here": true, "addresses": ["10.64.2.1"], "ports": [{"port": 27017, "tls": "either"}]}],
 "firewall_rules": [{"type": "custom_range", "cidr": "0.0.0.0/0"}]},
 {"name": "shop", "model": "dedicated", "engine": "mysql",
 "endpoints": [{"kind": "public-rw", "address": "203.0.113.3", "port": 3306, "family": "ipv4", "tls": "in-band"}],
 "nodes": [{"name": "one", "here": true, "addresses": ["10.64.3.1"], "ports": [{"port": 3306, "tls": "in-band"}, {"port": 9, "tls": "only"}]}]}]}`

func verify(t *testing.T, ns *netns.Handle, document string) (v enforcer.Verification) {
	t.Helper()
	require.NoError(t, ns.Do(func() (err error) {
		v, err = enforcer.Verify(t.Context(), []byte(document), enforcer.Options{})
		return err
	}))
	return v
}

// spoiling is one thing that is wrong with a table.
type spoiling struct {
	name   string
	object string // what must be named
	table  ruleset.Table
}

func clone(t ruleset.Table) ruleset.Table {
	t.Sets, t.Chains = slices.Clone(t.Sets), slices.Clone(t.Chains)
	return t
}

// spoilings are all tables that differ from this one in a single element, rule, chain or set.
func spoilings(t ruleset.Table) (all []spoiling) {
	add := func(name, object string, spoil func(*ruleset.Table)) {
		s := spoiling{name: name, object: object, table: clone(t)}
		spoil(&s.table)
		all = append(all, s)
	}
	for i, s := range t.Sets {
		spoilSet(i, s, add)
	}
	for i, c := range t.Chains {
		spoilChain(i, c, add)
	}
	add("a chain more", "chain planted", func(t *ruleset.Table) { t.Chains = append(t.Chains, ruleset.Chain{Name: "planted"}) })
	add("a base chain more", "chain planted", func(t *ruleset.Table) {
		t.Chains = append(t.Chains, ruleset.Chain{Name: "planted", Hook: ruleset.HookForward, Policy: ruleset.Verdict{Kind: ruleset.Accept}})
	})
	add("a set more", "set planted", func(t *ruleset.Table) {
		t.Sets = append(t.Sets, ruleset.Set{Name: "planted", Key: []ruleset.DataType{ruleset.TypeIPv4Addr}})
	})
	return all
}

type adder func(name, object string, spoil func(*ruleset.Table))

// another is a key that a set does not have.
func another(s ruleset.Set) ruleset.Element {
	n := 0
	for _, k := range s.Key {
		n += k.Len()
	}
	key := ruleset.Key(strings.Repeat("\x07", n))
	e := ruleset.Element{Key: key}
	if s.Interval {
		e.End = key
	}
	if s.Verdicts {
		e.Verdict = ruleset.Verdict{Kind: ruleset.Accept}
	}
	return e
}

func spoilSet(i int, s ruleset.Set, add adder) {
	of := "of set " + s.Name + " "
	change := func(f func(*ruleset.Set)) func(*ruleset.Table) {
		return func(t *ruleset.Table) { f(&t.Sets[i]) }
	}
	if s.Dynamic {
		add("size "+of, "set "+s.Name+" ", change(func(s *ruleset.Set) { s.Size++ }))
		add("counter "+of, "set "+s.Name+" ", change(func(s *ruleset.Set) { s.Counter = !s.Counter }))
		add("timeout "+of, "set "+s.Name+" ", change(func(s *ruleset.Set) { s.Timeout += time.Second }))
		return
	}
	add("an element more "+of, "element "+of, change(func(s *ruleset.Set) { s.Elements = append(slices.Clone(s.Elements), another(*s)) }))
	add("timeout flag "+of, "set "+s.Name+" ", change(func(s *ruleset.Set) { s.HasTimeout = !s.HasTimeout }))
	add("size "+of, "set "+s.Name+" ", change(func(s *ruleset.Set) { s.Size = 4096 }))
	for j, e := range s.Elements {
		add(fmt.Sprintf("element %d less %s", j, of), "element "+of, change(func(s *ruleset.Set) { s.Elements = slices.Delete(slices.Clone(s.Elements), j, j+1) }))
		if s.Verdicts {
			add(fmt.Sprintf("verdict of element %d %s", j, of), "element "+of, change(func(s *ruleset.Set) {
				e.Verdict = ruleset.Verdict{Kind: ruleset.Accept}
				s.Elements = slices.Clone(s.Elements)
				s.Elements[j] = e
			}))
		}
		if s.Interval && e.Key != e.End {
			add(fmt.Sprintf("element %d narrower %s", j, of), "element "+of, change(func(s *ruleset.Set) {
				e.End = e.Key
				s.Elements = slices.Clone(s.Elements)
				s.Elements[j] = e
			}))
		}
	}
}

func spoilChain(i int, c ruleset.Chain, add adder) {
	of := "of chain " + c.Name + " "
	change := func(f func(*ruleset.Chain)) func(*ruleset.Table) {
		return func(t *ruleset.Table) {
			t.Chains[i].Rules = slices.Clone(t.Chains[i].Rules)
			f(&t.Chains[i])
		}
	}
	add("accept at the head "+of, "rule "+of, change(func(c *ruleset.Chain) {
		c.Rules = slices.Insert(c.Rules, 0, ruleset.Rule{Statements: []ruleset.Statement{ruleset.Verdict{Kind: ruleset.Accept}}})
	}))
	for j := range c.Rules {
		add(fmt.Sprintf("rule %d less %s", j, of), "rule "+of, change(func(c *ruleset.Chain) { c.Rules = slices.Delete(c.Rules, j, j+1) }))
		if j > 0 && ruleset.PrintRule(c.Rules[j]) != ruleset.PrintRule(c.Rules[j-1]) {
			add(fmt.Sprintf("rules %d and %d %s", j-1, j, of), "rule "+of, change(func(c *ruleset.Chain) { c.Rules[j], c.Rules[j-1] = c.Rules[j-1], c.Rules[j] }))
		}
	}
	if c.Hook == ruleset.HookNone {
		return
	}
	add("policy "+of, "chain "+c.Name+" ", change(func(c *ruleset.Chain) { c.Policy = ruleset.Verdict{} }))
	add("priority "+of, "chain "+c.Name+" ", change(func(c *ruleset.Chain) { c.Priority++ }))
	add("hook "+of, "chain "+c.Name+" ", change(func(c *ruleset.Chain) { c.Hook = ruleset.HookInput }))
}

// TestVerifyFindsWhatever brings single spoilings of a table into the kernel, has verify name each, and mends it again: every
// fifth of some thousand, or with DRAWBRIDGE_TEST_ALL_SPOILINGS=1 all.
func TestVerifyFindsWhatever(t *testing.T) {
	sample := 5
	if os.Getenv("DRAWBRIDGE_TEST_ALL_SPOILINGS") != "" {
		sample = 1
	}
	ns := netnstest.New(t)
	mustApply(t, ns, []byte(planted))
	require.Equal(t, []any{true, 0, 0}, outcomeOf(verify(t, ns, planted)))
	p, err := policy.Parse("planted", []byte(planted))
	require.NoError(t, err)
	want, err := compile.Compile(p)
	require.NoError(t, err)
	mark, err := compile.NewMark(compile.DefaultMarkMask)
	require.NoError(t, err)
	tables := append(mark.Endings(), want)
	count, byAccess, refused := 0, 0, 0
	for _, want := range tables {
		var c *nft.Conn
		require.NoError(t, ns.Do(func() (err error) { c, err = nft.OpenFamily(want.Family, want.Name); return err }))
		commit := func(from, to ruleset.Table) error {
			g, err := c.Generation(t.Context())
			require.NoError(t, err)
			return c.Commit(t.Context(), ruleset.Diff(from, to), g)
		}
		for i, s := range spoilings(want) {
			if i%sample != 0 {
				continue
			}
			require.False(t, ruleset.Diff(want, s.table).IsEmpty(), s.name)
			require.NotEmpty(t, ruleset.Compare(want, s.table), s.name)
			err := commit(want, s.table)
			if errors.Is(err, nft.ErrRejected) {
				t.Logf("no kernel holds it: %s", s.name)
				refused++
				continue
			}
			require.NoError(t, err, s.name)
			v := verify(t, ns, planted)
			require.False(t, v.Proven, s.name)
			require.True(t, slices.ContainsFunc(v.Objects, func(d ruleset.Difference) bool {
				return strings.HasPrefix(d.Object, s.object) && strings.HasSuffix(d.Object, fmt.Sprintf("table %s drawbridge", want.Family))
			}), "%s, found %+v", s.name, v.Objects)
			count++
			if len(v.Access) > 0 {
				byAccess++
			}
			require.NoError(t, commit(s.table, want))
		}
		require.NoError(t, c.Close())
	}
	require.True(t, verify(t, ns, planted).Proven)
	t.Logf("%d spoilings found, %d of them by what the rules do", count, byAccess)
	require.Greater(t, count*sample, 900)
	require.Greater(t, byAccess*sample, 100)
	require.Less(t, refused, 10)
}

func outcomeOf(v enforcer.Verification) []any {
	return []any{v.Proven, len(v.Objects) + len(v.Unprovable), len(v.Access)}
}

// TestVerifyAndWhatIsForeign: what an operator or an intruder can do with nft(8) and this enforcer never writes is not taken for
// equal either.
func TestVerifyAndWhatIsForeign(t *testing.T) {
	path := netnstest.Tool(t, "nft")
	for _, tt := range []struct{ name, command, names string }{
		{"dormant", "add table inet drawbridge { flags dormant; }", "flags"},
		{"an expression that no rule here has", "insert rule inet drawbridge admission meta mark 5 accept", "admission"},
		{"an extended match", "insert rule inet drawbridge gate meta time < 5 accept", "gate"},
		{"a jump to a chain of their own", "add chain inet drawbridge theirs; insert rule inet drawbridge admission jump theirs", "theirs"},
		{"a set that evicts", "add set inet drawbridge theirs { type ipv4_addr; flags dynamic; size 5; }", "theirs"},
		{"the tables gone", "delete table inet drawbridge", "table inet drawbridge"},
		{"an ending table gone", "delete table ip6 drawbridge", "table ip6 drawbridge"},
		{"an interval more", "add element inet drawbridge custom4_orders { 198.51.100.16/28 }", "custom4_orders"},
		{"a counter", "add counter inet drawbridge theirs", `counter "theirs"`},
		{"a quota", "add quota inet drawbridge theirs { over 5 mbytes }", `quota "theirs"`},
		{"a limit", "add limit inet drawbridge theirs { rate 5/second }", `limit "theirs"`},
		{"a helper", `add ct helper inet drawbridge theirs { type "ftp" protocol tcp; }`, `ct helper "theirs"`},
		{"a time-out", "add ct timeout inet drawbridge theirs { protocol tcp; l3proto ip; policy = { established: 120 }; }", `ct timeout "theirs"`},
		{"an expectation", "add ct expectation inet drawbridge theirs { protocol tcp; dport 9; timeout 1m; size 12; l3proto ip; }", `ct expectation "theirs"`},
		{"a SYN proxy", "add synproxy inet drawbridge theirs { mss 1460; wscale 9; }", `synproxy "theirs"`},
		{"an object of an ending table", "add counter ip6 drawbridge theirs", `table ip6 drawbridge: not written by this enforcer: counter "theirs"`},
		{"a catch-all", "add element inet drawbridge ours4 { * }", "ours4"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ns := netnstest.New(t)
			mustApply(t, ns, []byte(planted))
			runNFT(t, ns, path, tt.command)
			v := verify(t, ns, planted)
			require.False(t, v.Proven)
			require.Contains(t, fmt.Sprint(v.Unprovable, v.Objects), tt.names)
			mustApply(t, ns, []byte(planted))
			require.True(t, verify(t, ns, planted).Proven, "an apply mends it")
		})
	}
}

func runNFT(t *testing.T, ns *netns.Handle, path, command string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), path, command)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	require.NoError(t, ns.Start(cmd))
	require.NoError(t, cmd.Wait(), out.String())
}

// TestAPlantedLock is found, and those of connections are not taken for one.
func TestAPlantedLock(t *testing.T) {
	h := newHost(t)
	policy := string(document(wholeRegion, `, "force_tls": true`))
	mustApply(t, h.host, []byte(policy))
	_, idle := h.dial(t, true)
	require.NotNil(t, idle)
	v := verify(t, h.host, policy)
	require.True(t, v.Proven, "a connection that has said nothing yet has a lock: %+v", v.Objects)
	secure, _ := h.dial(t, true)
	require.NoError(t, say(secure))
	require.True(t, verify(t, h.host, policy).Proven)
	require.NotContains(t, h.nft(t, "list", "set", "inet", "drawbridge", "expected"), "0x00000005", "no such connection")
	h.nft(t, "add element inet drawbridge expected { 5 . 7 }")
	v = verify(t, h.host, policy)
	require.False(t, v.Proven)
	require.Len(t, v.Objects, 1)
	require.Equal(t, "element of set expected of table inet drawbridge", v.Objects[0].Object)
	require.Contains(t, v.Objects[0].What, "is no lock that the rules would have made")
}

// TestHowToGetRidOfAPlantedLock: verify writes the line, and says what becomes of it otherwise. One that comes with what belongs to a lock is
// known by its lifetime.
func TestHowToGetRidOfAPlantedLock(t *testing.T) {
	h := newHost(t)
	policy := string(document(wholeRegion, `, "force_tls": true`))
	mustApply(t, h.host, []byte(policy))
	for _, tt := range []struct {
		planted []string
		says    []string
	}{
		{[]string{"expected { 5 . 7 timeout 9d }"}, []string{"ends by itself in 21", "nft 'delete element inet drawbridge expected { 0x00000005 . 0x00000007 }'"}},
		{[]string{"expected { 5 . 7 }"}, []string{"ends by itself in "}},
		{[]string{"expected { 5 . 7 timeout 9d }", "latest { 5 timeout 9d : 7 }"}, []string{"has a lifetime that no rule gives it", "delete element inet drawbridge latest { 0x00000005 }"}},
	} {
		for _, p := range tt.planted {
			h.nft(t, "add element inet drawbridge "+p)
		}
		v := verify(t, h.host, policy)
		require.False(t, v.Proven)
		require.Len(t, v.Objects, len(tt.planted))
		for _, says := range tt.says {
			require.Contains(t, fmt.Sprint(v.Objects), says)
		}
		for _, o := range v.Objects {
			_, line, ok := strings.Cut(o.What, "nft '")
			require.True(t, ok, o.What)
			h.nft(t, strings.TrimSuffix(line, "'"))
		}
		require.True(t, verify(t, h.host, policy).Proven)
	}
}
