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
	tries int // in vain
}

// errFull is the answer to a frame for which the kernel has no room at the moment: a processor queues a thousand
// (net.core.netdev_max_backlog).
var errFull = unix.ENOBUFS

// A frame that the kernel has no room for is sent again after fullFor, so many times. One that it never took, as when the link is cut, is lost.
const (
	fullFor   = 200 * time.Microsecond
	fullTimes = 250
)

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
		l.drop(f)
	case fate.after > 0:
		l.line(f, fate.after)
	case l.schedule.impairment.Delay == 0 && len(l.under) > 0: // a delay was taken back, or the kernel was full, a moment ago: no overtaking
		l.line(f, 0)
	default:
		if len(l.under) > 0 {
			l.counts.Hurried++
		}
		if !l.deliver(f) {
			l.under = append([]passage{{append(frame(nil), f...), l.now().Add(fullFor), 1}}, l.under...)
			l.fail(l.wake.set(fullFor))
		}
	}
}

// line puts a frame behind those that are under way. The lock is held.
func (l *lane) line(f frame, after time.Duration) {
	p := passage{frame: append(frame(nil), f...), due: l.now().Add(after)}
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
		if p := &l.under[n]; !l.deliver(p.frame) {
			if p.tries++; p.tries <= fullTimes {
				p.due = l.now().Add(fullFor)
				l.under = l.under[n:]
				l.fail(l.wake.set(fullFor))
				return fullFor
			}
			l.drop(p.frame)
		}
		l.under[n].frame = nil
	}
	l.under = nil
	return 0
}

// drop loses a frame. The lock is held.
func (l *lane) drop(f frame) {
	l.counts.Lost++
	l.lost(f)
}

// flush sends on everything that is under way.
func (l *lane) flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range l.under {
		if !l.deliver(p.frame) {
			l.drop(p.frame)
		}
	}
	l.under = nil
}

// deliver sends a frame on, and returns false if the kernel has no room for it. The lock is held.
func (l *lane) deliver(f frame) bool {
	err := l.send(f)
	if errors.Is(err, errFull) {
		return false
	}
	l.counts.Carried++
	l.fail(err)
	return true
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
