package probe

import (
	"fmt"
	"sync"

	"drawbridge/topology/flow"
)

// annals remember what the connections of each source port were made for, so that packets can be explained some time later. The zero
// value is empty and ready.
type annals struct {
	mu    sync.Mutex
	step  string
	count uint64
	ports map[uint16]deed
}

// deed is what a connection was made for.
type deed struct {
	spec   Spec
	step   string
	number uint64
}

func (a *annals) note(port uint16, spec Spec) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ports == nil {
		a.ports = map[uint16]deed{}
	}
	a.count++
	a.ports[port] = deed{spec, a.step, a.count}
}

// Step names what the probes from now on are made for; Explain repeats it.
func (p *Prober) Step(name string) {
	p.said.mu.Lock()
	defer p.said.mu.Unlock()
	p.said.step = name
}

// Explain names the step and the probe that a packet belongs to; empty if it belongs to none, or to one of some twenty
// thousand probes ago.
func (p *Prober) Explain(f flow.Flow) string {
	p.said.mu.Lock()
	defer p.said.mu.Unlock()
	for _, port := range []uint16{f.Src.Port(), f.Dst.Port()} {
		if d, ok := p.said.ports[port]; ok {
			return d.String()
		}
	}
	return ""
}

func (d deed) String() string {
	what := fmt.Sprintf("probe %d: %s", d.number, d.spec)
	if d.step != "" {
		what = d.step + ", " + what
	}
	return what
}
