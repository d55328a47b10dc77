package reconcile_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"drawbridge/enforcer/nft"
	"drawbridge/enforcer/reconcile"
	"drawbridge/enforcer/reconcile/reconciletest"
	"drawbridge/enforcer/ruleset"
)

// table is a table with one set of these members, and a rule that looks them up.
func table(members ...byte) ruleset.Table {
	s := ruleset.Set{Name: "members", Key: []ruleset.DataType{ruleset.TypeInetService}}
	for _, m := range members {
		s.Elements = append(s.Elements, ruleset.Element{Key: ruleset.Key([]byte{0, m})})
	}
	look := ruleset.Rule{Statements: []ruleset.Statement{ruleset.InSet{Key: []ruleset.Field{ruleset.F(ruleset.THDport)}, Set: "members"}, ruleset.Verdict{}}}
	return ruleset.Table{Family: ruleset.FamilyINET, Name: "drawbridge", Sets: []ruleset.Set{s}, Chains: []ruleset.Chain{{Name: "c", Rules: []ruleset.Rule{look}}}}
}

func reconciler(k *reconciletest.Kernel) reconcile.Reconciler {
	at := time.Unix(1000, 0)
	return reconcile.Reconciler{Kernel: k, Clock: func() time.Time { at = at.Add(time.Millisecond); return at }}
}

func requireHolds(t require.TestingT, k *reconciletest.Kernel, want ruleset.Table) {
	require.True(t, k.State.Exists)
	require.True(t, ruleset.Diff(k.State.Table, want).IsEmpty(), "%+v", k.State.Table)
}

func TestApplyCreatesChangesAndLeavesAlone(t *testing.T) {
	k := &reconciletest.Kernel{}
	first, err := reconciler(k).Apply(t.Context(), table(1))
	require.NoError(t, err)
	requireHolds(t, k, table(1))
	require.Equal(t, uint32(1), first.Generation)
	require.True(t, first.Change.CreateTable)
	require.True(t, first.ReadAt.After(first.InForceAt))
	require.Equal(t, 1, first.Attempts)

	second, err := reconciler(k).Apply(t.Context(), table(1, 2))
	require.NoError(t, err)
	requireHolds(t, k, table(1, 2))
	require.Equal(t, table(1), second.Before)
	require.Empty(t, second.Change.AddRules, "only an element was to change")
	require.Len(t, second.Change.AddElements, 1)

	third, err := reconciler(k).Apply(t.Context(), table(1, 2))
	require.NoError(t, err)
	require.Equal(t, 2, k.Commits, "nothing was to be written")
	require.Equal(t, second.Generation, third.Generation)
	require.True(t, third.Change.IsEmpty())
	require.Zero(t, third.InForceAt)
}

func TestLostRacesAreRunAgain(t *testing.T) {
	k := &reconciletest.Kernel{}
	k.Disturb = func(k *reconciletest.Kernel) {
		if k.State.Generation < 5 {
			k.Bump()
		}
	}
	receipt, err := reconciler(k).Apply(t.Context(), table(1))
	require.NoError(t, err)
	require.Equal(t, 6, receipt.Attempts)
	requireHolds(t, k, table(1))
}

// Somebody changes our own table between the reading and the writing: the change that was computed no longer fits.
func TestARaceOnTheTableItself(t *testing.T) {
	k := &reconciletest.Kernel{}
	_, err := reconciler(k).Apply(t.Context(), table(1, 2))
	require.NoError(t, err)
	once := true
	k.Disturb = func(k *reconciletest.Kernel) {
		if once {
			once = false
			k.State.Table = table(3)
			k.Bump()
		}
	}
	receipt, err := reconciler(k).Apply(t.Context(), table(1))
	require.NoError(t, err)
	require.Equal(t, table(3), receipt.Before)
	requireHolds(t, k, table(1))
}

func TestEndlessContentionEnds(t *testing.T) {
	k := &reconciletest.Kernel{Disturb: (*reconciletest.Kernel).Bump}
	receipt, err := reconciler(k).Apply(t.Context(), table(1))
	require.ErrorIs(t, err, reconcile.ErrContended)
	require.Zero(t, receipt)
	require.False(t, k.State.Exists)
	k.State = nft.State{Exists: true, Table: table(1)}
	require.ErrorIs(t, reconciler(k).Remove(t.Context()), reconcile.ErrContended)
}

func TestAnUnknownOutcomeIsReadBack(t *testing.T) {
	lost := fmt.Errorf("%w: no buffer space", nft.ErrUnknownOutcome)
	t.Run("it was applied", func(t *testing.T) {
		k := &reconciletest.Kernel{Lose: lost}
		receipt, err := reconciler(k).Apply(t.Context(), table(1))
		require.NoError(t, err)
		require.Equal(t, 1, k.Commits, "what was applied must not be sent twice")
		require.Equal(t, uint32(1), receipt.Generation)
		require.NotZero(t, receipt.InForceAt)
	})
	t.Run("it was not", func(t *testing.T) {
		k := &reconciletest.Kernel{Lose: lost, LoseBefore: true}
		tries := 0
		k.Disturb = func(k *reconciletest.Kernel) {
			if tries++; tries == 3 {
				k.Lose = nil
			}
		}
		_, err := reconciler(k).Apply(t.Context(), table(1))
		require.NoError(t, err)
		require.Equal(t, 1, k.Commits)
		requireHolds(t, k, table(1))
	})
	t.Run("removal", func(t *testing.T) {
		k := &reconciletest.Kernel{Lose: lost, State: nft.State{Exists: true, Table: table(1)}}
		require.NoError(t, reconciler(k).Remove(t.Context()))
		require.False(t, k.State.Exists)
		require.Equal(t, 1, k.Commits)
	})
}

func TestARefusalIsReportedAndChangesNothing(t *testing.T) {
	k := &reconciletest.Kernel{}
	_, err := reconciler(k).Apply(t.Context(), table(1))
	require.NoError(t, err)
	before := k.State
	broken := table(2)
	broken.Chains[0].Rules = append(broken.Chains[0].Rules, ruleset.Rule{Statements: []ruleset.Statement{ruleset.Verdict{Kind: ruleset.Jump, Chain: "nowhere"}}})
	_, err = reconciler(k).Apply(t.Context(), broken)
	require.ErrorIs(t, err, nft.ErrRejected)
	require.Equal(t, before, k.State)
}

func TestAKernelThatHoldsSomethingElseIsCaught(t *testing.T) {
	k := &reconciletest.Kernel{Ignore: true}
	_, err := reconciler(k).Apply(t.Context(), table(1))
	require.ErrorIs(t, err, reconcile.ErrNotInForce)
	require.Equal(t, 1, k.Commits)
}

func TestAForeignTableIsReplaced(t *testing.T) {
	reason := fmt.Errorf("%w: expression %q", nft.ErrForeign, "quota")
	k := &reconciletest.Kernel{State: nft.State{Generation: 7, Exists: true, Foreign: reason}}
	receipt, err := reconciler(k).Apply(t.Context(), table(1))
	require.NoError(t, err)
	require.ErrorIs(t, receipt.Repaired, nft.ErrForeign)
	requireHolds(t, k, table(1))
}

func TestRemove(t *testing.T) {
	k := &reconciletest.Kernel{}
	require.NoError(t, reconciler(k).Remove(t.Context()))
	require.Zero(t, k.Commits)
	_, err := reconciler(k).Apply(t.Context(), table(1))
	require.NoError(t, err)
	k.State.Foreign = nft.ErrForeign
	require.NoError(t, reconciler(k).Remove(t.Context()), "what cannot be decoded must go, too")
	require.False(t, k.State.Exists)
}

func TestACancelledContextWritesNothing(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	k := &reconciletest.Kernel{}
	_, err := reconciler(k).Apply(ctx, table(1))
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorIs(t, reconciler(k).Remove(ctx), context.Canceled)
	require.Zero(t, k.Commits)
}

// Whatever happens on the way, success means that the kernel holds what was wanted.
func TestSuccessMeansInForce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		k := &reconciletest.Kernel{}
		k.Disturb = func(k *reconciletest.Kernel) {
			k.Lose, k.LoseBefore = nil, false
			switch rapid.IntRange(0, 5).Draw(t, "disturbance") {
			case 0:
				k.Bump()
			case 1:
				k.State = nft.State{Generation: k.State.Generation + 1}
			case 2:
				k.State = nft.State{Generation: k.State.Generation + 1, Exists: true, Foreign: nft.ErrForeign}
			case 3:
				k.Lose = nft.ErrUnknownOutcome
			case 4:
				k.Lose, k.LoseBefore = nft.ErrUnknownOutcome, true
			}
		}
		for range rapid.IntRange(1, 5).Draw(t, "applies") {
			want := table(rapid.SliceOfNDistinct(rapid.Byte(), 0, 4, rapid.ID).Draw(t, "members")...)
			receipt, err := reconciler(k).Apply(context.Background(), want)
			if errors.Is(err, reconcile.ErrContended) {
				continue
			}
			require.NoError(t, err)
			requireHolds(t, k, want)
			require.Equal(t, k.State.Generation, receipt.Generation)
		}
	})
}

// TestADumpThatLeavesElementsOut is read again before anybody is told that the kernel holds something else.
func TestADumpThatLeavesElementsOut(t *testing.T) {
	k := &reconciletest.Kernel{Short: 3}
	receipt, err := reconciler(k).Apply(t.Context(), table(1, 2))
	require.NoError(t, err)
	require.Equal(t, 1, receipt.Attempts)
	require.Equal(t, 1, k.Commits)
	k = &reconciletest.Kernel{Short: 100}
	_, err = reconciler(k).Apply(t.Context(), table(1, 2))
	require.ErrorIs(t, err, reconcile.ErrNotInForce)
}

// TestPatch writes one change and nothing else, and believes only what it reads back.
func TestPatch(t *testing.T) {
	installed := func() *reconciletest.Kernel {
		k := &reconciletest.Kernel{}
		_, err := reconciler(k).Apply(t.Context(), table(1))
		require.NoError(t, err)
		return k
	}
	k := installed()
	receipt, err := reconciler(k).Patch(t.Context(), k.State, ruleset.Diff(table(1), table(2)))
	require.NoError(t, err)
	requireHolds(t, k, table(2))
	require.Equal(t, uint32(2), receipt.Generation)
	require.True(t, receipt.ReadAt.After(receipt.InForceAt))

	for _, tt := range []struct {
		name   string
		spoil  func(*reconciletest.Kernel)
		change ruleset.Change
		want   error
	}{
		{"somebody was faster", func(k *reconciletest.Kernel) { k.Disturb = (*reconciletest.Kernel).Bump }, ruleset.Diff(table(1), table(2)), reconcile.ErrOutdated},
		{"of another state", func(*reconciletest.Kernel) {}, ruleset.Diff(table(2), table(3)), reconcile.ErrOutdated},
		{"more than elements", func(*reconciletest.Kernel) {}, ruleset.Diff(ruleset.Table{}, table(3)), reconcile.ErrOutdated},
		{"without effect", func(k *reconciletest.Kernel) { k.Ignore = true }, ruleset.Diff(table(1), table(2)), reconcile.ErrNotInForce},
		{"lost", func(k *reconciletest.Kernel) { k.Lose = nft.ErrUnknownOutcome }, ruleset.Diff(table(1), table(2)), nft.ErrUnknownOutcome},
	} {
		t.Run(tt.name, func(t *testing.T) {
			k := installed()
			before := k.State
			tt.spoil(k)
			_, err := reconciler(k).Patch(t.Context(), before, tt.change)
			require.ErrorIs(t, err, tt.want)
			if errors.Is(tt.want, reconcile.ErrOutdated) {
				requireHolds(t, k, table(1))
			}
		})
	}
	k = installed()
	receipt, err = reconciler(k).Patch(t.Context(), k.State, ruleset.Change{})
	require.NoError(t, err)
	require.Equal(t, 1, k.Commits, "nothing was to be written")
	require.Equal(t, k.State.Generation, receipt.Generation)
}

// TestWhatWasWrittenIsToldWhereItCannotBeRead back.
func TestWhatWasWrittenIsToldWhereItCannotBeRead(t *testing.T) {
	blind := errors.New("no reading")
	k := &reconciletest.Kernel{FailAfter: blind}
	receipt, err := reconciler(k).Apply(t.Context(), table(1))
	require.ErrorIs(t, err, blind)
	require.False(t, receipt.Change.IsEmpty())
	require.NotZero(t, receipt.InForceAt)
	k.FailAfter = nil
	receipt, err = reconciler(k).Apply(t.Context(), table(1))
	require.NoError(t, err)
	require.True(t, receipt.Change.IsEmpty())
}
