package nft

import (
	"context"
	"fmt"
	"slices"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"drawbridge/enforcer/ruleset"
)

// Commit applies a change to the table in one transaction, on condition of the generation that the change was
// computed from. Errors: ErrInvalid, ErrGeneration and ErrRejected mean that nothing changed; ErrUnknownOutcome means
// read back.
func (c *Conn) Commit(ctx context.Context, change ruleset.Change, generation uint32) error {
	if change.Table != c.table || change.Family != c.family {
		return fmt.Errorf("%w: table %s %q on a connection for %s %q", ErrInvalid, change.Family, change.Table, c.family, c.table)
	}
	messages, err := encodeChange(change, generation, c.owns)
	if err != nil {
		return err
	}
	return c.flush(ctx, messages)
}

// encodeChange writes a change in the order of its fields, which is the one that references need.
func encodeChange(change ruleset.Change, generation uint32, owned bool) ([]netlink.Message, error) {
	b := newBatch(change.Family, change.Table)
	b.owned = owned
	if change.CreateTable {
		b.addTable()
	}
	for _, name := range change.FlushChains {
		b.flushChain(name)
	}
	for _, e := range change.DeleteElements {
		b.elements(unix.NFT_MSG_DELSETELEM, e.Set, e.Elements)
	}
	for _, name := range change.DeleteSets {
		b.deleteSet(name)
	}
	for _, name := range change.DeleteChains {
		b.deleteChain(name)
	}
	for _, s := range change.AddSets {
		b.addSet(s)
	}
	for _, c := range change.AddChains {
		b.addChain(c)
	}
	for _, e := range change.AddElements {
		b.elements(unix.NFT_MSG_NEWSETELEM, e.Set, e.Elements)
	}
	for _, r := range change.AddRules {
		b.addRules(r.Chain, r.Rules)
	}
	return b.finish(generation)
}

// Replace puts a whole table in the place of what is there, in one transaction: no packet sees anything in between. It
// loses what the kernel gathered in dynamic sets and counters. exists tells whether there is a table to be replaced.
// Errors: ErrInvalid, ErrGeneration and ErrRejected mean that nothing changed; ErrUnknownOutcome means read back.
func (c *Conn) Replace(ctx context.Context, want ruleset.Table, exists bool, generation uint32) error {
	if want.Name != c.table || want.Family != c.family {
		return fmt.Errorf("%w: table %s %q on a connection for %s %q", ErrInvalid, want.Family, want.Name, c.family, c.table)
	}
	messages, err := encodeReplace(want, exists, generation, c.owns)
	if err != nil {
		return err
	}
	return c.flush(ctx, messages)
}

// Delete removes the table with all that is in it. The errors are those of Replace.
func (c *Conn) Delete(ctx context.Context, generation uint32) error {
	b := newBatch(c.family, c.table)
	b.deleteTable()
	messages, err := b.finish(generation)
	if err != nil {
		return err
	}
	return c.flush(ctx, messages)
}

// encodeReplace writes a table from nothing.
func encodeReplace(want ruleset.Table, exists bool, generation uint32, owned bool) ([]netlink.Message, error) {
	messages, err := encodeChange(ruleset.Diff(ruleset.Table{}, want), generation, owned)
	if err != nil || !exists {
		return messages, err
	}
	b := newBatch(want.Family, want.Name)
	b.deleteTable()
	return slices.Insert(messages, 1, b.messages...), nil
}
