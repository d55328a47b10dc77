package nft

import (
	"context"
	"fmt"

	"github.com/mdlayher/netlink"

	"drawbridge/enforcer/ruleset"
)

// Replace puts a whole table in the place of what is there, in one transaction: no packet sees anything in between. It
// loses what the kernel gathered in dynamic sets and counters. exists tells whether there is a table to be replaced.
// Errors: ErrInvalid, ErrGeneration and ErrRejected mean that nothing changed; ErrUnknownOutcome means read back.
func (c *Conn) Replace(ctx context.Context, want ruleset.Table, exists bool, generation uint32) error {
	if want.Name != c.table {
		return fmt.Errorf("%w: table %q on a connection for %q", ErrInvalid, want.Name, c.table)
	}
	messages, err := encodeReplace(want, exists, generation)
	if err != nil {
		return err
	}
	return c.flush(ctx, messages)
}

// Delete removes the table with all that is in it. The errors are those of Replace.
func (c *Conn) Delete(ctx context.Context, generation uint32) error {
	b := newBatch(c.table)
	b.deleteTable()
	messages, err := b.finish(generation)
	if err != nil {
		return err
	}
	return c.flush(ctx, messages)
}

// encodeReplace writes a table in the order that references need: chains, then sets (whose verdicts name chains), then
// rules (which name both).
func encodeReplace(want ruleset.Table, exists bool, generation uint32) ([]netlink.Message, error) {
	b := newBatch(want.Name)
	if want.Family != ruleset.FamilyINET {
		b.fail(fmt.Errorf("family %q: only inet", want.Family))
	}
	if exists {
		b.deleteTable()
	}
	b.addTable()
	for _, c := range want.Chains {
		b.addChain(c)
	}
	for _, s := range want.Sets {
		b.addSet(s)
	}
	for _, c := range want.Chains {
		b.addRules(c.Name, c.Rules)
	}
	return b.finish(generation)
}
