package control

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// lab is a name that no other process uses.
func lab(t *testing.T) string { return fmt.Sprintf("%s-%d", t.Name(), os.Getpid()) }

// door opens the test's lab to an owner, and returns its inner side.
func door(t *testing.T, owner int) *Inside {
	t.Helper()
	d, err := Listen(os.Getuid(), lab(t))
	require.NoError(t, err)
	d.owner = uint32(owner)
	own, file, err := Pair()
	require.NoError(t, err)
	inside, err := NewInside(file)
	require.NoError(t, err)
	served := make(chan error, 1)
	go func() { served <- d.Serve(own) }()
	t.Cleanup(func() {
		require.NoError(t, d.Close())
		require.NoError(t, <-served)
		require.NoError(t, own.Close())
		require.NoError(t, inside.Close())
	})
	return inside
}

type note struct{ Text string }

func TestMessagesAndFiles(t *testing.T) {
	inside := door(t, os.Getuid())
	client, err := Dial(t.Context(), os.Getuid(), lab(t))
	require.NoError(t, err)
	defer client.Close()
	require.Equal(t, lab(t), client.Lab())
	server, err := inside.Accept()
	require.NoError(t, err)
	defer server.Close()

	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer r.Close()
	require.NoError(t, client.Send(note{"with a file"}, w))
	require.NoError(t, w.Close())
	var got note
	files, err := server.Receive(&got)
	require.NoError(t, err)
	require.Equal(t, note{"with a file"}, got)
	require.Len(t, files, 1)
	_, err = files[0].WriteString("through the passed file")
	require.NoError(t, err)
	require.NoError(t, files[0].Close())
	text, err := io.ReadAll(r)
	require.NoError(t, err)
	require.Equal(t, "through the passed file", string(text))

	// Longer than any socket buffer, in the other direction, and then the end.
	long := note{strings.Repeat("x", 8<<20)}
	sent := make(chan error, 1)
	go func() { sent <- server.Send(long); server.Close() }()
	files, err = client.Receive(&got)
	require.NoError(t, err)
	require.Empty(t, files)
	require.Equal(t, long, got)
	require.NoError(t, <-sent)
	_, err = client.Receive(&got)
	require.ErrorIs(t, err, io.EOF)
}

func TestStrangers(t *testing.T) {
	owner := os.Getuid() + 1
	dial := func() (*Conn, error) { return Dial(t.Context(), os.Getuid(), lab(t)) }
	if os.Getuid() == 0 {
		owner, dial = 0, func() (*Conn, error) { return dialAsNobody(t, lab(t)) }
	}
	inside := door(t, owner)
	go func() {
		if c, err := inside.Accept(); err == nil { // it must not come to that; if it does, the client need not wait
			c.Close()
		}
	}()
	client, err := dial()
	require.NoError(t, err)
	defer client.Close()
	var answer refusal
	_, err = client.Receive(&answer)
	require.NoError(t, err)
	require.Contains(t, answer.Error, ErrStranger.Error())
}

// dialAsNobody connects as another user: from a thread that gives up being root, and ends with its goroutine.
func dialAsNobody(t *testing.T, lab string) (*Conn, error) {
	const nobody = 65534
	type dialled struct {
		c   *Conn
		err error
	}
	result := make(chan dialled)
	go func() {
		runtime.LockOSThread()
		// The raw call changes this thread only; the functions of syscall and unix change the whole process.
		_, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, nobody, nobody, nobody)
		if errno != 0 {
			result <- dialled{nil, errno}
			return
		}
		c, err := Dial(t.Context(), 0, lab)
		result <- dialled{c, err}
	}()
	r := <-result
	return r.c, r.err
}

func TestNames(t *testing.T) {
	door(t, os.Getuid())
	_, err := Listen(os.Getuid(), lab(t))
	require.ErrorIs(t, err, ErrTaken)
	_, err = Dial(t.Context(), os.Getuid(), "other")
	require.ErrorIs(t, err, ErrNoLab)
	for _, bad := range []string{"", "a/b", "with space", "@x", strings.Repeat("x", 33)} {
		_, err := Listen(os.Getuid(), bad)
		require.ErrorContains(t, err, "must be 1 to 32", bad)
		_, err = Dial(t.Context(), os.Getuid(), bad)
		require.ErrorContains(t, err, "must be 1 to 32", bad)
	}
}

// Anyone can take an abstract name first; a client must notice before it hands out its streams.
func TestImpostors(t *testing.T) {
	someoneElse := os.Getuid() + 1
	l, err := net.ListenUnix("unix", address(someoneElse, lab(t)))
	require.NoError(t, err)
	defer l.Close()
	c, err := Dial(t.Context(), someoneElse, lab(t))
	if os.Getuid() == 0 {
		require.NoError(t, err, "root may keep a lab up for anyone")
		require.NoError(t, c.Close())
		return
	}
	require.ErrorIs(t, err, ErrStranger)
}

func TestNonsenseIsAnError(t *testing.T) {
	for name, text := range map[string]string{
		"too long":  "\xff\xff\xff\xff",
		"not JSON":  "\x00\x00\x00\x01{",
		"cut short": "\x00\x00\x00\x05{}",
		"no length": "\x00\x00",
	} {
		t.Run(name, func(t *testing.T) {
			a, f, err := Pair()
			require.NoError(t, err)
			b, err := connOf(f)
			require.NoError(t, err)
			defer b.Close()
			_, err = a.Write([]byte(text))
			require.NoError(t, err)
			require.NoError(t, a.Close())
			var v any
			_, err = (&Conn{b}).Receive(&v)
			require.Error(t, err)
		})
	}
}

// Whoever has read a message may be gone before its sender is back: that is no failure to send.
func TestReceiverMayLeaveAtOnce(t *testing.T) {
	for range 500 {
		own, file, err := Pair()
		require.NoError(t, err)
		other, err := connOf(file)
		require.NoError(t, err)
		left := make(chan error, 1)
		go func() {
			_, err := io.ReadFull(other, make([]byte, len(`....{"Text":"down"}`)))
			left <- errors.Join(err, other.Close())
		}()
		require.NoError(t, (&Conn{own}).Send(note{"down"}))
		require.NoError(t, <-left)
		require.NoError(t, own.Close())
	}
}
