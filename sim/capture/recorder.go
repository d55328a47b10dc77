package capture

import "sync"

// Recorder keeps the latest packets of one tap, so that what happened a moment ago can still be shown. It is safe for use by
// several goroutines.
type Recorder struct {
	cancel func()

	mu     sync.Mutex
	kept   []Packet // a circle; next is where the oldest is once it is full
	next   int
	bounds int
}

// Record starts to keep the latest packets that a tap shows, at most as many as capacity says. The tap is the caller's, who also looks at
// its errors.
func Record(tap *Tap, capacity int) *Recorder {
	r := &Recorder{bounds: max(capacity, 1)}
	_, r.cancel = tap.Subscribe(func(p Packet) bool { // matches nothing, so that nothing is queued for a receiver
		r.keep(p)
		return false
	})
	return r
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

// Close stops recording; what was kept stays.
func (r *Recorder) Close() { r.cancel() }
