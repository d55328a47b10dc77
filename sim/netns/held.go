package netns

import (
	"fmt"
	"os"

	"github.com/containernetworking/plugins/pkg/ns"
	"golang.org/x/sys/unix"
)

// selectable is how many descriptors select(2) can watch (FD_SETSIZE): the numbers below it. A lab of a thousand nodes would
// take all of them, and a library that calls select on a later one panics, as google/nftables does. So handles are kept
// at numbers from here on, and leave the lower ones to sockets.
const selectable = 1024

// held is an open namespace.
type held struct{ fd int }

// hold opens the namespace at a path.
func hold(path string) (*held, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, selectable)
	if err == unix.EINVAL { // this process may not have so many (RLIMIT_NOFILE); then a lab cannot fill the lower ones either
		fd, err = unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	}
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	return &held{fd: fd}, nil
}

// do runs fn inside, on a thread of its own. An error tells that fn did not run, or that the thread could not be brought back.
func (h *held) do(fn func()) error {
	return ns.WithNetNSPath(fmt.Sprintf("/proc/self/fd/%d", h.fd), func(ns.NetNS) error { fn(); return nil })
}

func (h *held) close() error { return unix.Close(h.fd) }
