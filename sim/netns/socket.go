package netns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"time"

	"golang.org/x/sys/unix"
)

// backlog is what Linux cuts listen(2) to by default (net.core.somaxconn since 5.4).
const backlog = 4096

// ErrPdeathsig is returned by Start for a command with a parent-death signal: the kernel sends it when the *thread*
// that started the process ends, which says nothing about the life of this process (prctl(2), PR_SET_PDEATHSIG).
var ErrPdeathsig = errors.New("a parent-death signal would follow a thread, not the process: leave SysProcAttr.Pdeathsig unset")

// Socket makes a socket inside the namespace and returns its descriptor, close-on-exec and non-blocking. The caller
// owns it, and may use it from any goroutine.
func (h *Handle) Socket(domain, typ, proto int) (int, error) {
	fd := -1
	err := h.Do(func() (err error) {
		fd, err = unix.Socket(domain, typ|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, proto)
		return os.NewSyscallError("socket", err)
	})
	return fd, err
}

// Start starts a command inside the namespace. The process does not depend on the thread that started it.
func (h *Handle) Start(cmd *exec.Cmd) error {
	if cmd.SysProcAttr != nil && cmd.SysProcAttr.Pdeathsig != 0 {
		return ErrPdeathsig
	}
	return h.Do(cmd.Start)
}

// Dial connects by TCP from inside the namespace. A zero local address leaves the choice to the kernel, and so does a
// local port of 0. No thread is held while the connection is being made. Errors are *net.OpError around the kernel's
// errno or the context's error.
func (h *Handle) Dial(ctx context.Context, local, remote netip.AddrPort) (net.Conn, error) {
	local, remote = unmap(local), unmap(remote)
	conn, err := h.dial(ctx, local, remote)
	if err != nil {
		return nil, opError("dial", "tcp", local, remote, err)
	}
	return conn, nil
}

func (h *Handle) dial(ctx context.Context, local, remote netip.AddrPort) (net.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if local.Addr().IsValid() && local.Addr().Is4() != remote.Addr().Is4() {
		return nil, errors.New("local and remote address are of different families")
	}
	fd, err := h.Socket(domainOf(remote.Addr()), unix.SOCK_STREAM, unix.IPPROTO_TCP)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "tcp") // non-blocking, so it joins the runtime's poller
	defer f.Close()                     // net.FileConn works on a duplicate
	if local.IsValid() {
		if err := bind(fd, local, true); err != nil {
			return nil, err
		}
	}
	switch err := unix.Connect(fd, sockaddr(remote)); {
	case errors.Is(err, unix.EINPROGRESS):
		if err := waitConnected(ctx, f); err != nil {
			return nil, err
		}
	case err != nil:
		return nil, os.NewSyscallError("connect", err)
	}
	return net.FileConn(f)
}

// waitConnected waits until a connect under way has succeeded or failed, or until the context ends.
func waitConnected(ctx context.Context, f *os.File) error {
	stop := context.AfterFunc(ctx, func() { _ = f.SetWriteDeadline(time.Unix(1, 0)) }) // wakes the wait below
	defer stop()
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var outcome error
	err = raw.Write(func(fd uintptr) bool {
		// Spurious wake-ups happen: what counts is whether there is an error or a peer (connect(2), EINPROGRESS).
		var done bool
		done, outcome = connectOutcome(int(fd))
		return done
	})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return err
	}
	return outcome
}

func connectOutcome(fd int) (done bool, err error) {
	errno, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err != nil {
		return true, os.NewSyscallError("getsockopt", err)
	}
	if errno != 0 {
		return true, os.NewSyscallError("connect", unix.Errno(errno))
	}
	_, err = unix.Getpeername(fd)
	return !errors.Is(err, unix.ENOTCONN), nil
}

// Listen listens for TCP inside the namespace, without multipath TCP. The address [::] accepts both families; every
// other address accepts its own only. Errors are *net.OpError.
func (h *Handle) Listen(ctx context.Context, local netip.AddrPort) (net.Listener, error) {
	local = unmap(local)
	f, err := h.bound(ctx, local, unix.SOCK_STREAM)
	if err != nil {
		return nil, opError("listen", "tcp", netip.AddrPort{}, local, err)
	}
	defer f.Close() // net.FileListener works on a duplicate
	l, err := net.FileListener(f)
	if err != nil {
		return nil, opError("listen", "tcp", netip.AddrPort{}, local, err)
	}
	return l, nil
}

// ListenPacket is Listen for UDP.
func (h *Handle) ListenPacket(ctx context.Context, local netip.AddrPort) (*net.UDPConn, error) {
	local = unmap(local)
	f, err := h.bound(ctx, local, unix.SOCK_DGRAM)
	if err != nil {
		return nil, opError("listen", "udp", netip.AddrPort{}, local, err)
	}
	defer f.Close() // net.FilePacketConn works on a duplicate
	c, err := net.FilePacketConn(f)
	if err != nil {
		return nil, opError("listen", "udp", netip.AddrPort{}, local, err)
	}
	return c.(*net.UDPConn), nil
}

// bound makes a socket that is bound and, for streams, listens.
func (h *Handle) bound(ctx context.Context, local netip.AddrPort, typ int) (_ *os.File, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	fd, err := h.Socket(domainOf(local.Addr()), typ, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "socket")
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	if local.Addr().Is6() {
		both := local.Addr().IsUnspecified()
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, intOf(!both)); err != nil {
			return nil, os.NewSyscallError("setsockopt", err)
		}
	}
	if err := bind(fd, local, false); err != nil {
		return nil, err
	}
	if typ == unix.SOCK_STREAM {
		return f, os.NewSyscallError("listen", unix.Listen(fd, backlog))
	}
	return f, nil
}

// bind binds a socket. A dialling one leaves a port of 0 to connect, which can then share it between destinations; any
// other may take over a port whose old connections linger in TIME-WAIT.
func bind(fd int, local netip.AddrPort, dialling bool) error {
	var err error
	if dialling && local.Port() == 0 {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
	} else {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	}
	if err != nil {
		return os.NewSyscallError("setsockopt", err)
	}
	return os.NewSyscallError("bind", unix.Bind(fd, sockaddr(local)))
}

func domainOf(a netip.Addr) int {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

func unmap(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }

func intOf(b bool) int {
	if b {
		return 1
	}
	return 0
}

func opError(op, network string, local, remote netip.AddrPort, err error) error {
	e := &net.OpError{Op: op, Net: network, Err: err}
	if local.IsValid() {
		e.Source = net.TCPAddrFromAddrPort(local)
	}
	if remote.IsValid() {
		e.Addr = net.TCPAddrFromAddrPort(remote)
	} else {
		e.Err = fmt.Errorf("no valid address: %w", err)
	}
	return e
}
