//go:build !operator

package main

import (
	"errors"
	"fmt"

	"drawbridge/sim"
	"drawbridge/sim/capture"
)

// recorded is how many packets of each enforcement point are kept: those of the last scenarios there.
const recorded = 8192

// recorder keeps the latest packets of every enforcement point, for the report of what fails.
type recorder map[string]*capture.Recorder

func record(l *sim.Lab) (recorder, error) {
	all := recorder{}
	for _, p := range l.World().Points() {
		node, ok := l.Node(p.Name)
		if !ok {
			return nil, errors.Join(fmt.Errorf("%s: %w", p.Name, sim.ErrUnknown), all.close())
		}
		r, err := capture.Record(node, recorded)
		if err != nil {
			return nil, errors.Join(err, all.close())
		}
		all[p.Name] = r
	}
	return all, nil
}

// Recent returns the packets of one client's port; see suite.Recorder.
func (r recorder) Recent(point string, client uint16) []capture.Packet {
	at := r[point]
	if at == nil {
		return nil
	}
	return at.Latest(func(p capture.Packet) bool { return p.Flow.Src.Port() == client || p.Flow.Dst.Port() == client })
}

func (r recorder) close() error {
	var errs []error
	for _, at := range r {
		errs = append(errs, at.Close())
	}
	return errors.Join(errs...)
}
