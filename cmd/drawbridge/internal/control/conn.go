// Package control is how the verbs of drawbridge sim reach a lab that another process keeps up.
//
// The holder of a lab lives in two processes (sim/cell): an outer one in the machine's own namespaces, and a worker in the
// cell, which has the lab. The outer one is the Doorman: it listens at an abstract unix socket, so that nothing lies on
// disk and nothing is left behind, looks at who knocks, and hands accepted connections inside. Only there are requests
// read. Messages are JSON documents behind their length; descriptors travel with them.
package control

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	// maxMessage bounds one message. The greatest are the observations of a whole matrix: some megabytes.
	maxMessage = 64 << 20
	// maxFiles is how many descriptors come with a message: the three standard streams.
	maxFiles = 3
	// headerLength: a message's length, 4 bytes in network order.
	headerLength = 4
)

// ErrMessage says that the other side does not speak this protocol.
var ErrMessage = errors.New("not a message of this protocol")

// Conn is one connection between a verb and a lab. One goroutine may send while another receives.
type Conn struct{ unix *net.UnixConn }

// Close closes the connection; a Receive of the other side then ends with io.EOF.
func (c *Conn) Close() error { return c.unix.Close() }

// Lab is the name of the lab at the other end, as Dial was given it.
func (c *Conn) Lab() string {
	name := c.unix.RemoteAddr().String()
	return name[strings.LastIndexByte(name, '/')+1:]
}

// Send sends a value as JSON, and descriptors along with it. The files stay open here.
func (c *Conn) Send(v any, files ...*os.File) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(body) > maxMessage {
		return fmt.Errorf("%w: %d bytes, at most %d", ErrMessage, len(body), maxMessage)
	}
	message := append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)
	var rights []byte
	if len(files) > 0 {
		rights = unix.UnixRights(descriptors(files)...)
	}
	// The descriptors travel with the first byte; the rest of a long message may need more than one write.
	n, _, err := c.unix.WriteMsgUnix(message, rights, nil)
	if err != nil || n == len(message) {
		return err // a further write, even of nothing, may meet a connection that the answer has ended
	}
	_, err = c.unix.Write(message[n:])
	return err
}

func descriptors(files []*os.File) []int {
	fds := make([]int, len(files))
	for i, f := range files {
		fds[i] = int(f.Fd())
	}
	return fds
}

// Receive reads the next message into v, and returns the files that came with it, which belong to the caller. The error is
// io.EOF once the other side is gone.
func (c *Conn) Receive(v any) ([]*os.File, error) {
	header := make([]byte, headerLength)
	files, err := c.receiveFirst(header)
	if err != nil {
		return nil, err
	}
	length := binary.BigEndian.Uint32(header)
	if length > maxMessage {
		closeAll(files)
		return nil, fmt.Errorf("%w: %d bytes announced, at most %d", ErrMessage, length, maxMessage)
	}
	body := make([]byte, length)
	if _, err = io.ReadFull(c.unix, body); err == nil {
		if err = json.Unmarshal(body, v); err != nil {
			err = fmt.Errorf("%w: %w", ErrMessage, err)
		}
	}
	if err != nil {
		closeAll(files)
		return nil, err
	}
	return files, nil
}

// receiveFirst fills header, and takes the descriptors that come with its first byte.
func (c *Conn) receiveFirst(header []byte) ([]*os.File, error) {
	room := make([]byte, unix.CmsgSpace(maxFiles*4)) // a descriptor is 4 bytes
	n, used, _, _, err := c.unix.ReadMsgUnix(header, room)
	if err != nil {
		return nil, err
	}
	if n == 0 {
		return nil, io.EOF
	}
	files, err := received(room[:used])
	if err == nil {
		_, err = io.ReadFull(c.unix, header[n:])
	}
	if err != nil {
		closeAll(files)
		return nil, err
	}
	return files, nil
}

// received returns the files in a control message. The kernel has made them close-on-exec (net sets MSG_CMSG_CLOEXEC).
func received(control []byte) ([]*os.File, error) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMessage, err)
	}
	var files []*os.File
	for _, m := range messages {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			closeAll(files)
			return nil, fmt.Errorf("%w: %w", ErrMessage, err)
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "passed"))
		}
	}
	return files, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		_ = f.Close() // only read or written by the other side
	}
}
