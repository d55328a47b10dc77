package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// listener is a socket that hears what the kernel tells everybody of nftables. It is not on the runtime's poller: who waits in a system
// call of its own thread is woken without another thread in between.
type listener struct {
	fd     int
	ending int           // an eventfd that is readable from close on
	buffer [4 << 10]byte // for one datagram: what a commit deletes comes in some of a page (NLMSG_GOODSIZE)

	mu      sync.Mutex
	waiting sync.WaitGroup // for what uses the descriptors
	closed  bool
}

// listen opens a listener in the namespace of the calling thread, of what passes a socket filter.
func listen(filter []bpf.Instruction) (*listener, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("open a netfilter socket: %w", os.NewSyscallError("socket", err))
	}
	l := &listener{fd: fd}
	if l.ending, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return nil, errors.Join(os.NewSyscallError("eventfd", err), unix.Close(fd))
	}
	if err := l.join(filter); err != nil {
		return nil, errors.Join(fmt.Errorf("watch the ruleset: %w", err), l.close())
	}
	return l, nil
}

func (l *listener) join(filter []bpf.Instruction) error {
	if err := unix.Bind(l.fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return os.NewSyscallError("bind", err)
	}
	raw, err := bpf.Assemble(filter)
	if err != nil {
		return err
	}
	program := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		program[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	attach := &unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	if err := unix.SetsockoptSockFprog(l.fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, attach); err != nil {
		return os.NewSyscallError("setsockopt", err)
	}
	return os.NewSyscallError("setsockopt", unix.SetsockoptInt(l.fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, unix.NFNLGRP_NFTABLES))
}

// close ends a next that waits, and then closes the descriptors.
func (l *listener) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	l.closed = true
	_, err := unix.Write(l.ending, binary.NativeEndian.AppendUint64(nil, 1))
	l.waiting.Wait()
	return errors.Join(os.NewSyscallError("write", err), unix.Close(l.ending), unix.Close(l.fd))
}

// enter says that the descriptors are in use until l.waiting.Done; false: they are closed.
func (l *listener) enter() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		l.waiting.Add(1)
	}
	return !l.closed
}

// next waits for one datagram, which stands until the next one. Errors: os.ErrClosed, unix.ENOBUFS if some were lost.
func (l *listener) next() ([]byte, error) {
	if !l.enter() {
		return nil, fmt.Errorf("watch the ruleset: %w", os.ErrClosed)
	}
	defer l.waiting.Done()
	for {
		n, _, err := unix.Recvfrom(l.fd, l.buffer[:], 0)
		switch {
		case err == nil:
			return l.buffer[:n], nil
		case errors.Is(err, unix.EAGAIN):
			err = l.wait()
		case errors.Is(err, unix.EINTR):
			err = nil
		}
		if err != nil {
			return nil, fmt.Errorf("watch the ruleset: %w", err)
		}
	}
}

// wait waits until there is something to receive.
func (l *listener) wait() error {
	events := []unix.PollFd{{Fd: int32(l.fd), Events: unix.POLLIN}, {Fd: int32(l.ending), Events: unix.POLLIN}}
	switch _, err := unix.Ppoll(events, nil, nil); {
	case errors.Is(err, unix.EINTR):
		return nil
	case err != nil:
		return os.NewSyscallError("ppoll", err)
	case events[1].Revents != 0:
		return os.ErrClosed
	}
	return nil
}
