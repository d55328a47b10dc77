package bench

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// tick is the unit of the times in /proc (proc(5), USER_HZ), which is the same on every architecture that Go runs on.
const tick = 10 * time.Millisecond

// ErrProc is the error of a file of /proc that does not say what it has to say.
var ErrProc = errors.New("unexpected format")

// Usage is processor time, in user mode and in the kernel, since something began.
type Usage struct {
	Processes time.Duration // of all processes in this /proc, and those that they waited for
	Machine   time.Duration // of the whole machine, whoever used it
}

// Since is what was used between two readings.
func (u Usage) Since(before Usage) Usage {
	return Usage{u.Processes - before.Processes, u.Machine - before.Machine}
}

// ReadUsage reads a /proc: that of a process namespace tells of its processes alone. Time of kernel threads, such as ksoftirqd's, is in
// Machine only; packets are mostly handled on the time of the process that sends them.
func ReadUsage(proc string) (u Usage, err error) {
	stat, err := os.ReadFile(filepath.Join(proc, "stat"))
	if err != nil {
		return u, err
	}
	if u.Machine, err = parseMachine(string(stat)); err != nil {
		return u, err
	}
	paths, err := filepath.Glob(filepath.Join(proc, "[0-9]*", "stat"))
	if err != nil {
		return u, err
	}
	for _, path := range paths {
		stat, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended since, and is in the time of whoever waited for it, or of nobody
		}
		used, err := parseProcess(string(stat))
		if err != nil {
			return u, fmt.Errorf("%s: %w", path, err)
		}
		u.Processes += used
	}
	return u, nil
}

// parseMachine reads the first line of /proc/stat: cpu user nice system idle iowait irq softirq steal guest guest_nice, where user holds
// guest.
func parseMachine(stat string) (time.Duration, error) {
	line, _, _ := strings.Cut(stat, "\n")
	fields := strings.Fields(line)
	if len(fields) < 8 || fields[0] != "cpu" {
		return 0, fmt.Errorf("/proc/stat: %w: %q", ErrProc, line)
	}
	return sum(fields[1], fields[2], fields[3], fields[6], fields[7])
}

// Fields of /proc/PID/stat behind the name, which is in parentheses and may hold anything: utime, stime, cutime, cstime.
const (
	firstTime = 11
	lastTime  = 14
)

func parseProcess(stat string) (time.Duration, error) {
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	if len(fields) <= lastTime {
		return 0, fmt.Errorf("%w: %q", ErrProc, stat)
	}
	return sum(fields[firstTime : lastTime+1]...)
}

func sum(ticks ...string) (total time.Duration, err error) {
	for _, t := range ticks {
		n, err := strconv.ParseUint(t, 10, 63)
		if err != nil {
			return 0, fmt.Errorf("%w: %w", ErrProc, err)
		}
		total += time.Duration(n) * tick
	}
	return total, nil
}

// ProcessorName is the model that /proc/cpuinfo names first; "unknown" where it names none, as on some architectures.
func ProcessorName(cpuinfo string) string {
	for line := range strings.Lines(cpuinfo) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}
