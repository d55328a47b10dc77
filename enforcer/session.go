package enforcer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"drawbridge/enforcer/compile"
	"drawbridge/enforcer/cut"
	"drawbridge/enforcer/nft"
	"drawbridge/enforcer/policy"
	"drawbridge/enforcer/ruleset"
)

// Session holds the enforcer's tables of one network namespace over lasting sockets, and remembers what stands there, so
// that a change costs what it changes. Use it from one goroutine at a time.
type Session struct {
	options Options
	mark    compile.Mark
	main    *remembering
	endings []*remembering
	mended  mended  // what was found wrong with endings
	unread  Receipt // of what a Repair wrote, and could not read back
	reader  policy.Reader
	base    *policy.Policy // the last document that came into force
	policy  *policy.Policy // the last that came into force; nil: none did
	want    ruleset.Table  // its table as it was read back; the zero value if none did
	blind   bool           // it came into force without a gate
	expires time.Time      // when the next of its rules does; zero: never
	// unproven: what stands is not known since a Repair that failed.
	unproven bool
	cutter   *cut.Cutter // nil: nothing was to be cut yet
	sentry   *Sentry     // puts the table back that somebody deletes
}

// Open opens a session in the network namespace of the calling thread. It changes nothing. The caller closes it; what is
// in force stays.
func Open(options Options) (s *Session, err error) {
	options = options.withDefaults()
	mark, err := compile.NewMark(options.Compile.MarkMask)
	if err != nil {
		return nil, err
	}
	s = &Session{options: options, mark: mark, reader: policy.Reader{Name: options.Name}}
	wrote := &generations{}
	s.sentry = newSentry(wrote, options.Clock)
	for _, family := range managed {
		kernel, err := nft.OpenFamily(family, compile.TableName)
		if err != nil {
			return nil, errors.Join(err, s.Close())
		}
		s.sentry.own(kernel)
		if family == ruleset.FamilyINET {
			s.main = &remembering{Conn: kernel, wrote: wrote}
		} else {
			s.endings = append(s.endings, &remembering{Conn: kernel, wrote: wrote})
		}
	}
	return s, nil
}

// Own makes the session the owner of its tables, so that no other program can change them (kernel 6.9). It must be called
// before anything is applied. Errors: nft.ErrOwned, ErrUnsupported.
func (s *Session) Own(ctx context.Context) error {
	missing, err := s.main.Missing(ctx)
	if err != nil {
		return err
	}
	for _, f := range missing {
		if f == nft.OwnedTable {
			return fmt.Errorf("%w: %s", ErrUnsupported, f)
		}
	}
	for _, t := range s.tables() {
		if err := t.Own(ctx); err != nil {
			return err
		}
	}
	return nil
}

// tables are all that the session holds, the one that admits first.
func (s *Session) tables() []*remembering { return append([]*remembering{s.main}, s.endings...) }

// Close closes the session's sockets.
func (s *Session) Close() error {
	errs := []error{s.closeCutter(), s.sentry.close()}
	// The main one last: the kernel makes whoever closes a netfilter socket wait until it has freed what was deleted (net/
	// netfilter/nf_tables_api.c: nft_rcv_nl_event).
	for _, t := range append(s.endings, s.main) {
		if t != nil {
			errs = append(errs, t.Close())
		}
	}
	return errors.Join(errs...)
}

// Apply brings a policy into force, as the function of that name does. The document is not needed afterwards.
func (s *Session) Apply(ctx context.Context, document []byte) (receipt Receipt, err error) {
	base, difference, err := s.reader.Read(document)
	if err != nil {
		return Receipt{}, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	p, refused := s.options.open(base)
	defer func() {
		if s.policy != p { // the next difference would be to a policy that is not in force
			s.reader = policy.Reader{Name: s.options.Name}
			return
		}
		s.base = base
		receipt.unopened(refused)
	}()
	if p == base && s.policy == s.base { // nothing is open
		if receipt, done, err := s.patch(ctx, p, difference); done {
			return receipt, err
		}
	}
	return s.enforce(ctx, p, false)
}

// ApplyKept is Apply for a document that was in force before, and kept since then (policy.Reader.Kept).
func (s *Session) ApplyKept(ctx context.Context, document []byte) (Receipt, error) {
	s.reader = policy.Reader{Name: s.options.Name, Kept: true}
	defer func() { s.reader = policy.Reader{Name: s.options.Name} }() // of what comes next, no part counts as read
	return s.Apply(ctx, document)
}

// SetOpenings opens these databases, and no others, for as long as they say: now, and with each policy to come. It changes nothing if it
// fails before that. Errors: those of Apply, ErrNothingApplied.
func (s *Session) SetOpenings(ctx context.Context, openings []policy.Opening) (receipt Receipt, err error) {
	if s.base == nil {
		return Receipt{}, ErrNothingApplied
	}
	before := s.options.Openings
	s.options.Openings = slices.Clone(openings)
	for _, t := range s.tables() {
		t.forget()
	}
	p, refused := s.options.open(s.base)
	if receipt, err = s.enforce(ctx, p, false); s.policy != p {
		s.options.Openings = before
		return receipt, err
	}
	receipt.unopened(refused)
	return receipt, err
}

// CanOpen tells why a database of the policy in force cannot be opened; nil if it can.
func (s *Session) CanOpen(database string) error {
	if s.base == nil {
		return ErrNothingApplied
	}
	return s.base.CanOpen(database)
}

// ErrNothingApplied: there is nothing to repair.
var ErrNothingApplied = errors.New("no policy was applied yet")

// Repair reads what stands in the kernel, whatever the session remembers, and mends it if it is not the policy that was
// applied last. The receipt says what had to be changed.
func (s *Session) Repair(ctx context.Context) (receipt Receipt, err error) {
	if s.policy == nil {
		return Receipt{}, ErrNothingApplied
	}
	for _, t := range s.tables() {
		t.forget()
	}
	s.unproven = true
	denied, failed := s.stopGap(ctx)
	put, fresh := s.sentry.last(ctx)
	for range maxLooks {
		earlier := receipt
		if receipt, err = s.repair(ctx, fresh); receipt.Generation == "" {
			return receipt, errors.Join(failed, err)
		}
		receipt = receipt.with(earlier)
		before := put
		if put, fresh = s.sentry.last(ctx); put != before {
			continue // something was put back beside this
		}
		// Whoever took the endings may have taken all else as well, after that was looked at.
		if sure, err := s.main.sure(ctx); len(s.mended.what) == 0 || err == nil && sure {
			break
		}
		s.main.forget()
	}
	receipt, s.unread = receipt.with(s.unread), Receipt{}
	s.mended.tell(&receipt)
	s.unproven = false
	s.sentry.proven(put)
	if !put.Whole || receipt.Changed == (Changed{}) { // else somebody has changed it since
		receipt = receipt.After(put)
		receipt.Restored = put.Whole
	}
	if receipt.DeniedAt.IsZero() {
		receipt.DeniedAt = denied
	}
	return receipt, err
}

// maxLooks bounds how often a Repair looks, where the Sentry puts something back beside it each time.
const maxLooks = 4

// repair brings the policy into force again. fresh: the table was made anew since it was looked at last.
func (s *Session) repair(ctx context.Context, fresh bool) (Receipt, error) {
	if !s.blind && s.want.Name != "" && s.expires.IsZero() {
		return s.install(ctx, s.policy, s.want, fresh)
	}
	return s.enforce(ctx, s.policy, fresh)
}

// enforce compiles a policy and brings it into force. Whether the kernel can tell who is denied shows when it refuses the table: to
// ask beforehand would cost every change some milliseconds. fresh is as in repair.
func (s *Session) enforce(ctx context.Context, p *policy.Policy, fresh bool) (Receipt, error) {
	if i := slices.Index(s.options.lacking, nft.LogGroup); i >= 0 {
		s.options.lacking = slices.Delete(slices.Clone(s.options.lacking), i, i+1)
		s.options.Compile.WithoutLog = true
	}
	want, err := s.options.table(p)
	if err != nil {
		return Receipt{}, err
	}
	receipt, err := s.install(ctx, p, want, fresh)
	if errors.Is(err, errNoLog) {
		s.options.Compile.WithoutLog = true // which admits and denies the same
		return s.enforce(ctx, p, fresh)
	}
	return receipt, err
}

// install brings the table of a policy into force. fresh is as in repair.
func (s *Session) install(ctx context.Context, p *policy.Policy, want ruleset.Table, fresh bool) (receipt Receipt, err error) {
	s.changesTo(p)
	done, blind, err := enforceOrDeny(ctx, s.main, p, want, s.options)
	if err != nil {
		if p == s.policy {
			s.unread = changesOf(done).with(s.unread)
		}
		return Receipt{}, err
	}
	defer func() { err = errors.Join(err, blind) }()
	s.isInForce(p)
	s.blind, s.want = blind != nil, s.main.last.Table
	receipt = newReceipt(done, p, s.options.Clock())
	s.expires = nextExpiry(p, s.options.Clock())
	if s.options.Compile.WithoutLog {
		receipt.Warnings = append(receipt.Warnings, "who is denied is not told: this kernel lacks: "+string(nft.LogGroup))
	}
	warnings, err := s.applyEndings(ctx)
	receipt.Warnings = append(receipt.Warnings, warnings...)
	if err != nil {
		return receipt, fmt.Errorf("%w: %w", ErrNotCut, err)
	}
	if compile.OnlyOpens(done.Change) && !fresh {
		return receipt, nil
	}
	return s.cut(ctx, receipt, p, fresh || forgets(done.Change) || done.Repaired != nil || blind != nil)
}

// changesTo comes before what brings another policy into force: from then on the table that a Sentry has ready may be outdated.
func (s *Session) changesTo(p *policy.Policy) {
	if p != s.policy {
		s.sentry.beforeChange()
	}
}

// isInForce notes the policy. What a Sentry has ready belongs to the one before, which somebody else may have replaced by this one.
func (s *Session) isInForce(p *policy.Policy) {
	if p != s.policy {
		s.sentry.disarm()
	}
	s.policy = p
}

// forgets tells whether a change makes sets anew in which rules remember handshakes under way.
func forgets(change ruleset.Change) bool {
	return change.CreateTable || slices.ContainsFunc(change.AddSets, func(s ruleset.Set) bool { return s.Dynamic })
}

// cut ends the connections to databases of the policy that it does not allow. fresh is as in judge.
func (s *Session) cut(ctx context.Context, receipt Receipt, p *policy.Policy, fresh bool) (Receipt, error) {
	err := s.openCutter()
	if err != nil {
		return receipt, fmt.Errorf("%w: %w", ErrNotCut, err)
	}
	receipt.Cut, err = s.cutter.Run(ctx, newJudge(p, s.mark, fresh, s.options.Clock()), cut.Options{Behind: p.Model() == policy.Dedicated, Limit: s.options.CutLimit})
	if err != nil {
		// A dump that was not read to its end stands in the way of the next one.
		return receipt, fmt.Errorf("%w: %w", ErrNotCut, errors.Join(err, s.closeCutter()))
	}
	if receipt.Cut.Unanswered == 0 {
		receipt.ConnectionsEndedAt = s.options.Clock()
	}
	return receipt, nil
}

func (s *Session) openCutter() (err error) {
	if s.cutter == nil {
		s.cutter, err = cut.Open()
	}
	return err
}

func (s *Session) closeCutter() error {
	if s.cutter == nil {
		return nil
	}
	c := s.cutter
	s.cutter = nil
	return c.Close()
}

// remembering is a kernel's table whose state is remembered as long as nobody else can have changed it.
type remembering struct {
	*nft.Conn
	last  nft.State
	known bool
	at    time.Time    // when last was read: lifetimes run from there
	wrote *generations // of the whole session
}

// generations are those that came of a commit of one session. Nobody else wrote anything in them.
type generations struct {
	mu    sync.Mutex // a Sentry writes beside the session
	known map[uint32]bool
	last  uint32 // the one that was added or seen last
}

// maxGenerations bounds what is remembered of generations: events about them come within milliseconds.
const maxGenerations = 4096

func (g *generations) add(n uint32) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.known == nil || len(g.known) >= maxGenerations {
		g.known = map[uint32]bool{}
	}
	g.known[n], g.last = true, n
}

// saw notes a generation from which near counts.
func (g *generations) saw(n uint32) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.last = n
}

// near is the generation with these last bits that is the nearest to the last one that is known.
func (g *generations) near(bits uint16) uint32 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.last + uint32(int32(int16(bits-uint16(g.last))))
}

// all tells whether all commits from one generation to a later one were the session's own.
func (g *generations) all(from, to uint32) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if to-from > maxGenerations {
		return false
	}
	for n := from; n != to; n++ {
		if !g.known[n+1] {
			return false
		}
	}
	return true
}

func (g *generations) has(n uint32) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.known[n]
}

// committed notes the generation that a commit made, which its condition makes the next one.
func (r *remembering) committed(before uint32, err error) error {
	if err == nil {
		r.wrote.add(before + 1)
	}
	return err
}

func (r *remembering) forget() { r.known = false }

func (r *remembering) remember(s nft.State, err error) (nft.State, error) {
	r.last, r.at, r.known = s, time.Now(), err == nil && s.Foreign == nil && s.Exists
	if err == nil {
		r.wrote.saw(s.Generation)
	}
	return s, err
}

// Read returns what stands. If the ruleset is at the generation that was read last, or if nobody else can have changed the
// table, that is what is remembered.
func (r *remembering) Read(ctx context.Context) (nft.State, error) {
	if !r.known {
		return r.remember(r.Conn.Read(ctx))
	}
	if sure, err := r.sure(ctx); err != nil || sure {
		state := r.last
		state.Table = state.Table.Aged(time.Since(r.at))
		return state, err
	}
	return r.remember(r.Conn.Read(ctx))
}

// sure tells whether what is remembered is what stands.
func (r *remembering) sure(ctx context.Context) (bool, error) {
	if !r.known {
		return false, nil
	}
	generation, err := r.Generation(ctx)
	if err == nil {
		r.wrote.saw(generation)
	}
	if err != nil || !r.Owns() && !r.wrote.all(r.last.Generation, generation) {
		return false, err
	}
	r.last.Generation = generation
	return true, nil
}

// ReadAfter reads back what a change touched.
func (r *remembering) ReadAfter(ctx context.Context, before nft.State, change ruleset.Change) (nft.State, error) {
	return r.remember(r.Conn.ReadAfter(ctx, before, change))
}

// Commit writes a change. What stands afterwards is not known before it was read back.
func (r *remembering) Commit(ctx context.Context, change ruleset.Change, generation uint32) error {
	r.forget()
	return r.committed(generation, r.Conn.Commit(ctx, change, generation))
}

// Replace writes a whole table.
func (r *remembering) Replace(ctx context.Context, want ruleset.Table, exists bool, generation uint32) error {
	r.forget()
	return r.committed(generation, r.Conn.Replace(ctx, want, exists, generation))
}

// Policy is the policy that came into force last; nil if none did.
func (s *Session) Policy() *policy.Policy { return s.policy }

// Untouched tells whether nobody can have changed the session's tables since they were read last, and that nothing is untold of what
// was found wrong with them. It asks for no more than the kernel's generation. Before anything was applied there is nothing to be touched.
func (s *Session) Untouched(ctx context.Context) (bool, error) {
	if s.policy == nil || s.unproven || len(s.mended.what) > 0 {
		return s.policy == nil, nil
	}
	for _, t := range s.tables() {
		if sure, err := t.sure(ctx); err != nil || !sure && t.known {
			return false, err
		}
	}
	return true, nil
}

// Wrote tells whether a generation of the ruleset came from this session.
func (s *Session) Wrote(generation uint32) bool {
	return s.main.wrote.has(generation)
}

// Owns tells whether nobody else can change the session's tables.
func (s *Session) Owns() bool { return s.main.Owns() }
