package enforcer

import (
	"context"
	"errors"
	"strings"

	"drawbridge/enforcer/compile"
	"drawbridge/enforcer/nft"
	"drawbridge/enforcer/ruleset"
)

// maxIntactReadings bounds how often the tables are read of which somebody writes one after the other meanwhile.
const maxIntactReadings = 4

// intact names what in the tables, of which the main one was read and holds a policy, no policy compiles to. It has no policy to compare
// them with: chains, rules and what elements say of each other follow from what is protected, and whom the elements let in does not.
func (o Options) intact(ctx context.Context, kernel *nft.Conn, state nft.State) (found []ruleset.Difference, err error) {
	mark, err := compile.NewMark(o.Compile.MarkMask)
	if err != nil {
		return nil, err
	}
	if o, err = o.within(ctx, kernel); err != nil {
		return nil, err
	}
	want, err := o.Compile.Skeleton(state.Table)
	if err != nil {
		return nil, err
	}
	found = ruleset.Compare(state.Table, want)
	if len(found) == 0 {
		found = compile.Inconsistencies(state.Table)
	}
	found = inTable(want, found)
	for _, ending := range mark.Endings() {
		more, err := intactEnding(ctx, ending)
		if err != nil {
			return nil, err
		}
		found = append(found, more...)
	}
	return found, nil
}

// inTable says in which table the objects are.
func inTable(t ruleset.Table, found []ruleset.Difference) []ruleset.Difference {
	for i := range found {
		found[i].Object += " of " + t.Title()
	}
	return found
}

// intactEnding compares a table that ends refused connections with what it must be. That it is missing is nothing where the kernel cannot
// have it.
func intactEnding(ctx context.Context, want ruleset.Table) (found []ruleset.Difference, err error) {
	kernel, err := nft.OpenFamily(want.Family, want.Name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, kernel.Close()) }()
	state, err := kernel.Read(ctx)
	if err != nil {
		return nil, err
	}
	switch {
	case state.Foreign != nil:
		return []ruleset.Difference{{Object: want.Title(), What: state.Foreign.Error()}}, nil
	case state.Exists:
		return inTable(want, ruleset.Compare(state.Table, want)), nil
	}
	if possible, err := kernel.CanHold(ctx, want); err != nil || !possible {
		return nil, err
	}
	return []ruleset.Difference{{Object: want.Title(), What: "missing"}}, nil
}

// intactDenial is intact for a table that denies everything.
func intactDenial(have ruleset.Table) []ruleset.Difference {
	want := denial(nil)
	for i, w := range want.Sets {
		for _, h := range have.Sets {
			if h.Name == w.Name {
				want.Sets[i].Elements = h.Elements
			}
		}
	}
	for _, h := range have.Sets {
		if strings.HasPrefix(h.Name, setDenialProof) {
			want.Sets = append(want.Sets, h)
		}
	}
	return inTable(want, ruleset.Compare(have, want))
}
