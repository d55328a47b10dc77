package addrset_test

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"drawbridge/enforcer/addrset"
)

func TestIntervals(t *testing.T) {
	p := netip.MustParsePrefix
	for _, tt := range []struct {
		name, want string
		set        addrset.Set
	}{
		{"nothing", "none", addrset.Set{}},
		{"neighbours are one", "198.51.100.0/23", addrset.Prefixes(p("198.51.101.0/24"), p("198.51.100.0/24"))},
		{"one in the other", "198.51.100.0/24", addrset.Prefixes(p("198.51.100.7/32"), p("198.51.100.0/24"))},
		{"a hole", "0.0.0.0-198.51.100.6, 198.51.100.8-255.255.255.255", addrset.All(true).Minus(addrset.Prefixes(p("198.51.100.7/32")))},
		{"the last address is not the other family's neighbour", "255.255.255.255, ::", addrset.Prefixes(p("255.255.255.255/32"), p("::/128"))},
		{"both families", "0.0.0.0/0, ::/0", addrset.All(false).Union(addrset.All(true))},
		{"up to the end", "255.255.255.0-255.255.255.254", addrset.Prefixes(p("255.255.255.0/24")).Minus(addrset.Prefixes(p("255.255.255.255/32")))},
		{"families apart", "::/0", addrset.All(false).Minus(addrset.All(true))},
		{"not an interval", "none", addrset.Of(addrset.Interval{First: netip.MustParseAddr("2.0.0.0"), Last: netip.MustParseAddr("1.0.0.0")})},
	} {
		t.Run(tt.name, func(t *testing.T) { require.Equal(t, tt.want, tt.set.String()) })
	}
}

// edges are addresses of both families at the edges of the address space.
func edges() (pool []netip.Addr) {
	for i := range 12 {
		pool = append(pool, netip.AddrFrom4([4]byte{0, 0, 0, byte(i)}), netip.AddrFrom4([4]byte{255, 255, 255, byte(255 - i)}))
		low, high := [16]byte{15: byte(i)}, [16]byte{}
		for n := range high {
			high[n] = 0xff
		}
		high[15] -= byte(i)
		pool = append(pool, netip.AddrFrom16(low), netip.AddrFrom16(high))
	}
	return pool
}

func TestArithmetic(t *testing.T) { rapid.Check(t, computesAsSetsOfAddresses(edges())) }

func FuzzArithmetic(f *testing.F) {
	for n := range 8 {
		f.Add(bytes.Repeat([]byte{byte(37 * n), 0, 0, 0, 0, 0, 0, 1}, 1+8*n))
	}
	f.Fuzz(rapid.MakeFuzz(computesAsSetsOfAddresses(edges())))
}

// computesAsSetsOfAddresses compares with sets of single addresses.
func computesAsSetsOfAddresses(pool []netip.Addr) func(*rapid.T) {
	return func(t *rapid.T) {
		draw := func(name string) (addrset.Set, map[netip.Addr]bool) {
			in := map[netip.Addr]bool{}
			var list []netip.Addr
			for _, a := range rapid.SliceOf(rapid.SampledFrom(pool)).Draw(t, name) {
				in[a], list = true, append(list, a)
			}
			return addrset.Addrs(list...), in
		}
		a, inA := draw("a")
		b, inB := draw("b")
		for _, x := range pool {
			require.Equal(t, inA[x], a.Contains(x))
			require.Equal(t, inA[x] || inB[x], a.Union(b).Contains(x))
			require.Equal(t, inA[x] && inB[x], a.Intersect(b).Contains(x))
			require.Equal(t, inA[x] && !inB[x], a.Minus(b).Contains(x))
		}
		require.True(t, a.Union(b).Equal(b.Union(a)))
		require.True(t, a.Minus(b).Union(a.Intersect(b)).Equal(a))
		require.True(t, addrset.Of(a.Union(b).Intervals()...).Equal(a.Union(b)), "canonical")
		everything := addrset.All(true).Union(addrset.All(false))
		require.True(t, everything.Minus(everything.Minus(a)).Equal(a))
	}
}
