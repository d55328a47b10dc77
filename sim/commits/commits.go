// Package commits tells when somebody has changed the nftables ruleset of a node: an enforcer, or anybody else.
package commits

import (
	"errors"
	"fmt"
	"os"

	"drawbridge/sim/netns"

	"golang.org/x/sys/unix"
)

// Watcher hears of every commit to the ruleset of one node.
type Watcher struct{ socket *os.File }

// heardAtOnce is the receive buffer in bytes, less than the kernel's least, which it takes instead. A commit to a large ruleset is
// told in thousands of messages, and one is enough: of those that do not fit, the kernel says that there were some.
const heardAtOnce = 1

// Watch begins to listen in a node. The caller closes the Watcher, which ends a Next that waits.
func Watch(node *netns.Handle) (*Watcher, error) {
	fd, err := node.Socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("watch the ruleset: %w", err)
	}
	w := &Watcher{os.NewFile(uintptr(fd), "netfilter")}
	// The sender of what goes to a group does not get it, and that is the kernel, whose address 0 an unbound socket has too.
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, errors.Join(fmt.Errorf("watch the ruleset: %w", os.NewSyscallError("bind", err)), w.Close())
	}
	for _, o := range []struct{ level, option, value int }{
		{unix.SOL_SOCKET, unix.SO_RCVBUF, heardAtOnce},
		{unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, unix.NFNLGRP_NFTABLES},
	} {
		if err := unix.SetsockoptInt(fd, o.level, o.option, o.value); err != nil {
			return nil, errors.Join(fmt.Errorf("watch the ruleset: %w", os.NewSyscallError("setsockopt", err)), w.Close())
		}
	}
	return w, nil
}

// Next returns nil after a commit, which is in force by then, at least once for each that came since the last call, and more often for a
// large one. After Close it returns os.ErrClosed.
func (w *Watcher) Next() error {
	var some [unix.NLMSG_HDRLEN]byte // what was changed is of no interest; the kernel cuts off the rest
	// An overrun is a commit too. The kernel is silent from then on until the socket is empty, so every commit in the meantime is
	// followed by a message that is still to be read (net/netlink/af_netlink.c: netlink_rcv_wake).
	if _, err := w.socket.Read(some[:]); err != nil && !errors.Is(err, unix.ENOBUFS) {
		return fmt.Errorf("watch the ruleset: %w", err)
	}
	return nil
}

// Close ends the watch.
func (w *Watcher) Close() error { return w.socket.Close() }
