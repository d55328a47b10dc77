package enforcer

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"drawbridge/enforcer/ruleset"
)

// TestObjectsOfAChange are named with what was done to them, and as many as have room in a line.
func TestObjectsOfAChange(t *testing.T) {
	region := ruleset.Set{Name: "region4", Key: []ruleset.DataType{ruleset.TypeIPv4Addr}}
	in := func(set ruleset.Set, n int) ruleset.SetElements {
		e := ruleset.SetElements{Set: set}
		for i := range n {
			e.Elements = append(e.Elements, ruleset.Element{Key: ruleset.Key([]byte{10, 0, 0, byte(i)}), Comment: "long"})
		}
		return e
	}
	require.Empty(t, objects(ruleset.Change{}))
	require.Equal(t, []string{"table inet drawbridge: made"}, objects(ruleset.Change{CreateTable: true, AddSets: []ruleset.Set{region}}))
	require.Equal(t, []string{
		"set region4: taken out 10.0.0.0, put in 10.0.0.0, 10.0.0.1, 10.0.0.2, 10.0.0.3 and 2 more",
		"chain foreign: deleted",
		"set gone: made, put in 10.0.0.0",
		"chain admission4: emptied, 2 rules written",
		"chain new: made",
	}, objects(ruleset.Change{
		DeleteElements: []ruleset.SetElements{in(region, 1)}, DeleteChains: []string{"foreign"}, AddSets: []ruleset.Set{{Name: "gone"}},
		AddElements: []ruleset.SetElements{in(region, 6), in(ruleset.Set{Name: "gone", Key: region.Key}, 1)},
		FlushChains: []string{"admission4"}, AddChains: []ruleset.Chain{{Name: "new"}},
		AddRules: []ruleset.ChainRules{{Chain: "admission4", Rules: make([]ruleset.Rule, 2)}},
	}))
	var many ruleset.Change
	for i := range maxObjects + 3 {
		many.DeleteSets = append(many.DeleteSets, fmt.Sprint("s", i))
	}
	many.AddSets = []ruleset.Set{{Name: "s0"}, {Name: fmt.Sprint("s", maxObjects+1)}}
	found := objects(many)
	require.Len(t, found, maxObjects+1)
	require.Equal(t, "set s0: deleted, made", found[0])
	require.Equal(t, "and 3 more sets and chains", found[maxObjects])
}
