package enforcer_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"drawbridge/enforcer"
	"drawbridge/enforcer/policy/policytest"
	"drawbridge/sim/netns/netnstest"
)

// TestASentryPutsBackNothingButWhatIsInForce: from the first word of a change on it stands by until it is prepared again.
func TestASentryPutsBackNothingButWhatIsInForce(t *testing.T) {
	h := host{host: netnstest.New(t)}
	within := func(fn func() error) { t.Helper(); require.NoError(t, h.host.Do(fn)) }
	older, newer := policytest.Gateway(t, 2, "198.18.0.0/24"), policytest.Gateway(t, 2, "198.18.1.0/24")
	var s *enforcer.Session
	within(func() (err error) { s, err = enforcer.Open(enforcer.Options{}); return err })
	apply := func(document []byte) (receipt enforcer.Receipt) {
		t.Helper()
		within(func() (err error) { receipt, err = s.Apply(t.Context(), document); return err })
		return receipt
	}
	restores := func(want bool) {
		t.Helper()
		done, err := s.Sentry().Restore(t.Context())
		require.NoError(t, err)
		require.Equal(t, want, done)
	}
	restores(false)
	apply(older)
	within(s.Prepare)
	restores(false) // it is there
	apply(newer)
	h.nft(t, "flush", "ruleset")
	restores(false) // it has the older one ready
	within(func() error { _, err := s.Repair(t.Context()); return err })
	within(s.Prepare)
	require.Empty(t, s.Sentry().TakeAll())

	apply(older)
	within(s.Prepare)
	within(func() error { // somebody else brings the newer one into force, and the session finds it there
		_, err := enforcer.Apply(t.Context(), newer, enforcer.Options{})
		return err
	})
	require.Zero(t, apply(newer).Changed)
	h.nft(t, "flush", "ruleset")
	restores(false)
	within(func() error { _, err := s.Repair(t.Context()); return err })
	within(s.Prepare)

	for range 2 { // it can do it again
		before := s.Policy()
		h.nft(t, "flush", "ruleset")
		restores(true)
		restores(false)
		within(func() error { requireInForce(t, newer); return nil })
		var receipt enforcer.Receipt
		within(func() (err error) { receipt, err = s.Repair(t.Context()); return err })
		require.NotZero(t, receipt.Changed.Chains)
		require.True(t, receipt.InForceAt.Before(receipt.ReadAt))
		put, taken := s.Sentry().Take(receipt.KernelGeneration - 1)
		require.True(t, taken)
		require.True(t, put.Whole)
		require.Equal(t, receipt.InForceAt, put.At)
		require.False(t, put.Heard.After(put.At))
		_, taken = s.Sentry().Take(receipt.KernelGeneration - 1)
		require.False(t, taken)
		require.Same(t, before, s.Policy())
		within(func() (err error) { receipt, err = s.Repair(t.Context()); return err })
		require.Zero(t, receipt.Changed, "told twice")
	}
	h.nft(t, "flush", "ruleset")
	h.nft(t, "add", "table", "inet", "drawbridge")
	restores(false) // somebody else's
	within(s.Close)
	restores(false)
}

// TestASentryStandsByWhereRulesEnd: with each second its table would be another one.
func TestASentryStandsByWhereRulesEnd(t *testing.T) {
	h := host{host: netnstest.New(t)}
	require.NoError(t, h.host.Do(func() error {
		s, err := enforcer.Open(enforcer.Options{})
		require.NoError(t, err)
		defer s.Close()
		_, err = s.Apply(t.Context(), []byte(until(time.Now().Add(time.Hour))))
		require.NoError(t, err)
		require.NoError(t, s.Prepare())
		h.nft(t, "flush", "ruleset")
		done, err := s.Sentry().Restore(t.Context())
		require.NoError(t, err)
		require.False(t, done)
		receipt, err := s.Repair(t.Context())
		require.NoError(t, err)
		require.NotZero(t, receipt.Changed.Chains)
		return nil
	}))
}
