//go:build !operator

package main

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// roadPatience ends what hangs: a run takes a fraction of a second.
var roadPatience = unix.NsecToTimeval(int64(10 * time.Second))

// What is measured here is the kernel's: so the sockets block, each on a thread of its own, and no runtime polls them.

func socket() (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	err = errors.Join(
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &roadPatience),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &roadPatience),
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1))
	if err != nil {
		return -1, errors.Join(os.NewSyscallError("setsockopt", err), unix.Close(fd))
	}
	return fd, nil
}

func sockaddr(a netip.AddrPort) *unix.SockaddrInet4 {
	return &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}
}

func (r *road) listen(at netip.AddrPort) (fd int, err error) {
	err = r.server.Do(func() error {
		if fd, err = socket(); err != nil {
			return err
		}
		if err := errors.Join(unix.Bind(fd, sockaddr(at)), unix.Listen(fd, unix.SOMAXCONN)); err != nil {
			return errors.Join(fmt.Errorf("listen at %s: %w", at, err), unix.Close(fd))
		}
		return nil
	})
	return fd, err
}

// dial connects from the calling thread's namespace. A connection that is closed ends by a reset, so that its port is free at once.
func dial(to netip.AddrPort) (int, error) {
	fd, err := socket()
	if err != nil {
		return -1, err
	}
	if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
		return -1, errors.Join(os.NewSyscallError("setsockopt", err), unix.Close(fd))
	}
	for {
		err := unix.Connect(fd, sockaddr(to))
		if err == nil {
			return fd, nil
		}
		if err != unix.EINTR { // which leaves the connection to be made, and a second call says it is
			return -1, errors.Join(fmt.Errorf("connect to %s: %w", to, err), unix.Close(fd))
		}
	}
}

func accept(listener int) (int, error) {
	for {
		fd, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
		if err != unix.EINTR {
			return fd, os.NewSyscallError("accept", err)
		}
	}
}

// timed runs a client and a server for each target, each on a thread in its namespace, and says what all of them took together.
func (r *road) timed(n int, client, server func(i, each int) error) (t trip, err error) {
	each := max(n/len(r.targets), 1)
	t.n = each * len(r.targets)
	t.spent, err = spending(func() error {
		var g errgroup.Group
		for i := range r.targets {
			g.Go(func() error { return r.server.Do(func() error { return server(i, each) }) })
			g.Go(func() error { return r.client.Do(func() error { return client(i, each) }) })
		}
		return g.Wait()
	})
	return t, err
}

// headStart is how many connections a client may be ahead of its server: far fewer than wait to be accepted (SOMAXCONN), since what
// does not find room there, and is reset, the server never hears of.
const headStart = 256

// connects opens and closes n connections.
func (r *road) connects(n int) (trip, error) {
	ahead, ended := make([]chan struct{}, len(r.targets)), make([]chan struct{}, len(r.targets))
	for i := range r.targets {
		ahead[i], ended[i] = make(chan struct{}, headStart), make(chan struct{})
	}
	return r.timed(n, func(i, each int) error {
		for range each {
			select {
			case ahead[i] <- struct{}{}:
			case <-ended[i]:
				return nil // the server says why
			}
			fd, err := dial(r.targets[i])
			if err != nil {
				return err
			}
			if err := unix.Close(fd); err != nil {
				return err
			}
		}
		return nil
	}, func(i, each int) error {
		defer close(ended[i])
		for range each {
			fd, err := accept(r.listeners[i])
			if err != nil {
				return err
			}
			if err := unix.Close(fd); err != nil {
				return err
			}
			<-ahead[i]
		}
		return nil
	})
}

// message is what a request and an answer consist of: a small packet each.
const message = 64

// exchanges sends n requests and their answers over connections that stand, one for each target.
func (r *road) exchanges(n int) (t trip, err error) {
	pairs := make([][2]*os.File, len(r.targets))
	defer func() {
		for _, p := range pairs {
			for _, f := range p {
				if f != nil {
					_ = f.Close() // the other end may be gone
				}
			}
		}
	}()
	for i, target := range r.targets {
		var fd int
		if err := r.client.Do(func() (err error) { fd, err = dial(target); return err }); err != nil {
			return t, err
		}
		pairs[i][0] = os.NewFile(uintptr(fd), "client")
		if fd, err = accept(r.listeners[i]); err != nil {
			return t, err
		}
		pairs[i][1] = os.NewFile(uintptr(fd), "server")
	}
	return r.timed(n, func(i, each int) error { return askAll(pairs[i][0], each) }, func(i, each int) error { return answerAll(pairs[i][1], each) })
}

// ask writes and then reads, n times; the files block.
func askAll(f *os.File, n int) error {
	buffer := make([]byte, message)
	for range n {
		if _, err := f.Write(buffer); err != nil {
			return err
		}
		if _, err := io.ReadFull(f, buffer); err != nil {
			return err
		}
	}
	return nil
}

func answerAll(f *os.File, n int) error {
	buffer := make([]byte, message)
	for range n {
		if _, err := io.ReadFull(f, buffer); err != nil {
			return err
		}
		if _, err := f.Write(buffer); err != nil {
			return err
		}
	}
	return nil
}
