// Package impair makes links of a lab bad: packets take their time, get lost and overtake each other, by chance that a seed repeats.
//
// A link is impaired at one of its ends, the hooked one, in both directions and while it is in use: a filter of the traffic control there
// takes what the end sends, and what arrives at it, to this process, which puts it back in its place later, or not (Wire). The
// interface keeps its name, its addresses and its routes. At the other end nothing changes at all, and whoever watches there sees packets as
// they come off the cable: lost before they arrived, or lost after they had left.
//
// netem(8) does the same in the kernel, where the kernel has it. It is not used: the kernel cannot say which packets it has dropped, and a
// verdict that rests on a packet's absence has to know whether the wire lost it. What does that here is the same on every kernel.
package impair

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// MaxDelay bounds a delay: packets that are under way are kept in memory.
const MaxDelay = 10 * time.Second

// Impairment is what a wire does to every packet, in each of its two directions alike. The zero value does nothing.
type Impairment struct {
	// Delay is how long a packet takes from one end to the other, from 0 to MaxDelay.
	Delay time.Duration
	// Loss is the probability that a packet is lost, from 0 to 1.
	Loss float64
	// Reorder is the probability that a packet takes no time at all and so overtakes those under way, from 0 to 1. It needs a Delay, as with
	// netem(8).
	Reorder float64
	// Seed makes the sequence of decisions of each direction. Which packet a decision meets depends on the order in which they come.
	Seed uint64
}

// ErrImpairment says that something is no impairment.
var ErrImpairment = errors.New("no such impairment")

// Check returns ErrImpairment with the reason unless every field is within its bounds.
func (i Impairment) Check() error {
	switch {
	case i.Delay < 0 || i.Delay > MaxDelay:
		return fmt.Errorf("%w: a delay of %s: must be between 0 and %s", ErrImpairment, i.Delay, MaxDelay)
	case !isProbability(i.Loss):
		return fmt.Errorf("%w: a loss of %v: must be between 0 and 1", ErrImpairment, i.Loss)
	case !isProbability(i.Reorder):
		return fmt.Errorf("%w: reordering of %v: must be between 0 and 1", ErrImpairment, i.Reorder)
	case i.Reorder > 0 && i.Delay == 0:
		return fmt.Errorf("%w: reordering without a delay: nothing is under way that could be overtaken", ErrImpairment)
	}
	return nil
}

// isProbability is false for what is not a number, too.
func isProbability(p float64) bool { return p >= 0 && p <= 1 }

// None reports whether it does nothing.
func (i Impairment) None() bool { return i.Delay == 0 && i.Loss == 0 && i.Reorder == 0 }

// String says it in words: "delay 20ms, loss 2%, reorder 1%, seed 7".
func (i Impairment) String() string {
	if i.None() {
		return "none"
	}
	var parts []string
	if i.Delay > 0 {
		parts = append(parts, "delay "+i.Delay.String())
	}
	if i.Loss > 0 {
		parts = append(parts, fmt.Sprintf("loss %g%%", i.Loss*100))
	}
	if i.Reorder > 0 {
		parts = append(parts, fmt.Sprintf("reorder %g%%", i.Reorder*100))
	}
	if i.Loss > 0 || i.Reorder > 0 {
		parts = append(parts, fmt.Sprintf("seed %d", i.Seed))
	}
	return strings.Join(parts, ", ")
}

// fate is what is decided for one packet. The zero value passes it on at once.
type fate struct {
	lost  bool
	after time.Duration
}

// schedule decides about the packets of one direction, one after the other.
type schedule struct {
	impairment Impairment
	chance     *rand.Rand
}

// newSchedule returns the decisions of a direction, which number tells from all others of the same seed.
func newSchedule(i Impairment, number uint64) *schedule {
	return &schedule{impairment: i, chance: rand.New(rand.NewPCG(i.Seed, number))}
}

// next decides about one packet. It always draws twice, so that the n-th packet's luck with one thing does not depend on the
// probability of the other.
func (s *schedule) next() fate {
	lose, hurry := s.chance.Float64(), s.chance.Float64()
	switch {
	case lose < s.impairment.Loss:
		return fate{lost: true}
	case hurry < s.impairment.Reorder:
		return fate{}
	}
	return fate{after: s.impairment.Delay}
}
