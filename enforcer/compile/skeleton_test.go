package compile_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"drawbridge/enforcer/compile"
	"drawbridge/enforcer/policy"
	"drawbridge/enforcer/ruleset"
)

// atOdds is what is wrong with a table, as far as the table itself tells.
func atOdds(t require.TestingT, o compile.Options, have ruleset.Table) []ruleset.Difference {
	want, err := o.Skeleton(have)
	require.NoError(t, err)
	return append(ruleset.Compare(have, want), compile.Inconsistencies(have)...)
}

// TestATableIsItsOwnSkeleton, whatever its policy and whatever the kernel lacks.
func TestATableIsItsOwnSkeleton(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		data, err := json.Marshal(anyDocument(t))
		require.NoError(t, err)
		p, err := policy.Parse("any", data)
		require.NoError(t, err)
		o := compile.Options{WithoutGate: rapid.Bool().Draw(t, "blind"), WithoutLog: rapid.Bool().Draw(t, "silent"), Now: time.Unix(1, 0)}
		if rapid.Bool().Draw(t, "open") {
			p, _ = p.Open([]policy.Opening{{Database: p.Databases()[0].Name(), Until: time.Unix(1000, 0)}})
		}
		table, err := o.Compile(p)
		require.NoError(t, err)
		require.Empty(t, atOdds(t, o, table))
		want, err := o.Skeleton(table)
		require.NoError(t, err)
		require.True(t, ruleset.Diff(table, want).IsEmpty())
	})
}

func TestASkeletonOfNothing(t *testing.T) {
	require.NotEmpty(t, atOdds(t, compile.Options{}, ruleset.Table{Family: ruleset.FamilyINET, Name: compile.TableName}))
}

// placed are the sets of which each element has a counterpart in another one.
var placed = []string{"ours", "speakers", "inbound", "outbound", "watched", "tlsfirst", "either", "pg", "mysql", "answers", "rules"}

// TestWhatATableTellsOfItself: each rule and chain that is missing or more is found, and each element that others rely on.
func TestWhatATableTellsOfItself(t *testing.T) {
	files, err := filepath.Glob("testdata/*.json")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		data, err := os.ReadFile(file)
		require.NoError(t, err)
		table := compiled(t, file, data)
		require.Empty(t, atOdds(t, compile.Options{}, table), file)
		finds := func(what string, spoil func(*ruleset.Table)) {
			spoiled := table
			spoiled.Sets, spoiled.Chains = slices.Clone(table.Sets), slices.Clone(table.Chains)
			spoil(&spoiled)
			require.NotEmpty(t, atOdds(t, compile.Options{}, spoiled), "%s: %s", file, what)
		}
		open := ruleset.Rule{Statements: []ruleset.Statement{ruleset.Verdict{Kind: ruleset.Accept}}}
		for i, c := range table.Chains {
			finds("nothing in "+c.Name, func(t *ruleset.Table) { t.Chains[i].Rules = nil })
			finds("accept in "+c.Name, func(t *ruleset.Table) { t.Chains[i].Rules = append([]ruleset.Rule{open}, c.Rules...) })
			for j := range c.Rules {
				finds("a rule less in "+c.Name, func(t *ruleset.Table) { t.Chains[i].Rules = slices.Delete(slices.Clone(c.Rules), j, j+1) })
			}
		}
		finds("a chain more", func(t *ruleset.Table) { t.Chains = append(t.Chains, ruleset.Chain{Name: "theirs"}) })
		finds("a set more", func(t *ruleset.Table) {
			t.Sets = append(t.Sets, ruleset.Set{Name: "theirs", Key: []ruleset.DataType{ruleset.TypeMark}})
		})
		for i, s := range table.Sets {
			if !slices.Contains(placed, strings.TrimRight(s.Name, "46")) {
				continue
			}
			for j, e := range s.Elements {
				finds("an element less in "+s.Name, func(t *ruleset.Table) { t.Sets[i].Elements = slices.Delete(slices.Clone(s.Elements), j, j+1) })
				finds("an element more in "+s.Name, func(t *ruleset.Table) {
					e.Key = e.Key[:len(e.Key)-1] + "\xff"
					t.Sets[i].Elements = append(slices.Clone(s.Elements), e)
				})
				if s.Verdicts {
					finds("another verdict in "+s.Name, func(t *ruleset.Table) {
						e := s.Elements[j]
						e.Verdict = ruleset.Verdict{Kind: ruleset.Goto, Chain: "from_nowhere4"}
						t.Sets[i].Elements = slices.Replace(slices.Clone(s.Elements), j, j+1, e)
					})
				}
			}
		}
	}
}
