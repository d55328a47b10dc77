package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

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
func commitsOnly() []bpf.Instruction { return datagramsOf(math.MaxUint32, unix.NFT_MSG_NEWGEN) }

// DeletionWatcher hears of commits that delete tables, chains, rules or sets while they are still under way (net/netfilter/nf_tables_api.c:
// nft_commit_notify comes before the ruleset is unlocked). Whoever has to answer one may be the next to write.
type DeletionWatcher struct{ heard *listener }

// WatchDeletions opens a DeletionWatcher in the namespace of the calling thread. The caller closes it, which ends a Next that waits.
func WatchDeletions() (*DeletionWatcher, error) {
	heard, err := listen(deletionsOnly())
	if err != nil {
		return nil, err
	}
	return &DeletionWatcher{heard: heard}, nil
}

// Close ends the watch.
func (w *DeletionWatcher) Close() error { return w.heard.close() }

// Next waits for a deletion of something by somebody. Of a large one it tells several times. After Close it returns os.ErrClosed. Use it
// from one goroutine.
func (w *DeletionWatcher) Next() error {
	_, err := w.heard.next()
	if errors.Is(err, unix.ENOBUFS) { // too many to hold
		return nil
	}
	return err
}

// deletionsOnly is a socket filter that takes of the datagrams about a commit's parts those that begin with a deletion, and of them the
// head alone.
func deletionsOnly() []bpf.Instruction {
	return datagramsOf(unix.NLMSG_HDRLEN, unix.NFT_MSG_DELTABLE, unix.NFT_MSG_DELCHAIN, unix.NFT_MSG_DELRULE, unix.NFT_MSG_DELSET)
}

// datagramsOf takes so many bytes of datagrams that begin with one of these messages, and nothing of others.
func datagramsOf(length uint32, kinds ...int) []bpf.Instruction {
	const typeOffset, typeLength = 4, 2 // of struct nlmsghdr's nlmsg_type, in host order, which BPF reads as network order
	program := []bpf.Instruction{bpf.LoadAbsolute{Off: typeOffset, Size: typeLength}}
	for i, kind := range kinds {
		value := binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, uint16(messageType(kind))))
		program = append(program, bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(value), SkipTrue: uint8(len(kinds) - i)})
	}
	return append(program, bpf.RetConstant{Val: 0}, bpf.RetConstant{Val: length})
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
