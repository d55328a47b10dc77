//go:build !operator

package main

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
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
		return h.probe(ctx, *o.Probe)
	case o.Matrix != nil:
		return h.matrix(ctx, *o.Matrix)
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

// observe makes probes. What was denied is watched no longer than that: by hand, the next step may be to allow it.
func (h *holder) observe(ctx context.Context, step string, specs []probe.Spec) ([]seen, error) {
	h.lab.prober.Step(step)
	observations, err := h.lab.prober.ProbeAll(ctx, specs)
	late := h.lab.prober.Settle()
	if err = errors.Join(err, h.lab.prober.Err()); err != nil {
		return nil, err
	}
	all := make([]seen, len(observations))
	for i, o := range observations {
		all[i] = seenOf(o, late)
	}
	return all, nil
}
