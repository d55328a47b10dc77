package nft

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Flags of a table (include/uapi/linux/netfilter/nf_tables.h).
const (
	tableFlagOwner   = 0x2 // NFT_TABLE_F_OWNER: only its socket may change it; "flush ruleset" passes it over
	tableFlagPersist = 0x4 // NFT_TABLE_F_PERSIST: it outlives that socket
)

// ErrOwned: the table belongs to another socket. Nothing but that socket can change it.
var ErrOwned = errors.New("the table belongs to another process")

// Own makes the Conn the owner of the tables that it creates from now on (kernel 6.9). They outlive it. A table that is
// there and belongs to nobody is adopted if it was made to outlive its owner; otherwise Read calls it foreign, so that it
// is replaced by one that is owned. It must be called before anything is read. The error is ErrOwned if the table belongs to
// somebody else.
func (c *Conn) Own(ctx context.Context) error {
	head, err := c.head(ctx)
	if err != nil {
		return err
	}
	c.owns = true
	switch head.flags & (tableFlagOwner | tableFlagPersist) {
	case tableFlagPersist:
		return c.adopt(ctx)
	case tableFlagOwner, tableFlagOwner | tableFlagPersist:
		return fmt.Errorf("%w: netlink port %d (its process, in most cases)", ErrOwned, head.owner)
	}
	return nil
}

// Owns tells whether others cannot change the table.
func (c *Conn) Owns() bool { return c.owns }

// adopt takes an orphan (net/netfilter/nf_tables_api.c: nf_tables_updtable).
func (c *Conn) adopt(ctx context.Context) error {
	b := newBatch(c.family, c.table)
	b.addOwnedTable(c.table)
	messages, err := b.finish(0)
	if err != nil {
		return err
	}
	return c.flush(ctx, messages)
}

// tableHead is what a table says of itself.
type tableHead struct {
	exists       bool
	flags, owner uint32
}

func (c *Conn) head(ctx context.Context) (tableHead, error) {
	head := tableHead{exists: true}
	err := c.ask(ctx, c.socket, unix.NFT_MSG_GETTABLE, 0, func(e *encoder) { e.string(unix.NFTA_TABLE_NAME, c.table) }, head.decode)
	if errors.Is(err, unix.ENOENT) {
		return tableHead{}, nil
	}
	if err != nil {
		return tableHead{}, fmt.Errorf("read table %q: %w", c.table, err)
	}
	return head, nil
}

// tableOwner is NFTA_TABLE_OWNER.
const tableOwner = 7

func (h *tableHead) decode(b []byte) error {
	ad, err := newDecoder(b)
	if err != nil {
		return err
	}
	for ad.Next() {
		switch ad.Type() {
		case unix.NFTA_TABLE_FLAGS:
			h.flags = ad.Uint32()
		case tableOwner:
			h.owner = ad.Uint32()
		}
	}
	return decodeError(ad)
}
