package compile_test

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"drawbridge/enforcer/compile"
	"drawbridge/enforcer/intent"
	"drawbridge/enforcer/policy"
	"drawbridge/enforcer/proof"
)

// TestTheTableIsThePolicy: over the whole address space, what is compiled lets pass whom the policy lets in, for random
// policies, with and without a gate.
func TestTheTableIsThePolicy(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		data, err := json.Marshal(anyDocument(t))
		require.NoError(t, err)
		p, err := policy.Parse("any", data)
		require.NoError(t, err)
		blind := rapid.Bool().Draw(t, "blind")
		table, err := compile.Options{WithoutGate: blind}.Compile(p)
		require.NoError(t, err)
		report, err := proof.Check(table, intent.Of(p, intent.Options{Blind: blind}))
		require.NoError(t, err)
		require.Empty(t, report.Differences)
		require.Positive(t, report.Questions)
	})
}
