package enforcer_test

import (
	"errors"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"drawbridge/enforcer"
	"drawbridge/enforcer/compile"
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

// deletion does something by nft(8) and returns the kernel's first word of it, as the posts hear it.
func (h *host) deletion(t *testing.T, args ...string) (heard nft.Deletion) {
	t.Helper()
	var words *nft.DeletionWatcher
	require.NoError(t, h.host.Do(func() (err error) { words, err = nft.WatchDeletions(compile.TableName); return err }))
	h.nft(t, args...)
	for !heard.Ours {
		var err error
		heard, err = words.Next()
		require.NoError(t, err)
	}
	require.NoError(t, words.Close())
	return heard
}

// generation is the kernel's.
func (h *host) generation(t *testing.T) (generation uint32) {
	t.Helper()
	require.NoError(t, h.host.Do(func() error {
		c, err := nft.Open(compile.TableName)
		require.NoError(t, err)
		generation, err = c.Generation(t.Context())
		return errors.Join(err, c.Close())
	}))
	return generation
}

// guarded is a session whose posts stand ready.
func guarded(t *testing.T, h host, document []byte, posts int) (s *enforcer.Session) {
	t.Helper()
	require.NoError(t, h.host.Do(func() (err error) {
		if s, err = enforcer.Open(enforcer.Options{}); err != nil {
			return err
		}
		s.Sentry().SetPosts(posts)
		_, err = s.Apply(t.Context(), document)
		return errors.Join(err, s.Prepare())
	}))
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

// answer has all posts answer one deletion at the same time, and tells how many say that something was put back.
func answer(t *testing.T, s *enforcer.Session, heard nft.Deletion, posts int) int32 {
	t.Helper()
	var g errgroup.Group
	var did atomic.Int32
	for post := range posts {
		g.Go(func() error {
			done, err := s.Sentry().Restore(t.Context(), post, heard)
			if done {
				did.Add(1)
			}
			return err
		})
	}
	require.NoError(t, g.Wait())
	return did.Load()
}

// TestPostsAnswerTogether: whoever of them denies and whoever puts the table back, it is there when all are done, and told once, also
// where the kernel tells of one deletion again, of the replaced denial, and of more than was understood.
func TestPostsAnswerTogether(t *testing.T) {
	h := host{host: netnstest.New(t)}
	document := policytest.Gateway(t, 2, "198.18.0.0/24")
	const posts = 3
	s := guarded(t, h, document, posts)
	for i := range 20 {
		before := h.generation(t)
		heard := h.deletion(t, "flush", "ruleset")
		require.Equal(t, uint16(before+1), heard.Generation)
		require.Positive(t, answer(t, s, heard, posts))
		require.Equal(t, before+3, h.generation(t), "the denial and the table, and nothing else")
		require.NoError(t, h.host.Do(func() error { requireInForce(t, document); return nil }))
		require.Zero(t, answer(t, s, heard, posts), "this deletion was answered")
		require.Zero(t, answer(t, s, nft.Deletion{}, posts), "nothing is missing")
		put := s.Sentry().TakeAll()
		require.Len(t, put, 1)
		require.True(t, put[0].Whole)
		require.Equal(t, before+1, put[0].Generation)
		require.False(t, put[0].DeniedAt.IsZero() || put[0].At.Before(put[0].DeniedAt), "%+v", put[0])
		var receipt enforcer.Receipt
		require.NoError(t, h.host.Do(func() (err error) { receipt, err = s.Repair(t.Context()); return err }))
		require.True(t, receipt.Restored)
		require.False(t, s.Sentry().IsPending(), i)
	}
}

// TestPostsHearNothingOfTheirOwn: the replaced denial is a deletion too.
func TestPostsHearNothingOfTheirOwn(t *testing.T) {
	h := host{host: netnstest.New(t)}
	s := guarded(t, h, policytest.Gateway(t, 2, "198.18.0.0/24"), 1)
	var words *nft.DeletionWatcher
	require.NoError(t, h.host.Do(func() (err error) { words, err = nft.WatchDeletions(compile.TableName); return err }))
	heard := h.deletion(t, "flush", "ruleset")
	require.Equal(t, int32(1), answer(t, s, heard, 1))
	after := h.generation(t)
	for own := (nft.Deletion{}); own.Generation != uint16(after); {
		var err error
		own, err = words.Next()
		require.NoError(t, err)
		require.True(t, own.Generation != uint16(after) || own.Writer != heard.Writer)
		require.Zero(t, answer(t, s, own, 1))
	}
	require.NoError(t, words.Close())
	put := s.Sentry().TakeAll()
	require.Len(t, put, 1)
	require.Equal(t, after-2, put[0].Generation)
	_, known := s.Sentry().Deletion(after)
	require.False(t, known, "that one was put back")
}

// TestASentryReplacesNobodyElsesTable: what somebody makes right behind the deletion stays, although the kernel's generation is the
// one that the denial would have made.
func TestASentryReplacesNobodyElsesTable(t *testing.T) {
	h := host{host: netnstest.New(t)}
	const posts = 2
	s := guarded(t, h, policytest.Gateway(t, 2, "198.18.0.0/24"), posts)
	for range 5 {
		before := h.generation(t)
		heard := h.deletion(t, "flush", "ruleset")
		h.nft(t, "add", "table", "inet", "drawbridge")
		require.Equal(t, before+2, h.generation(t))
		require.Zero(t, answer(t, s, heard, posts))
		require.Equal(t, before+2, h.generation(t))
	}
}

// TestADeletionIsKnownAfterManyCommitsOfOthers: of its generation the kernel tells the last 16 bits.
func TestADeletionIsKnownAfterManyCommitsOfOthers(t *testing.T) {
	h := host{host: netnstest.New(t)}
	s := guarded(t, h, policytest.Gateway(t, 2, "198.18.0.0/24"), 1)
	for _, looked := range []bool{true, false} {
		before := h.generation(t)
		s.SawLast(before - 40_000) // as if so many had come since, and been looked at, or not
		if looked {
			require.NoError(t, h.host.Do(func() error { _, err := s.Untouched(t.Context()); return err }))
		}
		require.Equal(t, int32(1), answer(t, s, h.deletion(t, "flush", "ruleset"), 1))
		put := s.Sentry().TakeAll()
		require.Len(t, put, 1)
		require.Equal(t, before+1, put[0].Generation)
		require.True(t, put[0].Whole)
		require.NoError(t, h.host.Do(func() error { _, err := s.Repair(t.Context()); return err }))
	}
}

// TestARepairWaitsForThePosts: what they put back beside it is proven by it.
func TestARepairWaitsForThePosts(t *testing.T) {
	h := host{host: netnstest.New(t)}
	s := guarded(t, h, policytest.Gateway(t, 5, "198.18.0.0/24"), 2)
	for i := range 20 {
		h.nft(t, "flush", "ruleset")
		begun, ended := make(chan bool), make(chan error)
		go func() {
			close(begun)
			_, err := s.Sentry().Restore(t.Context(), 1, nft.Deletion{})
			ended <- err
		}()
		<-begun
		for range 500 * i { // so that the Repair comes in its middle now and then
			runtime.Gosched()
		}
		require.NoError(t, h.host.Do(func() error { _, err := s.Repair(t.Context()); return err }))
		require.NoError(t, <-ended)
		require.False(t, s.Sentry().IsPending(), i)
		s.Sentry().TakeAll()
	}
}
