package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/sync/errgroup"

	"drawbridge/enforcer"
	"drawbridge/enforcer/nft"
)

// settle is how long the daemon waits for further events before it acts on one: programs write a file in steps.
const settle = 2 * time.Millisecond

// Options of a daemon. Policy is required.
type Options struct {
	// Policy is the file that holds the policy, or a directory of parts of it.
	Policy string
	// Snapshots keeps the last good policy.
	Snapshots Snapshots
	// Socket is the path of the socket that answers status, health and metrics; empty: none.
	Socket string
	// Audit is the file to which changes and tampering are appended; empty: none.
	Audit string
	// NoOwner leaves the tables to anybody; the daemon then mends them.
	NoOwner bool
	// Enforcer are the enforcer's options.
	Enforcer enforcer.Options
	// Await: without any policy, wait for the first one. Until then nothing is enforced.
	Await bool
	// Reload asks for the policy to be read again.
	Reload <-chan struct{}
	// Ready is called once, when a policy is in force.
	Ready func()
	// Log gets what happens; nil: nothing is logged.
	Log *slog.Logger
}

// ErrNoPolicy: there is nothing to enforce: the policy is missing or refused, and no snapshot of an earlier one is whole.
var ErrNoPolicy = errors.New("no policy could be brought into force")

// daemon is a running daemon. Its loop owns the session.
type daemon struct {
	Options
	source  source
	session *enforcer.Session
	files   *fsnotify.Watcher
	kernel  *nft.Watcher
	state   *state
	audit   *audit
	socket  net.Listener // nil: none
}

// Run keeps the policy in force until ctx ends; then it returns nil, and what is in force stays. It works in the network
// namespace of the calling thread, which must be that of the whole process.
func Run(ctx context.Context, o Options) (err error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	d := &daemon{Options: o, state: newState()}
	defer func() { err = errors.Join(err, d.close()) }()
	if err := d.open(ctx); err != nil {
		return err
	}
	if err := d.begin(ctx); err != nil {
		return err
	}
	if o.Ready != nil {
		o.Ready()
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return d.state.serve(ctx, d.socket) })
	foreign := make(chan nft.Event)
	g.Go(func() error { return d.listen(ctx, foreign) })
	g.Go(func() error {
		<-ctx.Done()
		return d.kernel.Close()
	})
	g.Go(func() error { return d.loop(ctx, foreign) })
	if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// open opens everything that the daemon holds. The watches come first, so that nothing is missed.
func (d *daemon) open(ctx context.Context) (err error) {
	if d.source, err = newSource(d.Policy, d.Await); err != nil {
		return fmt.Errorf("policy: %w", err)
	}
	if d.files, err = fsnotify.NewWatcher(); err != nil {
		return fmt.Errorf("watch %s: %w", d.source.watched(), err)
	}
	if err := d.files.Add(d.source.watched()); err != nil {
		return fmt.Errorf("watch %s: %w", d.source.watched(), err)
	}
	if d.audit, err = openAudit(d.Audit); err != nil {
		return err
	}
	if d.socket, err = listen(ctx, d.Socket); err != nil {
		return err
	}
	if d.kernel, err = nft.Watch(); err != nil {
		return err
	}
	options := d.Enforcer
	options.Name = d.Policy
	if d.session, err = enforcer.Open(options); err != nil {
		return err
	}
	return d.own(ctx)
}

// own makes the tables the daemon's, where the kernel can.
func (d *daemon) own(ctx context.Context) error {
	if d.NoOwner {
		return nil
	}
	err := d.session.Own(ctx)
	if errors.Is(err, enforcer.ErrUnsupported) {
		d.Log.Warn("others can change the tables; they are watched and mended", "reason", err)
		return nil
	}
	return err
}

func (d *daemon) close() error {
	var errs []error
	if d.files != nil {
		errs = append(errs, d.files.Close())
	}
	if d.kernel != nil {
		_ = d.kernel.Close() // it may be closed already
	}
	if d.socket != nil {
		_ = d.socket.Close() // likewise
	}
	if d.session != nil {
		errs = append(errs, d.session.Close())
	}
	return errors.Join(append(errs, d.audit.close())...)
}

// begin brings the policy into force, or the last one that was good.
func (d *daemon) begin(ctx context.Context) error {
	if d.Await && d.source.missing() {
		if _, err := d.Snapshots.Load(); err != nil {
			return nil // there was never any
		}
	}
	if d.follow(ctx, "start") {
		return nil
	}
	document, err := d.Snapshots.Load()
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrNoPolicy, d.state.refusal(), err)
	}
	refusal := d.state.refusal()
	if !d.enforce(ctx, document, time.Now(), "snapshot") {
		return fmt.Errorf("%w: %s", ErrNoPolicy, d.state.refusal())
	}
	d.state.change(func(s *Status) { s.Refused = refusal }) // still true of what the file holds
	d.Log.Warn("the last good policy is in force, not the one in the file")
	return nil
}

// loop acts on events, one at a time.
func (d *daemon) loop(ctx context.Context, foreign <-chan nft.Event) error {
	wait := time.NewTimer(0)
	if !wait.Stop() {
		<-wait.C
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-d.Reload:
			d.follow(ctx, "reload")
		case e, ok := <-d.files.Events:
			if !ok {
				return errors.New("the watch on the policy ended")
			}
			if d.source.concerns(e) {
				wait.Reset(settle)
			}
		case err := <-d.files.Errors: // an overrun: something happened
			d.Log.Warn("watch on the policy", "error", err)
			wait.Reset(settle)
		case <-wait.C:
			d.follow(ctx, "file")
		case e := <-foreign:
			d.mend(ctx, e)
		}
	}
}

// listen passes on what others write to the ruleset.
func (d *daemon) listen(ctx context.Context, foreign chan<- nft.Event) error {
	for {
		events, err := d.kernel.Next()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			return err
		}
		for _, e := range events {
			select {
			case foreign <- e:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
}

// follow reads the policy and brings it into force. It tells whether it did; what was in force stays if it did not.
func (d *daemon) follow(ctx context.Context, why string) bool {
	start := time.Now()
	document, err := d.source.read()
	if err != nil {
		d.refused(why, err)
		return false
	}
	return d.enforce(ctx, document, start, why)
}

func (d *daemon) enforce(ctx context.Context, document []byte, start time.Time, why string) bool {
	receipt, err := d.session.Apply(ctx, document)
	if err != nil && receipt.Generation == "" {
		d.refused(why, err)
		return false
	}
	took := time.Since(start)
	if err != nil {
		d.Log.Error("in force, but not all is done", "error", err)
	}
	for _, w := range receipt.Warnings {
		d.Log.Warn(w)
	}
	if err := d.Snapshots.Save(document); err != nil {
		d.Log.Error("the policy could not be kept for the next start", "error", err)
	}
	d.state.applied(receipt, document, took)
	d.Log.Info("in force", "why", why, "generation", receipt.Generation, "elements_added", receipt.Changed.ElementsAdded,
		"elements_deleted", receipt.Changed.ElementsDeleted, "connections_cut", receipt.Cut.Cut(), "took", took)
	d.note(entry{What: "applied", Why: why, Receipt: &receipt})
	return true
}

func (d *daemon) refused(why string, err error) {
	d.state.refused(err)
	d.Log.Error("policy refused; what was in force still is", "why", why, "error", err)
	d.note(entry{What: "refused", Why: why, Error: err.Error()})
}

// mend repairs what somebody else's commit did to the tables, unless they belong to this process. Generations that the
// session itself made are no news.
func (d *daemon) mend(ctx context.Context, e nft.Event) {
	if d.session.Owns() || e.Generation != 0 && d.session.Wrote(e.Generation) {
		return
	}
	start := time.Now()
	receipt, err := d.session.Repair(ctx)
	if err != nil {
		d.Log.Error("could not look after the tables", "error", err)
		if receipt.Generation == "" {
			return
		}
	}
	if receipt.Changed == (enforcer.Changed{}) && receipt.Repaired == "" {
		return
	}
	took := time.Since(start)
	d.state.tampered(receipt, took)
	d.Log.Error("somebody changed the tables; mended", "pid", e.ProcessID, "program", e.ProcessName, "took", took, "what", receipt.Repaired)
	d.note(entry{What: "tampered", ProcessID: e.ProcessID, Program: e.ProcessName, Receipt: &receipt})
}

func (d *daemon) note(e entry) {
	if err := d.audit.append(e); err != nil {
		d.Log.Error("audit log", "error", err)
	}
}
