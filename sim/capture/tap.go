package capture

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"drawbridge/sim/netns"
)

// ErrOverflow is what Err wraps once the kernel had to throw packets away: the absence of a packet proves nothing any more.
var ErrOverflow = errors.New("packets were lost: the capture ring overflowed")

// Tap watches one namespace until it is closed. It is safe for use by several goroutines.
type Tap struct {
	ring   *ring
	lookup func() (map[int]string, error) // the namespace's interfaces by index
	ifaces []string                       // empty: all but lo
	done   chan struct{}                  // closed when the reader has ended

	mu            sync.Mutex
	subscriptions []*subscription
	lost          uint64
	failed        error // why the reader ended early
	closed        bool
}

// Open starts watching the named interfaces of the namespace, all but lo if none is named. Every packet that passes
// once Open has returned is delivered to every subscription that matches it and was made before.
func Open(h *netns.Handle, ifaces ...string) (*Tap, error) { return open(h, blockCount, ifaces) }

// memory is what all taps of one lab may take together: the kernel gives a ring its pages when it is made.
const memory = 512 << 20

// OpenShare is Open, on all interfaces, for one of several taps that are open at the same time: where they are more than some
// thirty, each has less room, so that they have what there is together.
func OpenShare(h *netns.Handle, of int) (*Tap, error) {
	return open(h, min(blockCount, max(leastBlocks, memory/blockSize/max(of, 1))), nil)
}

func open(h *netns.Handle, blocks int, ifaces []string) (*Tap, error) {
	t := &Tap{ifaces: ifaces, done: make(chan struct{}), lookup: func() (map[int]string, error) { return interfaces(h) }}
	names, err := t.lookup()
	if err != nil {
		return nil, fmt.Errorf("capture: %w", err)
	}
	for _, want := range ifaces {
		if !containsValue(names, want) {
			return nil, fmt.Errorf("capture: interface %s: no such interface in the namespace", want)
		}
	}
	if t.ring, err = openRing(h, blocks); err != nil {
		return nil, fmt.Errorf("capture: %w", err)
	}
	go t.read(t.ring, names)
	return t, nil
}

func interfaces(h *netns.Handle) (map[int]string, error) {
	names := make(map[int]string)
	err := h.Do(func() error {
		links, err := net.Interfaces()
		for _, l := range links {
			names[l.Index] = l.Name
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	return names, nil
}

func containsValue(m map[int]string, want string) bool {
	for _, v := range m {
		if v == want {
			return true
		}
	}
	return false
}

// read delivers packets, in the order in which the kernel saw them, until the tap is closed.
func (t *Tap) read(r *ring, names map[int]string) {
	defer close(t.done)
	err := t.loop(r, names)
	t.mu.Lock()
	defer t.mu.Unlock()
	if !errors.Is(err, os.ErrDeadlineExceeded) { // how Close says stop
		t.failed = err
	}
	for _, s := range t.subscriptions {
		s.end()
	}
	t.subscriptions = nil
	t.closed = true
}

func (t *Tap) loop(r *ring, names map[int]string) error {
	for {
		stop := r.wait()
		for r.ready() { // also when told to stop: what was captured is delivered
			f, err := r.next()
			if err != nil {
				return err
			}
			if _, known := names[f.index]; !known { // the interface is younger than the map
				if names, err = t.lookup(); err != nil {
					return err
				}
			}
			t.deliver(f, names[f.index])
		}
		if stop != nil {
			return stop
		}
	}
}

func (t *Tap) deliver(f frame, iface string) {
	if iface == "lo" || len(t.ifaces) > 0 && !slices.Contains(t.ifaces, iface) {
		return
	}
	p, err := Decode(f.raw)
	if err != nil {
		return // ARP and the like
	}
	p.At, p.Iface, p.Outgoing, p.Length = f.at, iface, f.outgoing, f.length
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range t.subscriptions {
		if s.match == nil || s.match(p) {
			s.push(p)
		}
	}
}

// Subscribe returns every packet for which match is true (nil: every packet), in order, from now on. However slow the receiver,
// nothing is thrown away. The channel is closed by cancel, which forgets what was not received yet, and, after
// all that was captured has been received, once the tap is closed. match runs for every packet of the tap and must be quick; slices of the
// packet are shared between subscriptions and must not be written to.
func (t *Tap) Subscribe(match func(Packet) bool) (<-chan Packet, func()) {
	s := newSubscription(match)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		s.end()
	} else {
		t.subscriptions = append(t.subscriptions, s)
	}
	go s.pump()
	return s.out, func() {
		t.mu.Lock()
		t.subscriptions = slices.DeleteFunc(t.subscriptions, func(o *subscription) bool { return o == s })
		t.mu.Unlock()
		s.cancel()
	}
}

// Err reports what makes the capture untrustworthy: ErrOverflow, or why it ended before Close. nil means that
// nothing was lost so far.
func (t *Tap) Err() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.err()
}

func (t *Tap) err() error {
	err := t.failed
	if t.ring != nil {
		n, derr := t.ring.drops()
		t.lost += uint64(n)
		err = errors.Join(err, derr)
	}
	if t.lost > 0 {
		err = errors.Join(err, fmt.Errorf("%w (%d of them)", ErrOverflow, t.lost))
	}
	return err
}

// Close stops watching and returns what Err would. Closing twice does nothing more.
func (t *Tap) Close() error {
	t.mu.Lock()
	r := t.ring
	t.mu.Unlock()
	if r == nil {
		return t.Err()
	}
	if err := r.file.SetReadDeadline(time.Unix(1, 0)); err != nil && !errors.Is(err, os.ErrClosed) {
		return fmt.Errorf("capture: %w", err)
	}
	<-t.done
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ring == nil { // another Close was faster
		return t.err()
	}
	err := t.err()
	t.ring = nil
	return errors.Join(err, r.close())
}

// subscription is an unbounded queue between the reader, which never waits, and one receiver.
type subscription struct {
	match func(Packet) bool
	out   chan Packet
	stop  chan struct{} // closed by cancel

	mu     sync.Mutex
	queue  []Packet
	ended  bool
	more   chan struct{} // holds a token while pump has something to look at
	cancel func()
}

func newSubscription(match func(Packet) bool) *subscription {
	s := &subscription{match: match, out: make(chan Packet), stop: make(chan struct{}), more: make(chan struct{}, 1)}
	s.cancel = sync.OnceFunc(func() { close(s.stop) })
	return s
}

func (s *subscription) push(p Packet) {
	s.mu.Lock()
	s.queue = append(s.queue, p)
	s.mu.Unlock()
	s.wake()
}

func (s *subscription) end() {
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
	s.wake()
}

func (s *subscription) wake() {
	select {
	case s.more <- struct{}{}:
	default:
	}
}

func (s *subscription) take() (queue []Packet, ended bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	queue, s.queue = s.queue, nil
	return queue, s.ended
}

func (s *subscription) pump() {
	defer close(s.out)
	for {
		select {
		case <-s.more:
		case <-s.stop:
			return
		}
		queue, ended := s.take()
		for _, p := range queue {
			select {
			case s.out <- p:
			case <-s.stop:
				return
			}
		}
		if ended {
			return
		}
	}
}
