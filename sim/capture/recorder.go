package capture

import (
	"errors"
	"sync"

	"drawbridge/sim/netns"
)

// Recorder keeps the latest packets of one namespace, so that what happened a moment ago can still be shown. It is safe for use by
// several goroutines.
type Recorder struct {
	tap    *Tap
	cancel func()

	mu     sync.Mutex
	kept   []Packet // a circle; next is where the oldest is once it is full
	next   int
	bounds int
}

// Record starts to keep the latest packets of a namespace, at most as many as capacity says.
func Record(h *netns.Handle, capacity int) (*Recorder, error) {
	tap, err := Open(h)
	if err != nil {
		return nil, err
	}
	r := &Recorder{tap: tap, bounds: max(capacity, 1)}
	_, r.cancel = tap.Subscribe(func(p Packet) bool { // matches nothing, so that nothing is queued for a receiver
		r.keep(p)
		return false
	})
	return r, nil
}

func (r *Recorder) keep(p Packet) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.kept) < r.bounds {
		r.kept = append(r.kept, p)
		return
	}
	r.kept[r.next] = p
	r.next = (r.next + 1) % r.bounds
}

// Latest returns the packets that are still kept and for which match is true, the oldest first. Packets share their slices
// with the recorder and must not be written to.
func (r *Recorder) Latest(match func(Packet) bool) []Packet {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []Packet
	for i := range r.kept {
		if p := r.kept[(r.next+i)%len(r.kept)]; match(p) {
			out = append(out, p)
		}
	}
	return out
}

// Close stops recording; what was kept stays. Packets that the kernel had to throw away are no error here: a recording only
// illustrates, and nothing is concluded from what it lacks.
func (r *Recorder) Close() error {
	err := r.tap.Close()
	r.cancel()
	if errors.Is(err, ErrOverflow) {
		return nil
	}
	return err
}
