package nft

import (
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"drawbridge/enforcer/ruleset"
)

// elementsChange adds n ranges to a set.
func elementsChange(n int) ruleset.Change {
	set := ruleset.Set{Name: "rules", Key: []ruleset.DataType{ruleset.TypeIPv4Addr}, Interval: true}
	added := ruleset.SetElements{Set: set}
	for i := range n {
		at := func(offset int) ruleset.Key {
			return ruleset.Key(binary.BigEndian.AppendUint32(nil, uint32(10<<24+4*i+offset)))
		}
		added.Elements = append(added.Elements, ruleset.Element{Key: at(0), End: at(1)})
	}
	return ruleset.Change{Family: ruleset.FamilyINET, Table: "t", AddElements: []ruleset.SetElements{added}}
}

// BenchmarkElements is what one element more, or a whole set, takes to be written and to be read back, without the kernel.
func BenchmarkElements(b *testing.B) {
	for _, n := range []int{1, 30, 30_000} {
		change := elementsChange(n)
		messages, err := encodeChange(change, 1, false)
		require.NoError(b, err)
		b.Run(fmt.Sprintf("encode/%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, err := encodeChange(change, 1, false)
				require.NoError(b, err)
			}
		})
		b.Run(fmt.Sprintf("decode/%d", n), func(b *testing.B) {
			b.ReportAllocs()
			var raw rawSet
			for b.Loop() {
				raw.reset()
				for _, m := range messages {
					if m.Header.Type == messageType(unix.NFT_MSG_NEWSETELEM) {
						require.NoError(b, raw.take(payload(m)))
					}
				}
				got, err := raw.elementsOf(change.AddElements[0].Set)
				require.NoError(b, err)
				require.Len(b, got, n)
			}
		})
	}
}

// BenchmarkRules is a table of every statement there is: written, with the proof that it can be read, and read.
func BenchmarkRules(b *testing.B) {
	var rules []ruleset.Rule
	for _, c := range sampleTable().Chains {
		rules = append(rules, c.Rules...)
	}
	id := func() uint32 { return 1 }
	var encoded []encodedRule
	for _, r := range rules {
		e, err := encodeRule(r, id)
		require.NoError(b, err)
		if len(e.anonymous) == 0 { // their values stand in messages of their own
			encoded = append(encoded, e)
		}
	}
	none := func(string, uint32) ([][]byte, bool) { return nil, false }
	b.Run("encode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			for _, r := range rules {
				_, err := encodeRule(r, id)
				require.NoError(b, err)
			}
		}
	})
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			for _, e := range encoded {
				_, err := decodeRule(e.ops, none)
				require.NoError(b, err)
			}
		}
	})
}
