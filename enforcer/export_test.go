package enforcer

import (
	"context"

	"drawbridge/enforcer/nft"
)

// Lacking are options with which the kernel is said to lack features.
func Lacking(features ...nft.Feature) Options { return Options{lacking: features} }

// SawLast has the session know of no later generation than this one.
func (s *Session) SawLast(generation uint32) { s.main.wrote.saw(generation) }

// Halves has two posts answer one deletion, of which only the second was told: the first, which heard of a later commit, denies, and the second puts the
// table in the place of that. The one that left first is remembered first.
func (w *Sentry) Halves(ctx context.Context, told nft.Deletion, firstLeaves bool) error {
	now := w.clock()
	denies, _ := w.join(nft.Deletion{}, now)
	if _, err := w.missed(ctx, w.posts[0], denies); err != nil {
		return err
	}
	w.hears(told)
	restores, _ := w.join(told, now)
	if _, err := w.missed(ctx, w.posts[1], restores); err != nil {
		return err
	}
	if _, err := w.deny(ctx, w.posts[0], denies, true); err != nil {
		return err
	}
	w.restore(ctx, w.posts[1], restores)
	for _, leaves := range []bool{firstLeaves, !firstLeaves} {
		if leaves {
			w.leave(denies)
		} else {
			w.leave(restores)
		}
	}
	return nil
}
