package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"drawbridge/enforcer"
	"drawbridge/enforcer/policy"
)

// BreakGlass is a database that is open to everybody for a while, because somebody said so.
type BreakGlass struct {
	Database string    `json:"database"`
	Reason   string    `json:"reason"`
	Begun    time.Time `json:"begun"`
	Until    time.Time `json:"until"`
	// UserID and ProcessID are of who asked for it, as the kernel says (SO_PEERCRED, unix(7)).
	UserID    uint32 `json:"uid"`
	ProcessID int32  `json:"pid"`

	deadline time.Time // monotonic: no clock that is set back makes it last longer
}

// Opening is what the enforcer must know of it.
func (b BreakGlass) Opening() policy.Opening {
	return policy.Opening{Database: b.Database, Until: b.Until, Reason: b.Reason}
}

// Bounds of a break-glass, both inclusive.
const (
	MinBreakGlass = time.Minute
	MaxBreakGlass = 24 * time.Hour
	// MaxReason bounds its reason, in bytes.
	MaxReason = 200
	// glassReminder is how often the log is reminded of what is open.
	glassReminder = time.Minute
)

// glassName is the file of the state directory that has what is open. It has a checksum, as snapshots do.
const glassName = "break-glass.json"

// saveGlass writes what is open, to disk.
func (s Snapshots) saveGlass(open []BreakGlass) error {
	if s.Dir == "" {
		return errors.New("there is no state directory (--state)")
	}
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return err
	}
	text, err := json.Marshal(open)
	if err != nil {
		return err
	}
	return replace(filepath.Join(s.Dir, glassName), withSum(text))
}

// loadGlass reads it. Where nothing whole is, nothing is open.
func (s Snapshots) loadGlass() (open []BreakGlass, err error) {
	if s.Dir == "" {
		return nil, nil
	}
	text, err := read(filepath.Join(s.Dir, glassName))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &open)
	}
	if err != nil {
		return nil, fmt.Errorf("break-glass: %w", err)
	}
	return open, nil
}

// plausible tells whether an opening that was kept may go on: not if it has ended, nor if the clock has gone back behind its
// beginning, since then nobody knows how much of it is left.
func (b BreakGlass) plausible(now time.Time) bool {
	return b.Until.After(now) && !now.Before(b.Begun.Add(-jumped)) && b.Until.Sub(b.Begun) <= MaxBreakGlass
}

// reopenGlass takes up what was open when the daemon before ended.
func (d *daemon) reopenGlass() {
	kept, err := d.Snapshots.loadGlass()
	if err != nil {
		d.Log.Error("what was open by break-glass is not known; nothing is", "error", err)
		d.note(entry{What: "break-glass lost", Error: err.Error()})
	}
	now := d.clock.now()
	for _, b := range kept {
		if !b.plausible(now) {
			d.noteGlass("break-glass ended", "it was over when the daemon started", b)
			continue
		}
		b.deadline = time.Now().Add(b.Until.Sub(now))
		d.glass = append(d.glass, b)
		d.noteGlass("break-glass goes on", "the daemon started anew", b)
	}
	if len(d.glass) != len(kept) {
		_ = d.keepGlass() // it has told the log
	}
	d.state.opened(d.glass, 0)
}

// noteGlass says loudly what becomes of an opening.
func (d *daemon) noteGlass(what, why string, b BreakGlass) {
	d.Log.Warn(what, "database", b.Database, "why", why, "until", b.Until.UTC(), "reason", b.Reason, "uid", b.UserID, "pid", b.ProcessID)
	d.note(entry{What: what, Why: why, BreakGlass: &b, ProcessID: uint32(b.ProcessID)})
}

// keepGlass writes what is open. What cannot be written ends with the daemon; what cannot be taken out must not come back.
func (d *daemon) keepGlass() error {
	err := d.Snapshots.saveGlass(d.glass)
	if err == nil || d.Snapshots.Dir == "" {
		return err
	}
	if gone := os.Remove(filepath.Join(d.Snapshots.Dir, glassName)); gone != nil && !errors.Is(gone, os.ErrNotExist) {
		err = errors.Join(err, gone)
	}
	d.Log.Error("what is open by break-glass could not be kept for the next start", "error", err)
	return err
}

func openings(open []BreakGlass) (out []policy.Opening) {
	for _, b := range open {
		out = append(out, b.Opening())
	}
	return out
}

// setGlass brings into force that these are open and no others. What was open still is if that fails.
func (d *daemon) setGlass(ctx context.Context, open []BreakGlass) (enforcer.Receipt, error) {
	receipt, err := d.session.SetOpenings(ctx, openings(open))
	if err != nil && receipt.Generation == "" {
		return receipt, err
	}
	if err != nil {
		d.Log.Error("in force, but not all is done", "error", err)
	}
	d.glass = open
	d.rearm()
	d.state.caughtUp(receipt)
	return receipt, nil
}

// breakGlass opens a database. One that is open gets the new end.
func (d *daemon) breakGlass(ctx context.Context, b BreakGlass) (warning string, err error) {
	if err := d.session.CanOpen(b.Database); err != nil {
		return "", err
	}
	b.deadline = time.Now().Add(b.Until.Sub(b.Begun))
	next := append(d.without(b.Database), b)
	if _, err := d.setGlass(ctx, next); err != nil {
		d.noteGlass("break-glass failed", err.Error(), b)
		return "", err
	}
	if err := d.keepGlass(); err != nil {
		warning = "it ends when the daemon is started anew, as it could not be kept: " + err.Error()
	}
	d.state.opened(d.glass, 1)
	d.reminded = time.Now()
	d.noteGlass("break-glass", "asked for", b)
	return warning, nil
}

// without is what is open but for one database.
func (d *daemon) without(database string) []BreakGlass {
	return slices.DeleteFunc(slices.Clone(d.glass), func(b BreakGlass) bool { return b.Database == database })
}

// errNotOpen: nothing is to be ended.
var errNotOpen = errors.New("it is not open by break-glass")

// endGlass ends an opening before its time.
func (d *daemon) endGlass(ctx context.Context, database string, by BreakGlass) error {
	at := slices.IndexFunc(d.glass, func(b BreakGlass) bool { return b.Database == database })
	if at < 0 {
		return fmt.Errorf("%w: %s", errNotOpen, database)
	}
	b := d.glass[at]
	if _, err := d.setGlass(ctx, d.without(database)); err != nil {
		return err
	}
	kept := d.keepGlass()
	d.state.opened(d.glass, 0)
	b.UserID, b.ProcessID = by.UserID, by.ProcessID
	d.noteGlass("break-glass ended", "asked for", b)
	if d.Snapshots.Dir != "" {
		return kept
	}
	return nil
}

// lookAtGlass ends what is over, and reminds the log of what is open. It is called at each end of a rule and once in a second: what
// fails is tried again. The kernel has ended it meanwhile.
func (d *daemon) lookAtGlass(ctx context.Context) {
	if len(d.glass) == 0 {
		return
	}
	now, still := d.clock.now(), []BreakGlass{}
	for _, b := range d.glass {
		if b.Until.After(now) && time.Now().Before(b.deadline) {
			still = append(still, b)
		}
	}
	if len(still) < len(d.glass) {
		d.expireGlass(ctx, still)
	}
	if time.Since(d.reminded) < glassReminder {
		return
	}
	d.reminded = time.Now()
	for _, b := range d.glass {
		d.Log.Warn("break-glass: a database is open to everybody", "database", b.Database, "until", b.Until.UTC(), "reason", b.Reason, "uid", b.UserID)
	}
}

func (d *daemon) expireGlass(ctx context.Context, still []BreakGlass) {
	before := d.glass
	if _, err := d.setGlass(ctx, still); err != nil {
		d.Log.Error("break-glass has ended, but what it let in could not be looked for", "error", err)
		return
	}
	_ = d.keepGlass() // said already; an end that is past ends it at the next start as well
	d.state.opened(d.glass, 0)
	for _, b := range before {
		if !slices.ContainsFunc(still, func(s BreakGlass) bool { return s.Database == b.Database }) {
			d.noteGlass("break-glass ended", "its time is over", b)
		}
	}
}

// shortenGlass keeps a clock that was set back from making what is open last longer.
func (d *daemon) shortenGlass(ctx context.Context) {
	now, next := d.clock.now(), slices.Clone(d.glass)
	for i, b := range next {
		if end := now.Add(time.Until(b.deadline)); end.Before(b.Until) {
			next[i].Until, next[i].Begun = end, earlier(b.Begun, now)
		}
	}
	if len(next) == 0 || slices.Equal(next, d.glass) {
		return
	}
	if _, err := d.setGlass(ctx, next); err != nil {
		d.Log.Error("break-glass could not be shortened", "error", err)
		return
	}
	_ = d.keepGlass() // said already
	d.state.opened(d.glass, 0)
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
