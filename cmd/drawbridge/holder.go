//go:build !operator

package main

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"drawbridge/cmd/drawbridge/internal/control"
	"drawbridge/sim/probe"
)

// holder answers orders to a lab that is kept up.
type holder struct {
	lab      *lab
	scratch  string // a directory that only the cell sees
	names    labNames
	info     labInfo
	enforced enforcements
	watched  watchers
	breaking sync.Mutex // one thing breaks at a time
	down     context.CancelFunc
	// orders counts those being served; down waits for it.
	orders sync.WaitGroup
}

// newHolder prepares what orders need. The lab stays the caller's.
func newHolder(l *lab, name, scratch string) (*holder, error) {
	w := l.World()
	h := &holder{lab: l, scratch: scratch, info: labInfo{Name: name, World: w.Name(), Since: time.Now(), Nodes: l.Nodes()}}
	for _, dir := range []string{driversDirectory, policyDirectory} {
		if err := os.Mkdir(filepath.Join(scratch, dir), 0o700); err != nil {
			return nil, err
		}
	}
	var err error
	h.names, err = writeNames(w, l.CAFile(), scratch)
	return h, err
}

// serve answers until ctx ends, an order ends the lab, or the door is gone. Programs that still run in the lab are ended.
func (h *holder) serve(ctx context.Context, door *control.Inside) error {
	ctx, h.down = context.WithCancel(ctx)
	defer h.down()
	defer context.AfterFunc(ctx, func() { _ = door.Close() })()
	defer h.orders.Wait()
	for {
		c, err := door.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return nil
		case err != nil:
			return err
		}
		h.orders.Go(func() { h.answer(ctx, c) })
	}
}

// answer reads one order and answers it. Whoever gave it may go away at any time.
func (h *holder) answer(ctx context.Context, c *control.Conn) {
	defer c.Close()
	defer context.AfterFunc(ctx, func() { _ = c.Close() })()
	var o order
	files, err := c.Receive(&o)
	if err != nil {
		return
	}
	defer func() {
		for _, f := range files {
			_ = f.Close() // passed on to a program, or not asked for
		}
	}()
	a, err := h.obey(ctx, c, o, passed(files))
	if err != nil {
		a = answer{Error: err.Error(), Code: exitCode(err)}
	}
	_ = c.Send(a)
	if o.Down {
		h.down()
	}
}

func (h *holder) obey(ctx context.Context, c *control.Conn, o order, files passed) (answer, error) {
	switch {
	case o.Exec != nil:
		return h.exec(ctx, c, *o.Exec, files)
	case o.Break != nil:
		return h.disturb(ctx, *o.Break)
	case o.Capture != nil:
		return h.capture(ctx, c, *o.Capture, files)
	case o.Probe != nil:
		return h.probe(ctx, c, *o.Probe)
	case o.Matrix != nil:
		return h.matrix(ctx, c, *o.Matrix)
	case o.Watch != nil:
		return h.watch(ctx, c, *o.Watch)
	case o.Graph != "":
		return h.graph(o.Graph)
	case o.Policy != "":
		return h.policy(o.Policy)
	case o.Rules != nil:
		return h.rules(ctx, *o.Rules)
	case o.Enforce != nil:
		return h.enforce(ctx, *o.Enforce)
	case o.Info:
		return answer{Info: &h.info}, nil
	case o.Down:
		return answer{}, nil
	}
	return answer{}, control.ErrMessage
}

// wanted returns a context that ends when the client says anything more, which means that it has enough, or is gone. The returned function
// ends it too.
func wanted(ctx context.Context, c *control.Conn) (context.Context, context.CancelCauseFunc) {
	ctx, stop := context.WithCancelCause(ctx)
	go func() {
		var o order
		_, _ = c.Receive(&o)
		stop(nil)
	}()
	return ctx, stop
}

// atOnce is how many connections are made before what was denied is let go. Each of those keeps one of a prober's ports (sim/ports), and
// what became of so many fits into a message.
const atOnce = 4096

// observe makes probes. Once ctx has ended, the rest is left untried.
func (h *holder) observe(ctx context.Context, step string, specs []probe.Spec, tell func(done int)) ([]seen, error) {
	all := make([]seen, 0, len(specs))
	err := h.observeParts(ctx, step, specs, tell, func(part []seen) error {
		all = append(all, part...)
		return nil
	})
	return all, err
}

// observeParts is observe for more than fits into a message. What was denied is watched no longer than to the end of its part: by hand, the
// next step may be to allow it.
func (h *holder) observeParts(ctx context.Context, step string, specs []probe.Spec, tell func(done int), take func([]seen) error) error {
	done := 0
	for some := range slices.Chunk(specs, atOnce) {
		h.lab.prober.Step(step)
		observations, err := h.lab.prober.ProbeAllTelling(ctx, some, func(n int) { tell(done + n) })
		late := h.lab.prober.Settle()
		if err = errors.Join(err, h.lab.prober.Err()); err != nil {
			return err
		}
		part := make([]seen, len(observations))
		for i, o := range observations {
			part[i] = seenOf(o, late)
		}
		if err := take(part); err != nil {
			return err
		}
		done += len(some)
	}
	return nil
}

// tried says how far a lab is with an order.
type tried struct {
	Done int `json:"done"`
	All  int `json:"all"`
}

// tellEvery is how often a client hears how far its order is: more often than people look (refresh).
const tellEvery = refresh / 4

// telling tells a client how far its order is.
func telling(c *control.Conn, all int) func(done int) {
	var last time.Time
	return func(done int) {
		if now := time.Now(); now.Sub(last) >= tellEvery {
			last = now
			_ = c.Send(answer{Tried: &tried{done, all}}) // one who is gone needs no news
		}
	}
}
