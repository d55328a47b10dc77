package driver

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// ErrRefused and ErrBroken are what errors.Is finds in the two kinds of failure.
var (
	// ErrRefused: the policy is refused, and what was in force still is.
	ErrRefused = errors.New("policy refused")
	// ErrBroken: the driver did not keep to the protocol; nothing can be concluded.
	ErrBroken = errors.New("driver broken")
	errHang   = errors.New("call limit exceeded")
)

// Refused is a policy's refusal by exit status 2.
type Refused struct {
	Point    string
	Stderr   string
	Duration time.Duration
}

// Error gives the driver's own words.
func (r *Refused) Error() string {
	return fmt.Sprintf("policy refused at %s: %s", r.Point, orNothing(r.Stderr))
}

// Unwrap makes errors.Is(err, ErrRefused) hold.
func (r *Refused) Unwrap() error { return ErrRefused }

// Reason classifies what was wrong with a call.
type Reason string

// Reasons for which a driver cannot be judged.
const (
	CannotStart    Reason = "cannot start"
	Hang           Reason = "hang"
	Signalled      Reason = "signal"
	NonsenseOutput Reason = "nonsense on standard output"
	OtherStatus    Reason = "exit status outside the protocol"
	LeftBehind     Reason = "processes left behind in its process group"
)

// Broken is a call after which nothing can be concluded.
type Broken struct {
	Point, Call string
	Reason      Reason
	Detail      string
	Stderr      string
	// Leftover names processes of the call's process group that were still there, and were killed.
	Leftover []string
}

// Error names the call, the reason and the driver's last words.
func (b *Broken) Error() string {
	msg := fmt.Sprintf("driver broken: %s at %s: %s: %s; its standard error: %s", b.Call, b.Point, b.Reason, b.Detail, orNothing(b.Stderr))
	if len(b.Leftover) > 0 {
		msg += "; left behind: " + strings.Join(b.Leftover, ", ")
	}
	return msg
}

// Unwrap makes errors.Is(err, ErrBroken) hold.
func (b *Broken) Unwrap() error { return ErrBroken }

func orNothing(s string) string {
	if s = strings.TrimSpace(s); s != "" {
		return s
	}
	return "(nothing)"
}
