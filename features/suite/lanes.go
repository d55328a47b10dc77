package suite

import (
	"cmp"
	"context"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/cucumber/godog"

	"drawbridge/topology"
)

// ground is a claim on enforcement points: those that a scenario changes and connects to, which are its own while it runs, and those that
// its clients stand behind, where nothing may change meanwhile.
type ground struct {
	own  map[string]bool
	calm map[string]bool
}

// everywhere owns every point.
func everywhere(w *topology.World) ground {
	g := ground{own: map[string]bool{}, calm: map[string]bool{}}
	for _, p := range w.Points() {
		g.own[p.Name] = true
	}
	return g
}

// stands names the enforcement point at which, or behind which, a vantage stands.
func stands(w *topology.World, v topology.Vantage) (string, bool) {
	if _, ok := w.Point(v.Namespace); ok {
		return v.Namespace, true
	}
	network, _, _ := strings.Cut(v.Name, "/")
	for _, d := range w.Databases() {
		behind := v.Kind == topology.VantageNode && d.Name == v.Database ||
			v.Kind == topology.VantagePeer && d.Peering != nil && d.Peering.Network == network
		if behind && d.Gateway != "" {
			return d.Gateway, true
		}
	}
	return "", false
}

var (
	namedRE = regexp.MustCompile(`"([^"]+)"`)
	// What concerns more than the databases that a scenario names: the platform moves what all regions' clients come from, and a time
	// that is judged is nobody else's to spend.
	wideRE = regexp.MustCompile(`every database|^the platform |was in force within`)
)

// groundOf reads from a scenario's text which points it needs. What it reads too little of is noticed when the scenario connects.
func groundOf(w *topology.World, p *godog.Scenario) ground {
	g := ground{own: map[string]bool{}, calm: map[string]bool{}}
	for _, line := range words(p) {
		if wideRE.MatchString(line) {
			return everywhere(w)
		}
		for _, m := range namedRE.FindAllStringSubmatch(line, -1) {
			for _, point := range w.Points() {
				if slices.Contains(point.Databases, m[1]) {
					g.own[point.Name] = true
				}
			}
			if v, ok := w.Vantage(m[1]); ok {
				if at, ok := stands(w, v); ok {
					g.calm[at] = true
				}
			}
		}
	}
	return g
}

// words are the texts of a scenario's steps, and the cells of their tables.
func words(p *godog.Scenario) []string {
	var all []string
	for _, s := range p.Steps {
		all = append(all, s.Text)
		if s.Argument == nil || s.Argument.DataTable == nil {
			continue
		}
		for _, row := range s.Argument.DataTable.Rows {
			for _, c := range row.Cells {
				all = append(all, c.Value)
			}
		}
	}
	return all
}

// lanes let scenarios run side by side that do not meet at any point. Where they do meet, the one that came first goes first.
type lanes struct {
	width int // how many may run at once

	mu      sync.Mutex
	running int
	owned   map[string]bool
	calm    map[string]int
	waiting []*ticket
}

type ticket struct {
	ground ground
	ready  chan struct{}
}

func newLanes(width int) *lanes {
	return &lanes{width: max(width, 1), owned: map[string]bool{}, calm: map[string]int{}}
}

// enter waits until the ground is free. Without an error, leave gives it back.
func (l *lanes) enter(ctx context.Context, g ground) error {
	t := &ticket{ground: g, ready: make(chan struct{})}
	l.mu.Lock()
	l.waiting = append(l.waiting, t)
	l.admit()
	l.mu.Unlock()
	select {
	case <-t.ready:
		return nil
	case <-ctx.Done():
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if i := slices.Index(l.waiting, t); i >= 0 {
		l.waiting = slices.Delete(l.waiting, i, i+1)
	} else {
		l.giveBack(g)
	}
	l.admit()
	return ctx.Err()
}

func (l *lanes) leave(g ground) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.giveBack(g)
	l.admit()
}

func (l *lanes) giveBack(g ground) {
	l.running--
	for p := range g.own {
		delete(l.owned, p)
	}
	for p := range g.calm {
		l.calm[p]--
	}
}

// admit lets everybody in who has nobody in his way, neither inside nor before him in the queue.
func (l *lanes) admit() {
	owned := maps.Clone(l.owned)
	calm := maps.Clone(l.calm)
	l.line()
	l.waiting = slices.DeleteFunc(l.waiting, func(t *ticket) bool {
		free := l.running < l.width
		for p := range t.ground.own {
			free = free && !owned[p] && calm[p] == 0
		}
		for p := range t.ground.calm {
			free = free && !owned[p]
		}
		for p := range t.ground.own { // inside, or in the way of whoever comes later
			owned[p] = true
		}
		for p := range t.ground.calm {
			calm[p]++
		}
		if free {
			l.take(t)
		}
		return free
	})
}

// line puts those first for whose point most are waiting, since it will be busy longest, and those last who need many points at
// once. Among equals, who came first is first.
func (l *lanes) line() {
	demand := map[string]int{}
	for _, t := range l.waiting {
		for p := range t.ground.own {
			demand[p]++
		}
	}
	slices.SortStableFunc(l.waiting, func(a, b *ticket) int {
		return cmp.Or(
			cmp.Compare(max(len(a.ground.own), few), max(len(b.ground.own), few)),
			cmp.Compare(b.busiest(demand), a.busiest(demand)),
		)
	})
}

// few is how many points a scenario may own without being in everybody's way: one more than a cluster of three.
const few = 4

func (t *ticket) busiest(demand map[string]int) int {
	n := 0
	for p := range t.ground.own {
		n = max(n, demand[p])
	}
	return n
}

func (l *lanes) take(t *ticket) {
	l.running++
	for p := range t.ground.own {
		l.owned[p] = true
	}
	for p := range t.ground.calm {
		l.calm[p]++
	}
	close(t.ready)
}
