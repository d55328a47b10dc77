package main

import (
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// ctrlC is what the key sends; the terminal makes a SIGINT of it.
const ctrlC = "\x03"

// terminal is a pseudo-terminal (pty(7)) for a program that behaves differently where people type.
type terminal struct {
	keys *os.File
	said chan string // everything that was shown, once the program has ended
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
	term := &terminal{keys: master, said: make(chan string, 1)}
	go func() {
		var out strings.Builder
		_, _ = io.Copy(&out, master) // ends with EIO when the program has
		term.said <- out.String()
	}()
	return term
}

// press types.
func (term *terminal) press(t *testing.T, keys string) {
	t.Helper()
	_, err := term.keys.WriteString(keys)
	require.NoError(t, err)
}
