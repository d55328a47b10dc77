//go:build !operator

package main

import (
	"slices"
	"strings"
	"testing"

	"drawbridge/enforcer/compile"
	"drawbridge/enforcer/ruleset"
	"drawbridge/sim/evade"
	"drawbridge/topology"

	"github.com/stretchr/testify/require"
)

// spoiler takes something away from a table of the reference enforcer.
type spoiler struct {
	name     string
	database string // where its attempts are played
	is6      bool
	spoil    func(t *testing.T, table *ruleset.Table)
}

// without removes the rules of a chain whose comment begins so.
func without(chain, comment string) func(*testing.T, *ruleset.Table) {
	return func(t *testing.T, table *ruleset.Table) {
		t.Helper()
		c := chainOf(t, table, chain)
		before := len(c.Rules)
		c.Rules = slices.DeleteFunc(c.Rules, func(r ruleset.Rule) bool { return strings.HasPrefix(r.Comment, comment) })
		require.Less(t, len(c.Rules), before, "chain %s has no rule %q any more: name the one that takes its place", chain, comment)
	}
}

// weaker removes from every rule of a chain the statements for which match is true.
func weaker(chain string, match func(ruleset.Statement) bool) func(*testing.T, *ruleset.Table) {
	return func(t *testing.T, table *ruleset.Table) {
		t.Helper()
		c, found := chainOf(t, table, chain), false
		for i, r := range c.Rules {
			kept := slices.DeleteFunc(slices.Clone(r.Statements), match)
			found = found || len(kept) < len(r.Statements)
			c.Rules[i].Statements = kept
		}
		require.True(t, found, "chain %s has no such statement any more", chain)
	}
}

// marks makes the rules of a chain that move a connection on move it to another class.
func marks(chain string, to compile.Class) func(*testing.T, *ruleset.Table) {
	return func(t *testing.T, table *ruleset.Table) {
		t.Helper()
		c, found := chainOf(t, table, chain), false
		for i, r := range c.Rules {
			statements := slices.Clone(r.Statements)
			for j, s := range statements {
				if _, ok := s.(ruleset.SetMark); ok {
					statements[j], found = ruleset.SetMark{Mask: compile.DefaultMarkMask, Value: uint32(to) << markShift}, true
				}
			}
			c.Rules[i].Statements = statements
		}
		require.True(t, found, "chain %s moves nothing on any more", chain)
	}
}

// markShift is where DefaultMarkMask begins.
const markShift = 20

// first puts a rule at the beginning of a chain.
func first(chain string, statements ...ruleset.Statement) func(*testing.T, *ruleset.Table) {
	return func(t *testing.T, table *ruleset.Table) {
		t.Helper()
		c := chainOf(t, table, chain)
		c.Rules = append([]ruleset.Rule{{Statements: statements}}, c.Rules...)
	}
}

func both(spoilers ...func(*testing.T, *ruleset.Table)) func(*testing.T, *ruleset.Table) {
	return func(t *testing.T, table *ruleset.Table) {
		t.Helper()
		for _, s := range spoilers {
			s(t, table)
		}
	}
}

func chainOf(t *testing.T, table *ruleset.Table, name string) *ruleset.Chain {
	t.Helper()
	i := slices.IndexFunc(table.Chains, func(c ruleset.Chain) bool { return c.Name == name })
	require.GreaterOrEqual(t, i, 0, "there is no chain %s any more", name)
	return &table.Chains[i]
}

// inner matches statements about the payload from an offset, in bytes, on.
func inner(from int) func(ruleset.Statement) bool {
	return func(s ruleset.Statement) bool {
		m, ok := s.(ruleset.Match)
		return ok && m.Field.Kind == ruleset.Inner && m.Field.OffsetBits == from*8
	}
}

func strips(s ruleset.Statement) bool {
	_, ok := s.(ruleset.ResetTCPOption)
	return ok
}

func anything(ruleset.Statement) bool { return true }

func spoilers() []spoiler {
	accept := ruleset.Verdict{Kind: ruleset.Accept}
	tcp := func(flags byte) ruleset.Statement {
		return ruleset.Match{Field: ruleset.F(ruleset.TCPFlags), Mask: []byte{flags}, Op: ruleset.Eq, Value: []byte{flags}}
	}
	anonymous := func(from int) func(ruleset.Statement) bool {
		return func(s ruleset.Statement) bool {
			in, ok := s.(ruleset.InAnonymous)
			return ok && in.Field.Kind == ruleset.Inner && in.Field.OffsetBits == from*8
		}
	}
	return []spoiler{
		{name: "no sequence lock", database: "redis-shared", spoil: without("forced_payload", "out of place")},
		{name: "no sequence lock, IPv6", database: "redis-shared", is6: true, spoil: without("forced_payload", "out of place")},
		{name: "data in the SYN passes", database: "redis-shared", spoil: both(without("forced_syn", "bytes before"), weaker("forced_syn", func(s ruleset.Statement) bool {
			_, ok := s.(ruleset.ResetTCPOption)
			return ok
		}))},
		{name: "data in the SYN passes, one option is stripped", database: "mongo-dedicated", spoil: without("forced_syn", "bytes before")},
		{name: "a ninth byte behind SSLRequest", database: "pg-shared", spoil: without("test_pg_ssl", "a ninth byte")},
		{name: "a ninth byte behind SSLRequest, dedicated", database: "pg-dedicated", spoil: without("test_pg_ssl", "a ninth byte")},
		{name: "a ninth byte behind GSSENCRequest", database: "pg-shared", spoil: without("test_pg_gss", "a ninth byte")},
		{name: "anything behind MySQL's request", database: "my-shared", spoil: without("test_mysql_ssl", "a byte that is no ClientHello")},
		{name: "CLIENT_SSL is not looked at", database: "my-shared", spoil: weaker("test_mysql", func(s ruleset.Statement) bool {
			m, ok := s.(ruleset.Match)
			return ok && len(m.Mask) == 1
		})},
		{name: "a bare hello opens MySQL", database: "my-shared", spoil: weaker("test_mysql", func(s ruleset.Statement) bool {
			m, ok := s.(ruleset.InAnonymous)
			return ok && m.Field.Kind == ruleset.CTMark
		})},
		{name: "the type of a record is enough", database: "redis-shared", spoil: weaker("test_hello", inner(5))},
		{name: "the hello alone is enough", database: "redis-shared", spoil: weaker("test_hello", anonymous(0))},
		{name: "MongoDB's header is not told from TLS", database: "mongo-dedicated", spoil: weaker("test_either", anonymous(9))},
		{name: "tentative is TLS at once", database: "redis-shared", spoil: marks("hello_sent", compile.ClassTLS)},
		{name: "tentative is TLS at once, dedicated", database: "mongo-dedicated", spoil: marks("hello_sent", compile.ClassTLS)},
		{name: "tentative is acknowledged at once", database: "search-dedicated", spoil: marks("hello_sent", compile.ClassAcknowledged)},
		{name: "any request is TLS", database: "pg-shared", spoil: marks("test_pg_ssl", compile.ClassTLS)},
		{name: "a class outlives its connection", database: "redis-shared", spoil: marks("answer", compile.ClassTLS)},
		{name: "a request's place stays open", database: "pg-shared", spoil: without("place_repeated", "only a request may be repeated")},
		// Each of the two is the other's second line where the client ends its connection.
		{name: "the connection before is not forgotten", database: "redis-shared",
			spoil: both(weaker("forget", anything), without("place", "it ends without a word"))},
		{name: "what was never seen passes", database: "my-shared", spoil: first("refuse", accept)},
		{name: "packets with FIN pass", database: "redis-shared", spoil: first("forced", tcp(1), accept)},
		{name: "packets with URG pass", database: "redis-shared", spoil: first("forced", tcp(0x20), accept)},
		{name: "resets may carry data", database: "redis-shared", spoil: first("bare", accept)},
		{name: "invalid packets pass", database: "redis-shared", spoil: without("forced", "conntrack cannot tell")},
		{name: "the server may take what nobody tested", database: "redis-shared", spoil: without("judge", "the server took what nobody tested")},
		{name: "IPv6 is not looked at", database: "my-shared", is6: true, spoil: first("gate6", accept)},
	}
}

// equivalent are spoilers that nothing here catches, each for its reason: what it takes away is a second line.
var equivalent = map[string]string{
	"resets may carry data":                  "servers do not read what a reset carries",
	"a request's place stays open":           "behind a request PostgreSQL has the length of a startup packet where a ClientHello has its version, and takes none that long",
	"invalid packets pass":                   "without a connection no later rule matches, and the last one refuses",
	"the server may take what nobody tested": "the gate lets nothing pass that nobody tested",
}

// TestEvasionCatchesAWeakerGate plays the attempts against tables that lack something.
func TestEvasionCatchesAWeakerGate(t *testing.T) {
	a := newArena(t, true)
	for _, s := range spoilers() {
		t.Run(s.name, func(t *testing.T) {
			a.enforce(t, func(table *ruleset.Table) { s.spoil(t, table) })
			i := slices.IndexFunc(a.forced(), func(e topology.Endpoint) bool {
				return e.Database == s.database && e.Addr.Addr().Is6() == s.is6
			})
			to := a.forced()[i]
			d, _ := a.lab.World().Database(to.Database)
			all, err := a.field.PlayAll(t.Context(), evade.For(to, d.Model), to)
			require.NoError(t, err)
			var by []string
			for _, o := range leaks(all) {
				by = append(by, o.Attempt)
			}
			t.Logf("caught by %d: %.300q", len(by), by)
			if why, ok := equivalent[s.name]; ok {
				require.Empty(t, by, "it was held that %s", why)
				return
			}
			require.NotEmpty(t, by, "nothing gets past a gate that is weaker: %s", s.name)
		})
	}
}
