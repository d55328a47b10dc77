package nft

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/mdlayher/netlink"
	"golang.org/x/net/bpf"
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

// Event is a commit of somebody to the ruleset of a namespace.
type Event struct {
	// Generation that it made; 0 if events were lost, and nobody knows what happened.
	Generation uint32
	// ProcessID and ProcessName are the writer's.
	ProcessID   uint32
	ProcessName string
}

// Watcher hears of every commit to the ruleset of the network namespace that it was opened in.
type Watcher struct{ conn *netlink.Conn }

// Watch opens a Watcher in the namespace of the calling thread. The caller closes it, which ends a Next that waits.
func Watch() (*Watcher, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, fmt.Errorf("open a netfilter socket: %w", err)
	}
	filter, err := bpf.Assemble(commitsOnly())
	if err == nil {
		err = conn.SetBPF(filter)
	}
	if err == nil {
		err = conn.JoinGroup(unix.NFNLGRP_NFTABLES)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("watch the ruleset: %w", err), conn.Close())
	}
	return &Watcher{conn: conn}, nil
}

// commitsOnly is a socket filter that takes the one message behind each commit and none about its parts: the parts of a table of
// 1,000 databases would fill the socket, and with them would go the word of who it was. The kernel sends that message by itself
// (net/netfilter/nf_tables_api.c: nf_tables_gen_notify).
func commitsOnly() []bpf.Instruction {
	const typeOffset, typeLength = 4, 2 // of struct nlmsghdr's nlmsg_type, in host order, which BPF reads as network order
	kind := binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, uint16(messageType(unix.NFT_MSG_NEWGEN))))
	return []bpf.Instruction{
		bpf.LoadAbsolute{Off: typeOffset, Size: typeLength},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(kind), SkipFalse: 1},
		bpf.RetConstant{Val: math.MaxUint32},
		bpf.RetConstant{Val: 0},
	}
}

// Close ends the watch.
func (w *Watcher) Close() error { return w.conn.Close() }

// Next waits for commits. An overrun is an Event without a generation. After Close it returns an error.
func (w *Watcher) Next() ([]Event, error) {
	for {
		messages, err := w.conn.Receive()
		if errors.Is(err, unix.ENOBUFS) {
			return []Event{{}}, nil
		}
		if err != nil {
			return nil, fmt.Errorf("watch the ruleset: %w", err)
		}
		var events []Event
		for _, m := range messages {
			if e, ok := decodeEvent(m); ok {
				events = append(events, e)
			}
		}
		if len(events) > 0 {
			return events, nil
		}
	}
}

// Attributes of NFT_MSG_NEWGEN (include/uapi/linux/netfilter/nf_tables.h).
const (
	genProcessID   = 2 // NFTA_GEN_PROC_PID
	genProcessName = 3 // NFTA_GEN_PROC_NAME
)

func decodeEvent(m netlink.Message) (e Event, ok bool) {
	if m.Header.Type != messageType(unix.NFT_MSG_NEWGEN) {
		return e, false
	}
	ad, err := newDecoder(payload(m))
	if err != nil {
		return e, true // something was written
	}
	for ad.Next() {
		switch ad.Type() {
		case unix.NFTA_GEN_ID:
			e.Generation = ad.Uint32()
		case genProcessID:
			e.ProcessID = ad.Uint32()
		case genProcessName:
			e.ProcessName = ad.String()
		}
	}
	return e, true
}
