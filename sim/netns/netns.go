// Package netns holds network namespaces by file descriptor and does work inside them. It is the project's only caller
// of setns(2) and unshare(2).
//
// A namespace belongs to an OS thread, and goroutines move between threads. So nothing here lets a goroutine stay in a
// namespace: Do runs a function inside and returns, sockets are made inside and used from anywhere (a socket keeps the
// namespace it was created in), and a thread that cannot be proved to be back where it was is never used again.
//
// Nothing is mounted and nothing has a name: a namespace goes when its last Handle, socket and process are gone,
// SIGKILL included.
package netns

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"

	"github.com/containernetworking/plugins/pkg/ns"
	vnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// ErrClosed is returned by every method of a Handle that was closed or never opened.
var ErrClosed = errors.New("network namespace handle is closed")

// ErrInterrupted is returned by Do when the function ended its goroutine (runtime.Goexit, as testing's FailNow does)
// instead of returning.
var ErrInterrupted = errors.New("function inside the network namespace ended without returning")

// threadNamespace is the calling thread's own namespace, whatever PID namespace /proc was mounted in
// (/proc/self would be the main thread's; see namespaces(7) and proc_thread-self(5)).
const threadNamespace = "/proc/thread-self/ns/net"

// Handle keeps one network namespace alive. It is safe for use by several goroutines. The zero value is closed.
type Handle struct {
	mu     sync.Mutex
	held   ns.NetNS
	users  int // calls that rely on the descriptor right now
	closed bool
}

// New creates an empty network namespace with its loopback interface up. The caller's thread does not change namespace.
func New() (*Handle, error) {
	handles, err := Spawn(context.Background(), 1, nil)
	if err != nil {
		return nil, err
	}
	return handles[0], nil
}

// Current returns a handle to the namespace of the calling thread: the process's own, unless called inside Do.
func Current() (*Handle, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	return open()
}

func open() (*Handle, error) {
	held, err := ns.GetNS(threadNamespace)
	if err != nil {
		return nil, fmt.Errorf("open the thread's network namespace: %w", err)
	}
	return &Handle{held: held}, nil
}

// Spawn creates n empty network namespaces, in parallel, each with its loopback interface up, and runs setup, if it is
// not nil, inside the i-th as soon as that exists. The rules of Do hold for setup. The order of the result is that of i.
// On error, or once ctx is done, everything that was created is closed again.
func Spawn(ctx context.Context, n int, setup func(i int, h *Handle) error) ([]*Handle, error) {
	s := spawning{handles: make([]*Handle, n), setup: setup}
	s.ctx, s.cancel = context.WithCancelCause(ctx)
	defer s.cancel(nil)
	var workers sync.WaitGroup
	for range min(n, runtime.GOMAXPROCS(0)) {
		workers.Go(s.work)
	}
	workers.Wait()
	if err := context.Cause(s.ctx); err != nil {
		for _, h := range s.handles {
			_ = h.Close() // the cause is what the caller needs to know
		}
		return nil, err
	}
	return s.handles, nil
}

type spawning struct {
	ctx     context.Context
	cancel  context.CancelCauseFunc
	setup   func(int, *Handle) error
	handles []*Handle

	mu   sync.Mutex
	next int
}

// work creates namespaces until none is left to create. Its thread moves on from one fresh namespace to the next and
// belongs to the last one at the end, so it stays locked and ends with the goroutine.
func (s *spawning) work() {
	runtime.LockOSThread()
	if unix.Gettid() == unix.Getpid() {
		// The runtime never ends the main thread, it would stay inside for the life of the process: sit on it until
		// another thread has done the work, and give it back untouched.
		var other sync.WaitGroup
		other.Go(s.work)
		other.Wait()
		runtime.UnlockOSThread()
		return
	}
	for i := s.take(); i < len(s.handles) && s.ctx.Err() == nil; i = s.take() {
		if err := s.create(i); err != nil {
			s.cancel(fmt.Errorf("create network namespace: %w", err))
		}
	}
}

func (s *spawning) take() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next++
	return s.next - 1
}

func (s *spawning) create(i int) error {
	fresh, err := vnetns.New() // enters it
	if err != nil {
		return err
	}
	defer fresh.Close()
	if s.handles[i], err = open(); err != nil {
		return err
	}
	if err := loopbackUp(); err != nil {
		return err
	}
	if s.setup == nil {
		return nil
	}
	return s.setup(i, s.handles[i])
}

// loopbackUp matters beyond 127.0.0.1: package net decides once for the whole process, by binding ::1 in whatever
// namespace the first caller happens to be, whether the machine has IPv6.
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("loopback up: %w", err)
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return fmt.Errorf("loopback up: %w", err)
	}
	ifr.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr); err != nil {
		return fmt.Errorf("loopback up: %w", err)
	}
	return nil
}

// Do runs fn inside the namespace, on a thread of its own, and returns its error. What fn starts in other goroutines
// runs outside; sockets that fn itself makes stay inside. If the thread cannot be brought back, it ends.
func (h *Handle) Do(fn func() error) error {
	held, err := h.acquire()
	if err != nil {
		return err
	}
	defer h.release()
	result := ErrInterrupted
	if err := held.Do(func(ns.NetNS) error { result = fn(); return nil }); err != nil {
		return fmt.Errorf("enter network namespace: %w", err)
	}
	return result
}

// Fd returns the namespace's file descriptor, or -1 if the handle is closed. It is valid until Close.
func (h *Handle) Fd() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.held == nil || h.closed {
		return -1
	}
	return int(h.held.Fd())
}

// Equal reports whether both handles, neither of them closed, hold the same namespace.
func (h *Handle) Equal(other *Handle) bool {
	a, b := h.Fd(), other.Fd()
	return a >= 0 && b >= 0 && vnetns.NsHandle(a).Equal(vnetns.NsHandle(b))
}

// Close lets go of the namespace; calls of Do that are under way finish first, without Close waiting for them. Closing
// twice, or closing nil, does nothing.
func (h *Handle) Close() error {
	if h == nil {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.held == nil || h.closed {
		return nil
	}
	h.closed = true
	if h.users > 0 {
		return nil // the last user closes
	}
	return h.held.Close()
}

func (h *Handle) acquire() (ns.NetNS, error) {
	if h == nil {
		return nil, ErrClosed
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.held == nil || h.closed {
		return nil, ErrClosed
	}
	h.users++
	return h.held, nil
}

func (h *Handle) release() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.users--
	if h.closed && h.users == 0 {
		_ = h.held.Close() // a descriptor of nsfs has nothing to flush
	}
}
