package nft

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"drawbridge/enforcer/nlsocket"
	"drawbridge/enforcer/ruleset"
)

// Prepared is the transaction that makes a whole table, written beforehand: when somebody has deleted the table, each millisecond until it is
// back is one without rules. It belongs to the Conn that wrote it.
type Prepared struct{ datagram *nlsocket.Datagram }

// ErrExists: there is a table already. Nothing changed.
var ErrExists = errors.New("the table is there")

// Prepare writes the transaction that makes this table where there is none. It sends nothing. Errors: ErrInvalid.
func (c *Conn) Prepare(want ruleset.Table) (*Prepared, error) {
	messages, err := c.compose(want, false)
	if err != nil {
		return nil, err
	}
	for i := range messages {
		if messages[i].Header.Type == messageType(unix.NFT_MSG_NEWTABLE) {
			messages[i].Header.Flags |= netlink.Excl
		}
	}
	return c.prepared(messages)
}

// PrepareOver writes the transaction that puts this table in the place of one that has this set, and of no other one. It sends nothing.
// Errors: ErrInvalid.
func (c *Conn) PrepareOver(want ruleset.Table, having string) (*Prepared, error) {
	messages, err := c.compose(want, true)
	if err != nil {
		return nil, err
	}
	b := newBatch(want.Family, want.Name)
	b.deleteSet(having) // and the transaction with it, where there is none
	return c.prepared(slices.Insert(messages, 1, b.messages...))
}

func (c *Conn) compose(want ruleset.Table, over bool) ([]netlink.Message, error) {
	if want.Name != c.table || want.Family != c.family {
		return nil, fmt.Errorf("%w: table %s %q on a connection for %s %q", ErrInvalid, want.Family, want.Name, c.family, c.table)
	}
	const anyGeneration = 1 // Create writes another over it; 0 would be no condition
	return encodeReplace(want, over, anyGeneration, c.owns)
}

func (c *Conn) prepared(messages []netlink.Message) (*Prepared, error) {
	d, err := c.socket.Compose(messages...)
	if err != nil {
		return nil, fmt.Errorf("prepare a transaction: %w", err)
	}
	return &Prepared{datagram: d}, nil
}

// Create makes the table in one transaction, on condition of a generation, and that it is missing, or the one that it replaces is there. Errors: ErrExists, ErrGeneration
// and ErrRejected mean that nothing changed; ErrUnknownOutcome means read back.
func (c *Conn) Create(ctx context.Context, p *Prepared, generation uint32) error {
	copy(p.datagram.Data(0), batchBegin(generation).Data)
	err := c.flushComposed(ctx, p.datagram)
	if errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("%w: %w", ErrExists, err)
	}
	return err
}

// Missed tells whether there is no table, and in which generation that was so or a later one: a Create on condition of that one fails if
// somebody has made the table meanwhile. It asks for nothing else: there is no moment to lose.
func (c *Conn) Missed(ctx context.Context) (generation uint32, missing bool, err error) {
	head, err := c.head(ctx)
	if err != nil || head.exists {
		return 0, false, err
	}
	generation, err = c.Generation(ctx)
	return generation, err == nil, err
}
