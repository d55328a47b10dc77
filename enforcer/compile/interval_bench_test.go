package compile

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
)

// BenchmarkUnion is the interval arithmetic of one set: what one database may have in rules, and what a range of the platform may hold.
func BenchmarkUnion(b *testing.B) {
	for _, n := range []int{30, 1000, 30_000} {
		for name, bits := range map[string]int{"apart": 32, "nested": 24} {
			prefixes := make([]netip.Prefix, n)
			for i := range prefixes {
				at := netip.AddrFrom4([4]byte{10, byte(i >> 15), byte(i >> 7), byte(2 * i)})
				prefixes[n-1-i] = netip.PrefixFrom(at, bits) // in descending order
			}
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					got := union(prefixes)
					require.NotEmpty(b, got)
				}
			})
		}
	}
}
