// Package ports says who in a lab owns which source ports, and hands them out, so that no connection is taken for another one.
//
// What a tap or a server's journal shows is found again by the client's port. The address would not do: address translation changes it,
// the lab's own on purpose, and that of an enforcer that goes wrong, whose leak must not be overlooked for coming from somewhere else.
// So a port has to say everything: the ranges below share none, nobody gets a port on which a server listens, and nobody gets one that
// somebody still holds.
package ports

import (
	"errors"
	"fmt"
	"sync"
)

// Range is a range of ports, both ends included.
type Range struct{ First, Last uint16 }

// Contains reports whether a port is in the range.
func (r Range) Contains(port uint16) bool { return r.First <= port && port <= r.Last }

// Size is the number of ports.
func (r Range) Size() int { return int(r.Last) - int(r.First) + 1 }

// Who owns which ports.
var (
	// Streams of single SYNs (sim/probe). One is sent each millisecond on each way, and what a connection tracking remembers of one that
	// was reset lasts for ten seconds.
	Streams = Range{2048, 19999}
	// Probes are whole connections (sim/probe), thousands of which may be denied and watched at once.
	Probes = Range{20000, 45999}
	// Kernel is what the nodes' kernels choose from for everything else (net.ipv4.ip_local_port_range).
	Kernel = Range{46000, 55999}
	// Evasions are the clients made by hand, and their fences (sim/evade).
	Evasions = Range{56000, 59999}
	// Troubles are the clients behind a bad wire (sim/trouble).
	Troubles = Range{60000, 60999}
	// Floods have a source of so many ports for each address (sim/probe).
	Floods = Range{61000, 65535}
)

// ErrExhausted says that all ports of an owner are in use.
var ErrExhausted = errors.New("no source port is free")

// Pool hands out the ports of one owner, the longest unused first. It is safe for concurrent use.
type Pool struct {
	of     Range
	serves func(uint16) bool

	mu   sync.Mutex
	next int // the offset from which to look
	held map[uint16]bool
}

// NewPool returns a pool of a range without the ports at which servers listen: a packet from one would pass for a client's.
func NewPool(of Range, serves func(uint16) bool) *Pool {
	return &Pool{of: of, serves: serves, held: map[uint16]bool{}}
}

// Take returns a port that nobody holds; it is the caller's until Give.
func (p *Pool) Take() (uint16, error) { return p.TakeRow(1) }

// TakeRow returns the first of n ports in a row that nobody holds; they are the caller's until Give.
func (p *Pool) TakeRow(n int) (uint16, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	row := 0
	for tried := 0; tried < p.of.Size()+n; tried++ {
		if p.next == p.of.Size() {
			p.next, row = 0, 0 // a row does not go round
		}
		port := p.of.First + uint16(p.next)
		p.next++
		if row++; p.held[port] || p.serves(port) {
			row = 0
		}
		if row == n {
			first := port - uint16(n-1)
			for i := range n {
				p.held[first+uint16(i)] = true
			}
			return first, nil
		}
	}
	return 0, fmt.Errorf("%w: %d of %d to %d in a row are asked for, %d are in use", ErrExhausted, n, p.of.First, p.of.Last, len(p.held))
}

// Give takes ports back. Only who holds them may call it, once.
func (p *Pool) Give(ports ...uint16) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, port := range ports {
		delete(p.held, port)
	}
}

// Pools are the pools of one lab.
type Pools struct{ Probes, Evasions, Troubles, Floods *Pool }

// New returns the pools of a lab in which servers listen at some ports.
func New(serves func(uint16) bool) Pools {
	return Pools{NewPool(Probes, serves), NewPool(Evasions, serves), NewPool(Troubles, serves), NewPool(Floods, serves)}
}
