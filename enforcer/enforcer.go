// Package enforcer makes the network exposure of databases real at one enforcement point, in the network namespace of
// the calling thread: it reads a policy, compiles it, brings the ruleset into force and ends the connections that are
// no longer allowed.
package enforcer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"drawbridge/enforcer/compile"
	"drawbridge/enforcer/cut"
	"drawbridge/enforcer/nft"
	"drawbridge/enforcer/policy"
	"drawbridge/enforcer/reconcile"
	"drawbridge/enforcer/ruleset"
)

var (
	// ErrRefused: the policy is refused, and what was in force still is, unchanged. The error says where and why; test
	// for one of policy.Err... to know which rule.
	ErrRefused = errors.New("policy refused")
	// ErrUnsupported: the kernel lacks something that the policy needs; what was in force still is, unchanged.
	ErrUnsupported = errors.New("this kernel cannot enforce the policy")
	// ErrBlind: the kernel cannot tell TLS from plaintext. The rest of the policy is in force, and the databases that need TLS
	// are denied as a whole.
	ErrBlind = errors.New("this kernel cannot tell TLS from plaintext")
	// ErrNotCut: the policy is in force, but not every connection that it no longer allows could be looked for or
	// ended. No packet of those passes.
	ErrNotCut = errors.New("the policy is in force, but established connections could not be ended")
)

// Options are what a policy document does not say. The zero value is the default.
type Options struct {
	// Name stands for the document in errors; empty: "policy".
	Name string
	// Compile are the compiler's options.
	Compile compile.Options
	// CutLimit bounds the wait for servers whose connections are ended; 0: cut.DefaultLimit.
	CutLimit time.Duration
	// Openings are databases that are open to everybody for a while, whatever the document says. Those that have ended, or cannot be
	// opened, count for nothing.
	Openings []policy.Opening
	// Clock is for receipts; nil: time.Now.
	Clock func() time.Time

	lacking []nft.Feature // tests: what the kernel is said to lack
}

func (o Options) withDefaults() Options {
	if o.Name == "" {
		o.Name = "policy"
	}
	if o.CutLimit == 0 {
		o.CutLimit = cut.DefaultLimit
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Compile.MarkMask == 0 {
		o.Compile.MarkMask = compile.DefaultMarkMask
	}
	return o
}

// parse reads a policy, and opens what is to be open.
func (o Options) parse(document []byte) (*policy.Policy, error) {
	p, err := policy.Parse(o.Name, document)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	p, _ = o.open(p)
	return p, nil
}

// open opens what is to be open now, and says what cannot be.
func (o Options) open(p *policy.Policy) (*policy.Policy, []error) {
	now := o.Clock()
	return p.Open(slices.DeleteFunc(slices.Clone(o.Openings), func(one policy.Opening) bool { return !one.Until.After(now) }))
}

// table is what a policy compiles to at this time.
func (o Options) table(p *policy.Policy) (ruleset.Table, error) {
	o.Compile.Now = o.Clock()
	return o.Compile.Compile(p)
}

// Apply brings a policy into force, in the place of the one before. When it returns without error, every packet meets
// the new rules and the connections that they no longer allow have ended. On ErrRefused and ErrUnsupported nothing has
// changed; with ErrNotCut and ErrBlind the receipt is valid.
func Apply(ctx context.Context, document []byte, options Options) (receipt Receipt, err error) {
	s, err := Open(options)
	if err != nil {
		return Receipt{}, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	return s.Apply(ctx, document)
}

// Boot is Apply for a machine that starts: the tables outlive their owner as those of a daemon do, so that a daemon that comes
// later takes them over as they are. Where the kernel has no owned tables it is Apply.
func Boot(ctx context.Context, document []byte, options Options) (Receipt, error) {
	return boot(ctx, options, func(s *Session) (Receipt, error) { return s.Apply(ctx, document) })
}

// BootKept is Boot for a document that was in force before, as Session.ApplyKept is Apply.
func BootKept(ctx context.Context, document []byte, options Options) (Receipt, error) {
	return boot(ctx, options, func(s *Session) (Receipt, error) { return s.ApplyKept(ctx, document) })
}

func boot(ctx context.Context, options Options, apply func(*Session) (Receipt, error)) (receipt Receipt, err error) {
	s, err := Open(options)
	if err != nil {
		return Receipt{}, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if err := s.Own(ctx); err != nil && !errors.Is(err, ErrUnsupported) {
		return Receipt{}, err
	}
	return apply(s)
}

// enforceOrDeny brings the table into force, or where the kernel lacks what tells TLS from plaintext, one that needs no such
// thing: then blind says so.
func enforceOrDeny(ctx context.Context, kernel *remembering, p *policy.Policy, want ruleset.Table, options Options) (done reconcile.Receipt, blind, err error) {
	done, err = enforce(ctx, kernel, want, options)
	if !errors.Is(err, ErrUnsupported) {
		return done, nil, err
	}
	cause := err
	options.Compile.WithoutGate = true
	options.lacking = nil
	if want, err = options.table(p); err == nil {
		done, err = enforce(ctx, kernel, want, options)
	}
	if err != nil {
		return done, nil, errors.Join(cause, err)
	}
	var names []string
	for _, db := range p.Databases() {
		if db.ForceTLS() {
			names = append(names, db.Name())
		}
	}
	return done, fmt.Errorf("%w: %w; denied as a whole because they need TLS: %s", ErrBlind, cause, cmp.Or(strings.Join(names, ", "), "none")), nil
}

// enforce brings the table into force.
func enforce(ctx context.Context, kernel *remembering, want ruleset.Table, options Options) (reconcile.Receipt, error) {
	if len(options.lacking) > 0 {
		return reconcile.Receipt{}, lacks(options.lacking, nft.ErrRejected)
	}
	receipt, err := reconcile.Reconciler{Kernel: kernel, Clock: options.Clock}.Apply(ctx, want)
	if errors.Is(err, nft.ErrRejected) {
		return receipt, unsupported(ctx, kernel.Conn, err, options.Compile.WithoutLog)
	}
	return receipt, err
}

// errNoLog: the kernel refused a table that tells who is denied, which it cannot.
var errNoLog = errors.New("this kernel lacks: " + string(nft.LogGroup))

// unsupported names what the kernel lacks, if that explains why it refused a ruleset.
func unsupported(ctx context.Context, kernel *nft.Conn, refused error, withoutLog bool) error {
	missing, err := kernel.Missing(ctx)
	if err != nil || len(missing) == 0 {
		return errors.Join(refused, err)
	}
	if !withoutLog && slices.Contains(missing, nft.LogGroup) {
		return fmt.Errorf("%w: %w", errNoLog, refused)
	}
	return lacks(missing, refused)
}

func lacks(missing []nft.Feature, refused error) error {
	names := make([]string, 0, len(missing))
	for _, f := range missing {
		names = append(names, string(f))
	}
	return fmt.Errorf("%w, it lacks: %s: %w", ErrUnsupported, strings.Join(names, "; "), refused)
}
