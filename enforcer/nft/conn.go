package nft

import (
	"context"
	"errors"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"drawbridge/enforcer/nlsocket"
	"drawbridge/enforcer/ruleset"
)

// receiveBuffer holds the kernel's errors for one batch: some hundred bytes a message, for more messages than a table of
// 10,000 databases has.
const receiveBuffer = 16 << 20

// readBuffer holds the answers to one request; dumps come in portions.
const readBuffer = 1 << 20

// Conn is one lasting netlink socket, and a second one to read with, in one network namespace, for one table. Use it from one goroutine at a time.
type Conn struct {
	socket *nlsocket.Socket
	second *nlsocket.Socket // for reading only
	family ruleset.Family
	table  string
	owns   bool
}

// Port is the netlink port of what this Conn writes (Deletion.Writer).
func (c *Conn) Port() uint32 { return c.socket.Port() }

// Open opens a Conn for the table with this name, of family inet, in the network namespace of the calling thread; it
// stays there wherever it is used. The caller closes it.
func Open(table string) (*Conn, error) { return OpenFamily(ruleset.FamilyINET, table) }

// OpenFamily is Open for a table of another family.
func OpenFamily(family ruleset.Family, table string) (*Conn, error) {
	if _, ok := protocolFamilies[family]; !ok {
		return nil, fmt.Errorf("family %q: %w", family, ErrInvalid)
	}
	if table == "" || len(table) >= unix.NFT_TABLE_MAXNAMELEN {
		return nil, fmt.Errorf("table name %q: %w", table, ErrInvalid)
	}
	socket, err := nlsocket.Open(unix.NETLINK_NETFILTER, receiveBuffer)
	if err != nil {
		return nil, fmt.Errorf("open a netfilter socket: %w", err)
	}
	second, err := nlsocket.Open(unix.NETLINK_NETFILTER, readBuffer)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open a netfilter socket: %w", err), socket.Close())
	}
	return &Conn{socket: socket, second: second, family: family, table: table}, nil
}

// Close closes the socket. A table that it owned stays, an orphan that anybody may change or adopt.
func (c *Conn) Close() error { return errors.Join(c.second.Close(), c.socket.Close()) }

// request is a message outside of a batch, about tables of the Conn's family.
func (c *Conn) request(msg int, flags netlink.HeaderFlags, attributes []byte) netlink.Message {
	return netlink.Message{
		Header: netlink.Header{Type: messageType(msg), Flags: netlink.Request | flags},
		Data:   append(nfgenmsg(protocolFamilies[c.family], 0), attributes...),
	}
}

// Generation is the number of the ruleset's present state; every commit of anybody in this namespace changes it.
func (c *Conn) Generation(ctx context.Context) (uint32, error) {
	answers, err := c.socket.Ask(ctx, c.request(unix.NFT_MSG_GETGEN, 0, nil))
	if err != nil {
		return 0, fmt.Errorf("ask for the generation: %w", err)
	}
	for _, a := range answers {
		if generation, ok := decodeGeneration(a); ok {
			return generation, nil
		}
	}
	return 0, fmt.Errorf("ask for the generation: no answer in %d messages", len(answers))
}

// nfgenmsgLen is the length of the header before the attributes.
const nfgenmsgLen = 4

// payload is what follows the header of a message.
func payload(m netlink.Message) []byte {
	if len(m.Data) < nfgenmsgLen {
		return nil
	}
	return m.Data[nfgenmsgLen:]
}

func decodeGeneration(m netlink.Message) (generation uint32, ok bool) {
	if m.Header.Type != messageType(unix.NFT_MSG_NEWGEN) {
		return 0, false
	}
	ad, err := newDecoder(payload(m))
	if err != nil {
		return 0, false
	}
	for ad.Next() {
		if ad.Type() == unix.NFTA_GEN_ID {
			generation, ok = ad.Uint32(), true
		}
	}
	return generation, ok && ad.Err() == nil
}

// flush sends one transaction and waits for what the kernel says to it, which is something only where it refuses.
func (c *Conn) flush(ctx context.Context, messages []netlink.Message) error {
	d, err := c.socket.Compose(messages...)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnknownOutcome, err)
	}
	return c.flushComposed(ctx, d)
}

func (c *Conn) flushComposed(ctx context.Context, d *nlsocket.Datagram) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	sent, err := c.socket.SendComposed(d)
	if errors.Is(err, nlsocket.ErrTooLarge) {
		return fmt.Errorf("%w: a transaction of %w", ErrRejected, err)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnknownOutcome, err)
	}
	refused, err := c.refusals(ctx, sent)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnknownOutcome, err)
	}
	for i := range sent {
		if cause, ok := refused[i]; ok {
			return batchError(sent, i, cause)
		}
	}
	return nil
}

// refusals collects the kernel's error for each message of a batch, by index. A question for the generation is sent
// behind the batch: its answer comes after every error.
func (c *Conn) refusals(ctx context.Context, sent []netlink.Message) (map[int]*nlsocket.Error, error) {
	fence, err := c.socket.Send(c.request(unix.NFT_MSG_GETGEN, 0, nil))
	if err != nil {
		return nil, err
	}
	index := make(map[uint32]int, len(sent))
	for i, m := range sent {
		index[m.Header.Sequence] = i
	}
	refused := map[int]*nlsocket.Error{}
	for {
		messages, err := c.socket.Receive(ctx)
		if err != nil {
			return nil, err
		}
		for _, m := range messages {
			if m.Header.Sequence == fence[0].Header.Sequence {
				return refused, nil
			}
			cause, _ := nlsocket.Refusal(m)
			if i, ours := index[m.Header.Sequence]; ours && cause != nil {
				refused[i] = cause
			}
		}
	}
}

// batchError says what the kernel's refusal of one message means for the batch.
func batchError(sent []netlink.Message, index int, cause *nlsocket.Error) error {
	kind := ErrRejected
	switch cause.Errno {
	case unix.ERESTART:
		return ErrGeneration
	case unix.ENOMEM, unix.EAGAIN, unix.EINTR:
		kind = ErrUnknownOutcome
	}
	return &RefusedError{Index: index, Message: describe(sent[index]), kind: kind, cause: cause}
}

// RefusedError is the kernel's refusal of one message of a batch; the whole batch had no effect.
type RefusedError struct {
	// Index counts the messages of the batch from 1; 0 is the batch itself.
	Index int
	// Message says what was refused: the message's name, the chain or set, and for rules the comment.
	Message string
	kind    error
	cause   error
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("%v: %s (message %d): %v", e.kind, e.Message, e.Index, e.cause)
}

// Unwrap gives ErrRejected or ErrUnknownOutcome, and the kernel's error number.
func (e *RefusedError) Unwrap() []error { return []error{e.kind, e.cause} }
