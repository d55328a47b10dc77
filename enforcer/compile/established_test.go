package compile

import (
	"testing"

	"github.com/stretchr/testify/require"

	"drawbridge/enforcer/ruleset"
)

func TestClassesThatSurviveForceTLS(t *testing.T) {
	survive := map[Class]bool{
		ClassBegun: true, ClassRequested: true, ClassHello: true, ClassAcknowledged: true, ClassAnswered: true, ClassGSS: true, ClassTLS: true,
		ClassHello | ungated: true, ClassAcknowledged | ungated: true,
	}
	for c := range classBits + 1 {
		require.Equal(t, survive[c], c.Survives(), "class %d", c)
	}
	require.False(t, Class(16).Survives())
}

func TestOnlyElementsThatLetInOpen(t *testing.T) {
	added := func(sets ...string) ruleset.Change {
		var c ruleset.Change
		for _, s := range sets {
			c.AddElements = append(c.AddElements, ruleset.SetElements{Set: ruleset.Set{Name: s}, Elements: []ruleset.Element{{Key: "x"}}})
		}
		return c
	}
	for _, set := range []string{"open4", "open6", "region4", "regional6", "cluster4", "keep4", "range4_osc-fr1", "users6_osc-fr1", "custom4_orders"} {
		require.True(t, OnlyOpens(added(set)), set)
	}
	for _, set := range []string{"force4", "force_pair6", "protected4", "peering4", "nodes4", "endpoints4", "pg4", "zone_nodes", "rules4", "open", "custom5_x"} {
		require.False(t, OnlyOpens(added(set)), set)
		require.False(t, OnlyOpens(added("open4", set)), set)
	}
	require.False(t, OnlyOpens(ruleset.Change{}), "nothing was changed: an earlier change may have been left half done")
	closing := added("open4")
	closing.DeleteElements = closing.AddElements
	require.False(t, OnlyOpens(closing))
	fresh := added("open4")
	fresh.CreateTable = true
	require.False(t, OnlyOpens(fresh))
}
