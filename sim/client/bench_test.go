package client_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"drawbridge/sim/client"
)

// BenchmarkSession measures a whole session, both ends: open, query, close.
func BenchmarkSession(b *testing.B) {
	a := newAuthority(b)
	for _, c := range ports() {
		for _, encrypted := range c.ways() {
			b.Run(c.name+"/"+way(encrypted), func(b *testing.B) {
				s := serve(b, c.config(a))
				d := &dialer{addr: s.Addr()}
				for b.Loop() {
					session, err := client.Open(b.Context(), d.dial, target(a, s, c, encrypted))
					require.NoError(b, err)
					require.NoError(b, session.Query(b.Context(), "marker"))
					require.NoError(b, session.Close())
				}
			})
		}
	}
}
