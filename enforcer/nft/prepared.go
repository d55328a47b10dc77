package nft

import (
	"context"
	"errors"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"drawbridge/enforcer/ruleset"
)

// Prepared is the transaction that makes a whole table where there is none, written beforehand: when somebody has deleted the
// table, each millisecond until it is back is one without rules. Use it from one goroutine at a time.
type Prepared struct{ messages []netlink.Message }

// ErrExists: there is a table already. Nothing changed.
var ErrExists = errors.New("the table is there")

// Prepare writes the transaction that makes this table. It sends nothing. Errors: ErrInvalid.
func (c *Conn) Prepare(want ruleset.Table) (*Prepared, error) {
	if want.Name != c.table || want.Family != c.family {
		return nil, fmt.Errorf("%w: table %s %q on a connection for %s %q", ErrInvalid, want.Family, want.Name, c.family, c.table)
	}
	messages, err := encodeReplace(want, false, 0, c.owns)
	if err != nil {
		return nil, err
	}
	for i := range messages {
		if messages[i].Header.Type == messageType(unix.NFT_MSG_NEWTABLE) {
			messages[i].Header.Flags |= netlink.Excl
		}
	}
	return &Prepared{messages: messages}, nil
}

// Create makes the table in one transaction, on condition of the generation at which it was missing. Errors: ErrExists, ErrGeneration
// and ErrRejected mean that nothing changed; ErrUnknownOutcome means read back.
func (c *Conn) Create(ctx context.Context, p *Prepared, generation uint32) error {
	p.messages[0] = batchBegin(generation)
	err := c.flush(ctx, p.messages)
	if errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("%w: %w", ErrExists, err)
	}
	return err
}
