package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ErrRunning: another daemon is at work in this network namespace. Two would undo each other's changes without end.
var ErrRunning = errors.New("another drawbridge enforce run is at work in this network namespace")

// lockName is an abstract socket (unix(7)): there is one of this name in each network namespace, and it is gone with the process that has it,
// however that ends.
const lockName = "@drawbridge-enforce"

// Somebody else who has the name but does not answer, perhaps not yet, is asked so often, with so much time between.
const (
	lockTries = 20
	lockPause = 10 * time.Millisecond
)

// lock has no other daemon start in the network namespace of the calling thread until what it returns is closed. Anybody on the machine may
// take the name: only of root, and of this user, it is believed that they are a daemon. Of others nil is returned, and the log told.
func (d *daemon) lock(ctx context.Context) (net.Listener, error) {
	for try := 1; ; try++ {
		l, err := (&net.ListenConfig{}).Listen(ctx, "unix", lockName)
		if err == nil {
			go hangUp(l)
			return l, nil
		}
		if !errors.Is(err, syscall.EADDRINUSE) {
			return nil, fmt.Errorf("lock: %w", err)
		}
		holder, err := lockHolder(ctx)
		switch {
		case err == nil && (holder.Uid == 0 || int(holder.Uid) == os.Geteuid()):
			return nil, fmt.Errorf("%w: %s; end it first, or have it follow another policy by changing its file", ErrRunning, process(holder))
		case err == nil || try == lockTries:
			d.Log.Error("a stranger has the name by which one daemon keeps another from starting; two would fight", "name", lockName,
				"holder", process(holder), "uid", holder.Uid, "error", err)
			return nil, nil
		case ctx.Err() != nil:
			return nil, ctx.Err()
		}
		await(ctx, lockPause)
	}
}

// hangUp takes connections of those who ask whose the lock is, which the kernel tells them, until it is closed.
func hangUp(l net.Listener) {
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			_ = c.Close()
		}
	}
}

// lockHolder is who listens at the lock.
func lockHolder(ctx context.Context) (unix.Ucred, error) {
	c, err := (&net.Dialer{Timeout: answerWithin}).DialContext(ctx, "unix", lockName)
	if err != nil {
		return unix.Ucred{}, err
	}
	defer c.Close()
	return peerOf(c)
}

// process names a process, as far as it is known here.
func process(of unix.Ucred) string {
	if of.Pid == 0 {
		return "a process that is not known here"
	}
	name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", of.Pid))
	if err != nil {
		return fmt.Sprintf("process %d", of.Pid)
	}
	return fmt.Sprintf("process %d (%s)", of.Pid, strings.TrimSpace(string(name)))
}
