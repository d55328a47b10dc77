package impair

import (
	"errors"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestImpairmentsAreChecked(t *testing.T) {
	for name, c := range map[string]struct {
		i  Impairment
		ok bool
	}{
		"none": {Impairment{}, true}, "all": {Impairment{Delay: time.Second, Loss: 1, Reorder: 1}, true},
		"negative delay": {Impairment{Delay: -1}, false}, "long delay": {Impairment{Delay: MaxDelay + 1}, false},
		"negative loss": {Impairment{Loss: -0.1}, false}, "too much loss": {Impairment{Loss: 1.1}, false},
		"no number": {Impairment{Loss: math.NaN()}, false}, "nothing to overtake": {Impairment{Reorder: 0.1}, false},
	} {
		if err := c.i.Check(); c.ok {
			require.NoError(t, err, name)
		} else {
			require.ErrorIs(t, err, ErrImpairment, name)
		}
	}
	require.Equal(t, "delay 20ms, loss 2%, reorder 1%, seed 7", Impairment{20 * time.Millisecond, 0.02, 0.01, 7}.String())
	require.Equal(t, "none", Impairment{Seed: 7}.String())
}

func fates(i Impairment, number uint64, n int) []fate {
	s := newSchedule(i, number)
	out := make([]fate, n)
	for k := range out {
		out[k] = s.next()
	}
	return out
}

func TestDecisionsAreOfTheirSeedAndDirection(t *testing.T) {
	i := Impairment{Delay: time.Millisecond, Loss: 0.1, Reorder: 0.1, Seed: 5}
	const n = 1000
	all := fates(i, 3, n)
	require.Equal(t, all, fates(i, 3, n))
	require.NotEqual(t, all, fates(i, 4, n))
	other := i
	other.Seed = 6
	require.NotEqual(t, all, fates(other, 3, n))

	calm := i
	calm.Reorder = 0
	for k, f := range fates(calm, 3, n) {
		require.Equal(t, all[k].lost, f.lost, "whether the %dth is lost does not depend on reordering", k)
	}
	require.NotContains(t, fates(Impairment{Delay: 1}, 3, n), fate{lost: true})
	for _, f := range fates(Impairment{Loss: 1}, 3, n) {
		require.True(t, f.lost)
	}
}

// stopped is a clock that stands still until it is moved, and an alarm.
type stopped struct {
	at  time.Time
	set time.Duration
}

type silent struct{ c *stopped }

func (s silent) set(after time.Duration) error { s.c.set = after; return nil }
func (silent) wait() error                     { return errors.New("nobody waits here") }
func (silent) close() error                    { return nil }

func newLane(i Impairment) (l *lane, c *stopped, sent *[]string) {
	c, sent = &stopped{at: time.Unix(1, 0)}, new([]string)
	l = &lane{schedule: newSchedule(i, 0), wake: silent{c}, now: func() time.Time { return c.at }, lost: func(frame) {},
		send: func(f frame) error { *sent = append(*sent, string(f)); return nil }}
	return l, c, sent
}

func TestALaneDelaysAndKeepsOrder(t *testing.T) {
	l, c, sent := newLane(Impairment{Delay: 10 * time.Millisecond})
	buf := []byte("a")
	l.take(buf)
	require.Equal(t, 10*time.Millisecond, c.set)
	copy(buf, "x") // the reader's buffer is used again
	c.at = c.at.Add(4 * time.Millisecond)
	l.take(frame("b"))
	require.Zero(t, 10*time.Millisecond-c.set, "the alarm is for the first")
	l.release()
	require.Empty(t, *sent)
	c.at = c.at.Add(6 * time.Millisecond)
	require.Equal(t, 4*time.Millisecond, l.release(), "the second's turn")
	require.Equal(t, []string{"a"}, *sent)
	require.Equal(t, 4*time.Millisecond, c.set)

	l.change(newSchedule(Impairment{}, 0))
	l.take(frame("c"))
	require.Equal(t, []string{"a"}, *sent, "c does not overtake b")
	c.at = c.at.Add(4 * time.Millisecond)
	require.Zero(t, l.release())
	require.Equal(t, []string{"a", "b", "c"}, *sent)
	l.take(frame("d"))
	require.Equal(t, []string{"a", "b", "c", "d"}, *sent, "at once")
	counts, err := l.state()
	require.NoError(t, err)
	require.Equal(t, Counts{Carried: 4}, counts)
}

func TestALaneLosesAndHurries(t *testing.T) {
	l, _, sent := newLane(Impairment{Loss: 1})
	var lost []string
	l.lost = func(f frame) { lost = append(lost, string(f)) }
	l.take(frame("a"))
	require.Empty(t, *sent)
	require.Equal(t, []string{"a"}, lost)

	l, _, sent = newLane(Impairment{Delay: time.Second})
	l.take(frame("a"))
	l.change(newSchedule(Impairment{Delay: time.Second, Reorder: 1}, 0))
	l.take(frame("b"))
	require.Equal(t, []string{"b"}, *sent)
	l.flush()
	require.Equal(t, []string{"b", "a"}, *sent)
	counts, _ := l.state()
	require.Equal(t, Counts{Carried: 2, Hurried: 1}, counts)
}

func TestALaneWaitsForRoom(t *testing.T) {
	l, c, sent := newLane(Impairment{})
	send, full := l.send, 3
	l.send = func(f frame) error {
		if full--; full >= 0 {
			return errFull
		}
		return send(f)
	}
	l.take(frame("a"))
	l.take(frame("b"))
	require.Empty(t, *sent)
	for range 2 {
		require.Equal(t, fullFor, c.set)
		c.at = c.at.Add(fullFor)
		require.Equal(t, fullFor, l.release())
		require.Empty(t, *sent)
	}
	c.at = c.at.Add(fullFor)
	require.Zero(t, l.release())
	require.Equal(t, []string{"a", "b"}, *sent, "in order")

	var lost []string
	l.lost = func(f frame) { lost = append(lost, string(f)) }
	full = 1 << 20
	l.take(frame("c"))
	for range fullTimes {
		require.Empty(t, lost)
		c.at = c.at.Add(fullFor)
		l.release()
	}
	require.Equal(t, []string{"c"}, lost, "there never was any")
	counts, err := l.state()
	require.NoError(t, err)
	require.Equal(t, Counts{Carried: 2, Lost: 1}, counts)
}

func TestALaneRemembersItsFirstError(t *testing.T) {
	l, _, _ := newLane(Impairment{})
	first := errors.New("first")
	l.send = func(frame) error { return first }
	l.take(frame("a"))
	l.send = func(frame) error { return errors.New("second") }
	l.take(frame("b"))
	_, err := l.state()
	require.ErrorIs(t, err, first)
}
