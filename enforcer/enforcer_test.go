package enforcer_test

import (
	"encoding/json"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"drawbridge/enforcer"
	"drawbridge/enforcer/policy"
	"drawbridge/sim/netns"
	"drawbridge/sim/netns/netnstest"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

func apply(t testing.TB, ns *netns.Handle, document []byte) (enforcer.Receipt, error) {
	t.Helper()
	var receipt enforcer.Receipt
	err := ns.Do(func() (err error) {
		receipt, err = enforcer.Apply(t.Context(), document, enforcer.Options{})
		return err
	})
	return receipt, err
}

func mustApply(t testing.TB, ns *netns.Handle, document []byte) enforcer.Receipt {
	t.Helper()
	r, err := apply(t, ns, document)
	require.NoError(t, err)
	return r
}

func TestApplyAgainAndReset(t *testing.T) {
	ns := netnstest.New(t)
	document, err := os.ReadFile("compile/testdata/dedicated.json")
	require.NoError(t, err)
	reset := func() { require.NoError(t, ns.Do(func() error { return enforcer.Reset(t.Context()) })) }
	reset()
	seen := map[string]bool{}
	for range 3 {
		start := time.Now()
		receipt := mustApply(t, ns, document)
		t.Logf("%v %+v", time.Since(start), receipt)
		require.False(t, seen[receipt.Generation])
		seen[receipt.Generation] = true
		require.NotEmpty(t, receipt.Warnings)
		out, err := json.Marshal(receipt)
		require.NoError(t, err)
		require.Contains(t, string(out), `"generation":"`)
	}
	reset()
	reset()
}

func TestARefusalChangesNothing(t *testing.T) {
	ns := netnstest.New(t)
	_, err := apply(t, ns, []byte(`{"version": 1}`))
	require.ErrorIs(t, err, enforcer.ErrRefused)
	require.NotErrorIs(t, err, policy.ErrRefused)
}
