package enforcer

import (
	"context"
	"errors"
	"fmt"
	"time"

	"drawbridge/enforcer/nft"
	"drawbridge/enforcer/reconcile"
	"drawbridge/enforcer/ruleset"
)

// mended is what somebody else had changed of the tables that end refused connections, after a session had made them.
type mended struct {
	what       []string // each finding in words; nil: nothing that was not told
	gone       bool     // all of that is that tables were missing
	generation uint32   // of the ruleset in which all of it had been mended
	since      uint32   // the one in which nothing of it was wrong
	seen       uint32   // the one in which the tables were as they must be last; 0: the session has not made them yet
	at         time.Time
}

// found notes what was wrong with a table.
func (m *mended) found(want ruleset.Table, r reconcile.Receipt) {
	if m.seen == 0 || r.Change.IsEmpty() && r.Repaired == nil {
		return
	}
	m.generation, m.at = r.Generation, r.InForceAt
	if m.what == nil {
		m.since = m.seen
	}
	m.gone = (m.gone || m.what == nil) && r.Repaired == nil && r.Before.Name == ""
	in := want.Title()
	if r.Repaired != nil {
		m.what = append(m.what, in+": "+r.Repaired.Error())
		return
	}
	if r.Before.Name == "" {
		m.what = append(m.what, in+": missing")
		return
	}
	for _, d := range ruleset.Compare(r.Before, want) {
		m.what = append(m.what, in+": "+d.Object+": "+d.What)
	}
}

// tell adds to the receipt of a Repair what was not told.
func (m *mended) tell(r *Receipt) {
	if len(m.what) == 0 {
		return
	}
	r.Endings, r.EndingsSince, r.EndingsGeneration, r.EndingsGone = m.what, m.since, m.generation, m.gone
	if m.at.After(r.InForceAt) {
		r.InForceAt = m.at
	}
	*m = mended{seen: m.seen}
}

// applyEndings brings the ending tables into force (compile.Mark.Endings). They admit nothing, so that a kernel that
// cannot have them is worth a warning and no error. What was wrong with them is told by the next Repair.
func (s *Session) applyEndings(ctx context.Context) (warnings []string, err error) {
	seen := ^uint32(0)
	for i, want := range s.mark.Endings() {
		done, err := reconcile.Reconciler{Kernel: s.endings[i], Clock: s.options.Clock}.Apply(ctx, want)
		switch {
		case errors.Is(err, nft.ErrRejected):
			warnings = append(warnings, fmt.Sprintf("the servers' halves of refused connections stay open until the servers' own time-outs: "+
				"this kernel refuses the table %s %s (CONFIG_NFT_DUP_IPV4, CONFIG_NFT_DUP_IPV6): %v", want.Family, want.Name, err))
		case err != nil:
			return warnings, fmt.Errorf("%s: %w", want.Title(), err)
		default:
			s.mended.found(want, done)
			seen = min(seen, done.Generation)
		}
	}
	s.mended.seen = seen
	return warnings, nil
}

// lookAfterEndings brings the ending tables into force unless they are known to be.
func (s *Session) lookAfterEndings(ctx context.Context) (warnings []string, err error) {
	for _, t := range s.endings {
		if sure, err := t.sure(ctx); err != nil || !sure {
			return s.applyEndings(ctx)
		}
	}
	return nil, nil
}
