package ruleset_test

import (
	"encoding/binary"
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"drawbridge/enforcer/ruleset"
)

// BenchmarkDiff compares tables of which one element differs, and such that are equal, with one set of so many elements.
func BenchmarkDiff(b *testing.B) {
	for _, n := range []int{30, 3000, 300_000} {
		have := endpoints("s")
		for i := range n {
			have.Elements = append(have.Elements, ruleset.Element{Key: ruleset.Key(binary.BigEndian.AppendUint32(nil, uint32(i)))})
		}
		want := have
		want.Elements = append(slices.Clone(have.Elements), ruleset.Element{Key: "more"})
		for name, to := range map[string]ruleset.Set{"one-more": want, "equal": have} {
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					change := ruleset.Diff(table([]ruleset.Set{have}), table([]ruleset.Set{to}))
					require.Equal(b, len(to.Elements) == n, change.IsEmpty())
				}
			})
		}
	}
}
