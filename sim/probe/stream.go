package probe

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"drawbridge/sim/capture"
	"drawbridge/sim/ports"
	"drawbridge/topology"
	"drawbridge/topology/flow"
)

// pace is the time between two rounds of a Stream: a little less than the millisecond that is promised, as a loaded machine is late.
const pace = 900 * time.Microsecond

// talkers is how many clients say the same at once: a conversation takes longer than a SYN.
const talkers = 3

// Rounds before a Stream is handed out and after it was told to stop, so that there is something to see on both sides of a change.
const (
	headRounds = 10
	tailRounds = 25
)

// answerLimit is how late a SYN may be answered: before the server's TCP, whose first answer may have been dropped, tries again
// after a second.
const answerLimit = 500 * time.Millisecond

// streamPorts hands out source ports for each way that streams go: a port that was used a moment ago belongs to a connection that
// the database or the enforcement point may remember. The zero value is ready.
type streamPorts struct {
	mu   sync.Mutex
	last map[streamWay]uint32
	syns atomic.Uint32 // numbers every SYN of all streams
}

type streamWay struct {
	from netip.Addr
	to   netip.AddrPort
}

// next returns a port that nobody had on this way for some eighteen thousand SYNs.
func (p *streamPorts) next(way streamWay, taken map[uint16]bool) uint16 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.last == nil {
		p.last = map[streamWay]uint32{}
	}
	for {
		n := p.last[way]
		p.last[way]++
		if port := ports.Streams.First + uint16(n%uint32(ports.Streams.Size())); !taken[port] {
			return port
		}
	}
}

// StreamSpec is what a Stream tries again and again: the SYN of a client alone, or also what the client says first.
type StreamSpec struct {
	Spec
	// Says: the client makes a connection and says what its Mode begins with, of PostgreSQL's protocol; otherwise a SYN is sent
	// by itself, once, and never repeated.
	Says bool
}

// Shot is what became of one try. The zero value got nowhere.
type Shot struct {
	Spec int // its place among the specs
	// Began and Ended are the client's own clock; for a SYN over a wire, Began is when it was seen at the enforcement point, or when it was
	// sent if it was not. If nobody answered it, Ended is the end of the Stream's patience with it, which is at most one round.
	Began, Ended time.Time
	// Passed: some of it was seen to get past the enforcement point. Served: it was answered as an allowed client is.
	Passed, Served bool
	// Lost: the lab's wires dropped some of its packets, so that nobody need have denied it if it was not served.
	Lost bool

	entered bool // a SYN: it was seen at the enforcement point
}

// Stream tries the same connections, one round after the other, until it is stopped.
type Stream struct {
	p      *Prober
	specs  []StreamSpec
	wired  bool              // wires are laid in the lab
	sends  []*synSender      // by spec; nil for those that say something
	taps   map[string]func() // by point: ends the watching
	ctx    context.Context
	cancel context.CancelFunc
	ends   sync.WaitGroup
	talks  sync.WaitGroup // of the clients that say something

	rounds atomic.Int64
	stop   atomic.Int64 // the round after which it ends; 0: none yet
	failed atomic.Pointer[error]

	seen chan struct{} // room for one token: an answer came

	mu      sync.Mutex
	shots   []*Shot
	bySeq   map[uint32]*Shot // SYNs
	fences  map[uint32]synFence
	unwatch func() // ends the watching of the wires
}

// synFence is a fence under way: through is closed once it has come through, lost has a token once a wire has dropped it.
type synFence struct{ through, lost chan struct{} }

// Stream starts trying connections, over IPv4, every one of them more than once in a millisecond if the machine can. It returns
// once some have been tried.
func (p *Prober) Stream(ctx context.Context, specs []StreamSpec) (_ *Stream, err error) {
	s := &Stream{p: p, specs: specs, wired: len(p.lab.Impaired()) > 0, taps: map[string]func(){}, bySeq: map[uint32]*Shot{}, fences: map[uint32]synFence{}, seen: make(chan struct{}, 1)}
	s.unwatch = p.lab.WatchLosses(s.lose)
	s.ctx, s.cancel = context.WithCancel(context.WithoutCancel(ctx))
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	for _, spec := range specs {
		if err := s.prepare(spec); err != nil {
			return nil, err
		}
	}
	timer, err := newTimer(pace)
	if err != nil {
		return nil, err
	}
	s.ends.Go(func() { s.run(timer) })
	for i, spec := range specs {
		for range talkers {
			if spec.Says {
				s.talks.Go(func() { s.converse(i) })
			}
		}
	}
	return s, s.Rounds(ctx, headRounds)
}

// prepare opens what a spec needs.
func (s *Stream) prepare(spec StreamSpec) error {
	v, ok := s.p.vantages[spec.From]
	if !ok {
		return fmt.Errorf("%w: vantage %q", ErrSpec, spec.From)
	}
	source, err := sourceOf(v, spec.Spec)
	if err != nil || !source.Is4() {
		return errors.Join(err, fmt.Errorf("%w: streams are made over IPv4", ErrSpec))
	}
	if spec.Says && spec.To.Engine != topology.PostgreSQL {
		return fmt.Errorf("%w: streams speak PostgreSQL, not %s", ErrSpec, spec.To.Engine)
	}
	var sender *synSender
	if !spec.Says {
		ns, ok := s.p.lab.Node(v.Namespace)
		if !ok {
			return fmt.Errorf("%w: namespace %q", ErrSpec, v.Namespace)
		}
		if sender, err = newSYNSender(ns, source); err != nil {
			return err
		}
	}
	s.sends = append(s.sends, sender)
	return s.watch(spec.To.Point)
}

// watch looks at what enters a point and what leaves it, once. It looks while the prober's tap sorts its packets: when an answer to a fence has been
// seen, so has everything before it.
func (s *Stream) watch(point string) error {
	tap, ok := s.p.tapOf[point]
	if !ok {
		return fmt.Errorf("%w: no enforcement point %q", ErrSpec, point)
	}
	if s.taps[point] != nil {
		return nil
	}
	_, s.taps[point] = tap.Subscribe(func(c capture.Packet) bool {
		if c.Flow.Proto == flow.TCP && c.Flags.Has(capture.SYN) {
			s.see(c)
		}
		return false
	})
	return nil
}

// see notes when a SYN entered an enforcement point, and what left it: the SYN, towards the database, or the database's answer.
func (s *Stream) see(c capture.Packet) {
	answer := c.Flags.Has(capture.ACK)
	if !c.Outgoing {
		if !answer {
			s.entered(c)
		}
		return
	}
	seq := c.Seq
	if answer {
		seq = c.Ack - 1
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if f, ok := s.fences[seq]; ok && answer {
		close(f.through)
		delete(s.fences, seq)
	}
	shot := s.bySeq[seq]
	if shot == nil {
		return
	}
	shot.Passed = true
	if answer && !shot.Served && c.At.Sub(shot.Began) < answerLimit {
		shot.Served, shot.Ended = true, c.At
		select {
		case s.seen <- struct{}{}:
		default: // a token is there already
		}
	}
}

// entered: what is in force from now on is what the SYN meets, however long it was on its way. Without wires that is no time, and the
// client's clock is the one by which changes are told as well.
func (s *Stream) entered(c capture.Packet) {
	s.mu.Lock()
	defer s.mu.Unlock()
	shot := s.bySeq[c.Seq]
	if shot == nil || shot.Passed {
		return
	}
	shot.entered = true
	if s.wired {
		shot.Began, shot.Ended = c.At, c.At.Add(pace)
	}
}

// lose takes back a SYN that never came to an enforcement point: it was no try. A fence is sent again.
func (s *Stream) lose(c capture.Packet) {
	if c.Flow.Proto != flow.TCP || !c.Flags.Has(capture.SYN) || c.Flags.Has(capture.ACK) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if shot := s.bySeq[c.Seq]; shot != nil {
		shot.Lost = true
	}
	if f, ok := s.fences[c.Seq]; ok {
		select {
		case f.lost <- struct{}{}:
		default: // a token is there already
		}
	}
}

// run sends the SYNs of one round after the other.
func (s *Stream) run(timer *timer) {
	defer timer.close()
	for s.ctx.Err() == nil {
		if err := timer.wait(); err != nil {
			s.fail(err)
			return
		}
		for i, sender := range s.sends {
			if sender == nil {
				continue
			}
			err := s.send(sender, s.specs[i].To.Addr, func(seq uint32) {
				shot := &Shot{Spec: i, Began: time.Now()}
				shot.Ended = shot.Began.Add(pace)
				s.shots, s.bySeq[seq] = append(s.shots, shot), shot
			})
			if err != nil {
				s.fail(err)
				return
			}
		}
		n := s.rounds.Add(1)
		if end := s.stop.Load(); end != 0 && n >= end {
			return
		}
	}
}

func (s *Stream) fail(err error) {
	s.failed.CompareAndSwap(nil, &err)
	s.cancel()
}

func (s *Stream) err() error {
	if e := s.failed.Load(); e != nil {
		return *e
	}
	return nil
}

// send sends a SYN to an address and returns its sequence number, by which it and its answer are known everywhere: no NAT of the
// fabric changes it. note is called before the SYN is on its way.
func (s *Stream) send(sender *synSender, to netip.AddrPort, note func(seq uint32)) error {
	seq := s.p.stream.syns.Add(1) << 4 // whose neighbours are nobody's
	s.mu.Lock()
	note(seq)
	s.mu.Unlock()
	return sender.send(s.p.stream.next(streamWay{sender.source, to}, s.p.taken), seq, to)
}

// underway is how many rounds are on their way at any time.
func (s *Stream) underway() int64 { return int64(s.p.lab.Delay() / pace) }

// Rounds returns after some more rounds have come to the enforcement points.
func (s *Stream) Rounds(ctx context.Context, more int64) error {
	timer, err := newTimer(pace)
	if err != nil {
		return err
	}
	defer timer.close()
	return s.until(ctx, timer, s.rounds.Load()+more+s.underway())
}

func (s *Stream) until(ctx context.Context, timer *timer, end int64) error {
	for s.rounds.Load() < end {
		if err := errors.Join(ctx.Err(), s.err(), timer.wait()); err != nil {
			return err
		}
	}
	return nil
}

// Stop ends the stream after some more rounds and returns all shots. A SYN that nobody answered was then not on its way any more:
// fences sent after it, to the points' canaries, have come through.
func (s *Stream) Stop(ctx context.Context) ([]Shot, error) {
	timer, err := newTimer(pace)
	if err != nil {
		return nil, errors.Join(err, s.close())
	}
	defer timer.close()
	end := s.rounds.Load() + tailRounds + s.underway()
	s.stop.Store(end)
	if err := errors.Join(s.until(ctx, timer, end), s.fence(ctx), s.settle(ctx)); err != nil {
		return nil, errors.Join(err, s.close())
	}
	s.talks.Wait()
	if err := errors.Join(s.close(), s.err()); err != nil {
		return nil, err
	}
	return s.tries()
}

// mostStray is how many SYNs in a thousand may get lost on the way to an enforcement point where wires are laid: a processor's queue
// (net.core.netdev_max_backlog) may be full for what a wire puts back, and the kernel then tells nobody.
const mostStray = 2

// tries are the shots that an enforcement point had a chance to judge. Without wires that is every one: what is not seen there may
// be an enforcer's doing.
func (s *Stream) tries() (out []Shot, err error) {
	stray := 0
	for _, shot := range s.shots {
		switch syn := !s.specs[shot.Spec].Says; {
		case syn && shot.Lost:
		case syn && !shot.entered && !shot.Passed && s.wired:
			stray++
		default:
			out = append(out, *shot)
		}
	}
	if stray*1000 > mostStray*len(s.shots) {
		return nil, fmt.Errorf("%w: %d of %d SYNs did not come to an enforcement point, and no wire knows of them", ErrFence, stray, len(s.shots))
	}
	return out, nil
}

// fence sends one SYN from each sender to the canary of each point, and waits for the answers.
func (s *Stream) fence(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.p.patience())
	defer cancel()
	for i, sender := range s.sends {
		if sender == nil {
			continue
		}
		to, ok := s.p.canaries[canaryKey{s.specs[i].To.Point, true}]
		if !ok {
			return fmt.Errorf("%w: point %s has no canary", ErrSpec, s.specs[i].To.Point)
		}
		if err := s.fenceBy(ctx, sender, to.Addr); err != nil {
			return fmt.Errorf("the fence after the last SYN from %s did not reach the canary at %s: %w", s.specs[i].From, s.specs[i].To.Point, err)
		}
	}
	return nil
}

// fenceBy sends a fence, and again when a wire has dropped it.
func (s *Stream) fenceBy(ctx context.Context, sender *synSender, to netip.AddrPort) error {
	f := synFence{make(chan struct{}), make(chan struct{}, 1)}
	for {
		if err := s.send(sender, to, func(seq uint32) { s.fences[seq] = f }); err != nil {
			return err
		}
		select {
		case <-f.through:
			return nil
		case <-f.lost:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// settle waits for the answers to SYNs that have passed: behind a gateway another node answers the fence, and may be quicker.
func (s *Stream) settle(ctx context.Context) error {
	for {
		left := s.unanswered()
		if left <= 0 {
			return nil
		}
		limit := time.NewTimer(left)
		select {
		case <-s.seen:
		case <-limit.C:
		case <-ctx.Done():
		}
		limit.Stop()
		if err := ctx.Err(); err != nil {
			return err
		}
	}
}

// unanswered is how long the last SYN that has passed may still wait for its answer; 0 or less: none does.
func (s *Stream) unanswered() (left time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, shot := range s.bySeq {
		if shot.Passed && !shot.Served {
			left = max(left, answerLimit-time.Since(shot.Began))
		}
	}
	return left
}

// close ends everything. What a tap lost makes the absence of answers worthless.
func (s *Stream) close() error {
	s.cancel()
	s.unwatch()
	var errs []error
	for point, stop := range s.taps {
		stop()
		errs = append(errs, s.p.tapOf[point].Err())
	}
	s.talks.Wait()
	s.ends.Wait()
	for _, sender := range s.sends {
		if sender != nil {
			errs = append(errs, sender.close())
		}
	}
	return errors.Join(errs...)
}

// timer ends waits at a steady pace. The runtime's own timers round to a millisecond while a program waits for packets.
type timer struct{ fd int }

func newTimer(every time.Duration) (*timer, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("timerfd_create", err)
	}
	each := unix.NsecToTimespec(every.Nanoseconds())
	if err := unix.TimerfdSettime(fd, 0, &unix.ItimerSpec{Interval: each, Value: each}, nil); err != nil {
		return nil, errors.Join(os.NewSyscallError("timerfd_settime", err), unix.Close(fd))
	}
	return &timer{fd}, nil
}

// wait returns at the next turn, at once if one was missed.
func (t *timer) wait() error {
	var turns [8]byte
	for {
		if _, err := unix.Read(t.fd, turns[:]); !errors.Is(err, unix.EINTR) {
			return os.NewSyscallError("read timer", err)
		}
	}
}

func (t *timer) close() { _ = unix.Close(t.fd) } // nothing can be lost with it
