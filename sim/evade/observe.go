package evade

import (
	"context"
	"fmt"
	"time"

	"drawbridge/sim/capture"
	"drawbridge/topology"

	"golang.org/x/sync/errgroup"
)

// Observation is what became of one attempt. The zero value has seen nothing, and proves nothing.
type Observation struct {
	Attempt  string
	To       topology.Endpoint
	Port     uint16 // the client's
	Read     [][]byte
	Left     [][]byte // payload of each packet that left the enforcement point towards the database, in order; none on a shared host
	Taken    int      // bytes of all its connections that the server's kernel acknowledged
	Entered  int      // packets that arrived at the enforcement point
	Reset    bool     // the client was reset
	Answered []byte   // what the client was told, as far as it was in order
	Took     time.Duration
}

// Plaintext returns what the server's application read beyond a request for TLS and a ClientHello: what Force TLS keeps from it.
// It is empty if there is nothing like that.
func (o Observation) Plaintext() []byte {
	var out []byte
	for _, stream := range o.Read {
		out = append(out, plaintext(o.To.Engine, stream)...)
	}
	return out
}

// OnWire returns the payload of the first packet behind the enforcement point that has the attempt's marker in it, or nil.
func (o Observation) OnWire() []byte {
	for _, p := range o.Left {
		if containsMarker(p) {
			return p
		}
	}
	return nil
}

// String says in words what was seen.
func (o Observation) String() string {
	told := "told nothing"
	if o.Reset {
		told = "reset"
	}
	return fmt.Sprintf("%s at %s from port %d: the application read %q, plaintext of it %q; the server took %d bytes; on the wire %q; the client was %s, answered %.40q",
		o.Attempt, o.To.Addr, o.Port, o.Read, o.Plaintext(), o.Taken, o.OnWire(), told, o.Answered)
}

// Play makes one attempt. The error says that it could not be made, or that nothing can be concluded.
func (f *Field) Play(ctx context.Context, a Attempt, to topology.Endpoint) (Observation, error) {
	return f.PlayAround(ctx, a, to, func() error { return nil })
}

// PlayAround is Play for an attempt in two parts (Halfway): between is called in the middle of it.
func (f *Field) PlayAround(ctx context.Context, a Attempt, to topology.Endpoint, between func() error) (o Observation, err error) {
	began := time.Now()
	c, err := f.dial(ctx, to)
	if err != nil {
		return o, fmt.Errorf("%s: %w", a.Name, err)
	}
	a.play(&script{client: c, wire: wireOf(to.Engine), between: between})
	c.settle()
	f.catchUp(c)
	o = c.observe(a.Name)
	o.Took = time.Since(began)
	if closed := c.close(); c.err == nil {
		c.err = closed
	}
	if c.err != nil {
		return o, fmt.Errorf("%s: %w", a.Name, c.err)
	}
	return o, nil
}

// PlayAll makes attempts side by side. The observations are in order; the error is the first.
func (f *Field) PlayAll(ctx context.Context, attempts []Attempt, to topology.Endpoint) ([]Observation, error) {
	out := make([]Observation, len(attempts))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	for i, a := range attempts {
		group.Go(func() (err error) {
			out[i], err = f.Play(ctx, a, to)
			return err
		})
	}
	err := group.Wait()
	for i := range out { // whoever read late has read by now
		if out[i].Port != 0 {
			out[i].Read = f.recorder.Read(out[i].Port)
		}
	}
	if err == nil {
		err = f.Err()
	}
	return out, err
}

// readPatience is how long a server may take to read what its kernel has taken. One that never does has closed the connection.
const readPatience = time.Second

// notRead is what a server acknowledges of each connection and its application never reads: the end of the stream, or an
// urgent byte.
const notRead = 1

// catchUp waits until the application has read what its kernel acknowledged.
func (f *Field) catchUp(c *client) {
	c.mu.Lock()
	enough := c.seen.taken + c.seen.takenBefore - notRead*c.seen.connections
	c.mu.Unlock()
	ctx, cancel := context.WithTimeout(c.ctx, readPatience)
	defer cancel()
	// An error is a server that does not read; the observation has the numbers.
	_ = f.recorder.Wait(ctx, c.local.Port(), func() bool {
		return int(f.recorder.Received(c.local.Port())) >= enough
	})
}

// observe collects what was seen so far.
func (c *client) observe(name string) Observation {
	c.mu.Lock()
	defer c.mu.Unlock()
	o := Observation{Attempt: name, To: c.to, Port: c.local.Port(), Read: c.field.recorder.Read(c.local.Port()), Entered: c.seen.entered}
	for _, l := range c.seen.left {
		o.Left = append(o.Left, l.data)
	}
	o.Taken = c.seen.taken + c.seen.takenBefore
	for _, p := range c.heard {
		o.Reset = o.Reset || p.Flags.Has(capture.RST)
		o.Answered = append(o.Answered, p.Payload...)
	}
	return o
}
