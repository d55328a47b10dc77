package impair

import (
	"errors"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// frame is a packet on its way: the kernel's header for it (struct virtio_net_hdr) and the Ethernet frame.
type frame []byte

// Counts are what became of the packets of one direction so far.
type Counts struct {
	Carried uint64 `json:"carried"`
	Lost    uint64 `json:"lost"`
	// Hurried: they overtook what was under way.
	Hurried uint64 `json:"hurried"`
}

// lane is one direction of a wire. What is under way keeps its order.
type lane struct {
	send func(frame) error
	lost func(frame)
	wake alarm // rings when the first of those under way is due
	now  func() time.Time

	mu       sync.Mutex
	schedule *schedule
	under    []passage // way, the first due first
	counts   Counts
	failed   error // the first
}

// passage is a frame with the time when it arrives.
type passage struct {
	frame frame
	due   time.Time
}

// alarm is a clock that rings once.
type alarm interface {
	// set has it ring after some time, and not at any other.
	set(after time.Duration) error
	// wait returns when it has rung, or with an error once it is closed.
	wait() error
	close() error
}

// take decides about a frame that has come in, and sends it on if its time is now.
func (l *lane) take(f frame) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fate := l.schedule.next()
	switch {
	case fate.lost:
		l.counts.Lost++
		l.lost(f)
	case fate.after > 0:
		l.line(f, fate.after)
	case l.schedule.impairment.Delay == 0 && len(l.under) > 0: // a delay was taken back a moment ago: no overtaking
		l.line(f, 0)
	default:
		if len(l.under) > 0 {
			l.counts.Hurried++
		}
		l.deliver(f)
	}
}

// line puts a frame behind those that are under way. The lock is held.
func (l *lane) line(f frame, after time.Duration) {
	p := passage{append(frame(nil), f...), l.now().Add(after)}
	if n := len(l.under); n > 0 && p.due.Before(l.under[n-1].due) {
		p.due = l.under[n-1].due
	}
	l.under = append(l.under, p)
	if len(l.under) == 1 {
		l.fail(l.wake.set(after))
	}
}

// release sends on what is due, and returns how long the next has to wait, or 0 if nothing is under way.
func (l *lane) release() (next time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for n := range l.under {
		if left := l.under[n].due.Sub(l.now()); left > 0 {
			l.under = l.under[n:]
			l.fail(l.wake.set(left))
			return left
		}
		l.deliver(l.under[n].frame)
		l.under[n].frame = nil
	}
	l.under = nil
	return 0
}

// flush sends on everything that is under way.
func (l *lane) flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range l.under {
		l.deliver(p.frame)
	}
	l.under = nil
}

// deliver sends a frame on. The lock is held.
func (l *lane) deliver(f frame) {
	l.counts.Carried++
	l.fail(l.send(f))
}

func (l *lane) fail(err error) {
	if l.failed == nil {
		l.failed = err
	}
}

// change has another impairment hold for what comes from now on.
func (l *lane) change(s *schedule) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.schedule = s
}

func (l *lane) state() (Counts, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.counts, l.failed
}

// run sends frames on at their times, until the alarm is closed.
func (l *lane) run() {
	for l.wake.wait() == nil {
		l.release()
	}
}

// kernelAlarm is an alarm of the kernel's (timerfd_create(2)): the runtime's own timers round to a millisecond while a program waits
// for packets.
type kernelAlarm struct {
	fd   int
	file *os.File
}

func newKernelAlarm() (*kernelAlarm, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("timerfd_create", err)
	}
	return &kernelAlarm{fd, os.NewFile(uintptr(fd), "alarm")}, nil
}

func (a *kernelAlarm) set(after time.Duration) error {
	at := unix.ItimerSpec{Value: unix.NsecToTimespec(max(after, 1).Nanoseconds())} // 0 would mean never
	return os.NewSyscallError("timerfd_settime", unix.TimerfdSettime(a.fd, 0, &at, nil))
}

func (a *kernelAlarm) wait() error {
	var turns [8]byte
	_, err := a.file.Read(turns[:])
	return err
}

func (a *kernelAlarm) close() error {
	if err := a.file.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil
}
