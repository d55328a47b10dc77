//go:build !operator

package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"time"

	"drawbridge/cmd/drawbridge/internal/control"
	"drawbridge/sim"
	"drawbridge/sim/capture"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// captureOrder asks for packets. The file that they are written to comes with it, and behind that the key log's, if KeyLog is set.
type captureOrder struct {
	At     string `json:"at"` // NODE or NODE:INTERFACE or NODE:NODE
	Count  int    `json:"count,omitempty"`
	KeyLog bool   `json:"key_log,omitempty"`
	NoKeys bool   `json:"no_keys,omitempty"`
	// Named: the packets' file is not standard output, and is emptied. The key log's always is.
	Named bool `json:"named,omitempty"`
}

// captured says what there was.
type captured struct {
	Packets int `json:"packets"`
}

func (p *program) simCaptureCommand(name *string) *cobra.Command {
	var o captureOrder
	var to, keys string
	var limit time.Duration
	c := &cobra.Command{
		Use:   "capture {NODE | LINK} [-- COMMAND [ARGUMENT...]]",
		Short: "Write a node's or a link's packets as pcapng until Ctrl-C",
		Long: `Writes every IP packet at a node, all its interfaces but lo, or at one of its links: NODE:INTERFACE, or NODE:NODE for the link between
two. Packets of probes have comments that name the step and the probe. The file holds the keys of TLS connections to the lab's
databases, so that Wireshark shows what was said (of real servers, those of probes only).

Says on standard error when it has begun: what is sent before that is missed. With a COMMAND, that is run then, and the capture ends with
it; its exit status is the capture's.`,
		Example: `  drawbridge sim capture gw-fr1 -w gw.pcapng
  drawbridge sim capture office:internet -w - | tshark -r -
  drawbridge sim capture gw-fr1 -w gw.pcapng -- drawbridge sim probe office pg-dedicated --tls
  drawbridge sim capture shared-a:reg0 -c 100 --for 10s --keylog keys.txt -w reg.pcapng`,
		Args: func(c *cobra.Command, args []string) error {
			if dash := c.ArgsLenAtDash(); dash >= 0 && dash < len(args) {
				args = args[:dash]
			}
			if c.Flags().Changed("for") && limit <= 0 {
				return misusef("sim capture: --for", "%s: must be more than nothing; without --for it ends with Ctrl-C", limit)
			}
			if c.Flags().Changed("count") && o.Count < 1 {
				return misusef("sim capture: --count", "%d: must be at least 1; without --count it ends with Ctrl-C", o.Count)
			}
			return exactly("NODE")(c, args)
		},
		RunE: func(c *cobra.Command, args []string) error {
			o.At, o.KeyLog = args[0], keys != ""
			return p.simCapture(c.Context(), *name, o, to, keys, &session{limit: limit, command: args[1:]})
		},
	}
	f := c.Flags()
	f.StringVarP(&to, "write", "w", "", "`file` to write to; - is standard output (default: standard output, unless it is a terminal)")
	f.IntVarP(&o.Count, "count", "c", 0, "stop after so many packets")
	f.DurationVar(&limit, "for", 0, "stop after so long")
	f.StringVar(&keys, "keylog", "", "write the keys to a `file` of their own, in the format of SSLKEYLOGFILE")
	f.BoolVar(&o.NoKeys, "no-keys", false, "leave the keys out of the capture")
	return c
}

func (p *program) simCapture(ctx context.Context, lab string, o captureOrder, to, keys string, s *session) error {
	const verb = "sim capture"
	if to == "" && isTerminal(p.std.out) {
		return misusef(verb, "a capture is not for a terminal; name a file with -w")
	}
	std, err := openStreams(p.std)
	if err != nil {
		return unable(verb, err)
	}
	s.in, s.out, s.err = std.in, std.err, std.err // standard output may be the capture's
	if to == "-" {
		to = ""
	}
	if o.Named = to != ""; o.Named {
		s.out = std.out
	}
	opened, err := openOutputs(std.out, to, keys)
	if err != nil {
		return errors.Join(misuse(verb, err), std.close())
	}
	n, err := s.capture(ctx, lab, o, opened.files)
	if err = errors.Join(err, opened.close(s.begun), std.close()); err != nil {
		return err
	}
	fmt.Fprintf(p.std.err, "%d packets\n", n)
	if s.status != 0 {
		return &quiet{s.status}
	}
	return nil
}

// session is a capture as its client sees it.
type session struct {
	in, out, err *os.File      // the command's
	limit        time.Duration // from when it has begun; 0: none
	command      []string      // what to run meanwhile; empty: nothing
	begun        bool          // the lab has taken the order, and the files
	status       int           // with which the command ended
}

// capture has the lab capture into files until a signal, the limit has passed, or the command has ended.
func (s *session) capture(ctx context.Context, lab string, o captureOrder, files []*os.File) (int, error) {
	const verb = "sim capture"
	c, err := reach(ctx, verb, lab)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { _ = c.Close() })()
	stop := make(chan os.Signal, 2)
	signal.Notify(stop, unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	defer close(stop)
	defer signal.Stop(stop)
	if err := c.Send(order{Capture: &o}, files...); err != nil {
		return 0, unable(verb, err)
	}
	enough := func() { _ = c.Send(order{Signal: int(unix.SIGINT)}) } // it may be at its end by itself
	go func() {
		for range stop {
			enough()
		}
	}()
	if a, err := receive(verb, c); err != nil || !a.Capturing {
		return 0, cmp.Or(err, unable(verb, control.ErrMessage))
	}
	s.begun = true
	fmt.Fprintf(s.err, "capturing at %s\n", o.At)
	if s.limit > 0 {
		defer time.AfterFunc(s.limit, enough).Stop()
	}
	ran := s.run(ctx)
	if len(s.command) > 0 {
		enough()
	}
	a, err := receive(verb, c)
	if err = errors.Join(ran, err); err != nil {
		return 0, err
	}
	if a.Captured == nil {
		return 0, unable(verb, control.ErrMessage)
	}
	return a.Captured.Packets, nil
}

// run runs the command, if there is one. Ctrl-C reaches it too, and is its affair.
func (s *session) run(ctx context.Context) error {
	if len(s.command) == 0 {
		return nil
	}
	cmd := exec.CommandContext(ctx, s.command[0], s.command[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = s.in, s.out, s.err
	err := cmd.Run()
	if status, ended := errors.AsType[*exec.ExitError](err); ended {
		s.status = statusOf(status.ProcessState)
		return nil
	}
	if err != nil {
		return notRun("sim capture", err)
	}
	return nil
}

// capture writes packets until the client says stop or is gone, ctx ends, or there are enough.
func (h *holder) capture(ctx context.Context, c *control.Conn, o captureOrder, files passed) (answer, error) {
	if len(files) < 1 || o.KeyLog != (len(files) == 2) {
		return answer{}, control.ErrMessage
	}
	node, ifaces, err := place(h.lab.Lab, o.At)
	if err != nil {
		return answer{}, misuse("", err)
	}
	tap, err := h.lab.Tap(node, ifaces...)
	if err != nil {
		return answer{}, err
	}
	fresh := files
	if !o.Named {
		fresh = files[1:]
	}
	if err := emptied(fresh); err != nil {
		return answer{}, errors.Join(err, tap.Close())
	}
	s := &shooting{holder: h, node: node, out: capture.NewWriter(files[0]), limit: o.Count}
	packets, cancel := tap.Subscribe(nil)
	defer cancel()
	if err := s.declare(ifaces); err != nil {
		return answer{}, errors.Join(err, tap.Close())
	}
	if !o.NoKeys {
		defer h.lab.WatchKeys(s.secrets)()
	}
	if o.KeyLog {
		keys := files[1]
		defer h.lab.WatchKeys(func(line []byte) { _, _ = keys.Write(line) })() // a full disk costs the keys, not the connections
	}
	// Whoever sees the head of the file, or is told so, knows that nothing is missed from now on.
	if err := errors.Join(s.flush(), c.Send(answer{Capturing: true})); err != nil {
		return answer{}, errors.Join(err, tap.Close())
	}
	ctx, stop := wanted(ctx, c)
	defer stop(nil)
	err = s.run(ctx, tap, packets)
	if errors.Is(err, unix.EPIPE) {
		err = nil // whoever read has seen enough
	}
	return answer{Captured: &captured{s.written}}, err
}

// place finds a node, or one of its links: by the interface or by the node at the other end.
func place(l *sim.Lab, at string) (node string, ifaces []string, err error) {
	if _, ok := l.Node(at); ok {
		return at, nil, nil
	}
	link, err := findLink(l, at)
	return link.Node, []string{link.Interface}, err
}

// findLink finds a link by NODE:INTERFACE or NODE:NODE, and turns it so that the first node is its Node.
func findLink(l *sim.Lab, at string) (sim.Link, error) {
	node, other, ok := strings.Cut(at, ":")
	_, known := l.Node(node)
	switch {
	case !known:
		return sim.Link{}, unknownNode(node)
	case !ok:
		return sim.Link{}, fmt.Errorf("%s: a LINK is NODE:INTERFACE or NODE:NODE", at)
	}
	var names []string
	for _, k := range l.Links() {
		if k.Node != node {
			k = sim.Link{Node: k.PeerNode, Interface: k.PeerInterface, PeerNode: k.Node, PeerInterface: k.Interface}
		}
		if k.Node != node {
			continue
		}
		if k.Interface == other || k.PeerNode == other {
			return k, nil
		}
		names = append(names, fmt.Sprintf("%s (to %s)", k.Interface, k.PeerNode))
	}
	return sim.Link{}, fmt.Errorf("%s has no link %q; there are %s", node, other, strings.Join(names, ", "))
}

// shooting is one capture under way.
type shooting struct {
	holder *holder
	node   string
	limit  int

	mu      sync.Mutex
	out     *capture.Writer
	written int
	failed  error
}

// declare writes the interfaces that packets may come from.
func (s *shooting) declare(ifaces []string) error {
	for _, l := range s.holder.lab.Links() {
		for _, end := range [][2]string{{l.Node, l.Interface}, {l.PeerNode, l.PeerInterface}} {
			if end[0] != s.node || len(ifaces) > 0 && !slices.Contains(ifaces, end[1]) {
				continue
			}
			if err := s.out.Declare(s.node, end[1]); err != nil {
				return err
			}
		}
	}
	return nil
}

// secrets adds keys, in the order in which they are used.
func (s *shooting) secrets(line []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed == nil {
		s.failed = s.out.Secrets(bytes.Clone(line))
	}
}

// run writes packets. When it is told to stop, what the kernel had seen until then is written too.
func (s *shooting) run(ctx context.Context, tap *capture.Tap, packets <-chan capture.Packet) error {
	closed := make(chan error, 1)
	defer context.AfterFunc(ctx, func() { closed <- tap.Close() })()
	for s.limit == 0 || s.written < s.limit {
		var p capture.Packet
		var more bool
		select {
		case p, more = <-packets:
		default: // nothing waits: a reader at the other end of a pipe gets what there is
			if err := s.flush(); err != nil {
				return errors.Join(err, tap.Close())
			}
			p, more = <-packets
		}
		if !more {
			return errors.Join(s.flush(), <-closed)
		}
		if err := s.write(p); err != nil {
			return errors.Join(err, tap.Close())
		}
	}
	return errors.Join(s.flush(), tap.Close())
}

func (s *shooting) write(p capture.Packet) error {
	var comments []string
	if text := s.holder.lab.prober.Explain(p.Flow); text != "" {
		comments = append(comments, text)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.written++
	return errors.Join(s.failed, s.out.Write(s.node, p, comments...))
}

func (s *shooting) flush() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return errors.Join(s.failed, s.out.Flush())
}
