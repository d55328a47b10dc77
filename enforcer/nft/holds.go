package nft

import (
	"context"

	"drawbridge/enforcer/ruleset"
)

// CanHold asks whether the kernel would take a table of the Conn's family. Like Missing it sends a transaction without an end, under a
// name that no table has: nothing of it ever comes into force.
func (c *Conn) CanHold(ctx context.Context, want ruleset.Table) (bool, error) {
	want.Name = probeTable
	messages, err := encodeReplace(want, false, 0, false)
	if err != nil {
		return false, err
	}
	_, refused, err := c.probe(ctx, messages[:len(messages)-1])
	return err == nil && len(refused) == 0, err
}
