//go:build !operator

package main

import (
	"fmt"

	"drawbridge/sim"
	"drawbridge/sim/capture"
)

// recorded is how many packets of each enforcement point are kept: those of the last scenarios there.
const recorded = 8192

// recorder keeps the latest packets of every enforcement point, for the report of what fails. It looks through the prober's taps.
type recorder map[string]*capture.Recorder

func record(l *lab) (recorder, error) {
	all := recorder{}
	for _, p := range l.World().Points() {
		tap, ok := l.prober.Tap(p.Name)
		if !ok {
			all.close()
			return nil, fmt.Errorf("%s: %w", p.Name, sim.ErrUnknown)
		}
		all[p.Name] = capture.Record(tap, recorded)
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

func (r recorder) close() {
	for _, at := range r {
		at.Close()
	}
}
