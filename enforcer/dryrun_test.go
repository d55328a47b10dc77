package enforcer_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"drawbridge/enforcer"
)

// TestADryRunDropsNothing, and tells what it would have dropped.
func TestADryRunDropsNothing(t *testing.T) {
	h := newHost(t)
	var d *enforcer.DryRun
	require.NoError(t, h.host.Do(func() (err error) {
		d, err = enforcer.OpenDryRun(t.Context(), enforcer.Options{})
		return err
	}))
	require.NoError(t, d.Apply(t.Context(), document(wholeRegion, `, "force_tls": true`)))
	secure, _ := h.dial(t, true)
	require.NoError(t, say(secure))
	denied, err := d.Denied(t.Context())
	require.NoError(t, err)
	require.Empty(t, denied, "what is allowed is not listed")

	began := time.Now()
	plain, _ := h.dial(t, false)
	require.NoError(t, say(plain), "what would be refused passes")
	require.NoError(t, say(plain))
	denied, err = d.Denied(t.Context())
	require.NoError(t, err)
	require.Len(t, denied, 1)
	require.Equal(t, clientAddr, denied[0].Source)
	require.Equal(t, endpoint, denied[0].To)
	require.Equal(t, "docs", denied[0].Database)
	require.NotZero(t, denied[0].Packets)
	require.WithinRange(t, denied[0].LastAt, began.Add(-time.Second), time.Now().Add(time.Second))

	require.NoError(t, d.Apply(t.Context(), document("10.10.7.0/24", "")))
	late, _ := h.dial(t, true)
	require.NoError(t, say(late), "what would be kept out passes")
	require.ErrorIs(t, d.Apply(t.Context(), document("10.10.7.1/24", "")), enforcer.ErrRefused)
	require.NoError(t, d.Close())
	require.Empty(t, h.nft(t, "list", "ruleset"))

	mustApply(t, h.host, document(wholeRegion, ""))
	require.NoError(t, h.host.Do(func() error {
		_, err := enforcer.OpenDryRun(t.Context(), enforcer.Options{})
		require.ErrorIs(t, err, enforcer.ErrEnforcing)
		return nil
	}))
}
