package enforcer_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"drawbridge/enforcer"
	"drawbridge/enforcer/nft"
	"drawbridge/enforcer/policy/policytest"
	"drawbridge/sim/netns/netnstest"
)

// TestADenialIsTriedAgain where somebody else has written between the deletion and the answer, also where it is all that there is to answer.
func TestADenialIsTriedAgain(t *testing.T) {
	for name, document := range map[string][]byte{
		"a denial alone":      []byte(until(time.Now().Add(time.Hour))),
		"a denial, the table": policytest.Gateway(t, 2, "198.18.0.0/24"),
	} {
		for _, posts := range []int{1, 2} {
			h := host{host: netnstest.New(t)}
			s := guarded(t, h, document, posts)
			heard := h.deletion(t, "flush", "ruleset")
			h.nft(t, "add", "table", "inet", "other")
			require.Positive(t, answer(t, s, heard, posts), "%s, %d posts", name, posts)
			put := s.Sentry().TakeAll()
			require.Len(t, put, 1)
			require.False(t, put[0].DeniedAt.IsZero())
			require.Equal(t, h.generation(t)-1, map[bool]uint32{false: put[0].Generation + 1, true: put[0].Generation + 2}[put[0].Whole], "whose deletion it was")
		}
	}
}

// TestTwoHalvesOfAnAnswer are of one deletion, although one of the posts took the commit behind it for that.
func TestTwoHalvesOfAnAnswer(t *testing.T) {
	for _, firstLeaves := range []bool{true, false} {
		h := host{host: netnstest.New(t)}
		s := guarded(t, h, policytest.Gateway(t, 2, "198.18.0.0/24"), 2)
		before := h.generation(t)
		told := h.deletion(t, "flush", "ruleset")
		h.nft(t, "add", "table", "inet", "other")
		require.NoError(t, s.Sentry().Halves(t.Context(), told, firstLeaves))
		put := s.Sentry().TakeAll()
		require.Len(t, put, 1, "the one that denied leaves first: %v", firstLeaves)
		require.True(t, put[0].Whole)
		require.Equal(t, before+1, put[0].Generation)
		require.True(t, put[0].DeniedAt.Before(put[0].At))
	}
}

// TestAPostThatLagsBehind still hears words of a deletion that was answered when the next one has been answered too.
func TestAPostThatLagsBehind(t *testing.T) {
	h := host{host: netnstest.New(t)}
	s := guarded(t, h, policytest.Gateway(t, 2, "198.18.0.0/24"), 2)
	before := h.generation(t)
	first := h.deletion(t, "flush", "ruleset")
	require.Equal(t, int32(1), answer(t, s, first, 1))
	second := h.deletion(t, "flush", "ruleset")
	require.Equal(t, int32(1), answer(t, s, second, 1))
	done, err := s.Sentry().Restore(t.Context(), 1, first)
	require.NoError(t, err)
	require.False(t, done)
	put := s.Sentry().TakeAll()
	require.Len(t, put, 2)
	require.Equal(t, []uint32{before + 1, before + 4}, []uint32{put[0].Generation, put[1].Generation})
}

// TestAnOldDeletionIsNoCulprit: the kernel's first word of the next one may say nothing of this table.
func TestAnOldDeletionIsNoCulprit(t *testing.T) {
	h := host{host: netnstest.New(t)}
	s := guarded(t, h, policytest.Gateway(t, 2, "198.18.0.0/24"), 1)
	require.Positive(t, answer(t, s, h.deletion(t, "flush", "ruleset"), 1))
	s.Sentry().TakeAll()
	h.nft(t, "add", "table", "inet", "other")
	before := h.generation(t)
	h.nft(t, "flush", "ruleset")
	require.Equal(t, int32(1), answer(t, s, nft.Deletion{}, 1))
	put := s.Sentry().TakeAll()
	require.Len(t, put, 1)
	require.Equal(t, before+1, put[0].Generation)
}

// TestARepairWaitsForNoOnesCommits: while others write without a pause, posts always ask whether the table is there.
func TestARepairWaitsForNoOnesCommits(t *testing.T) {
	h := host{host: netnstest.New(t)}
	const posts = 2
	s := guarded(t, h, policytest.Gateway(t, 2, "198.18.0.0/24"), posts)
	var repaired atomic.Bool
	ended := make(chan error, posts)
	for post := range posts {
		go func() {
			var err error
			for err == nil && !repaired.Load() {
				_, err = s.Sentry().Restore(context.Background(), post, nft.Deletion{})
			}
			ended <- err
		}()
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for range 5 {
		require.NoError(t, h.host.Do(func() error { _, err := s.Repair(ctx); return err }))
	}
	repaired.Store(true)
	for range posts {
		require.NoError(t, <-ended)
	}
}

// TestARepairProvesWhatWasPutBack, and nothing is left to be looked at.
func TestARepairProvesWhatWasPutBack(t *testing.T) {
	h := host{host: netnstest.New(t)}
	s := guarded(t, h, policytest.Gateway(t, 2, "198.18.0.0/24"), 1)
	require.Positive(t, answer(t, s, h.deletion(t, "flush", "ruleset"), 1))
	require.True(t, s.Sentry().IsPending())
	var receipt enforcer.Receipt
	require.NoError(t, h.host.Do(func() (err error) { receipt, err = s.Repair(t.Context()); return err }))
	require.True(t, receipt.Restored)
	require.False(t, s.Sentry().IsPending())
}

// TestADeletionOfRulesAloneIsAnsweredOnce: the kernel tells of each of them, and an answer that it refuses takes time that a Repair needs.
func TestADeletionOfRulesAloneIsAnsweredOnce(t *testing.T) {
	h := host{host: netnstest.New(t)}
	s := guarded(t, h, policytest.Gateway(t, 2, "198.18.0.0/24"), 1)
	emptied := h.deletion(t, "flush", "table", "inet", "drawbridge")
	require.Zero(t, answer(t, s, emptied, 1), "a table stands")
	h.nft(t, "delete", "table", "inet", "drawbridge") // so that a second answer to the first word would show
	require.Zero(t, answer(t, s, emptied, 1))
	require.Positive(t, answer(t, s, nft.Deletion{}, 1), "another word of another deletion")
}
