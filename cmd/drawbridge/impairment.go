//go:build !operator

package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"drawbridge/features/suite"
	"drawbridge/sim/impair"
	"drawbridge/sim/probe"

	"github.com/spf13/cobra"
)

// percentage is a flag's probability, as people write it: 2% or 0.02.
type percentage float64

// Set implements pflag.Value.
func (p *percentage) Set(s string) error {
	number, percent := strings.CutSuffix(strings.TrimSpace(s), "%")
	v, err := strconv.ParseFloat(number, 64)
	if percent {
		v /= 100
	}
	if err != nil || !(v >= 0 && v <= 1) { // also what is not a number
		return fmt.Errorf("must be a share between 0%% and 100%%, as in 2%%")
	}
	*p = percentage(v)
	return nil
}

func (p *percentage) String() string {
	if *p == 0 {
		return ""
	}
	return strconv.FormatFloat(float64(*p)*100, 'g', -1, 64) + "%"
}

// Type implements pflag.Value.
func (*percentage) Type() string { return "share" }

// impairmentFlags are what people say of a bad link.
type impairmentFlags struct {
	delay         time.Duration
	loss, reorder percentage
}

// add defines the flags; which says of which links they speak.
func (f *impairmentFlags) add(c *cobra.Command, which string) {
	c.Flags().DurationVar(&f.delay, "delay", 0, "packets take this `time` on "+which+", each way: 20ms")
	c.Flags().Var(&f.loss, "loss", "this `share` of the packets get lost on "+which+": 2%")
}

func (f *impairmentFlags) addReorder(c *cobra.Command) {
	c.Flags().Var(&f.reorder, "reorder", "this `share` of the packets overtake those under way; needs --delay: 1%")
}

// given are the flags' names that a command line used.
func (*impairmentFlags) given(c *cobra.Command) bool {
	for _, name := range []string{"delay", "loss", "reorder"} {
		if c.Flags().Changed(name) {
			return true
		}
	}
	return false
}

// impairment returns what was asked for.
func (f *impairmentFlags) impairment(seed uint64) (impair.Impairment, error) {
	i := impair.Impairment{Delay: f.delay, Loss: float64(f.loss), Reorder: float64(f.reorder), Seed: seed}
	if i.Loss == 1 {
		return i, errors.New("--loss 100%: nothing would come through, and nothing could be concluded; cut a link in the running lab instead: drawbridge sim break link LINK")
	}
	return i, i.Check()
}

// words are the flags that ask for the same again.
func (f *impairmentFlags) words(seed uint64) (words []string) {
	if f.delay > 0 {
		words = append(words, "--delay", f.delay.String())
	}
	if f.loss > 0 {
		words = append(words, "--loss", f.loss.String(), "--seed", strconv.FormatUint(seed, 10))
	}
	return words
}

// checkConform says whether a suite can be judged under it.
func (f *impairmentFlags) checkConform(seed uint64) (impair.Impairment, error) {
	i, err := f.impairment(seed)
	switch {
	case err != nil:
		return i, misuse("conform", err)
	case f.delay > probe.MostDelay:
		return i, misusef("conform: --delay", "%s: at most %s: verdicts rest on waits that would run out", f.delay, probe.MostDelay)
	case float64(f.loss) > probe.MostLoss:
		return i, misusef("conform: --loss", "%s: at most %g%%: too little would be left to conclude anything from", f.loss.String(), probe.MostLoss*100)
	}
	return i, nil
}

// wires sums up what a lab's wires do and have done.
func (l *lab) wires() suite.Wires {
	if l.bad.None() {
		return suite.Wires{}
	}
	w := suite.Wires{What: l.bad.String()}
	for _, x := range l.Impaired() {
		w.Carried += x.Outwards.Carried + x.Inwards.Carried
		w.Lost += x.Outwards.Lost + x.Inwards.Lost
	}
	return w
}
