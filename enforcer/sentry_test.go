package enforcer_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"drawbridge/enforcer"
	"drawbridge/enforcer/nft"
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
		done, err := s.Sentry().Restore(t.Context(), 0, nft.Deletion{})
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
		// The deletion's, before those of the denial and of the table.
		put, taken := s.Sentry().Take(receipt.KernelGeneration - 2)
		require.True(t, taken)
		require.True(t, put.Whole)
		require.Equal(t, receipt.InForceAt, put.At)
		require.Equal(t, receipt.DeniedAt, put.DeniedAt)
		require.False(t, put.Heard.After(put.DeniedAt))
		require.True(t, put.DeniedAt.Before(put.At), "first everything is denied")
		_, taken = s.Sentry().Take(receipt.KernelGeneration - 2)
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

// TestASentryDeniesWhereRulesEnd: with each second the table would be another one.
func TestASentryDeniesWhereRulesEnd(t *testing.T) {
	h := host{host: netnstest.New(t)}
	require.NoError(t, h.host.Do(func() error {
		s, err := enforcer.Open(enforcer.Options{})
		require.NoError(t, err)
		defer s.Close()
		_, err = s.Apply(t.Context(), []byte(until(time.Now().Add(time.Hour))))
		require.NoError(t, err)
		require.NoError(t, s.Prepare())
		h.nft(t, "flush", "ruleset")
		done, err := s.Sentry().Restore(t.Context(), 0, nft.Deletion{})
		require.NoError(t, err)
		require.True(t, done)
		put := s.Sentry().TakeAll()
		require.Len(t, put, 1)
		require.False(t, put[0].Whole)
		receipt, err := s.Repair(t.Context())
		require.NoError(t, err)
		require.NotZero(t, receipt.Changed.Chains)
		require.Equal(t, put[0].DeniedAt, receipt.DeniedAt)
		require.False(t, receipt.Restored)
		return nil
	}))
}

// TestPostsAnswerTogether: whoever of them denies and whoever puts the table back, it is there when all are done, and told once.
func TestPostsAnswerTogether(t *testing.T) {
	h := host{host: netnstest.New(t)}
	document := policytest.Gateway(t, 2, "198.18.0.0/24")
	var s *enforcer.Session
	within := func(fn func() error) { t.Helper(); require.NoError(t, h.host.Do(fn)) }
	within(func() (err error) { s, err = enforcer.Open(enforcer.Options{}); return err })
	const posts = 3
	s.Sentry().SetPosts(posts)
	var receipt enforcer.Receipt
	within(func() (err error) { receipt, err = s.Apply(t.Context(), document); return err })
	within(s.Prepare)
	for range 20 {
		h.nft(t, "flush", "ruleset")
		deletion := nft.Deletion{Ours: true, Generation: uint16(receipt.KernelGeneration + 1)}
		var g errgroup.Group
		var did atomic.Int32
		for post := range posts {
			g.Go(func() error {
				done, err := s.Sentry().Restore(t.Context(), post, deletion)
				if done {
					did.Add(1)
				}
				return err
			})
		}
		require.NoError(t, g.Wait())
		require.Positive(t, did.Load())
		within(func() error { requireInForce(t, document); return nil })
		done, err := s.Sentry().Restore(t.Context(), 0, deletion)
		require.NoError(t, err)
		require.False(t, done, "this deletion was answered")
		put := s.Sentry().TakeAll()
		require.Len(t, put, 1)
		require.True(t, put[0].Whole)
		require.Equal(t, receipt.KernelGeneration+1, put[0].Generation)
		require.False(t, put[0].DeniedAt.IsZero() || put[0].At.Before(put[0].DeniedAt), "%+v", put[0])
		within(func() (err error) { receipt, err = s.Repair(t.Context()); return err })
		require.True(t, receipt.Restored)
		const beside = 2 // the tables of the other families, which the sentry leaves to Repair
		require.Equal(t, put[0].Generation+2+beside, receipt.KernelGeneration, "the denial and the table, and nothing else")
	}
	within(s.Close)
}

// TestASentryReplacesNobodyElsesTable: what somebody brings into force behind the deletion stays, also where the kernel's generation is the one
// that the denial would have made.
func TestASentryReplacesNobodyElsesTable(t *testing.T) {
	h := host{host: netnstest.New(t)}
	older, newer := policytest.Gateway(t, 2, "198.18.0.0/24"), policytest.Gateway(t, 2, "198.18.1.0/24")
	require.NoError(t, h.host.Do(func() error {
		s, err := enforcer.Open(enforcer.Options{})
		require.NoError(t, err)
		receipt, err := s.Apply(t.Context(), older)
		require.NoError(t, err)
		require.NoError(t, s.Prepare())
		h.nft(t, "flush", "ruleset")
		_, err = enforcer.Apply(t.Context(), newer, enforcer.Options{})
		require.NoError(t, err)
		deletion := nft.Deletion{Ours: true, Generation: uint16(receipt.KernelGeneration + 1)}
		for range 2 {
			done, err := s.Sentry().Restore(t.Context(), 0, deletion)
			require.NoError(t, err)
			require.False(t, done)
		}
		requireInForce(t, newer)
		return s.Close()
	}))
}
