package control

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Errors that callers tell apart.
var (
	// ErrTaken: another process keeps up a lab of that name.
	ErrTaken = errors.New("a lab of that name is up already")
	// ErrNoLab: nobody keeps up a lab of that name.
	ErrNoLab = errors.New("no such lab is up")
	// ErrGone: the process that kept the lab up has ended.
	ErrGone = errors.New("the lab's process has ended")
	// ErrStranger: the other side belongs to another user.
	ErrStranger = errors.New("belongs to another user")
)

// CheckName returns an error unless name can be a lab's: 1 to 32 letters, digits, dashes, dots or underscores.
func CheckName(name string) error {
	const allowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._"
	if name == "" || len(name) > 32 || strings.Trim(name, allowed) != "" {
		return fmt.Errorf("lab name %q: must be 1 to 32 letters, digits, dashes, dots or underscores", name)
	}
	return nil
}

// address is where a user's lab is found. The leading @ stands for the zero byte of the abstract namespace (unix(7)):
// such a name belongs to the network namespace and ends with the socket.
func address(uid int, lab string) *net.UnixAddr {
	return &net.UnixAddr{Net: "unix", Name: prefix(uid) + lab}
}

// prefix begins the names of a user's labs.
func prefix(uid int) string { return "@drawbridge/" + strconv.Itoa(uid) + "/" }

// unixTable lists the sockets of the caller's network namespace (proc_net(5)).
const unixTable = "/proc/thread-self/net/unix"

// Labs names the labs that a user keeps up, those included that are still being built. Whether each is what it says it is, Dial
// finds out.
func Labs(uid int) ([]string, error) {
	text, err := os.ReadFile(unixTable)
	if err != nil {
		return nil, fmt.Errorf("list sockets: %w", err)
	}
	return labsIn(string(text), uid), nil
}

// labsIn finds the listening sockets of labs, in the kernel's list. Accepted connections have the same name.
func labsIn(table string, uid int) []string {
	const listening = "00010000" // __SO_ACCEPTCON, in the column Flags
	var labs []string
	for line := range strings.Lines(table) {
		fields := strings.Fields(line)
		if len(fields) < 8 || fields[3] != listening {
			continue
		}
		if lab, ok := strings.CutPrefix(fields[7], prefix(uid)); ok && CheckName(lab) == nil && !slices.Contains(labs, lab) {
			labs = append(labs, lab)
		}
	}
	slices.Sort(labs)
	return labs
}

// Doorman lets the lab's owner and root in.
type Doorman struct {
	listener *net.UnixListener
	owner    uint32
}

// Listen takes the name of a lab for a user, in the network namespace of the caller.
func Listen(uid int, lab string) (*Doorman, error) {
	if err := CheckName(lab); err != nil {
		return nil, err
	}
	l, err := net.ListenUnix("unix", address(uid, lab))
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("lab %s: %w", lab, ErrTaken)
	}
	if err != nil {
		return nil, fmt.Errorf("lab %s: %w", lab, err)
	}
	return &Doorman{l, uint32(uid)}, nil
}

// Close gives the name back and ends Serve.
func (d *Doorman) Close() error { return d.listener.Close() }

// refusal is the one message that the doorman sends himself. Every answer of a lab has this member.
type refusal struct {
	Error string `json:"error"`
}

// Serve hands everyone who may come in to Accept at the other end of inside. It returns nil after Close, and an error when
// nobody can be handed inside any more.
func (d *Doorman) Serve(inside *net.UnixConn) error {
	for {
		c, err := d.listener.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := d.admit(c, inside); err != nil {
			return err
		}
	}
}

func (d *Doorman) admit(c *net.UnixConn, inside *net.UnixConn) error {
	defer c.Close()
	client, err := peer(c)
	if err == nil && client.Uid != d.owner && client.Uid != 0 {
		err = fmt.Errorf("the lab %w", ErrStranger)
	}
	if err != nil {
		_ = (&Conn{c}).Send(refusal{err.Error()}) // whoever it was may be gone
		return nil
	}
	f, err := c.File()
	if err != nil {
		return err
	}
	defer f.Close()
	_, _, err = inside.WriteMsgUnix([]byte{0}, unix.UnixRights(int(f.Fd())), nil)
	return err
}

// peer says who is at the other end: of a client as it connected, of a listener as it began to listen.
func peer(c *net.UnixConn) (*unix.Ucred, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	var cred *unix.Ucred
	var failed error
	err = raw.Control(func(fd uintptr) { cred, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err = errors.Join(err, failed); err != nil {
		return nil, fmt.Errorf("who is there: %w", err)
	}
	return cred, nil
}

// Pair returns the doorman's end, and the file that goes inside the cell for Inside.
func Pair() (*net.UnixConn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socket pair: %w", err)
	}
	inside := os.NewFile(uintptr(fds[1]), "inside")
	own, err := connOf(os.NewFile(uintptr(fds[0]), "doorman"))
	if err != nil {
		return nil, nil, errors.Join(err, inside.Close())
	}
	return own, inside, nil
}

// connOf makes a connection out of a file, which it closes.
func connOf(f *os.File) (*net.UnixConn, error) {
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		return nil, errors.Join(errors.New("not a unix socket"), c.Close())
	}
	return u, nil
}

// Inside is the cell's end of a Pair.
type Inside struct{ from *net.UnixConn }

// NewInside takes over the file that Pair returned.
func NewInside(f *os.File) (*Inside, error) {
	c, err := connOf(f)
	if err != nil {
		return nil, err
	}
	return &Inside{c}, nil
}

// Close makes Accept return net.ErrClosed.
func (i *Inside) Close() error { return i.from.Close() }

// Accept returns the next connection that the doorman has let in.
func (i *Inside) Accept() (*Conn, error) {
	var nothing [1]byte
	room := make([]byte, unix.CmsgSpace(4))
	n, used, _, _, err := i.from.ReadMsgUnix(nothing[:], room)
	if err != nil {
		return nil, err
	}
	if n == 0 {
		return nil, net.ErrClosed // the doorman is gone
	}
	files, err := received(room[:used])
	if err != nil {
		return nil, err
	}
	if len(files) != 1 {
		closeAll(files)
		return nil, ErrMessage
	}
	c, err := connOf(files[0])
	if err != nil {
		return nil, err
	}
	return &Conn{c}, nil
}

// Dial connects to a user's lab. Whoever listens there is that user or root: anybody can take an abstract name, and gets
// to see standard streams.
func Dial(ctx context.Context, uid int, lab string) (*Conn, error) {
	if err := CheckName(lab); err != nil {
		return nil, err
	}
	c, err := new(net.Dialer).DialContext(ctx, "unix", address(uid, lab).Name)
	if errors.Is(err, syscall.ECONNREFUSED) {
		return nil, fmt.Errorf("lab %s: %w", lab, ErrNoLab)
	}
	if err != nil {
		return nil, fmt.Errorf("lab %s: %w", lab, err)
	}
	u := c.(*net.UnixConn) // what the network "unix" always is
	owner, err := peer(u)
	if err == nil && owner.Uid != uint32(uid) && owner.Uid != 0 {
		err = fmt.Errorf("what listens there %w", ErrStranger)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lab %s: %w", lab, err), u.Close())
	}
	return &Conn{u}, nil
}
