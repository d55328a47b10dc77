package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/mdlayher/netlink"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"drawbridge/enforcer/nlsocket"
)

// Event is a commit of somebody to the ruleset of a namespace.
type Event struct {
	// Generation that it made; 0 if events were lost, and nobody knows what happened.
	Generation uint32
	// ProcessID and ProcessName are the writer's.
	ProcessID   uint32
	ProcessName string
}

// Watcher hears of every commit to the ruleset of the network namespace that it was opened in.
type Watcher struct{ heard *listener }

// Watch opens a Watcher in the namespace of the calling thread. The caller closes it, which ends a Next that waits.
func Watch() (*Watcher, error) {
	heard, err := listen(commitsOnly())
	if err != nil {
		return nil, err
	}
	return &Watcher{heard: heard}, nil
}

// Close ends the watch.
func (w *Watcher) Close() error { return w.heard.close() }

// Next waits for commits. An overrun is an Event without a generation. After Close it returns os.ErrClosed. Use it from one goroutine.
func (w *Watcher) Next() ([]Event, error) {
	for {
		datagram, err := w.heard.next()
		if errors.Is(err, unix.ENOBUFS) {
			return []Event{{}}, nil
		}
		if err != nil {
			return nil, err
		}
		messages, err := nlsocket.Parse(datagram)
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

// commitsOnly is a socket filter that takes the one message behind each commit and none about its parts: the parts of a table of
// 1,000 databases would fill the socket, and with them would go the word of who it was. The kernel sends that message by itself
// (net/netfilter/nf_tables_api.c: nf_tables_gen_notify).
func commitsOnly() []bpf.Instruction { return datagramsOf(unix.NFT_MSG_NEWGEN) }

// DeletionWatcher hears of commits while they are still under way: of those that delete something as soon as the kernel tells of the first
// part, and of each when it is complete, which is still before the ruleset is unlocked (net/netfilter/nf_tables_api.c: nf_tables_commit calls
// nft_commit_notify, nf_tables_gen_notify and then nf_tables_commit_release). Whoever has to answer one may be the next to write.
type DeletionWatcher struct {
	heard *listener
	table string
}

// Deletion is a commit that may have deleted something.
type Deletion struct {
	// Ours: it deletes parts of the table that is watched, or all of it.
	Ours bool
	// Generation are the last 16 bits of the one that it made (struct nfgenmsg's res_id); 0 unless it is ours.
	Generation uint16
	// Writer is the netlink port of the socket that wrote it (struct nlmsghdr's nlmsg_pid); 0 if it is not known.
	Writer uint32
}

// WatchDeletions opens a DeletionWatcher in the namespace of the calling thread, for the sake of the tables of this name. The caller closes
// it, which ends a Next that waits.
func WatchDeletions(table string) (*DeletionWatcher, error) {
	heard, err := listen(deletionsOnly())
	if err != nil {
		return nil, err
	}
	return &DeletionWatcher{heard: heard, table: table}, nil
}

// Close ends the watch.
func (w *DeletionWatcher) Close() error { return w.heard.close() }

// Next waits for a commit of somebody that may have deleted something. Of a large one it tells several times. After Close it returns
// os.ErrClosed. Use it from one goroutine.
func (w *DeletionWatcher) Next() (d Deletion, err error) {
	datagram, err := w.heard.next()
	if errors.Is(err, unix.ENOBUFS) { // too many to hold
		return d, nil
	}
	if err != nil {
		return d, err
	}
	messages, _ := nlsocket.Parse(datagram) // of what is cut off at its end, the rest
	for _, m := range messages {
		d.Writer = m.Header.PID // the same in all: a datagram is about one commit
		if d.Ours = deletes(m, w.table); d.Ours {
			d.Generation = binary.BigEndian.Uint16(m.Data[2:])
			break
		}
	}
	return d, nil
}

// deletionKinds are the messages that take apart a table, or all of it.
var deletionKinds = [...]int{unix.NFT_MSG_DELTABLE, unix.NFT_MSG_DELCHAIN, unix.NFT_MSG_DELRULE, unix.NFT_MSG_DELSET}

// deletes tells whether a message is of a deletion in a table. Its name is the first attribute of all of them (NFTA_TABLE_NAME,
// NFTA_CHAIN_TABLE, NFTA_RULE_TABLE, NFTA_SET_TABLE).
func deletes(m netlink.Message, table string) bool {
	if !slices.ContainsFunc(deletionKinds[:], func(k int) bool { return m.Header.Type == messageType(k) }) {
		return false
	}
	ad, err := newDecoder(payload(m))
	if err != nil {
		return false
	}
	for ad.Next() {
		if ad.Type() == unix.NFTA_TABLE_NAME {
			return ad.String() == table
		}
	}
	return false
}

// deletionsOnly is a socket filter that takes of the datagrams about a commit's parts those that begin with a deletion, and the one message
// behind the commit: a deletion may stand further back in a datagram.
func deletionsOnly() []bpf.Instruction {
	return datagramsOf(append(deletionKinds[:], unix.NFT_MSG_NEWGEN)...)
}

// datagramsOf takes datagrams that begin with one of these messages, and nothing of others. It takes them whole: the kernel cuts off what
// a filter leaves out before it passes the same datagram on to those who listen as well (net/netlink/af_netlink.c: do_one_broadcast).
func datagramsOf(kinds ...int) []bpf.Instruction {
	const typeOffset, typeLength = 4, 2 // of struct nlmsghdr's nlmsg_type, in host order, which BPF reads as network order
	program := []bpf.Instruction{bpf.LoadAbsolute{Off: typeOffset, Size: typeLength}}
	for i, kind := range kinds {
		value := binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, uint16(messageType(kind))))
		program = append(program, bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(value), SkipTrue: uint8(len(kinds) - i)})
	}
	return append(program, bpf.RetConstant{Val: 0}, bpf.RetConstant{Val: math.MaxUint32})
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
