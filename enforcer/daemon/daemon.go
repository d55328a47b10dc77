package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/sync/errgroup"

	"drawbridge/enforcer"
	"drawbridge/enforcer/nft"
	"drawbridge/enforcer/policy"
	"drawbridge/enforcer/reconcile"
)

const (
	// settle is how long the daemon waits for further events before it acts on a file that is being written, or was taken away:
	// programs write a file in steps. What was renamed into place is read at once.
	settle = 2 * time.Millisecond
	// patience is how long a document that cannot be read may still be on its way: a program that replaces a file in steps, or
	// writes it in place, leaves half of one in between.
	patience = 50 * time.Millisecond
	// idle is how long after a change the daemon gets ready for its tables' being deleted: changes come in rows.
	idle = 10 * time.Millisecond
	// tick is how often the daemon looks at what it would have been told by events, should one have got lost.
	tick = time.Second
)

// Options of a daemon. Policy is required.
type Options struct {
	// Policy is the file that holds the policy, or a directory of parts of it.
	Policy string
	// Snapshots keeps the last good policy.
	Snapshots Snapshots
	// Socket is the path of the socket that answers status, health and metrics; empty: none.
	Socket string
	// Listen is an address and port at which anybody who reaches it can ask for metrics and health, and for nothing else; zero: none.
	Listen netip.AddrPort
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
	// Applied is called by the loop after each policy that came into force; nil: nobody wants to know.
	Applied func(Status)
	// Alive is called by the loop itself, at least once in a second as long as it is not stuck; nil: nobody wants to know.
	Alive func()
	// Log gets what happens; nil: nothing is logged.
	Log *slog.Logger

	deaf, unmindful bool          // tests: the kernel's words get lost; nobody looks for a file's change that no event told of
	listenEvery     time.Duration // tests: how often to try to listen for denied packets; 0: listenEvery
}

// ErrNoPolicy: there is nothing to enforce: the policy is missing or refused, and no snapshot of an earlier one is whole.
var ErrNoPolicy = errors.New("no policy could be brought into force")

// daemon is a running daemon. Its loop owns the session.
type daemon struct {
	Options
	source      *source
	session     *enforcer.Session
	slots       *slots
	keeper      *keeper
	unkept      *summed    // what is in force and could not be written for the next start; nil: nothing
	suspect     bool       // the tables may have been touched without word of it
	read        []identity // of what was read last
	stage       stage      // of what is read next
	files       *fsnotify.Watcher
	kernel      *nft.Watcher
	posts       []post    // none: the tables are the daemon's own
	waiting     []written // what others wrote that nobody could look at yet
	postsToldOf sync.Once // that one is not as it should be
	state       *state
	audit       *audit
	socket      *localSocket    // nil: none
	metrics     net.Listener    // nil: none
	alone       net.Listener    // the lock; nil: a stranger has its name
	beside      *errgroup.Group // of what runs beside the loop
	clock       *wallClock
	expiry      *time.Timer                // fires when the next rule ends
	unready     *time.Timer                // fires when there is time to get ready for the tables' being deleted
	work        chan func(context.Context) // what others ask the loop to do
	foreign     chan written               // what others write to the ruleset
	watched     watched
	rest        untold // of what was mended
	told        uint32 // the generation of the last deletion that was told of
	heard       uint32 // the latest generation of somebody else of which word came and was seen to
	heardBefore uint32 // the same, when the tables were looked at last

	glass    []BreakGlass // what is open
	reminded time.Time    // when the log was told of it last
}

// Run keeps the policy in force until ctx ends; then it returns nil, and what is in force stays. It works in the network
// namespace of the calling thread, to which the calling goroutine is locked if not all threads have the same.
func Run(ctx context.Context, o Options) (err error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	d := &daemon{Options: o, state: newState(), clock: newWallClock(clockOf(o.Enforcer)), expiry: time.NewTimer(never), unready: time.NewTimer(never),
		work: make(chan func(context.Context)), foreign: make(chan written, backlog)}
	defer func() { err = errors.Join(err, d.close()) }()
	namespace, _ := NetworkNamespace() // without a name nobody takes it for theirs
	d.state.change(func(s *Status) { s.Namespace = namespace })
	if err := d.open(ctx); err != nil {
		return err
	}
	if err := d.begin(ctx); err != nil {
		return err
	}
	if err := d.watchKernel(ctx); err != nil {
		return err
	}
	d.keeper.flush() // whoever is told that this daemon is ready may rely on both copies
	defer d.keeping()()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g, ctx := errgroup.WithContext(ctx)
	d.beside = g
	d.socket.serve(ctx, g, d.handler())
	d.serveMetrics(ctx, g)
	g.Go(func() error { return d.hear(ctx) })
	g.Go(func() error { return d.sample(ctx) })
	g.Go(func() error { return d.listen(ctx) })
	var guarded sync.WaitGroup
	guarded.Add(len(d.posts))
	for at := range d.posts {
		g.Go(func() error { return d.standGuard(ctx, at, guarded.Done) })
	}
	g.Go(func() error {
		<-ctx.Done()
		return d.closeWatches()
	})
	guarded.Wait()
	if o.Ready != nil {
		o.Ready()
	}
	ended := d.loop(ctx) // on this thread: connections are cut in its namespace
	cancel()
	err = g.Wait()
	d.lookBack(ctx)
	return errors.Join(unlessCanceled(ended), unlessCanceled(err))
}

func unlessCanceled(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// keeping starts the keeper; what it returns waits until everything is kept.
func (d *daemon) keeping() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	kept := make(chan struct{})
	go func() {
		defer close(kept)
		d.keeper.run(ctx)
	}()
	return func() {
		cancel()
		<-kept
	}
}

// open opens everything that the daemon holds but for the watch on the kernel. Nothing is touched before it is sure that no other daemon
// does; the watch on the files comes next, so that nothing is missed.
func (d *daemon) open(ctx context.Context) (err error) {
	if d.alone, err = d.lock(ctx); err != nil {
		return err
	}
	if d.source, err = newSource(d.Policy, d.Await); err != nil {
		return fmt.Errorf("policy: %w", err)
	}
	if d.files, err = fsnotify.NewWatcher(); err != nil {
		return fmt.Errorf("watch the policy: %w", err)
	}
	if err := d.watch(); err != nil {
		return err
	}
	if err := d.Snapshots.clean(); err != nil {
		d.Log.Warn("snapshots", "error", err)
	}
	if d.audit, err = openAudit(d.Audit); err != nil {
		return err
	}
	d.slots = newSlots(d.Snapshots.Dir)
	d.keeper = newKeeper(d.Snapshots, d.slots, d.audit, func(err error, again bool) { d.kept(stepDisk, err, again) })
	if d.socket, err = openSocket(ctx, d.Socket); err != nil {
		return err
	}
	if err = d.openMetrics(ctx); err != nil {
		return err
	}
	d.reopenGlass()
	options := d.Enforcer
	options.Name, options.Openings = d.Policy, openings(d.glass)
	if d.session, err = enforcer.Open(options); err != nil {
		return err
	}
	if err := d.own(ctx); err != nil {
		return err
	}
	return d.openWatched(ctx)
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
	errs = append(errs, d.closeWatches())
	errs = append(errs, d.socket.close())
	if d.metrics != nil {
		_ = d.metrics.Close() // it may be closed already
	}
	if d.session != nil {
		errs = append(errs, d.session.Close())
	}
	errs = append(errs, d.watched.close()...)
	errs = append(errs, d.slots.close(), d.audit.close())
	if d.alone != nil {
		errs = append(errs, d.alone.Close()) // the last: from then on another may start
	}
	return errors.Join(errs...)
}

// begin brings the policy into force, or the last one that was good.
func (d *daemon) begin(ctx context.Context) error {
	if d.Await && d.source.missing() {
		if _, err := d.Snapshots.Load(); err != nil {
			return nil // there was never any
		}
	}
	if d.follow(ctx, "start", final) == inForce {
		return nil
	}
	document, err := d.Snapshots.Load()
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrNoPolicy, d.state.refusal(), err)
	}
	refusal := d.state.refusal()
	if d.enforce(ctx, document, time.Now(), fromSnapshot, final) != inForce {
		return fmt.Errorf("%w: %s", ErrNoPolicy, d.state.refusal())
	}
	d.state.change(func(s *Status) { s.Refused = refusal }) // still true of what the file holds
	d.Log.Warn("the last good policy is in force, not the one in the file")
	return nil
}

// watch watches the directories in which the document is now, and no others.
func (d *daemon) watch() error {
	want := d.source.watched()
	for _, dir := range d.files.WatchList() {
		if !slices.Contains(want, dir) {
			_ = d.files.Remove(dir) // it may be gone
		}
	}
	var errs []error
	for _, dir := range want {
		if err := d.files.Add(dir); err != nil {
			errs = append(errs, fmt.Errorf("watch %s: %w", dir, err))
		}
	}
	return errors.Join(errs...)
}

// loop acts on events, one at a time.
func (d *daemon) loop(ctx context.Context) error {
	wait, ticker := time.NewTimer(time.Hour), time.NewTicker(tick)
	defer wait.Stop()
	defer ticker.Stop()
	defer d.expiry.Stop()
	defer d.unready.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-d.Reload:
			d.followAudit()
			d.follow(ctx, "reload", final)
		case e, ok := <-d.files.Events:
			if !ok {
				return errors.New("the watch on the policy ended")
			}
			d.event(ctx, e, wait)
		case err := <-d.files.Errors: // an overrun: something happened
			d.Log.Warn("watch on the policy", "error", err)
			wait.Reset(settle)
		case <-wait.C:
			if d.follow(ctx, "file", d.stage) == unfinished {
				d.stage = final
				wait.Reset(patience)
			}
		case e := <-d.foreign:
			if !d.deaf {
				d.mend(ctx, e)
			}
		case do := <-d.work:
			do(ctx)
		case <-d.unready.C:
			d.prepare()
		case <-d.expiry.C:
			d.expire(ctx)
		case <-ticker.C:
			d.tick(ctx, wait)
		}
	}
}

// event acts on what happened to a file.
func (d *daemon) event(ctx context.Context, e fsnotify.Event, wait *time.Timer) {
	means := d.source.concerns(e)
	if means == unconcerned {
		return
	}
	if d.source.links {
		_ = d.watch() // what cannot be watched now is tried again by tick
	}
	d.stage = tentative
	if means == now && d.follow(ctx, "file", tentative) != unfinished {
		wait.Stop()
		return
	}
	wait.Reset(settle)
}

// tick makes good for events that got lost, and says that the loop is alive.
func (d *daemon) tick(ctx context.Context, wait *time.Timer) {
	d.state.alive()
	if d.Alive != nil {
		d.Alive()
	}
	d.lookAtClock(ctx)
	d.lookAtGlass(ctx)
	d.listenAgain(ctx)
	d.lookAtSocket(ctx)
	d.keepAgain()
	d.followAudit()
	if err := d.watch(); err != nil {
		d.Log.Warn("watch on the policy", "error", err)
	}
	d.prepare()
	if ids := d.source.identities(); !d.unmindful && ids != nil && !slices.Equal(ids, d.read) {
		d.stage = final
		wait.Reset(settle)
	}
	if err := d.lookAtTables(ctx, true); err != nil {
		d.Log.Error("could not look after the tables", "error", err)
	}
}

// stage says whether a document that cannot be read may still be on its way.
type stage int

const (
	final stage = iota // what cannot be read is refused
	tentative
)

// outcome is what became of a document.
type outcome int

const (
	refused    outcome = iota // what was in force still is
	unfinished                // likewise, and nobody was told: more of it may be to come
	inForce
)

// follow reads the policy and brings it into force.
func (d *daemon) follow(ctx context.Context, why string, at stage) outcome {
	start := time.Now()
	ids := d.source.identities()
	document, err := d.source.read()
	if err != nil && at == tentative {
		return unfinished
	}
	d.read = ids
	if err != nil {
		d.refused(why, nil, err)
		return refused
	}
	return d.enforce(ctx, document, start, why, at)
}

// fromSnapshot is why a document is brought into force that was in force before.
const fromSnapshot = "snapshot"

func (d *daemon) enforce(ctx context.Context, document []byte, start time.Time, why string, at stage) outcome {
	limitMemory(len(document))
	apply := d.session.Apply
	if why == fromSnapshot {
		apply = d.session.ApplyKept
	}
	receipt, err := apply(ctx, document)
	if err != nil && receipt.Generation == "" {
		if at == tentative && policy.IsCutOff(err) {
			return unfinished
		}
		d.refused(why, document, d.source.where(err))
		return refused
	}
	took := time.Since(start)
	if err != nil {
		d.Log.Error("in force, but not all is done", "error", err)
	}
	for _, w := range receipt.Warnings {
		d.Log.Warn(w)
	}
	checked := withSum(document)
	d.keep(checked, false)
	d.rearm()
	d.state.applied(receipt, checked.sum, took)
	d.Log.Info("in force", "why", why, "generation", receipt.Generation, "elements_added", receipt.Changed.ElementsAdded,
		"elements_deleted", receipt.Changed.ElementsDeleted, "connections_cut", receipt.Cut.Cut(), "took", took)
	d.note(entry{What: "applied", Why: why, Receipt: &receipt})
	if d.Applied != nil {
		d.Applied(d.state.now())
	}
	return inForce
}

func (d *daemon) refused(why string, document []byte, err error) {
	d.unready.Reset(idle) // the attempt may have left nothing ready
	d.state.refused(document, err)
	what := "policy refused; what was in force still is"
	if errors.Is(err, reconcile.ErrNotInForce) {
		what = "the kernel took the policy, but holds something else; ask enforce verify what is in force"
	}
	d.Log.Error(what, "why", why, "error", err)
	d.note(entry{What: "refused", Why: why, Error: err.Error()})
}

func (d *daemon) note(e entry) {
	if err := d.audit.append(e); err != nil {
		d.Log.Error("audit log", "error", err)
	}
	d.keeper.noted()
}

// followAudit has the audit log go on in a new file, if somebody has renamed or deleted the one that it had.
func (d *daemon) followAudit() {
	if err := d.audit.follow(); err != nil {
		d.Log.Error("audit log", "error", err)
	}
}
