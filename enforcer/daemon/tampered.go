package daemon

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"drawbridge/enforcer"
	"drawbridge/enforcer/nft"
)

// written is what somebody wrote to the ruleset.
type written struct {
	nft.Event
	at time.Time // when the kernel told of it
	// unheard: no word of it is waited for any more. Otherwise, without a generation, some words were lost, and others may be to come.
	unheard bool
}

// watchKernel begins to hear of others' commits, and mends what they have done before that. As soon as anybody on the machine hears of
// commits, the kernel writes a message about each element, which would make the first installation a fifth slower.
func (d *daemon) watchKernel(ctx context.Context) (err error) {
	if d.kernel, err = nft.Watch(); err != nil {
		return err
	}
	if !d.session.Owns() {
		if err := d.postGuards(); err != nil {
			return err
		}
	}
	d.prepare()
	return d.lookAtTables(ctx, false)
}

// closeWatches ends those who listen to the kernel.
func (d *daemon) closeWatches() error {
	var errs []error
	if d.kernel != nil {
		errs = append(errs, d.kernel.Close())
	}
	for _, p := range d.posts {
		errs = append(errs, p.deletions.Close())
	}
	return errors.Join(errs...)
}

// prepare gets ready for the tables' being deleted. It takes nothing where the tables are the daemon's own.
func (d *daemon) prepare() {
	if err := d.session.Prepare(); err != nil {
		d.Log.Warn("should the tables be deleted, mending them will take longer", "error", err)
	}
}

// lookAtTables mends what was done to the tables without word of it. Where words come, only what is found twice in a row is without: of the
// rest the word, which says who it was, is on its way. So it may be even then, behind so many others that they have not all been seen to, as long as
// these keep coming.
func (d *daemon) lookAtTables(ctx context.Context, wordsCome bool) error {
	untouched, err := d.session.Untouched(ctx)
	if err != nil {
		return err
	}
	silent := !wordsCome || d.heard == d.heardBefore
	again := d.suspect
	d.heardBefore = d.heard
	d.suspect = !untouched || len(d.waiting) > 0 || d.rest.what != nil ||
		d.session.Sentry().HasUntold() || d.session.Sentry().IsPending()
	if d.suspect && (again || !wordsCome) {
		d.mend(ctx, written{at: time.Now(), unheard: silent})
	}
	return nil
}

// listen passes on what others write to the ruleset.
func (d *daemon) listen(ctx context.Context) error {
	for {
		events, err := d.kernel.Next()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			return err
		}
		at := time.Now()
		for _, e := range events {
			select {
			case d.foreign <- written{Event: e, at: at}:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
}

// arrived are the events that have come by now.
func (d *daemon) arrived() (all []written) {
	for {
		select {
		case e := <-d.foreign:
			all = append(all, e)
		default:
			return all
		}
	}
}

// mend repairs what somebody else's commits did to the tables, unless they belong to this process. Generations that the
// session itself made are no news. Where it fails, it is tried again with the next tick at the latest.
func (d *daemon) mend(ctx context.Context, all ...written) {
	all = d.others(slices.Concat(d.waiting, all, d.arrived()))
	d.waiting = nil
	if d.session.Owns() || len(all) == 0 {
		return
	}
	receipt, err := d.session.Repair(ctx)
	if err != nil {
		d.Log.Error("could not look after the tables", "error", err)
	}
	if receipt.Generation == "" {
		d.wait(all)
		return
	}
	d.suspect = false
	// What was written meanwhile may be what this Repair has found, or something that it has not seen.
	later := slices.DeleteFunc(d.others(d.arrived()), func(e written) bool {
		seen := e.Generation != 0 && e.Generation <= receipt.KernelGeneration
		if seen {
			all = append(all, e)
		}
		return seen
	})
	if d.tell(all, later, receipt) {
		d.prepare() // who did it once may do it again
	}
	d.again(later)
}

// again has the loop look at what others wrote when it has seen to everything else.
func (d *daemon) again(later []written) {
	for _, e := range later {
		select {
		case d.foreign <- e:
		default:
			d.wait([]written{e})
		}
	}
}

// maxWaiting bounds what is kept of whose commits nobody could look at yet: who deleted is among the first or the last.
const maxWaiting = 256

// wait keeps what others wrote until it can be looked at.
func (d *daemon) wait(all []written) {
	d.waiting = append(d.waiting, all...)
	if n := len(d.waiting); n > maxWaiting {
		d.waiting = slices.Delete(d.waiting, maxWaiting/2, n-maxWaiting/2)
	}
}

// others leaves out what the session itself wrote.
func (d *daemon) others(all []written) []written {
	return slices.DeleteFunc(all, func(e written) bool { return e.Generation != 0 && d.session.Wrote(e.Generation) })
}

// tell notes what was done to the tables, and by which of some commits. It tells nothing if nothing was. later came after the main table
// had been read, and before the others were, if at all.
func (d *daemon) tell(all, later []written, receipt enforcer.Receipt) (told bool) {
	for _, e := range all {
		if e.Generation != 0 && int32(e.Generation-d.heard) > 0 {
			d.heard = e.Generation
		}
	}
	for _, e := range knownFirst(all) {
		rest := d.rest.of(e, d.heard)
		for _, put := range d.restoredAfter(e) {
			r := receipt.After(put) // a Repair tells of the last one, if of any
			r.Endings, rest = append(slices.Clone(r.Endings), rest...), nil
			d.tampered(e.since(put), r)
			told, d.told = true, put.Generation
		}
		if rest != nil {
			d.tampered(e, enforcer.Receipt{Endings: rest, InForceAt: receipt.InForceAt})
			told = true
		}
	}
	d.waitOn(all)
	// What a Repair has found by itself. Of what the sentry restored, the word of who it was may be on its way.
	switch {
	case told || receipt.Restored:
	case receipt.Changed != enforcer.Changed{} || receipt.Repaired != "":
		deletion, known := d.session.Sentry().Deletion(receipt.KernelGeneration)
		d.tampered(culprit(all, receipt.KernelGeneration, deletion, known), receipt)
		if told = true; known {
			d.told = deletion
		}
	case len(receipt.Endings) > 0:
		told = d.tellEndings(slices.Concat(all, later), receipt)
	}
	return told
}

// knownFirst are the commits whose writers are known before the words that were lost: only what none of those did was one of these.
func knownFirst(all []written) []written {
	return slices.SortedStableFunc(slices.Values(all), func(a, b written) int {
		return cmp.Compare(lostWords(a), lostWords(b))
	})
}

// lostWords is 1 of what stands for words that were lost, and 0 of a word.
func lostWords(e written) int {
	if e.Generation == 0 {
		return 1
	}
	return 0
}

// waitOn keeps that words were lost as long as it does not show whether one of them was of what is still to be told: words come in order, so that this
// is known from the next one on.
func (d *daemon) waitOn(all []written) {
	lost := slices.IndexFunc(all, func(e written) bool { return e.Generation == 0 && !e.unheard })
	if lost >= 0 && (d.session.Sentry().HasUntold() || d.rest.what != nil) {
		d.wait(all[lost : lost+1])
	}
}

// tellEndings tells of tables that end refused connections, where all else was as it must be: for a deletion of everything, as the sentry has put
// all else back, and has it told by itself.
func (d *daemon) tellEndings(all []written, receipt enforcer.Receipt) (told bool) {
	deletion, known := d.session.Sentry().Deleted(receipt.EndingsGeneration)
	e := culprit(all, receipt.EndingsGeneration, deletion, known)
	switch {
	case !known && receipt.EndingsGone && int32(d.told-receipt.EndingsSince) > 0: // by what was told already
		d.Log.Warn("mended what else had been deleted", "what", strings.Join(receipt.Endings, "; "))
	case known && (e.Generation != deletion || d.session.Sentry().HasUntold()): // what was put back or the word of who it was is on its way
		d.rest = untold{deletion, append(d.rest.what, receipt.Endings...)}
		if e.Generation == deletion {
			d.wait([]written{e})
		}
	default:
		_, _ = d.session.Sentry().Deletion(receipt.EndingsGeneration)
		d.tampered(e, receipt)
		return true
	}
	return false
}

// untold is what was found mended after a deletion of which no word has come.
type untold struct {
	generation uint32
	what       []string
}

// of returns it, once, if it is a commit's, or if words were lost up to the one that was heard last, and nobody knows.
func (u *untold) of(e written, heard uint32) (what []string) {
	switch {
	case e.Generation != 0 && e.Generation != u.generation:
		return nil
	case e.Generation == 0 && !e.unheard && int32(u.generation-heard) > 0:
		return nil
	}
	what, u.what = u.what, nil
	return what
}

// culprit is the commit that deleted of the tables, if that is known, and otherwise the last one that a Repair can have found which had mended
// them in this generation. A deletion that is known need not be among them.
func culprit(all []written, mended, deletion uint32, known bool) (last written) {
	last = all[0]
	for _, e := range all {
		if known && e.Generation == deletion {
			return e
		}
		if e.Generation < mended {
			last = e
		}
	}
	return last
}

// restoredAfter is what the sentry put back where this commit had deleted it; where nobody knows whose commit it was, all that it did of which no word
// can be to come.
func (d *daemon) restoredAfter(e written) []enforcer.Restored {
	switch {
	case e.unheard:
		return d.session.Sentry().TakeAll()
	case e.Generation == 0:
		return d.session.Sentry().TakeUntil(d.heard)
	}
	if put, ok := d.session.Sentry().Take(e.Generation); ok {
		return []enforcer.Restored{put}
	}
	return nil
}

// since is what was written, known as soon as the sentry knew.
func (e written) since(put enforcer.Restored) written {
	if put.Heard.Before(e.at) {
		e.at = put.Heard
	}
	return e
}

// tampered notes what somebody did, and what became of it.
func (d *daemon) tampered(e written, receipt enforcer.Receipt) {
	var took time.Duration // 0: it is not known to be in force
	if !receipt.InForceAt.IsZero() {
		took = receipt.InForceAt.Sub(e.at)
	}
	closed := took
	if !receipt.DeniedAt.IsZero() {
		closed = receipt.DeniedAt.Sub(e.at)
	}
	what := strings.Join(slices.DeleteFunc(slices.Concat([]string{receipt.Repaired}, receipt.Objects, receipt.Endings), func(s string) bool { return s == "" }), "; ")
	d.state.tampered(receipt, Tampering{At: e.at, ProcessID: e.ProcessID, Program: e.ProcessName, Took: took, Closed: closed})
	d.Log.Error("somebody changed the tables; mended", "pid", e.ProcessID, "program", e.ProcessName, "closed", closed, "took", took,
		"what", what)
	d.note(entry{What: "tampered", Why: what, ProcessID: e.ProcessID, Program: e.ProcessName, Receipt: &receipt})
}
