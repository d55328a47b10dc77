package realserver

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"

	"drawbridge/sim/netns"

	"golang.org/x/sys/unix"
)

// nobody is the identity of servers in their own user namespace. PostgreSQL wants one that /etc/passwd knows, and every
// system knows this.
const nobody = 65534

// process is a server's process, the first of a PID namespace of its own: with it ends whatever it started.
type process struct {
	cmd   *exec.Cmd
	ended chan struct{} // closed once it has ended and every line of its output was taken
	tail  tail
}

// isolated gives a command the identity and the process namespace of a server.
func isolated(cmd *exec.Cmd) *exec.Cmd {
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWPID,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: nobody, HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: nobody, HostID: os.Getegid(), Size: 1}},
		Setpgid:     true, // a terminal's Ctrl-C is for the lab, which ends its servers in its own time
	}
	return cmd
}

// launch starts a server in a node. Each line of its output goes to take, in order, from one goroutine.
func launch(node *netns.Handle, cmd *exec.Cmd, take func(line string)) (*process, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	p := &process{cmd: isolated(cmd), ended: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = w, w
	err = node.Start(cmd)
	_ = w.Close() // the process has its own
	if err != nil {
		_ = r.Close()
		return nil, fmt.Errorf("%s: %w", cmd.Path, err)
	}
	go func() {
		defer close(p.ended)
		eachLine(r, func(line string) { p.tail.add(line); take(line) })
		_ = r.Close()
		_ = cmd.Wait() // how it ended is in cmd.ProcessState
	}()
	return p, nil
}

// eachLine reads until the last writer is gone.
func eachLine(r io.Reader, take func(string)) {
	for in := bufio.NewReader(r); ; {
		line, err := in.ReadString('\n')
		if line != "" {
			take(strings.TrimSuffix(line, "\n"))
		}
		if err != nil {
			return
		}
	}
}

// await waits for something that the output has to say, and fails if the process ends before.
func (p *process) await(ctx context.Context, said <-chan struct{}) error {
	select {
	case <-said:
		return nil
	case <-p.ended:
		return p.failure()
	case <-ctx.Done():
		return fmt.Errorf("%w; the end of its log:\n%s", context.Cause(ctx), p.tail.String())
	}
}

// errEnded: the server ended before it was told to.
var errEnded = errors.New("the server ended by itself")

// failure says how a process that has ended did so.
func (p *process) failure() error {
	<-p.ended
	return fmt.Errorf("%w (%v); the end of its log:\n%s", errEnded, p.cmd.ProcessState, p.tail.String())
}

// kill ends the process and waits for it. Its error says if it had ended before. It is called once.
func (p *process) kill() error {
	select {
	case <-p.ended:
		return p.failure()
	default:
	}
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-p.ended
	return nil
}

// tailLines is how much of a log an error quotes.
const tailLines = 12

// tail keeps the last lines.
type tail struct {
	mu    sync.Mutex
	lines []string
}

func (t *tail) add(line string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.lines) == tailLines {
		t.lines = t.lines[1:]
	}
	t.lines = append(t.lines, line)
}

// String returns the lines, indented.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return "  " + strings.Join(t.lines, "\n  ")
}
