package probe

import (
	"fmt"
	"os"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// processors has somebody on each processor. What the kernel does with a packet between two taps it does in one go, on one processor
// (net/core/dev.c: net_rx_action), and with others of the same batch: a tap may show a packet a good while before it is forwarded, and a
// connection on another processor may overtake it. Nobody comes to a processor before it is done with that.
type processors struct {
	ended sync.WaitGroup

	mu     sync.RWMutex
	visits []chan *sync.WaitGroup // nil once closed: a fence that nobody waits for any more may come later
}

// openProcessors starts a thread on each processor that this process may use. Close ends them.
func openProcessors() (*processors, error) {
	var usable unix.CPUSet
	if err := unix.SchedGetaffinity(0, &usable); err != nil {
		return nil, os.NewSyscallError("sched_getaffinity", err)
	}
	p := &processors{}
	bound := make(chan error)
	for cpu := 0; len(p.visits) < usable.Count(); cpu++ {
		if !usable.IsSet(cpu) {
			continue
		}
		visits := make(chan *sync.WaitGroup)
		p.visits = append(p.visits, visits)
		p.ended.Go(func() { stay(cpu, bound, visits) })
	}
	var err error
	for range p.visits {
		if e := <-bound; e != nil {
			err = e
		}
	}
	if err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

// stay binds its thread, which ends with it, to a processor, and answers who visits.
func stay(cpu int, bound chan<- error, visits <-chan *sync.WaitGroup) {
	runtime.LockOSThread()
	var only unix.CPUSet
	only.Set(cpu)
	err := unix.SchedSetaffinity(0, &only)
	if err != nil {
		err = fmt.Errorf("processor %d: %w", cpu, os.NewSyscallError("sched_setaffinity", err))
	}
	bound <- err
	for visit := range visits {
		visit.Done()
	}
}

// sweep returns when each processor is done with what it was doing with packets.
func (p *processors) sweep() {
	p.mu.RLock()
	defer p.mu.RUnlock()
	var all sync.WaitGroup
	all.Add(len(p.visits))
	for _, v := range p.visits {
		v <- &all
	}
	all.Wait()
}

func (p *processors) close() {
	p.mu.Lock()
	for _, v := range p.visits {
		close(v)
	}
	p.visits = nil
	p.mu.Unlock()
	p.ended.Wait()
}
