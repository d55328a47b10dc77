//go:build !operator

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// atTerminal tells whether a person is typing and reading.
func (p *program) atTerminal() bool { return isTerminal(p.std.in) && isTerminal(p.std.out) }

func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// borrowed is a terminal (pty(7)) for a program in the lab, and what joins it to this process's streams.
type borrowed struct {
	master, slave *os.File
	restore       func() error // the person's own terminal
	resized       chan os.Signal
	copies        sync.WaitGroup
	stop          func()
}

// openTerminal makes a terminal and joins it to in and out, which may be a terminal themselves: then keys reach the program as they
// are typed, and the program's terminal has the size of theirs.
func openTerminal(in, out *os.File) (_ *borrowed, err error) {
	b := &borrowed{restore: func() error { return nil }, resized: make(chan os.Signal, 1)}
	if b.master, b.slave, err = openPair(); err != nil {
		return nil, fmt.Errorf("a terminal for the program: %w", err)
	}
	if fd := int(in.Fd()); term.IsTerminal(fd) {
		state, err := term.MakeRaw(fd)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("this terminal: %w", err), b.master.Close(), b.slave.Close())
		}
		b.restore = func() error { return term.Restore(fd, state) }
	}
	b.resize(out)
	signal.Notify(b.resized, unix.SIGWINCH)
	b.copies.Go(func() {
		for range b.resized {
			b.resize(out)
		}
	})
	b.stop = copyKeys(b.master, in)
	b.copies.Go(func() { _, _ = io.Copy(out, b.master) }) // ends with EIO when nobody has the slave any more
	return b, nil
}

// resize gives the program's terminal the size of a person's, whom the kernel then tells by SIGWINCH.
func (b *borrowed) resize(out *os.File) {
	if size, err := unix.IoctlGetWinsize(int(out.Fd()), unix.TIOCGWINSZ); err == nil {
		_ = unix.IoctlSetWinsize(int(b.master.Fd()), unix.TIOCSWINSZ, size)
	}
}

// close waits until everything that was written to the terminal has arrived, and gives the person's terminal back.
func (b *borrowed) close() error {
	signal.Stop(b.resized)
	close(b.resized)
	err := b.slave.Close()
	b.copies.Wait()
	b.stop()
	return errors.Join(err, b.master.Close(), b.restore())
}

// copyKeys hands on what comes from in until it is told to stop. What was typed after that stays unread. A terminal is at its end
// only for those who read lines, so the end of in is told by the key that says it.
func copyKeys(to, in *os.File) (stop func()) {
	wake, done := make([]int, 2), make(chan struct{})
	if err := unix.Pipe2(wake, unix.O_CLOEXEC); err != nil {
		return func() {}
	}
	go func() {
		defer close(done)
		buf := make([]byte, 4096)
		fds := []unix.PollFd{{Fd: int32(in.Fd()), Events: unix.POLLIN}, {Fd: int32(wake[0]), Events: unix.POLLIN}}
		for {
			if _, err := unix.Poll(fds, -1); err != nil && !errors.Is(err, unix.EINTR) || fds[1].Revents != 0 {
				return
			}
			if fds[0].Revents == 0 {
				continue
			}
			n, err := unix.Read(int(fds[0].Fd), buf)
			if err != nil && (errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN)) {
				continue
			}
			if n <= 0 {
				_, _ = to.Write([]byte{endOfTransmission})
				return
			}
			_, _ = to.Write(buf[:n])
		}
	}()
	return func() {
		_ = unix.Close(wake[1]) // wakes the poll
		<-done
		_ = unix.Close(wake[0])
	}
}

// endOfTransmission is the key that ends input (termios(3), VEOF).
const endOfTransmission = 4

// openPair opens a terminal's two ends. Neither becomes this process's controlling terminal.
func openPair() (master, slave *os.File, err error) {
	// Blocking, as its reader is ended by the end of the other side, and not by Close.
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("open /dev/ptmx", err)
	}
	master = os.NewFile(uintptr(fd), "/dev/ptmx")
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		return nil, nil, errors.Join(os.NewSyscallError("unlock the terminal", err), master.Close())
	}
	number, err := unix.IoctlGetUint32(fd, unix.TIOCGPTN)
	if err != nil {
		return nil, nil, errors.Join(os.NewSyscallError("number of the terminal", err), master.Close())
	}
	slave, err = os.OpenFile("/dev/pts/"+strconv.FormatUint(uint64(number), 10), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, errors.Join(err, master.Close())
	}
	return master, slave, nil
}
