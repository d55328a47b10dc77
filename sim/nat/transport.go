package nat

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// transport carries the library's batches over a netlink socket. The library's own sockets are asked by select(2) whether there is an
// answer, and a descriptor above 1023 makes it panic (socket.go, isReadReady): a lab of some hundred nodes has those. So the
// library is given this as what it calls a connection for tests, which is handed each batch and returns the answers.
type transport struct{ fd int }

// openTransport opens a socket in the namespace of the calling thread.
func openTransport() (*transport, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	return &transport{fd}, nil
}

// Close closes the socket; the kernel removes the tables that it owns. Closing twice does nothing.
func (t *transport) Close() error {
	if t.fd < 0 {
		return nil
	}
	fd := t.fd
	t.fd = -1 // the number may come to mean another file
	return unix.Close(fd)
}

// receiveBuffer holds any datagram of answers: each is a request's header with an error, and maybe words.
const receiveBuffer = 64 << 10

// exchange sends a batch and returns what the kernel answered, which is there when the sending is done: it works inside sendmsg(2).
// Without a batch there is nothing more to come. What the kernel refuses is an answer and no error, as the library would ask for
// an error again and again.
func (t *transport) exchange(batch []netlink.Message) ([]netlink.Message, error) {
	if len(batch) == 0 {
		return nil, io.EOF
	}
	if err := t.send(batch); err != nil {
		return refusal(batch[0], err), nil
	}
	var answers []netlink.Message
	buf := make([]byte, receiveBuffer)
	for {
		n, _, err := unix.Recvfrom(t.fd, buf, 0)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			return answers, nil
		case err != nil: // ENOBUFS: answers were lost, and what became of the batch is not known
			return refusal(batch[0], err), nil
		}
		found, err := messages(buf[:n])
		if err != nil {
			return refusal(batch[0], unix.EBADMSG), nil
		}
		answers = append(answers, found...)
	}
}

func (t *transport) send(batch []netlink.Message) error {
	var datagram []byte
	for _, m := range batch {
		m.Header.PID = 0 // the kernel's to fill in
		b, err := m.MarshalBinary()
		if err != nil {
			return err
		}
		datagram = append(datagram, b...)
	}
	// As the library does: the buffer has to hold the whole batch. Only the machine's root may go beyond net.core.wmem_max.
	if unix.SetsockoptInt(t.fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, len(datagram)) != nil {
		_ = unix.SetsockoptInt(t.fd, unix.SOL_SOCKET, unix.SO_SNDBUF, len(datagram)) // sending says whether it was enough
	}
	_ = unix.SetsockoptInt(t.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, len(datagram))
	return unix.Sendto(t.fd, datagram, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
}

// messages cuts a datagram into its messages.
func messages(b []byte) ([]netlink.Message, error) {
	var all []netlink.Message
	for len(b) >= unix.NLMSG_HDRLEN {
		size := int(binary.NativeEndian.Uint32(b))
		if size < unix.NLMSG_HDRLEN || size > len(b) {
			return nil, fmt.Errorf("netlink message of %d bytes in %d", size, len(b))
		}
		var m netlink.Message
		whole := append([]byte(nil), b[:size]...)
		m.Header = netlink.Header{
			Length: uint32(size), Type: netlink.HeaderType(binary.NativeEndian.Uint16(whole[4:])),
			Flags:    netlink.HeaderFlags(binary.NativeEndian.Uint16(whole[6:])),
			Sequence: binary.NativeEndian.Uint32(whole[8:]), PID: binary.NativeEndian.Uint32(whole[12:]),
		}
		m.Data = whole[unix.NLMSG_HDRLEN:]
		all = append(all, m)
		b = b[min((size+unix.NLMSG_ALIGNTO-1)&^(unix.NLMSG_ALIGNTO-1), len(b)):]
	}
	return all, nil
}

// refusal is the kernel's answer (struct nlmsgerr) to a message that never got there.
func refusal(m netlink.Message, err error) []netlink.Message {
	errno := unix.EIO
	errors.As(err, &errno)
	data := binary.NativeEndian.AppendUint32(nil, uint32(-int32(errno)))
	data = append(data, make([]byte, unix.NLMSG_HDRLEN)...)
	m.Header.Type, m.Header.Flags, m.Header.Length = netlink.Error, 0, uint32(unix.NLMSG_HDRLEN+len(data))
	m.Data = data
	return []netlink.Message{m}
}
