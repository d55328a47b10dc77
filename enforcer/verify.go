package enforcer

import (
	"context"
	"errors"
	"strings"

	"drawbridge/enforcer/compile"
	"drawbridge/enforcer/intent"
	"drawbridge/enforcer/nft"
	"drawbridge/enforcer/proof"
	"drawbridge/enforcer/ruleset"
)

// Verification says whether what the kernel enforces is a policy. The zero value proves nothing.
type Verification struct {
	// Proven: the rules let pass exactly whom the policy lets in, over the whole address space, and every object of the tables
	// is what the policy compiles to.
	Proven bool `json:"proven"`
	// Generation of the kernel's ruleset at which the main table was read.
	Generation uint32 `json:"kernel_generation"`
	// Unprovable says what stands in a table that this enforcer never writes, so that nothing can be said about it.
	Unprovable []string `json:"unprovable"`
	// Objects are those in which the kernel's tables differ from the policy's.
	Objects []ruleset.Difference `json:"objects"`
	// Access are the sources that the rules treat differently from the policy.
	Access []proof.Difference `json:"access"`
	// Looked at: how much was compared.
	LookedAt LookedAt `json:"looked_at"`
	// Blind: this kernel cannot tell TLS from plaintext, and the policy is held to what it can do.
	Blind bool `json:"blind,omitempty"`
	// State names the sets whose contents are the kernel's memory and no part of the policy: they were not compared.
	State []string `json:"state_not_compared"`
}

// LookedAt counts what a proof covers.
type LookedAt struct {
	Ports      int `json:"ports"`
	Addresses  int `json:"addresses"`
	Interfaces int `json:"interfaces"`
	// Sets of sources that were computed and compared.
	Sets int `json:"sets_of_sources"`
}

// Verify compares what the kernel of the calling thread's network namespace enforces with a policy, and changes nothing. It
// has two halves. The rules, read back, are evaluated for all sources at once, and the result is held against the policy
// read from first principles, which shares no code with the compiler. And all objects must be those that the compiler
// writes: that is for the memory of connections and the tests for TLS, which the first half takes either way. A policy that is refused is
// ErrRefused.
func Verify(ctx context.Context, document []byte, options Options) (v Verification, err error) {
	options = options.withDefaults()
	p, err := options.parse(document)
	if err != nil {
		return v, err
	}
	mark, err := compile.NewMark(options.Compile.MarkMask)
	if err != nil {
		return v, err
	}
	kernel, err := nft.Open(compile.TableName)
	if err != nil {
		return v, err
	}
	defer func() { err = errors.Join(err, kernel.Close()) }()
	if options, err = options.within(ctx, kernel); err != nil {
		return v, err
	}
	v.Blind = options.Compile.WithoutGate
	want, err := options.table(p)
	if err != nil {
		return v, err
	}
	state, err := kernel.Read(ctx)
	if err != nil {
		return v, err
	}
	v.Generation, v.State = state.Generation, remembered(want)
	readable := v.objects(state, want)
	if readable {
		if err := v.access(state.Table, intent.Of(p, intent.Options{Blind: v.Blind, Now: options.Clock()})); err != nil {
			return v, err
		}
	}
	if err := v.locks(ctx, kernel, want); err != nil {
		return v, err
	}
	if err := v.endings(ctx, mark); err != nil {
		return v, err
	}
	if readable && v.LookedAt.Sets == 0 && len(p.Databases()) > 0 {
		v.Unprovable = append(v.Unprovable, "no set of sources was compared, though the policy has databases: this is a fault of drawbridge's own")
	}
	v.Proven = readable && len(v.Unprovable)+len(v.Objects)+len(v.Access) == 0
	return v, nil
}

// within are the options with what this kernel can do: whether it can tell TLS from plaintext, and whether it can tell who is
// denied.
func (o Options) within(ctx context.Context, kernel *nft.Conn) (Options, error) {
	missing, err := kernel.Missing(ctx)
	for _, f := range missing {
		switch f {
		case nft.OwnedTable:
		case nft.LogGroup:
			o.Compile.WithoutLog = true
		default:
			o.Compile.WithoutGate = true
		}
	}
	return o, err
}

// remembered are the sets that rules fill.
func remembered(t ruleset.Table) (names []string) {
	for _, s := range t.Sets {
		if s.Dynamic {
			names = append(names, s.Name)
		}
	}
	return names
}

// objects compares a table object by object. It tells whether the table could be read.
func (v *Verification) objects(state nft.State, want ruleset.Table) (readable bool) {
	in := want.Title()
	switch {
	case !state.Exists:
		v.Objects = append(v.Objects, ruleset.Difference{Object: in, What: "missing"})
		return false
	case state.Foreign != nil:
		v.Unprovable = append(v.Unprovable, in+": "+state.Foreign.Error())
		return false
	}
	found := ruleset.Compare(state.Table, want)
	if len(found) == 0 && !ruleset.Diff(state.Table, want).IsEmpty() {
		found = append(found, ruleset.Difference{Object: in, What: "differs: " + strings.Join(ruleset.PrintChange(ruleset.Diff(state.Table, want)), "; ")})
	}
	v.Objects = append(v.Objects, inTable(want, found)...)
	return true
}

// access compares who can reach what.
func (v *Verification) access(t ruleset.Table, p *intent.Point) error {
	report, err := proof.Check(t, p)
	if err != nil {
		return err
	}
	v.Access = report.Differences
	v.LookedAt = LookedAt{Ports: report.Ports, Addresses: report.Addresses, Interfaces: report.Interfaces, Sets: report.Questions}
	return nil
}

// endings compares the tables that end refused connections.
func (v *Verification) endings(ctx context.Context, mark compile.Mark) error {
	for _, want := range mark.Endings() {
		state, err := readFamily(ctx, want.Family)
		if err != nil {
			return err
		}
		v.objects(state, want)
	}
	return nil
}

func readFamily(ctx context.Context, family ruleset.Family) (state nft.State, err error) {
	kernel, err := nft.OpenFamily(family, compile.TableName)
	if err != nil {
		return state, err
	}
	defer func() { err = errors.Join(err, kernel.Close()) }()
	return kernel.Read(ctx)
}
