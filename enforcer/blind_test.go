package enforcer_test

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"drawbridge/enforcer"
	"drawbridge/enforcer/nft"
)

// TestAKernelThatCannotTell: what the kernel lacks is named, and a database that needs TLS is denied as a whole, never
// left open; others are served.
func TestAKernelThatCannotTell(t *testing.T) {
	h := newHost(t)
	options := enforcer.Lacking(nft.InnerPayload, nft.ConntrackID)
	blind := func(members string) error {
		return h.host.Do(func() error {
			receipt, err := enforcer.Apply(t.Context(), document(wholeRegion, members), options)
			require.NotEmpty(t, receipt.Generation, "the rest is in force")
			return err
		})
	}
	err := blind("")
	require.ErrorIs(t, err, enforcer.ErrBlind)
	plain, _ := h.dial(t, false)
	require.NoError(t, say(plain), "Force TLS is off")
	secure, raw := h.dial(t, true)
	require.NoError(t, say(secure))

	err = blind(`, "force_tls": true`)
	require.ErrorIs(t, err, enforcer.ErrBlind)
	require.ErrorIs(t, err, enforcer.ErrUnsupported)
	require.ErrorContains(t, err, string(nft.InnerPayload))
	require.ErrorContains(t, err, string(nft.ConntrackID))
	require.ErrorContains(t, err, "docs")
	ended(t, plain)
	ended(t, raw)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err = h.client.Dial(ctx, netip.AddrPortFrom(clientAddr, 0), endpoint)
	require.Error(t, err, "no packet of it passes")

	mustApply(t, h.host, document(wholeRegion, `, "force_tls": true`))
	again, _ := h.dial(t, true)
	require.NoError(t, say(again))
}
