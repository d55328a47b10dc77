package denied

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"drawbridge/enforcer/nlsocket"
)

// ErrTaken: another process listens to the group; it has one listener in each network namespace. The kernel says so with the
// error of one who lacks CAP_NET_ADMIN (net/netfilter/nfnetlink_log.c: nfulnl_recv_config), so that callers make sure of
// that before.
var ErrTaken = errors.New("somebody else listens to the nflog group")

const (
	receiveBuffer = 1 << 20
	snapLength    = 96                     // more than the rules copy
	patience      = 250 * time.Millisecond // between two looks at the context
	flushAfter    = 10                     // hundredths of a second that the kernel may gather packets
)

// Listener listens to one nflog group of a network namespace. Use it from one goroutine at a time.
type Listener struct {
	socket *nlsocket.Socket
	clock  func() time.Time
}

// Listen binds a group in the network namespace of the calling thread; it needs CAP_NET_ADMIN there. The caller closes it.
func Listen(ctx context.Context, group uint16) (l *Listener, err error) {
	socket, err := nlsocket.Open(unix.NETLINK_NETFILTER, receiveBuffer)
	if err != nil {
		return nil, fmt.Errorf("open a netfilter socket: %w", err)
	}
	for _, m := range []netlink.Message{
		config(group, func(ae *netlink.AttributeEncoder) { ae.Bytes(nfulaConfigCommand, []byte{commandBind}) }),
		config(group, func(ae *netlink.AttributeEncoder) {
			ae.Bytes(nfulaConfigMode, append(binary.BigEndian.AppendUint32(nil, snapLength), copyPacket, 0))
			ae.Uint32(nfulaConfigTimeout, flushAfter)
			ae.Uint32(nfulaConfigQueue, 1)
		}),
	} {
		if _, err = socket.Ask(ctx, m); err != nil {
			if errors.Is(err, unix.EBUSY) || errors.Is(err, unix.EPERM) {
				err = fmt.Errorf("%w: %w", ErrTaken, err)
			}
			return nil, errors.Join(fmt.Errorf("listen to nflog group %d: %w", group, err), socket.Close())
		}
	}
	return &Listener{socket: socket, clock: time.Now}, nil
}

// config is a message about the group.
func config(group uint16, fn func(*netlink.AttributeEncoder)) netlink.Message {
	ae := netlink.NewAttributeEncoder()
	ae.ByteOrder = binary.BigEndian
	fn(ae)
	attributes, _ := ae.Encode() // fixed sizes, far below what an attribute holds
	return netlink.Message{
		Header: netlink.Header{Type: messageType(nfulnlMessageConfig), Flags: netlink.Request | netlink.Acknowledge},
		Data:   append(binary.BigEndian.AppendUint16([]byte{unix.AF_UNSPEC, unix.NFNETLINK_V0}, group), attributes...),
	}
}

// Close lets go of the group.
func (l *Listener) Close() error { return l.socket.Close() }

// Next waits for packets that were denied. What the kernel could not deliver is lost. It ends with the context.
func (l *Listener) Next(ctx context.Context) ([]Event, error) {
	for {
		messages, err := l.receive(ctx)
		switch {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case errors.Is(err, nlsocket.ErrTimeout), errors.Is(err, context.DeadlineExceeded), errors.Is(err, unix.ENOBUFS):
			continue
		case err != nil:
			return nil, err
		}
		var events []Event
		for _, m := range messages {
			if e, ok, err := parse(m, l.clock()); ok && err == nil {
				events = append(events, e)
			}
		}
		if len(events) > 0 {
			return events, nil
		}
	}
}

func (l *Listener) receive(ctx context.Context) ([]netlink.Message, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return l.socket.Receive(ctx)
}
