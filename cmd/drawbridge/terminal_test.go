//go:build !operator

package main

import (
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// ctrlC is what the key sends; the terminal makes a SIGINT of it.
const ctrlC = "\x03"

// terminal is a pseudo-terminal (pty(7)) for a program that behaves differently where people type.
type terminal struct {
	keys  *os.File
	said  chan string // everything that was shown, once the program has ended
	shown lockedBuffer
	more  chan struct{} // holds a token when more was shown; closed at the end
}

// onTerminal starts a program as the leader of a session on a terminal of its own. start starts it in the right place.
func onTerminal(t *testing.T, cmd *exec.Cmd, start func(*exec.Cmd) error) *terminal {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(t, err)
	t.Cleanup(func() { _ = master.Close() })
	fd := int(master.Fd())
	require.NoError(t, unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0))
	number, err := unix.IoctlGetUint32(fd, unix.TIOCGPTN)
	require.NoError(t, err)
	slave, err := os.OpenFile("/dev/pts/"+strconv.FormatUint(uint64(number), 10), os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(t, err)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	require.NoError(t, start(cmd))
	require.NoError(t, slave.Close())
	term := &terminal{keys: master, said: make(chan string, 1), more: make(chan struct{}, 1)}
	go func() {
		_, _ = io.Copy(term, master) // ends with EIO when the program has
		term.said <- term.shown.String()
		close(term.more)
	}()
	return term
}

// Write keeps what is shown.
func (term *terminal) Write(b []byte) (int, error) {
	n, err := term.shown.Write(b)
	select {
	case term.more <- struct{}{}:
	default:
	}
	return n, err
}

// await returns once a text was shown.
func (term *terminal) await(t *testing.T, text string) {
	t.Helper()
	timeout := time.After(patience)
	for !strings.Contains(term.shown.String(), text) {
		select {
		case _, more := <-term.more:
			require.True(t, more || strings.Contains(term.shown.String(), text), "the program ended without %q: %s", text, term.shown.String())
		case <-timeout:
			require.FailNow(t, "not shown", "%q in %q", text, term.shown.String())
		}
	}
}

// press types.
func (term *terminal) press(t *testing.T, keys string) {
	t.Helper()
	_, err := term.keys.WriteString(keys)
	require.NoError(t, err)
}
