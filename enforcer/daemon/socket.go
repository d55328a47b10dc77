package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
)

// ErrSocketTaken: what is in the place of the daemon's socket is not its own to take away: no socket, or one at which somebody answers.
var ErrSocketTaken = errors.New("the place of the socket is taken")

// localSocket is where the daemon answers questions of its own machine. A nil one answers none.
type localSocket struct {
	path     string
	listener net.Listener
	file     fs.FileInfo // what was made at the path
	server   *http.Server
	trouble  string // why it could not be made anew, as it was told last
}

// openSocket opens the socket at a path; nil for none. It takes away what a daemon that was killed has left there, and nothing else.
func openSocket(ctx context.Context, path string) (*localSocket, error) {
	if path == "" {
		return nil, nil
	}
	s := &localSocket{path: path}
	if err := s.bind(ctx); err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	return s, nil
}

// bind makes the socket's file, and listens there from then on.
func (s *localSocket) bind(ctx context.Context) error {
	if err := vacate(ctx, s.path); err != nil {
		return err
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "unix", s.path)
	if err != nil {
		return err
	}
	if u, ok := l.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false) // it may be somebody else's by then
	}
	file, err := os.Lstat(s.path)
	if err != nil {
		return errors.Join(err, l.Close())
	}
	if s.listener != nil {
		_ = s.listener.Close() // nobody finds it any more
	}
	s.listener, s.file = l, file
	return nil
}

// answerWithin is how long another program may take to take a connection at a socket, or a line of the audit log out of a FIFO; the
// kernel takes both for most.
const answerWithin = time.Second

// vacate takes away a socket that nobody listens at. What else is there is ErrSocketTaken.
func vacate(ctx context.Context, path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode()&fs.ModeSocket == 0:
		return fmt.Errorf("%s: %w: there is %s; name another path, or take it away", path, ErrSocketTaken, kindOf(info.Mode()))
	}
	c, err := (&net.Dialer{Timeout: answerWithin}).DialContext(ctx, "unix", path)
	if err == nil {
		_ = c.Close()
		return fmt.Errorf("%s: %w: another program answers there; end it, or name another path", path, ErrSocketTaken)
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("%s: %w: whether anybody answers there is not known: %w; name another path, or take it away", path, ErrSocketTaken, err)
	}
	return os.Remove(path)
}

// serve has a handler answer at the socket until ctx ends, as one of a group.
func (s *localSocket) serve(ctx context.Context, g *errgroup.Group, handler http.Handler) {
	if s == nil {
		return
	}
	s.server = &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second, ConnContext: withPeer}
	g.Go(func() error {
		<-ctx.Done()
		return s.server.Close()
	})
	s.answer(g)
}

// answer serves at what the socket is now.
func (s *localSocket) answer(g *errgroup.Group) {
	server, l := s.server, s.listener
	g.Go(func() error {
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("socket: %w", err)
		}
		return nil
	})
}

// inPlace tells whether the file at the path is the socket's.
func (s *localSocket) inPlace() bool {
	there, err := os.Lstat(s.path)
	return err == nil && os.SameFile(there, s.file)
}

// close closes the socket, and takes its file away.
func (s *localSocket) close() error {
	if s == nil {
		return nil
	}
	_ = s.listener.Close() // it may be closed already
	if !s.inPlace() {
		return nil
	}
	return os.Remove(s.path)
}

// lookAtSocket makes the socket anew if somebody has taken its file away. What was asked before is still answered.
func (d *daemon) lookAtSocket(ctx context.Context) {
	s := d.socket
	if s == nil || s.inPlace() {
		return
	}
	if err := s.bind(ctx); err != nil {
		if s.trouble != err.Error() {
			d.Log.Error("the socket is gone, and could not be made anew; it is tried again", "every", tick, "error", err)
		}
		s.trouble = err.Error()
		return
	}
	s.trouble = ""
	d.Log.Warn("somebody took the socket away; it was made anew", "path", s.path)
	s.answer(d.beside)
}
