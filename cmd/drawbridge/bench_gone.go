//go:build !operator

package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"drawbridge/cmd/drawbridge/internal/bench"
	"drawbridge/sim"
	"drawbridge/sim/cell"
	"drawbridge/sim/link"
	"drawbridge/sim/netns"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// labOnceOptions are the flags of bench lab-once.
type labOnceOptions struct {
	hosts    int
	rootless bool
	hold     bool
}

// benchLabOnceCommand is hidden: bench lab starts it, to measure a lab in another process.
func (p *program) benchLabOnceCommand() *cobra.Command {
	var o labOnceOptions
	c := &cobra.Command{
		Use: "lab-once", Short: "Build one network and say what it took, as JSON", Hidden: true, Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error { return p.labOnce(c.Context(), o) },
	}
	c.Flags().IntVar(&o.hosts, "hosts", 50, "how many hosts")
	c.Flags().BoolVar(&o.rootless, "rootless", false, "in a user namespace")
	c.Flags().BoolVar(&o.hold, "hold", false, "say where the router's routing sockets are, and stay until killed, or until standard input ends")
	return c
}

func (p *program) labOnce(ctx context.Context, o labOnceOptions) error {
	const verb = "bench lab-once"
	if !o.hold && !cell.Inside() {
		code, err := cell.Run(ctx, cell.Options{Args: p.args, UserNamespace: o.rootless})
		if err != nil {
			return unable(verb, err)
		}
		return &quiet{code}
	}
	world, err := bench.Crowd(o.hosts)
	if err != nil {
		return misuse(verb, err)
	}
	if o.hold {
		return unable(verb, p.holdLab(ctx, o.hosts))
	}
	v, err := buildLab(ctx, world, o.hosts)
	if err != nil {
		return unable(verb, err)
	}
	return json.NewEncoder(p.std.out).Encode(v)
}

// held says where a process keeps two routing sockets of its lab's router: one that tells of links, and one to ask with.
type held struct{ Events, Questions int }

func (p *program) holdLab(ctx context.Context, n int) error {
	world, err := bench.Crowd(n)
	if err != nil {
		return err
	}
	l, err := sim.Up(ctx, world, sim.Options{})
	if err != nil {
		return err
	}
	router, ok := l.Node(bench.CrowdRouter)
	if !ok {
		return errors.New("the lab has no router " + bench.CrowdRouter)
	}
	w, err := watchLinks(router)
	if err != nil {
		return err
	}
	if err := json.NewEncoder(p.std.out).Encode(held{w.events, w.questions}); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, p.std.in) // SIGKILL comes first, unless whoever started this has ended
	return errors.Join(err, l.Close())
}

// child starts this program once more.
func child(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "/proc/self/exe", append([]string{"bench", "lab-once"}, args...)...)
	cmd.Stderr = os.Stderr
	return cmd
}

// rootlessTask compares a lab in a user namespace with one in none: each in a process and a cell of its own.
func (b *comparer) rootlessTask(n int) bench.Task {
	run := func(args ...string) func(context.Context) (bench.Values, error) {
		return settled(func(ctx context.Context) (v bench.Values, err error) {
			out, err := child(ctx, append(args, "--hosts", strconv.Itoa(n))...).Output()
			if err != nil {
				return nil, err
			}
			return v, json.Unmarshal(out, &v)
		})
	}
	privileges := ""
	if b.summary.Rootless {
		privileges = "this is measured without privileges"
	}
	return bench.Task{
		Group: "Lab", Name: hosts(n) + " without privileges", Metrics: []bench.Metric{{Name: metricUp, Unit: "ms"}},
		Contenders: []bench.Contender{
			{Name: byEnforcer, Kind: bench.Ours, Run: run("--rootless")},
			{Name: asRoot, Kind: bench.Floor, Absent: privileges, Run: run()},
		},
		Aims: []bench.Aim{{Metric: metricUp, Against: asRoot, Limit: mostRootless}},
	}
}

// goneTask kills a process that holds a lab, and waits until the last host's link is gone.
func (b *comparer) goneTask(n int) bench.Task {
	run := settled(func(ctx context.Context) (bench.Values, error) {
		took, err := killLab(ctx, n)
		return bench.Values{"": millis(took)}, err
	})
	return bench.Task{
		Group: "Lab", Name: hosts(n) + ", SIGKILL until the last is gone", Metrics: []bench.Metric{{Unit: "ms"}},
		Contenders: []bench.Contender{{Name: byEnforcer, Kind: bench.Ours, Run: run}},
		Aims:       []bench.Aim{{Limit: mostGone}},
	}
}

func killLab(ctx context.Context, n int) (took time.Duration, err error) {
	cmd := child(ctx, "--hold", "--hosts", strconv.Itoa(n))
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return 0, err
	}
	defer stdin.Close()
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	w, err := watchOf(bufio.NewReader(stdout), cmd.Process.Pid)
	if err == nil {
		defer func() { _ = w.close() }() // a question is lost with it
		var links int
		if links, err = w.count(); err == nil && links <= n {
			err = fmt.Errorf("the router has %d links for %d hosts", links, n)
		}
	}
	began := time.Now()
	killed := cmd.Process.Kill()
	_ = cmd.Wait() // it was killed
	if err := errors.Join(err, killed); err != nil {
		return 0, err
	}
	err = w.until(ctx, 1) // lo
	return time.Since(began), err
}

// watchOf takes over the sockets that a process says it has.
func watchOf(r *bufio.Reader, pid int) (w linkWatch, err error) {
	line, err := r.ReadBytes('\n')
	if err != nil {
		return w, fmt.Errorf("the lab of another process: %w", err)
	}
	var there held
	if err := json.Unmarshal(line, &there); err != nil {
		return w, err
	}
	process, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return w, os.NewSyscallError("pidfd_open", err)
	}
	defer unix.Close(process)
	if w.events, err = unix.PidfdGetfd(process, there.Events, 0); err != nil {
		return w, os.NewSyscallError("pidfd_getfd", err)
	}
	if w.questions, err = unix.PidfdGetfd(process, there.Questions, 0); err != nil {
		return w, errors.Join(os.NewSyscallError("pidfd_getfd", err), unix.Close(w.events))
	}
	return w, nil
}

// linkWatch are two routing sockets of a namespace, which they keep alive: one is told of links, the other one asks. They do not block.
type linkWatch struct{ events, questions int }

func watchLinks(h *netns.Handle) (w linkWatch, err error) {
	if w.events, err = h.Socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE); err != nil {
		return w, err
	}
	if w.questions, err = h.Socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE); err != nil {
		return w, errors.Join(err, unix.Close(w.events))
	}
	if err := unix.Bind(w.events, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: unix.RTMGRP_LINK}); err != nil {
		return w, errors.Join(os.NewSyscallError("bind", err), w.close())
	}
	return w, nil
}

func (w linkWatch) close() error { return errors.Join(unix.Close(w.events), unix.Close(w.questions)) }

// until waits until no more than so many links are left.
func (w linkWatch) until(ctx context.Context, links int) error {
	for {
		n, err := w.count()
		if err != nil || n <= links {
			return err
		}
		if err := wait(ctx, w.events); err != nil {
			return fmt.Errorf("%d links are left: %w", n-links, err)
		}
		buffer := make([]byte, netlinkBuffer)
		for { // what happened matters less than that something did
			if _, err := unix.Read(w.events, buffer); err == unix.EAGAIN {
				break
			} else if err != nil && !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, unix.EINTR) {
				return os.NewSyscallError("read", err)
			}
		}
	}
}

const (
	netlinkBuffer   = 64 << 10
	netlinkPatience = 30 * time.Second // ends a wait for what does not come
)

// wait waits until there is something to read.
func wait(ctx context.Context, fd int) error {
	const slice = 100 // ms, after which the context is asked
	for deadline := time.Now().Add(netlinkPatience); ; {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, slice)
		switch {
		case n > 0:
			return nil
		case err != nil && !errors.Is(err, unix.EINTR):
			return os.NewSyscallError("poll", err)
		case time.Now().After(deadline):
			return os.ErrDeadlineExceeded
		}
	}
}

// count lists all links and counts them (rtnetlink(7)).
func (w linkWatch) count() (n int, err error) {
	request := make([]byte, unix.SizeofNlMsghdr+unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(request, uint32(len(request)))
	binary.NativeEndian.PutUint16(request[4:], unix.RTM_GETLINK)
	binary.NativeEndian.PutUint16(request[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	if err := unix.Sendto(w.questions, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return 0, os.NewSyscallError("sendto", err)
	}
	buffer := make([]byte, netlinkBuffer)
	for {
		if err := wait(context.Background(), w.questions); err != nil { // the kernel answers at once
			return 0, err
		}
		got, err := unix.Read(w.questions, buffer)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return 0, os.NewSyscallError("read", err)
		}
		done, links, err := linksIn(buffer[:max(got, 0)])
		if n += links; err != nil || done {
			return n, err
		}
	}
}

// linksIn counts the links in one datagram of a list, and says whether it ends there.
func linksIn(b []byte) (done bool, n int, err error) {
	for len(b) >= unix.SizeofNlMsghdr {
		length, kind := int(binary.NativeEndian.Uint32(b)), binary.NativeEndian.Uint16(b[4:])
		switch kind {
		case unix.NLMSG_DONE:
			return true, n, nil
		case unix.NLMSG_ERROR:
			return true, n, errors.New("the kernel does not list links")
		case unix.RTM_NEWLINK:
			n++
		}
		if length = (length + unix.NLMSG_ALIGNTO - 1) &^ (unix.NLMSG_ALIGNTO - 1); length < unix.SizeofNlMsghdr || length > len(b) {
			return true, n, fmt.Errorf("a message of %d bytes", length)
		}
		b = b[length:]
	}
	return false, n, nil
}

// settle waits until the kernel has dismantled the namespaces that were closed before: one thread does that for the whole machine (net/
// core/net_namespace.c: netns_wq), and one more namespace is behind them in its queue, whose link shows when it is gone.
func settle(ctx context.Context) error {
	here, err := netns.Current()
	if err != nil {
		return err
	}
	defer here.Close()
	w, err := watchLinks(here)
	if err != nil {
		return err
	}
	defer func() { _ = w.close() }() // a question is lost with it
	before, err := w.count()
	if err != nil {
		return err
	}
	fence, err := netns.New()
	if err != nil {
		return err
	}
	const index = 1 << 20 // nobody else's
	conn, err := link.Open(here)
	if err != nil {
		return errors.Join(err, fence.Close())
	}
	end := func(ns int, name string, side byte) link.Device {
		return link.Device{Namespace: ns, Name: name, Index: index, MAC: net.HardwareAddr{2, 0, 0, 0, 0, side}}
	}
	var b link.Batch
	b.Veth(end(here.Fd(), "fence", 1), end(fence.Fd(), "fence", 2))
	if err := errors.Join(conn.Run(&b), conn.Close(), fence.Close()); err != nil {
		return err
	}
	return w.until(ctx, before)
}

// memoryInUse is what networks take, in bytes: of the kernel, as far as the machine tells, and of all processes of the cell.
func memoryInUse() (int64, error) {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	total := sumOfFields(string(text), "Slab", "Percpu", "KernelStack", "PageTables")
	paths, err := filepath.Glob("/proc/[0-9]*/smaps_rollup")
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err == nil { // else it has ended since
			total += sumOfFields(string(text), "Pss")
		}
	}
	return total, err
}

// sumOfFields adds lines like "Slab:   123 kB", and returns bytes.
func sumOfFields(text string, names ...string) (total int64) {
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(line, ":")
		for _, name := range names {
			if key == name {
				n, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
				if err == nil {
					total += n * 1024
				}
			}
		}
	}
	return total
}
