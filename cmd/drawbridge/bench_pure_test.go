//go:build !operator

package main

import (
	"encoding/binary"
	"errors"
	"testing"

	"drawbridge/cmd/drawbridge/internal/bench"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// netlinkMessage is one netlink message with so many bytes behind its header.
func netlinkMessage(kind uint16, payload int) []byte {
	b := make([]byte, (unix.SizeofNlMsghdr+payload+3)&^3)
	binary.NativeEndian.PutUint32(b, uint32(unix.SizeofNlMsghdr+payload))
	binary.NativeEndian.PutUint16(b[4:], kind)
	return b
}

func TestLinksIn(t *testing.T) {
	join := func(parts ...[]byte) (b []byte) {
		for _, p := range parts {
			b = append(b, p...)
		}
		return b
	}
	link, done := netlinkMessage(unix.RTM_NEWLINK, 17), netlinkMessage(unix.NLMSG_DONE, 4)
	for _, tt := range []struct {
		name  string
		b     []byte
		ended bool
		links int
		fails bool
	}{
		{"nothing", nil, false, 0, false},
		{"more to come", join(link, link), false, 2, false},
		{"the end", join(link, link, link, done), true, 3, false},
		{"something else", join(netlinkMessage(unix.RTM_NEWADDR, 8), link, done), true, 1, false},
		{"refused", netlinkMessage(unix.NLMSG_ERROR, 20), true, 0, true},
		{"cut off", link[:20], true, 1, true},
		{"no length", make([]byte, 16), true, 0, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ended, links, err := linksIn(tt.b)
			require.Equal(t, tt.ended, ended)
			require.Equal(t, tt.links, links)
			require.Equal(t, tt.fails, err != nil, "%v", err)
		})
	}
}

func TestSumOfFields(t *testing.T) {
	const text = "MemTotal:       24684712 kB\nSlab:             1000 kB\nSReclaimable:     7 kB\nPercpu:   24 kB\nHugePages_Total:       3\n"
	require.EqualValues(t, 1024*1024, sumOfFields(text, "Slab", "Percpu", "KernelStack"))
	require.Zero(t, sumOfFields(text, "HugePages"))
}

// TestBenchExitCodes: a goal that was missed, one that could not be measured, and a run that ended early whatever the goal.
func TestBenchExitCodes(t *testing.T) {
	spread := bench.NewSpread([]float64{2, 2, 2, 2, 2})
	for _, tt := range []struct {
		name string
		goal bench.Judged
		want int
	}{
		{"met", bench.Judged{Value: &spread, Verdict: bench.Met}, exitOK},
		{"noise", bench.Judged{Value: &spread, Verdict: bench.Noise}, exitOK},
		{"missed", bench.Judged{Value: &spread, Verdict: bench.Missed}, exitNotConformant},
		{"failed", bench.Judged{Verdict: bench.Unmeasured}, exitUnjudged},
		{"not installed", bench.Judged{Verdict: bench.Unmeasured, Excused: true}, exitOK},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := &program{std: streams{out: t.Output()}}
			s := &bench.Summary{Comparisons: []bench.Comparison{{Name: "x", Goals: []bench.Judged{tt.goal}}}}
			require.Equal(t, tt.want, exitCode(p.conclude("bench x", s, compareOptions{}, nil)))
			early := p.conclude("bench x", s, compareOptions{}, errors.New("ended early"))
			require.Equal(t, exitUnjudged, exitCode(early))
			require.Contains(t, complaint(early), "ended early")
			require.Equal(t, "ended early", s.Incomplete)
		})
	}
}
