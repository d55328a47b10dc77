package nft

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Buffers and deadlines of the socket.
const (
	// receiveBuffer holds the errors and acknowledgements of one batch: some hundred bytes a message, for more messages
	// than a table of 10,000 databases has. Without CAP_NET_ADMIN outside (in a user namespace) the kernel grants
	// net.core.rmem_max only.
	receiveBuffer = 16 << 20
	// sendBufferSlack is what a batch takes beyond its own bytes (net/netlink/af_netlink.c: netlink_sendmsg).
	sendBufferSlack = 4 << 10
	// replyTimeout bounds the wait for the kernel, which answers before the send returns or shortly after.
	replyTimeout = 10 * time.Second
)

// Conn is one lasting netlink socket in one network namespace, for one table of family inet. Use it from one goroutine
// at a time.
type Conn struct {
	socket     *netlink.Conn
	table      string
	sendBuffer int
}

// Config says where and what a Conn is for.
type Config struct {
	// Table is the name of the table, of family inet.
	Table string
	// NetNS is a descriptor of the network namespace; 0: that of the calling thread.
	NetNS int
}

// Open opens the socket. The caller closes it.
func Open(cfg Config) (*Conn, error) {
	if cfg.Table == "" || len(cfg.Table) >= unix.NFT_TABLE_MAXNAMELEN {
		return nil, fmt.Errorf("table name %q: %w", cfg.Table, ErrInvalid)
	}
	socket, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: cfg.NetNS})
	if err != nil {
		return nil, fmt.Errorf("open a netfilter socket: %w", err)
	}
	if err := socket.SetReadBuffer(receiveBuffer); err != nil {
		return nil, errors.Join(fmt.Errorf("size the netfilter socket's buffer: %w", err), socket.Close())
	}
	// Only adds words to errors; kernels and namespaces that do not have it do without.
	_ = socket.SetOption(netlink.ExtendedAcknowledge, true)
	return &Conn{socket: socket, table: cfg.Table}, nil
}

// Close closes the socket. Tables that it owns without the persist flag go with it.
func (c *Conn) Close() error { return c.socket.Close() }

// deadline bounds the answers to come by ctx and replyTimeout.
func (c *Conn) deadline(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	at := time.Now().Add(replyTimeout)
	if until, ok := ctx.Deadline(); ok && until.Before(at) {
		at = until
	}
	return c.socket.SetReadDeadline(at)
}

// request is a message outside of a batch.
func request(msg int, flags netlink.HeaderFlags, attributes []byte) netlink.Message {
	return netlink.Message{
		Header: netlink.Header{Type: messageType(msg), Flags: netlink.Request | flags},
		Data:   append(nfgenmsg(familyINET, 0), attributes...),
	}
}

// ask sends one request and collects its answers. Answers to earlier requests are skipped.
func (c *Conn) ask(ctx context.Context, m netlink.Message) ([]netlink.Message, error) {
	if err := c.deadline(ctx); err != nil {
		return nil, err
	}
	sent, err := c.socket.Send(m)
	if err != nil {
		return nil, err
	}
	for {
		replies, err := c.socket.Receive()
		if stale(err, sent.Header.Sequence) || err == nil && len(replies) > 0 && replies[0].Header.Sequence != sent.Header.Sequence {
			continue
		}
		return replies, err
	}
}

// stale reports whether err is the kernel's answer to another request.
func stale(err error, sequence uint32) bool {
	var op *netlink.OpError
	return errors.As(err, &op) && op.Sequence != 0 && op.Sequence != sequence
}

// Generation is the number of the ruleset's present state; every commit of anybody in this namespace changes it.
func (c *Conn) Generation(ctx context.Context) (uint32, error) {
	replies, err := c.ask(ctx, request(unix.NFT_MSG_GETGEN, 0, nil))
	if err != nil {
		return 0, fmt.Errorf("ask for the generation: %w", err)
	}
	for _, r := range replies {
		if generation, ok := decodeGeneration(r); ok {
			return generation, nil
		}
	}
	return 0, fmt.Errorf("ask for the generation: no answer in %d messages", len(replies))
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

// flush sends one transaction and waits for what the kernel says to it.
func (c *Conn) flush(ctx context.Context, messages []netlink.Message) error {
	if err := c.growSendBuffer(messages); err != nil {
		return err
	}
	if err := c.deadline(ctx); err != nil {
		return err
	}
	sent, err := c.socket.SendMessages(messages)
	if errors.Is(err, unix.EMSGSIZE) {
		return fmt.Errorf("%w: the batch is larger than net.core.wmem_max allows: raise it, or run as root outside a user namespace", ErrRejected)
	}
	if err != nil {
		return fmt.Errorf("%w: send: %w", ErrUnknownOutcome, err)
	}
	return c.verdict(sent)
}

// verdict waits for the outcome of a transaction: the kernel answers a batch only where it refuses something.
func (c *Conn) verdict(sent []netlink.Message) error {
	refused, err := c.refusals(sent)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnknownOutcome, err)
	}
	for i := range sent {
		if op, ok := refused[i]; ok {
			return batchError(sent, i, op)
		}
	}
	return nil
}

// refusals collects the kernel's error for each message of a batch, by index. A question for the generation is sent
// behind the batch: its answer comes after every error.
func (c *Conn) refusals(sent []netlink.Message) (map[int]*netlink.OpError, error) {
	fence, err := c.socket.Send(request(unix.NFT_MSG_GETGEN, 0, nil))
	if err != nil {
		return nil, err
	}
	refused := map[int]*netlink.OpError{}
	for {
		replies, err := c.socket.Receive()
		var op *netlink.OpError
		switch {
		case err == nil && len(replies) > 0 && replies[0].Header.Sequence == fence.Header.Sequence:
			return refused, nil
		case err == nil:
		case errors.As(err, &op) && op.Sequence != 0 && op.Sequence-sent[0].Header.Sequence < uint32(len(sent)):
			refused[int(op.Sequence-sent[0].Header.Sequence)] = op
		case stale(err, fence.Header.Sequence):
		default:
			return nil, err
		}
	}
}

// batchError says what the kernel's refusal of one message means for the batch.
func batchError(sent []netlink.Message, index int, op *netlink.OpError) error {
	if errors.Is(op, unix.ERESTART) {
		return ErrGeneration
	}
	kind := ErrRejected
	if errors.Is(op, unix.ENOMEM) || errors.Is(op, unix.EAGAIN) || errors.Is(op, unix.EINTR) {
		kind = ErrUnknownOutcome
	}
	return &RefusedError{Index: index, Message: describe(sent[index]), kind: kind, cause: op}
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

// growSendBuffer makes room for a batch: it goes to the kernel in one piece.
func (c *Conn) growSendBuffer(messages []netlink.Message) error {
	need := sendBufferSlack
	for _, m := range messages {
		need += unix.NLMSG_HDRLEN + len(m.Data) + unix.NLMSG_ALIGNTO
	}
	if need <= c.sendBuffer {
		return nil
	}
	if need > math.MaxInt32 {
		return fmt.Errorf("%w: a batch of %d bytes", ErrInvalid, need)
	}
	if err := c.socket.SetWriteBuffer(need); err != nil && !errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("size the netfilter socket's buffer: %w", err)
	}
	c.sendBuffer = need
	return nil
}
