// Package nlsocket is a netlink socket for short requests (RFC 3549, netlink(7)): it sends, and waits for what the
// kernel answers, in the goroutine that asks. The kernel answers within the send, so that hardly anything ever waits; a
// socket on the runtime's poller costs a goroutine and its wake-ups for each of the hundreds of messages of one change
// (measured: 20 ms instead of 5).
//
// Messages and attributes are those of mdlayher/netlink.
package nlsocket

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

const (
	// receiveSize is more than the longest datagram: of a dump 32 KiB (net/netlink/af_netlink.c: netlink_recvmsg); of an
	// error, which is asked not to repeat the request, much less.
	receiveSize = 64 << 10
	// replyTimeout bounds the wait for the kernel.
	replyTimeout = 10 * time.Second
	// sequenceOffset is that of struct nlmsghdr's nlmsg_seq (linux/netlink.h).
	sequenceOffset = 8
	// sendSlack is what a message takes of the send buffer beyond its own bytes (netlink_sendmsg).
	sendSlack = 4 << 10
)

var (
	// ErrTimeout: the kernel did not answer in time.
	ErrTimeout = errors.New("no answer from the kernel")
	// ErrTooLarge: the messages do not fit the socket's send buffer, which this user may not enlarge.
	ErrTooLarge = errors.New("larger than net.core.wmem_max: raise it, or run as root outside of a user namespace")
	errShort    = errors.New("message too short")
)

// Error is the kernel's refusal of one request. errors.Is finds its errno.
type Error struct {
	Sequence uint32
	Errno    unix.Errno
	// Text is the kernel's own explanation; empty if it gave none.
	Text string
}

// Error returns the kernel's words.
func (e *Error) Error() string {
	if e.Text == "" {
		return e.Errno.Error()
	}
	return e.Text + ": " + e.Errno.Error()
}

// Unwrap returns the errno.
func (e *Error) Unwrap() error { return e.Errno }

// Socket is a netlink socket. Use it from one goroutine at a time.
type Socket struct {
	fd       int
	port     uint32
	sequence uint32
	sendSize int
	buffer   *[receiveSize]byte // to receive into
}

// buffers are those of closed sockets: a cut opens two each time, and would otherwise leave behind more than all else that a change does.
var buffers = sync.Pool{New: func() any { return new([receiveSize]byte) }}

// Open opens a socket of a netlink protocol (unix.NETLINK_...) in the network namespace of the calling thread, with a
// receive buffer of this many bytes, or of net.core.rmem_max for users who may not ask for more. The caller closes it;
// it belongs to that namespace wherever it is used.
func Open(protocol, receiveBuffer int) (*Socket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	s := &Socket{fd: fd, sequence: uint32(time.Now().UnixNano()), buffer: buffers.Get().(*[receiveSize]byte)}
	if err := s.setUp(receiveBuffer); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Socket) setUp(receiveBuffer int) error {
	if err := unix.Bind(s.fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return os.NewSyscallError("bind", err)
	}
	at, err := unix.Getsockname(s.fd)
	if err != nil {
		return os.NewSyscallError("getsockname", err)
	}
	if at, ok := at.(*unix.SockaddrNetlink); ok {
		s.port = at.Pid
	}
	for _, option := range []int{unix.NETLINK_EXT_ACK, unix.NETLINK_CAP_ACK} {
		if err := unix.SetsockoptInt(s.fd, unix.SOL_NETLINK, option, 1); err != nil {
			return os.NewSyscallError("setsockopt", err)
		}
	}
	return s.resize(unix.SO_RCVBUFFORCE, unix.SO_RCVBUF, receiveBuffer)
}

// Port is the socket's netlink port (netlink(7): nl_pid), by which the kernel tells others whose message something came of.
func (s *Socket) Port() uint32 { return s.port }

// resize sets a buffer's size, or as much of it as this user may.
func (s *Socket) resize(force, ordinary, size int) error {
	err := unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, force, size)
	if errors.Is(err, unix.EPERM) {
		err = unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, ordinary, size)
	}
	return os.NewSyscallError("setsockopt", err)
}

// Close closes the socket. What came out of Each is gone with it.
func (s *Socket) Close() error {
	if s.buffer != nil {
		buffers.Put(s.buffer)
		s.buffer = nil
	}
	return os.NewSyscallError("close", unix.Close(s.fd))
}

// Send sends messages in one datagram and returns them with the sequence numbers that they got, which are consecutive.
func (s *Socket) Send(messages ...netlink.Message) ([]netlink.Message, error) {
	d, err := s.Compose(messages...)
	if err != nil {
		return nil, err
	}
	return s.SendComposed(d)
}

// Datagram is what Send sends, written beforehand: of a large one the writing takes a good part of the time. It belongs to one Socket.
type Datagram struct {
	bytes    []byte
	messages []netlink.Message // one behind the other, each as long as its header says
}

// Compose writes a datagram, and makes room for it in the send buffer.
func (s *Socket) Compose(messages ...netlink.Message) (*Datagram, error) {
	size := 0
	for i := range messages {
		messages[i].Header.Length = uint32(align(unix.NLMSG_HDRLEN + len(messages[i].Data)))
		size += int(messages[i].Header.Length)
	}
	d := &Datagram{bytes: make([]byte, 0, size), messages: messages}
	for _, m := range messages {
		d.bytes = appendMessage(d.bytes, m)
	}
	if need := size + sendSlack; need > s.sendSize {
		if err := s.resize(unix.SO_SNDBUFFORCE, unix.SO_SNDBUF, need); err != nil {
			return nil, err
		}
		s.sendSize = need
	}
	return d, nil
}

// Data are those of a message, to be written over in place.
func (d *Datagram) Data(i int) []byte {
	start := unix.NLMSG_HDRLEN
	for _, m := range d.messages[:i] {
		start += int(m.Header.Length)
	}
	return d.bytes[start : start+len(d.messages[i].Data)]
}

// SendComposed is Send for what was written beforehand, each time with new sequence numbers.
func (s *Socket) SendComposed(d *Datagram) ([]netlink.Message, error) {
	start := 0
	for i := range d.messages {
		s.sequence++
		if s.sequence == 0 {
			s.sequence++ // 0 is the kernel's own
		}
		d.messages[i].Header.Sequence = s.sequence
		binary.NativeEndian.PutUint32(d.bytes[start+sequenceOffset:], s.sequence)
		start += int(d.messages[i].Header.Length)
	}
	err := unix.Sendto(s.fd, d.bytes, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	if errors.Is(err, unix.EMSGSIZE) {
		return nil, fmt.Errorf("%d bytes: %w", len(d.bytes), ErrTooLarge)
	}
	return d.messages, os.NewSyscallError("sendto", err)
}

// appendMessage appends a message, whose length is that of all of it.
func appendMessage(b []byte, m netlink.Message) []byte {
	end := len(b) + int(m.Header.Length)
	b = binary.NativeEndian.AppendUint32(b, m.Header.Length)
	b = binary.NativeEndian.AppendUint16(b, uint16(m.Header.Type))
	b = binary.NativeEndian.AppendUint16(b, uint16(m.Header.Flags))
	b = binary.NativeEndian.AppendUint32(b, m.Header.Sequence)
	b = binary.NativeEndian.AppendUint32(b, m.Header.PID)
	b = append(b, m.Data...)
	return append(b, make([]byte, end-len(b))...)
}

func align(n int) int { return (n + unix.NLMSG_ALIGNTO - 1) &^ (unix.NLMSG_ALIGNTO - 1) }

// Receive waits for one datagram and returns its messages, as they are. It ends with the context's deadline at the
// latest.
func (s *Socket) Receive(ctx context.Context) ([]netlink.Message, error) {
	datagram, err := s.receive(ctx)
	if err != nil {
		return nil, err
	}
	return Parse(bytes.Clone(datagram))
}

// receive is Receive for a datagram that stands in the buffer, until the next one.
func (s *Socket) receive(ctx context.Context) ([]byte, error) {
	for {
		n, _, flags, _, err := unix.Recvmsg(s.fd, s.buffer[:], nil, 0)
		switch {
		case err == nil && flags&unix.MSG_TRUNC != 0:
			return nil, fmt.Errorf("a datagram of more than %d bytes: %w", receiveSize, errShort)
		case err == nil:
			return s.buffer[:n], nil
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN):
			if err := s.wait(ctx); err != nil {
				return nil, err
			}
		default:
			return nil, os.NewSyscallError("recvmsg", err)
		}
	}
}

// wait waits until there is something to receive.
func (s *Socket) wait(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	left := replyTimeout
	if deadline, ok := ctx.Deadline(); ok {
		left = min(left, time.Until(deadline))
	}
	timeout := unix.NsecToTimespec(max(left, 0).Nanoseconds())
	n, err := unix.Ppoll([]unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLIN}}, &timeout, nil)
	switch {
	case errors.Is(err, unix.EINTR):
		return nil
	case err != nil:
		return os.NewSyscallError("ppoll", err)
	case n == 0:
		return errors.Join(ErrTimeout, ctx.Err())
	}
	return nil
}

// Parse splits a datagram into messages. Their data are parts of it.
func Parse(datagram []byte) ([]netlink.Message, error) {
	var out []netlink.Message
	for len(datagram) >= unix.NLMSG_HDRLEN {
		m, rest, err := first(datagram)
		if err != nil {
			return nil, err
		}
		out, datagram = append(out, m), rest
	}
	return out, nil
}

// first takes the first message of a datagram that is long enough for one.
func first(datagram []byte) (m netlink.Message, rest []byte, err error) {
	length := int(binary.NativeEndian.Uint32(datagram))
	if length < unix.NLMSG_HDRLEN || length > len(datagram) {
		return m, nil, fmt.Errorf("%d bytes of netlink message in %d: %w", length, len(datagram), errShort)
	}
	m = netlink.Message{
		Header: netlink.Header{
			Length:   uint32(length),
			Type:     netlink.HeaderType(binary.NativeEndian.Uint16(datagram[4:])),
			Flags:    netlink.HeaderFlags(binary.NativeEndian.Uint16(datagram[6:])),
			Sequence: binary.NativeEndian.Uint32(datagram[8:]),
			PID:      binary.NativeEndian.Uint32(datagram[12:]),
		},
		Data: datagram[unix.NLMSG_HDRLEN:length:length],
	}
	return m, datagram[min(align(length), len(datagram)):], nil
}

// errorLen is the length of struct nlmsgerr: an errno and the header of the request.
const errorLen = 4 + unix.NLMSG_HDRLEN

// Refusal tells whether a message is the kernel's error for a request; an acknowledgement is none.
func Refusal(m netlink.Message) (refused *Error, isAnswer bool) {
	if m.Header.Type != netlink.Error && m.Header.Type != netlink.Done || len(m.Data) < 4 {
		return nil, false
	}
	code := int32(binary.NativeEndian.Uint32(m.Data))
	if code == 0 {
		return nil, true
	}
	e := &Error{Sequence: m.Header.Sequence, Errno: unix.Errno(-code)}
	if m.Header.Type == netlink.Error && m.Header.Flags&unix.NLM_F_ACK_TLVS != 0 && m.Header.Flags&unix.NLM_F_CAPPED != 0 && len(m.Data) > errorLen {
		e.Text = explanation(m.Data[errorLen:])
	}
	return e, true
}

// explanation finds NLMSGERR_ATTR_MSG.
func explanation(attributes []byte) string {
	ad, err := netlink.NewAttributeDecoder(attributes)
	if err != nil {
		return ""
	}
	text := ""
	for ad.Next() {
		if ad.Type() == unix.NLMSGERR_ATTR_MSG {
			text = ad.String()
		}
	}
	return text
}

// Ask sends a request and returns its answers: all of a dump, nothing for a request that is only acknowledged. An error
// of the kernel is an *Error. Answers to earlier requests are skipped.
func (s *Socket) Ask(ctx context.Context, m netlink.Message) (answers []netlink.Message, err error) {
	err = s.Each(ctx, m, func(a netlink.Message) error {
		a.Data = bytes.Clone(a.Data)
		answers = append(answers, a)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return answers, nil
}

// Each is Ask for answers that are looked at one by one: the data of each are there until take returns. With its first error
// it is not called any more; what is left of the answers is received all the same, since until then the kernel would
// refuse another dump.
func (s *Socket) Each(ctx context.Context, m netlink.Message, take func(netlink.Message) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	sent, err := s.Send(m)
	if err != nil {
		return err
	}
	a := answers{to: sent[0].Header, take: take}
	for !a.complete {
		datagram, err := s.receive(ctx)
		if err == nil {
			err = a.read(datagram)
		}
		if err != nil {
			return err
		}
	}
	return a.taken
}

// answers are those to one request, as they come in.
type answers struct {
	to       netlink.Header
	take     func(netlink.Message) error
	taken    error // the first of take
	complete bool
}

// read takes the answers in one datagram, up to the last one. The error is the kernel's, or that of a datagram that is none.
func (a *answers) read(datagram []byte) error {
	for !a.complete && len(datagram) >= unix.NLMSG_HDRLEN {
		m, rest, err := first(datagram)
		if err != nil {
			return err
		}
		datagram = rest
		if m.Header.Sequence != a.to.Sequence {
			continue
		}
		refused, isAnswer := Refusal(m)
		if refused != nil {
			return refused
		}
		if !isAnswer && a.taken == nil {
			a.taken = a.take(m)
		}
		// Only a dump ends with a message of its own: ctnetlink sets NLM_F_MULTI on single answers as well
		// (net/netfilter/nf_conntrack_netlink.c: ctnetlink_fill_info).
		a.complete = isAnswer || m.Header.Flags&netlink.Multi == 0 || a.to.Flags&netlink.Dump != netlink.Dump
	}
	return nil
}
