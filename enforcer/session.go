package enforcer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"drawbridge/enforcer/compile"
	"drawbridge/enforcer/cut"
	"drawbridge/enforcer/nft"
	"drawbridge/enforcer/policy"
	"drawbridge/enforcer/reconcile"
	"drawbridge/enforcer/ruleset"
)

// Session holds the enforcer's tables of one network namespace over lasting sockets, and remembers what stands there, so
// that a change costs what it changes. Use it from one goroutine at a time.
type Session struct {
	options Options
	mark    compile.Mark
	main    *remembering
	endings []*remembering
	policy  *policy.Policy // the last that came into force; nil: none did
	probed  bool           // whether the kernel was asked for nflog
	expires time.Time      // when the next of its rules does; zero: never
}

// Open opens a session in the network namespace of the calling thread. It changes nothing. The caller closes it; what is
// in force stays.
func Open(options Options) (s *Session, err error) {
	options = options.withDefaults()
	mark, err := compile.NewMark(options.Compile.MarkMask)
	if err != nil {
		return nil, err
	}
	s = &Session{options: options, mark: mark}
	for _, family := range managed {
		kernel, err := nft.OpenFamily(family, compile.TableName)
		if err != nil {
			return nil, errors.Join(err, s.Close())
		}
		if family == ruleset.FamilyINET {
			s.main = &remembering{Conn: kernel}
		} else {
			s.endings = append(s.endings, &remembering{Conn: kernel})
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
	var errs []error
	// The main one last: the kernel makes whoever closes a netfilter socket wait until it has freed what was deleted (net/
	// netfilter/nf_tables_api.c: nft_rcv_nl_event).
	for _, t := range append(s.endings, s.main) {
		if t != nil {
			errs = append(errs, t.Close())
		}
	}
	return errors.Join(errs...)
}

// Apply brings a policy into force, as the function of that name does.
func (s *Session) Apply(ctx context.Context, document []byte) (Receipt, error) {
	p, err := policy.Parse(s.options.Name, document)
	if err != nil {
		return Receipt{}, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	return s.enforce(ctx, p)
}

// ErrNothingApplied: there is nothing to repair.
var ErrNothingApplied = errors.New("no policy was applied yet")

// Repair reads what stands in the kernel, whatever the session remembers, and mends it if it is not the policy that was
// applied last. The receipt says what had to be changed.
func (s *Session) Repair(ctx context.Context) (Receipt, error) {
	if s.policy == nil {
		return Receipt{}, ErrNothingApplied
	}
	for _, t := range s.tables() {
		t.forget()
	}
	return s.enforce(ctx, s.policy)
}

func (s *Session) enforce(ctx context.Context, p *policy.Policy) (receipt Receipt, err error) {
	silent, err := s.lacksLog(ctx)
	if err != nil {
		return Receipt{}, err
	}
	want, err := s.options.table(p)
	if err != nil {
		return Receipt{}, err
	}
	done, blind, err := enforceOrDeny(ctx, s.main, p, want, s.options)
	if err != nil {
		return Receipt{}, err
	}
	defer func() { err = errors.Join(err, blind) }()
	s.policy = p
	receipt = newReceipt(done, p, s.options.Clock())
	s.expires = nextExpiry(p, s.options.Clock())
	if silent {
		receipt.Warnings = append(receipt.Warnings, "who is denied is not told: this kernel lacks: "+string(nft.LogGroup))
	}
	warnings, err := s.applyEndings(ctx)
	receipt.Warnings = append(receipt.Warnings, warnings...)
	if err != nil {
		return receipt, fmt.Errorf("%w: %w", ErrNotCut, err)
	}
	if compile.OnlyOpens(done.Change) {
		return receipt, nil
	}
	fresh := done.Change.CreateTable || done.Repaired != nil || blind != nil
	receipt.Cut, err = cut.Run(ctx, newJudge(p, s.mark, fresh, s.options.Clock()), cut.Options{Behind: p.Model() == policy.Dedicated, Limit: s.options.CutLimit})
	if err != nil {
		return receipt, fmt.Errorf("%w: %w", ErrNotCut, err)
	}
	if receipt.Cut.Unanswered == 0 {
		receipt.ConnectionsEndedAt = s.options.Clock()
	}
	return receipt, nil
}

// lacksLog asks the kernel once whether it can tell who is denied; a table without that admits and denies the same.
func (s *Session) lacksLog(ctx context.Context) (silent bool, err error) {
	if !s.probed {
		missing := s.options.lacking
		if len(missing) == 0 {
			if missing, err = s.main.Missing(ctx); err != nil {
				return false, err
			}
		}
		s.options.Compile.WithoutLog = s.options.Compile.WithoutLog || slices.Contains(missing, nft.LogGroup)
		s.options.lacking = slices.DeleteFunc(slices.Clone(s.options.lacking), func(f nft.Feature) bool { return f == nft.LogGroup })
		s.probed = true
	}
	return s.options.Compile.WithoutLog, nil
}

// applyEndings brings the ending tables into force (compile.Mark.Endings). They admit nothing, so that a kernel that
// cannot have them is worth a warning and no error.
func (s *Session) applyEndings(ctx context.Context) (warnings []string, err error) {
	for i, want := range s.mark.Endings() {
		_, err := reconcile.Reconciler{Kernel: s.endings[i]}.Apply(ctx, want)
		switch {
		case errors.Is(err, nft.ErrRejected):
			warnings = append(warnings, fmt.Sprintf("the servers' halves of refused connections stay open until the servers' own time-outs: "+
				"this kernel refuses the table %s %s (CONFIG_NFT_DUP_IPV4, CONFIG_NFT_DUP_IPV6): %v", want.Family, want.Name, err))
		case err != nil:
			return warnings, fmt.Errorf("table %s %s: %w", want.Family, want.Name, err)
		}
	}
	return warnings, nil
}

// remembering is a kernel's table whose state is remembered as long as nobody else can have changed it.
type remembering struct {
	*nft.Conn
	last  nft.State
	known bool
	at    time.Time       // when last was read: lifetimes run from there
	wrote map[uint32]bool // generations that came of a commit here
}

// maxWrote bounds what is remembered of generations: events about them come within milliseconds.
const maxWrote = 4096

// committed notes the generation that a commit made, which its condition makes the next one.
func (r *remembering) committed(before uint32, err error) error {
	if err == nil {
		if r.wrote == nil || len(r.wrote) >= maxWrote {
			r.wrote = map[uint32]bool{}
		}
		r.wrote[before+1] = true
	}
	return err
}

func (r *remembering) forget() { r.known = false }

func (r *remembering) remember(s nft.State, err error) (nft.State, error) {
	r.last, r.at, r.known = s, time.Now(), err == nil && s.Foreign == nil && s.Exists
	return s, err
}

// Read returns what stands. If the ruleset is at the generation that was read last, or if nobody else can have changed the
// table, that is what is remembered.
func (r *remembering) Read(ctx context.Context) (nft.State, error) {
	if !r.known {
		return r.remember(r.Conn.Read(ctx))
	}
	generation, err := r.Generation(ctx)
	if err != nil {
		return nft.State{}, err
	}
	if generation == r.last.Generation || r.Owns() {
		r.last.Generation = generation
		state := r.last
		state.Table = state.Table.Aged(time.Since(r.at))
		return state, nil
	}
	return r.remember(r.Conn.Read(ctx))
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

// Wrote tells whether a generation of the ruleset came from this session.
func (s *Session) Wrote(generation uint32) bool {
	for _, t := range s.tables() {
		if t.wrote[generation] {
			return true
		}
	}
	return false
}

// Owns tells whether nobody else can change the session's tables.
func (s *Session) Owns() bool { return s.main.Owns() }
