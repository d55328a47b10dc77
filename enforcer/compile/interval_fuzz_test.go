package compile

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// prefixesOf reads networks of one family out of bytes: a length, then an address, again and again.
func prefixesOf(b []byte, is4 bool) []netip.Prefix {
	size := 16
	if is4 {
		size = 4
	}
	var out []netip.Prefix
	for len(b) > size && len(out) < 64 {
		a, _ := netip.AddrFromSlice(b[1 : 1+size])
		out = append(out, netip.PrefixFrom(a, int(b[0])%(a.BitLen()+1)))
		b = b[1+size:]
	}
	return out
}

// FuzzUnion: the intervals cover what the networks cover and nothing else, to the address, in order, and none touches the next.
func FuzzUnion(f *testing.F) {
	f.Add([]byte{32, 255, 255, 255, 255, 0, 1, 2, 3, 4}, true)
	f.Add([]byte{31, 10, 0, 0, 0, 32, 10, 0, 0, 2, 32, 10, 0, 0, 3, 8, 9, 0, 0, 0}, true)
	f.Add(append([]byte{128}, slices.Repeat([]byte{255}, 16)...), false)
	f.Fuzz(func(t *testing.T, b []byte, is4 bool) {
		networks := prefixesOf(b, is4)
		intervals := union(networks)
		covered := func(a netip.Addr) bool {
			return slices.ContainsFunc(networks, func(n netip.Prefix) bool { return n.Contains(a) })
		}
		inside := func(a netip.Addr) bool {
			return slices.ContainsFunc(intervals, func(i interval) bool { return i.first.Compare(a) <= 0 && a.Compare(i.last) <= 0 })
		}
		for i, one := range intervals {
			require.False(t, one.last.Less(one.first))
			if i > 0 {
				require.True(t, intervals[i-1].last.Next().Less(one.first))
			}
			for _, edge := range []netip.Addr{one.first, one.last, one.first.Prev(), one.last.Next()} {
				require.True(t, !edge.IsValid() || covered(edge) == inside(edge), "%v", edge)
			}
		}
		for _, n := range networks {
			last := lastAddr(n)
			require.True(t, n.Contains(last))
			require.False(t, last.Next().IsValid() && n.Contains(last.Next()))
			require.True(t, inside(n.Masked().Addr()) && inside(last))
		}
	})
}
