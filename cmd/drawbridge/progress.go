//go:build !operator

package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"drawbridge/features/suite"

	"golang.org/x/term"
)

// clearLine goes to the beginning of a terminal's line and empties it (ECMA-48: CR, EL).
const clearLine = "\r\x1b[K"

// refresh is how often the time that has passed is shown anew.
const refresh = time.Second

// progress keeps one line on a terminal that says how far a run is. A nil one shows nothing.
type progress struct {
	out   io.Writer
	now   func() time.Time
	began time.Time
	stop  chan struct{}
	ended sync.WaitGroup

	plain bool // no terminal: a line each time

	mu      sync.Mutex
	last    suite.Progress
	said    string // instead of it
	counted tried  // with said
}

// showProgress starts to show it.
func showProgress(out io.Writer, now func() time.Time) *progress {
	s := &progress{out: out, now: now, began: now(), stop: make(chan struct{})}
	s.draw()
	s.tick()
	return s
}

// waiting says on a terminal what people are waiting for, once it has taken a second. The caller closes it before it says anything else.
func (p *program) waiting(what string) *progress {
	if !p.onTerminal(p.std.err) {
		return nil
	}
	s := &progress{out: p.std.err, now: time.Now, began: time.Now(), stop: make(chan struct{}), said: what}
	s.tick()
	return s
}

// plainRefresh is how often a file or another program is told.
const plainRefresh = 5 * time.Second

// counting is waiting for what tells how far it is. Where there is no terminal that says so in lines of their own, every few seconds.
func (p *program) counting(what string) *progress {
	if s := p.waiting(what); s != nil {
		return s
	}
	s := &progress{out: p.std.err, now: time.Now, began: time.Now(), stop: make(chan struct{}), said: what, plain: true}
	s.tick()
	return s
}

// count notes how far it is, for the next time that it is shown.
func (s *progress) count(t tried) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counted = t
}

// tick shows every second what there is to show.
func (s *progress) tick() {
	every := refresh
	if s.plain {
		every = plainRefresh
	}
	s.ended.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				s.draw()
			case <-s.stop:
				return
			}
		}
	})
}

// update is for suite.Config.Progress.
func (s *progress) update(p suite.Progress) {
	if s == nil {
		return
	}
	s.mu.Lock()
	s.last = p
	s.mu.Unlock()
	s.draw()
}

// phase is for suite.SampleConfig.Progress.
func (s *progress) phase(p suite.SampleProgress) {
	if s == nil {
		return
	}
	s.mu.Lock()
	s.said = p.Phase
	if p.All > 0 {
		s.said += fmt.Sprintf(", %d of %d", p.Done, p.All)
	}
	s.mu.Unlock()
	s.draw()
}

func (s *progress) draw() {
	s.mu.Lock()
	defer s.mu.Unlock()
	elapsed := s.now().Sub(s.began).Truncate(time.Second)
	text := fmt.Sprintf("%d of %d scenarios, %d failed, %s", s.last.Done, s.last.Selected, s.last.Failed, elapsed)
	switch {
	case s.said != "" && s.counted.All > 0:
		text = fmt.Sprintf("%s, %d of %d, %s", s.said, s.counted.Done, s.counted.All, elapsed)
	case s.said != "":
		text = fmt.Sprintf("%s, %s", s.said, elapsed)
	case s.last.Selected == 0:
		text = fmt.Sprintf("the lab, and the enforcer's defaults, %s", elapsed)
	case s.last.Done == s.last.Selected:
		text += ", taking everything out of force"
	}
	if text = clearLine + text; s.plain {
		text = strings.TrimPrefix(text, clearLine) + "\n"
	}
	_, _ = io.WriteString(s.out, text) // a terminal that is gone needs no news
}

// close takes the line away.
func (s *progress) close() {
	if s == nil {
		return
	}
	close(s.stop)
	s.ended.Wait()
	if !s.plain {
		_, _ = io.WriteString(s.out, clearLine)
	}
}

// live starts the progress line of a run, if people are watching: on standard error, unless a format that was asked for writes to the
// same terminal. alone: it takes the place of the default format.
func (p *program) live(o conformOptions) (line *progress, alone bool) {
	out := p.onTerminal(p.std.out)
	if !p.onTerminal(p.std.err) || out && !o.unformatted && !o.json {
		return nil, false
	}
	return showProgress(p.std.err, time.Now), out
}

// onTerminal tells whether a stream is a terminal whose lines can be cleared.
func (p *program) onTerminal(w io.Writer) bool {
	if value, _ := p.env("TERM"); value == "dumb" {
		return false
	}
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
