package nft

import (
	"context"
	"fmt"

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
	sent, err := c.socket.Send(messages[:len(messages)-1]...)
	if err != nil {
		return false, fmt.Errorf("probe the kernel: %w", err)
	}
	refused, err := c.refusals(ctx, sent)
	if err != nil {
		return false, fmt.Errorf("probe the kernel: %w", err)
	}
	return len(refused) == 0, nil
}
