//go:build !operator

package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"drawbridge/cmd/drawbridge/internal/control"
	"drawbridge/sim/commits"
	"drawbridge/sim/fabric"
	"drawbridge/sim/probe"
	"drawbridge/topology"
)

// watchOrder asks to be told who reaches what, now and whenever that may have changed.
type watchOrder struct {
	matrixOrder
	Every time.Duration `json:"every"` // from one look at what has changed to the next, at least
	Round time.Duration `json:"round"` // for everything, whatever has changed
}

// look is what connecting once more has shown.
type look struct {
	At    time.Time     `json:"at"` // when it began
	Took  time.Duration `json:"took"`
	Why   string        `json:"why"`
	Which []int         `json:"which"` // places of Seen in the whole; the first look is the whole
	Seen  []seen        `json:"seen"`
}

// looking is one sim watch as the lab serves it.
type looking struct {
	observe func(context.Context, []probe.Spec) ([]seen, error)
	specs   []probe.Spec
	ways    []way          // by spec
	at      []time.Time    // by spec, when it was last tried
	turns   [][]int        // the specs to each enforcement point, for looks in turn
	word    chan struct{}  // holds a token while something is in changed
	ears    sync.WaitGroup // listen to rulesets
	closers []*commits.Watcher

	mu      sync.Mutex
	changed map[string]string // what has changed in which way, by node or server, since it was looked at
}

// watch sends what it sees until the client is gone or ctx ends.
func (h *holder) watch(ctx context.Context, c *control.Conn, o watchOrder) (answer, error) {
	w := h.lab.World()
	specs, err := o.specs(w)
	if err != nil {
		return answer{}, misuse("", err)
	}
	ctx, stop := wanted(ctx, c)
	defer stop(nil)
	l := newLooking(w, specs)
	tell := telling(c, len(specs)) // of the first look, for which people wait
	l.observe = func(ctx context.Context, specs []probe.Spec) ([]seen, error) {
		defer func() { tell = func(int) {} }()
		return h.observe(ctx, "sim watch", specs, tell)
	}
	defer l.close()
	if err := h.listen(l, stop); err != nil {
		return answer{}, err
	}
	defer h.watched.add(l)()
	err = l.run(ctx, o, func(k look) error { return c.Send(answer{Look: &k}) })
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		err = cause
	}
	return answer{}, err
}

// listen has a looking hear of every change of an enforcement point's ruleset. One that cannot be heard any more ends it.
func (h *holder) listen(l *looking, fail context.CancelCauseFunc) error {
	for _, p := range h.lab.World().Points() {
		node, _ := h.lab.Node(p.Name)
		ear, err := commits.Watch(node)
		if err != nil {
			return fmt.Errorf("enforcement point %s: %w", p.Name, err)
		}
		l.closers = append(l.closers, ear)
		l.ears.Go(func() {
			for {
				if err := ear.Next(); err != nil {
					fail(fmt.Errorf("enforcement point %s: %w", p.Name, err)) // at the end it is too late to matter
					return
				}
				l.tell("ruleset changed", p.Name)
			}
		})
	}
	return nil
}

func (l *looking) close() {
	for _, c := range l.closers {
		_ = c.Close() // nothing was written to it
	}
	l.ears.Wait()
}

func newLooking(w *topology.World, specs []probe.Spec) *looking {
	l := &looking{
		specs: specs, ways: make([]way, len(specs)), at: make([]time.Time, len(specs)),
		word: make(chan struct{}, 1), changed: map[string]string{},
	}
	turn := map[string]int{}
	for i, s := range specs {
		l.ways[i] = wayOf(w, s)
		n, ok := turn[s.To.Point]
		if !ok {
			n, turn[s.To.Point] = len(l.turns), len(l.turns)
			l.turns = append(l.turns, nil)
		}
		l.turns[n] = append(l.turns[n], i)
	}
	return l
}

// way is what a probe depends on: the nodes that its packets pass, without the core, which all of them do, and the server.
type way struct{ from, to []string }

func wayOf(w *topology.World, s probe.Spec) way {
	v, _ := w.Vantage(s.From)
	from := []string{v.Namespace}
	switch v.Kind {
	case topology.VantageApp:
		from = append(from, fabric.Edge(v.Region))
	case topology.VantagePeer:
		network, _, _ := strings.Cut(v.Name, "/")
		from = append(from, network)
		for _, d := range w.Databases() {
			if d.Peering != nil && d.Peering.Network == network {
				from = append(from, d.Gateway)
			}
		}
	case topology.VantageNode:
		d, _ := w.Database(v.Database)
		from = append(from, d.Gateway) // none of a shared one
	}
	return way{from, []string{s.To.Point, s.To.Node, namespaceOf(w, s.To)}}
}

// tell says that something has changed at nodes or servers.
func (l *looking) tell(what string, where ...string) {
	l.mu.Lock()
	for _, name := range where {
		l.changed[name] = what
	}
	l.mu.Unlock()
	select {
	case l.word <- struct{}{}:
	default:
	}
}

// told returns the specs that may fare otherwise since the last call, and why: first what leads to the places of the changes, then what
// comes from there. A change at a place that no spec is known to depend on may concern all of them.
func (l *looking) told() (to, from []int, why string) {
	l.mu.Lock()
	names := slices.Sorted(maps.Keys(l.changed))
	var words []string
	for _, name := range names {
		words = append(words, name+": "+l.changed[name])
	}
	clear(l.changed)
	l.mu.Unlock()
	why = strings.Join(words, ", ")
	known := map[string]bool{}
	touches := func(nodes []string) (any bool) {
		for _, name := range names {
			if slices.Contains(nodes, name) {
				any, known[name] = true, true
			}
		}
		return any
	}
	for i, way := range l.ways {
		there, here := touches(way.to), touches(way.from)
		switch {
		case there:
			to = append(to, i)
		case here:
			from = append(from, i)
		}
	}
	if len(known) < len(names) {
		return l.all(), nil, why
	}
	return to, from, why
}

func (l *looking) all() []int {
	which := make([]int, len(l.specs))
	for i := range which {
		which[i] = i
	}
	return which
}

// next returns the specs that were left longest, to one enforcement point.
func (l *looking) next() (which []int, why string) {
	oldest := func(turn []int) time.Time {
		return l.at[slices.MinFunc(turn, func(a, b int) int { return l.at[a].Compare(l.at[b]) })]
	}
	which = slices.MinFunc(l.turns, func(a, b []int) int { return oldest(a).Compare(oldest(b)) })
	return which, l.specs[which[0]].To.Point + ": its turn"
}

// run looks at everything, then at what has changed at once, and at the rest in turn, until ctx ends.
func (l *looking) run(ctx context.Context, o watchOrder, send func(look) error) error {
	if err := l.look(ctx, l.all(), "everything", send); err != nil {
		return err
	}
	if len(l.turns) == 0 { // a world without databases
		<-ctx.Done()
		return nil
	}
	turn := time.NewTicker(max(o.Round/time.Duration(len(l.turns)), 1))
	defer turn.Stop()
	word := l.word
	var rested <-chan time.Time // runs while word is not heard
	for {
		var err error
		select {
		case <-word:
			began := time.Now()
			to, from, why := l.told()
			if err = l.look(ctx, to, why, send); err == nil {
				err = l.look(ctx, from, why, send)
			}
			word, rested = nil, time.After(max(o.Every-time.Since(began), 0))
		case <-rested:
			word, rested = l.word, nil
		case <-turn.C:
			which, why := l.next()
			err = l.look(ctx, which, why, send)
		case <-ctx.Done():
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// look tries some connections, if any, and sends what became of them, unless ctx ends meanwhile.
func (l *looking) look(ctx context.Context, which []int, why string, send func(look) error) error {
	if len(which) == 0 && len(l.specs) > 0 || ctx.Err() != nil {
		return nil
	}
	k := look{At: time.Now(), Why: why, Which: which}
	var specs []probe.Spec
	for _, i := range which {
		specs = append(specs, l.specs[i])
	}
	var err error
	k.Seen, err = l.observe(ctx, specs)
	if err != nil || ctx.Err() != nil {
		return err
	}
	for _, i := range which {
		l.at[i] = k.At
	}
	k.Took = time.Since(k.At)
	return send(k)
}

// watchers are those who are to be told what changes in a lab. The zero value is none.
type watchers struct {
	mu  sync.Mutex
	all []*looking
}

// add has a looking told, until the returned function is called.
func (w *watchers) add(l *looking) (remove func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all = append(w.all, l)
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.all = slices.DeleteFunc(w.all, func(other *looking) bool { return other == l })
	}
}

func (w *watchers) tell(what string, where ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, l := range w.all {
		l.tell(what, where...)
	}
}
