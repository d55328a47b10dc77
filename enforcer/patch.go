package enforcer

import (
	"context"
	"errors"
	"fmt"

	"drawbridge/enforcer/compile"
	"drawbridge/enforcer/policy"
	"drawbridge/enforcer/reconcile"
	"drawbridge/enforcer/ruleset"
)

// patch brings a policy into force that differs from the one in force by nothing but rules and toggles of some databases:
// these are compiled, compared, written and read back alone, so that a change of one costs the same for a thousand. Where rules
// expire it does not: what the session remembers of the table then changes by itself. done is false
// if it left things as they were, and all of the policy must be looked at.
func (s *Session) patch(ctx context.Context, p *policy.Policy, difference policy.Difference) (receipt Receipt, done bool, err error) {
	if !difference.Databases || s.policy == nil || s.blind || len(s.options.lacking) > 0 || !s.expires.IsZero() || difference.Before.Timed() || difference.After.Timed() {
		return Receipt{}, false, nil
	}
	change, ok := s.difference(difference)
	if !ok {
		return Receipt{}, false, nil
	}
	s.changesTo(p)
	written, ok := s.write(ctx, change)
	if !ok {
		return Receipt{}, false, nil
	}
	s.isInForce(p)
	s.want = s.main.last.Table
	receipt = newReceipt(written, p, s.options.Clock())
	warnings, err := s.lookAfterEndings(ctx)
	receipt.Warnings = append(receipt.Warnings, warnings...)
	if err != nil {
		return receipt, true, fmt.Errorf("%w: %w", ErrNotCut, err)
	}
	if change.IsEmpty() || compile.OnlyOpens(change) {
		return receipt, true, nil
	}
	receipt, err = s.cut(ctx, receipt, difference.After, false)
	return receipt, true, err
}

// patchAttempts bounds how often somebody else's commits may come in between before all is looked at.
const patchAttempts = 8

// write brings a change into force where what stands is known for sure. It is not ok if all must be read: that says what is wrong.
func (s *Session) write(ctx context.Context, change ruleset.Change) (receipt reconcile.Receipt, ok bool) {
	for range patchAttempts {
		sure, err := s.main.sure(ctx)
		if err != nil || !sure {
			return receipt, false
		}
		receipt, err = reconcile.Reconciler{Kernel: s.main, Clock: s.options.Clock}.Patch(ctx, s.main.last, change)
		switch {
		case err == nil:
			return receipt, true
		case !errors.Is(err, reconcile.ErrOutdated):
			s.main.forget()
			return receipt, false
		case !s.main.Owns():
			return receipt, false
		}
		s.main.known = true // somebody wrote elsewhere: nothing of this change is in force, and nobody else can change the table
	}
	return receipt, false
}

// difference compiles what differs, which is no chain (policy.Difference). It is not ok if an element may be of more than one database.
func (s *Session) difference(d policy.Difference) (change ruleset.Change, ok bool) {
	if d.After == nil {
		return ruleset.Change{Family: ruleset.FamilyINET, Table: compile.TableName}, true
	}
	options := s.options.Compile
	options.Now = s.options.Clock()
	have, err := options.Sets(d.Before)
	if err != nil {
		return change, false
	}
	want, err := options.Sets(d.After)
	if err != nil {
		return change, false
	}
	change = ruleset.Diff(have, want)
	if !change.OnlyElements() {
		return change, false
	}
	for _, parts := range [][]ruleset.SetElements{change.DeleteElements, change.AddElements} {
		for _, e := range parts {
			if !ofOneDatabase(e.Set) {
				return change, false
			}
		}
	}
	return change, true
}

// ofOneDatabase tells whether each element of a set comes from one database: a policy gives an address and port to one
// database, and intervals of addresses are either a database's own or no database's.
func ofOneDatabase(s ruleset.Set) bool {
	return s.Interval || s.Key[len(s.Key)-1] == ruleset.TypeInetService
}
