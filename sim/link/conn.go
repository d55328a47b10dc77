package link

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"

	"drawbridge/sim/netns"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// perDatagram is how many messages go into one datagram: enough that the system call is no longer what costs, and far
// below the socket's send buffer.
const perDatagram = 64

// receiveTimeout bounds the wait for an acknowledgement that, the kernel working inside sendmsg(2), is already there.
var receiveTimeout = unix.Timeval{Sec: 5}

// Error is one request that the kernel refused.
type Error struct {
	Subject string     // what was asked for
	Errno   unix.Errno // the kernel's answer
	Detail  string     // the kernel's own words; may be empty
}

func (e *Error) Error() string {
	if e.Detail != "" {
		return fmt.Sprintf("%s: %s (%s)", e.Subject, e.Errno.Error(), e.Detail)
	}
	return e.Subject + ": " + e.Errno.Error()
}

func (e *Error) Unwrap() error { return e.Errno }

// Conn is a routing socket of one namespace. It is not safe for use by several goroutines.
type Conn struct {
	fd  int
	seq uint32
	buf []byte
}

// Open opens a routing socket inside the namespace.
func Open(h *netns.Handle) (*Conn, error) {
	var c *Conn
	err := h.Do(func() (err error) { c, err = OpenHere(); return err })
	return c, err
}

// OpenHere is Open for the namespace of the calling thread: for use inside netns.Do and netns.Spawn.
func OpenHere() (_ *Conn, err error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("routing socket: %w", os.NewSyscallError("socket", err))
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
		}
	}()
	// Errors come without the request they are about, and with the kernel's own words.
	for _, option := range []int{unix.NETLINK_CAP_ACK, unix.NETLINK_EXT_ACK} {
		if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, option, 1); err != nil {
			return nil, fmt.Errorf("routing socket: %w", os.NewSyscallError("setsockopt", err))
		}
	}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &receiveTimeout); err != nil {
		return nil, fmt.Errorf("routing socket: %w", os.NewSyscallError("setsockopt", err))
	}
	return &Conn{fd: fd, buf: make([]byte, os.Getpagesize())}, nil
}

// Close closes the socket.
func (c *Conn) Close() error { return unix.Close(c.fd) }

// Run carries out every request of the batch in order. The kernel goes on after a failed one; Run returns all
// failures of the datagram in which the first occurred, each an *Error, and sends no further one.
func (c *Conn) Run(b *Batch) error {
	if b.err != nil {
		return b.err
	}
	for start := 0; start < len(b.messages); start += perDatagram {
		end := min(start+perDatagram, len(b.messages))
		if err := c.exchange(b.messages[start:end], b.subjects[start:end]); err != nil {
			return err
		}
	}
	return nil
}

func (c *Conn) exchange(messages [][]byte, subjects []string) error {
	first := c.seq + 1
	var datagram []byte
	for i, m := range messages {
		c.seq++
		binary.NativeEndian.PutUint32(m[8:], c.seq)
		if i == len(messages)-1 {
			flags := binary.NativeEndian.Uint16(m[6:])
			binary.NativeEndian.PutUint16(m[6:], flags|unix.NLM_F_ACK)
		}
		datagram = append(datagram, m...)
	}
	if err := unix.Sendto(c.fd, datagram, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("%s: %w", subjects[0], os.NewSyscallError("sendto", err))
	}
	return c.acknowledged(first, subjects)
}

// acknowledged reads answers until that to the last message.
func (c *Conn) acknowledged(first uint32, subjects []string) error {
	var failures []error
	for {
		n, _, err := unix.Recvfrom(c.fd, c.buf, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return errors.Join(append(failures, fmt.Errorf("acknowledgement: %w", os.NewSyscallError("recvfrom", err)))...)
		}
		answers, err := parseAnswers(c.buf[:n])
		if err != nil {
			return errors.Join(append(failures, err)...)
		}
		for _, a := range answers {
			i := a.seq - first // an older answer wraps round to something large
			if i >= uint32(len(subjects)) {
				continue
			}
			if a.errno != 0 {
				failures = append(failures, &Error{Subject: subjects[i], Errno: a.errno, Detail: a.detail})
			}
			if i == uint32(len(subjects)-1) {
				return errors.Join(failures...)
			}
		}
	}
}

// Local tells whether packets to an address are for the namespace itself. A new IPv6 address has a queue of the kernel to pass before they
// are, even where it is not to be looked for in the network (addrconf_dad_work, net/ipv6/addrconf.c); until then they are lost.
func (c *Conn) Local(addr netip.Addr) (bool, error) {
	var b Batch
	header := make([]byte, unix.SizeofRtMsg)
	header[0], header[1] = familyOf(addr), byte(addr.BitLen())
	b.add(fmt.Sprintf("find the route to %s", addr), unix.RTM_GETROUTE, 0, header, func(e *netlink.AttributeEncoder) {
		e.Bytes(unix.RTA_DST, addr.AsSlice())
	})
	c.seq++
	binary.NativeEndian.PutUint32(b.messages[0][8:], c.seq)
	if err := unix.Sendto(c.fd, b.messages[0], 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return false, fmt.Errorf("%s: %w", b.subjects[0], os.NewSyscallError("sendto", err))
	}
	for {
		n, _, err := unix.Recvfrom(c.fd, c.buf, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return false, fmt.Errorf("%s: %w", b.subjects[0], os.NewSyscallError("recvfrom", err))
		}
		if m := c.buf[:n]; n >= unix.NLMSG_HDRLEN+unix.SizeofRtMsg && binary.NativeEndian.Uint32(m[8:]) == c.seq {
			const routeType = 7 // rtm_type (linux/rtnetlink.h, struct rtmsg)
			return binary.NativeEndian.Uint16(m[4:]) == unix.RTM_NEWROUTE && m[unix.NLMSG_HDRLEN+routeType] == unix.RTN_LOCAL, nil
		}
	}
}

// answer is one NLMSG_ERROR message; errno 0 acknowledges.
type answer struct {
	seq    uint32
	errno  unix.Errno
	detail string
}

var errMalformed = errors.New("malformed netlink answer")

func parseAnswers(b []byte) ([]answer, error) {
	var answers []answer
	for len(b) >= unix.NLMSG_HDRLEN {
		size := int(binary.NativeEndian.Uint32(b))
		if size < unix.NLMSG_HDRLEN || size > len(b) {
			return nil, fmt.Errorf("%w: length %d of %d", errMalformed, size, len(b))
		}
		if binary.NativeEndian.Uint16(b[4:]) == unix.NLMSG_ERROR {
			a, err := parseError(b[:size])
			if err != nil {
				return nil, err
			}
			answers = append(answers, a)
		}
		b = b[min(align(size), len(b)):]
	}
	return answers, nil
}

// parseError reads struct nlmsgerr: the error, the header of the request, and, with NETLINK_CAP_ACK, attributes right
// behind (Documentation/userspace-api/netlink/intro.rst, "Ext ACKs").
func parseError(m []byte) (answer, error) {
	const fixed = unix.NLMSG_HDRLEN + 4 + unix.NLMSG_HDRLEN
	if len(m) < fixed {
		return answer{}, fmt.Errorf("%w: error message of %d bytes", errMalformed, len(m))
	}
	a := answer{
		seq:   binary.NativeEndian.Uint32(m[8:]),
		errno: unix.Errno(-int32(binary.NativeEndian.Uint32(m[unix.NLMSG_HDRLEN:]))),
	}
	if binary.NativeEndian.Uint16(m[6:])&unix.NLM_F_ACK_TLVS == 0 {
		return a, nil
	}
	for attrs := m[fixed:]; len(attrs) >= unix.SizeofRtAttr; {
		size := int(binary.NativeEndian.Uint16(attrs))
		if size < unix.SizeofRtAttr || size > len(attrs) {
			return answer{}, fmt.Errorf("%w: attribute of %d bytes", errMalformed, size)
		}
		if binary.NativeEndian.Uint16(attrs[2:]) == unix.NLMSGERR_ATTR_MSG {
			a.detail = unix.ByteSliceToString(attrs[unix.SizeofRtAttr:size])
		}
		attrs = attrs[min(align(size), len(attrs)):]
	}
	return a, nil
}
