package daemon

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"

	"drawbridge/enforcer"
	"drawbridge/enforcer/compile"
	"drawbridge/enforcer/denied"
)

// DeniedStatus says how the daemon listens for denied packets.
type DeniedStatus struct {
	// Since is when it began to; zero: it does not, and Error says why.
	Since time.Time `json:"since,omitzero"`
	Error string    `json:"error,omitempty"`
	// Heard counts packets that the kernel told of, which is a sample; Sources what is remembered of them.
	Heard   uint64 `json:"heard"`
	Sources int    `json:"sources"`
}

// HitsStatus says how much the rules were used when the daemon looked last.
type HitsStatus struct {
	At     time.Time `json:"at,omitzero"` // zero: it has not looked yet
	Rules  int       `json:"rules"`
	Unused int       `json:"unused"`
	Error  string    `json:"error,omitempty"`
}

const (
	// hitsEvery is how often the rules' counters are read, and hitsShare how many times longer than that took the daemon then waits:
	// with very many rules reading them must not keep a processor busy.
	hitsEvery = time.Minute
	hitsShare = 50
	// listenEvery is how often the daemon tries to listen for denied packets while somebody else does.
	listenEvery = 10 * time.Second
	// again is how long the daemon waits before it asks the kernel again for what went wrong.
	again = time.Second
	// maxFollowers bounds who follows what is denied, and backlog how much each may be behind before it misses some.
	maxFollowers = 16
	backlog      = 256
)

// watched is what the daemon looks at beside its loop. The zero value looks at nothing.
type watched struct {
	hits  *enforcer.HitCounters  // nil: nobody looks
	heard chan *enforcer.Denials // who listens, once there is somebody
	tried time.Time              // when somebody was to listen last

	mu        sync.Mutex
	denials   *enforcer.Denials // nil: nobody listens
	latest    []enforcer.Hit
	followers map[chan enforcer.Denial]bool
}

// openWatched opens what is watched, in the network namespace of the calling thread. A kernel that cannot tell, or another listener, keeps
// no policy from coming into force.
func (d *daemon) openWatched(ctx context.Context) (err error) {
	d.watched.heard = make(chan *enforcer.Denials, 1)
	if d.watched.hits, err = enforcer.OpenHitCounters(d.Enforcer); err != nil {
		return err
	}
	if err := d.listenDenied(ctx); err != nil {
		d.Log.Warn("who is denied will not be known; it is tried again", "every", listenEvery, "reason", err)
	}
	return nil
}

// listenDenied begins to listen for denied packets, in the network namespace of the calling thread.
func (d *daemon) listenDenied(ctx context.Context) error {
	d.watched.tried = time.Now()
	denials, err := enforcer.ListenDenied(ctx)
	if err != nil {
		d.state.change(func(s *Status) { s.Denied = DeniedStatus{Error: err.Error()} })
		return err
	}
	d.state.change(func(s *Status) { s.Denied = DeniedStatus{Since: d.clock.now()} })
	d.watched.mu.Lock()
	d.watched.denials = denials
	d.watched.mu.Unlock()
	d.watched.heard <- denials
	return nil
}

// listenAgain tries it again from time to time if nobody listens: another program may have, which has ended.
func (d *daemon) listenAgain(ctx context.Context) {
	if d.watched.listener() != nil || time.Since(d.watched.tried) < cmp.Or(d.listenEvery, listenEvery) {
		return
	}
	if d.listenDenied(ctx) == nil {
		d.Log.Info("from now on it is known who is denied")
	}
}

// listener is who listens; nil: nobody does.
func (w *watched) listener() *enforcer.Denials {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.denials
}

func (w *watched) close() (errs []error) {
	if denials := w.listener(); denials != nil {
		errs = append(errs, denials.Close())
	}
	if w.hits != nil {
		errs = append(errs, w.hits.Close())
	}
	return errs
}

// hear listens for denied packets until ctx ends.
func (d *daemon) hear(ctx context.Context) error {
	var denials *enforcer.Denials
	select {
	case denials = <-d.watched.heard:
	case <-ctx.Done():
	}
	for ctx.Err() == nil {
		heard, err := denials.Next(ctx)
		for _, one := range heard {
			d.state.denied.WithLabelValues(reason(one.Why)).Inc()
			d.watched.tell(one)
		}
		trouble := ""
		if err != nil && ctx.Err() == nil {
			trouble = err.Error()
		}
		d.state.change(func(s *Status) {
			s.Denied.Heard += uint64(len(heard))
			s.Denied.Sources, s.Denied.Error = denials.Sources(), trouble
		})
		if err != nil {
			await(ctx, again)
		}
	}
	return ctx.Err()
}

// reason bounds a metric's label: the text is that of a rule, and a table can hold rules of other versions.
func reason(why string) string {
	switch why {
	case compile.DeniedNoRule, compile.DeniedPlaintext:
		return why
	}
	return "other"
}

func await(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// tell passes a denial on to who follows. Who does not keep up misses some.
func (w *watched) tell(one enforcer.Denial) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for to := range w.followers {
		select {
		case to <- one:
		default:
		}
	}
}

// sample reads the rules' counters again and again until ctx ends.
func (d *daemon) sample(ctx context.Context) error {
	var memory enforcer.HitMemory
	for ctx.Err() == nil {
		var in enforcer.InForce
		if err := d.inLoop(ctx, func(context.Context) { in = d.session.InForce() }); err != nil {
			return err
		}
		start := time.Now()
		hits, err := d.watched.hits.Read(ctx, in)
		if err == nil {
			hits = memory.Observe(hits, d.clock.now())
			d.watched.mu.Lock()
			d.watched.latest = hits
			d.watched.mu.Unlock()
		}
		if ctx.Err() == nil {
			d.state.sampled(hits, err, d.clock.now())
		}
		await(ctx, max(hitsEvery, hitsShare*time.Since(start)))
	}
	return ctx.Err()
}

// sampled notes how much the rules are used.
func (s *state) sampled(hits []enforcer.Hit, err error, at time.Time) {
	s.change(func(st *Status) {
		if err != nil {
			st.Hits.Error = err.Error()
			return
		}
		st.Hits = HitsStatus{At: at, Rules: len(hits)}
		for _, h := range hits {
			if h.Packets == 0 {
				st.Hits.Unused++
			}
		}
		s.rules.WithLabelValues("false").Set(float64(st.Hits.Unused))
		s.rules.WithLabelValues("true").Set(float64(st.Hits.Rules - st.Hits.Unused))
	})
}

// listDenied answers /denied: the sources that were denied lately.
func (d *daemon) listDenied(w http.ResponseWriter, _ *http.Request) {
	denials := d.watched.listener()
	if denials == nil {
		http.Error(w, d.state.now().Denied.Error, http.StatusServiceUnavailable)
		return
	}
	answer(w, struct {
		Since   time.Time         `json:"since"`
		Sources []denied.Sighting `json:"sources"`
	}{d.state.now().Denied.Since, denials.Recent()})
}

// followDenied answers /denied/follow: one JSON object a line, from now on.
func (d *daemon) followDenied(w http.ResponseWriter, r *http.Request) {
	if d.watched.listener() == nil {
		http.Error(w, d.state.now().Denied.Error, http.StatusServiceUnavailable)
		return
	}
	from, ok := d.watched.follow()
	if !ok {
		http.Error(w, fmt.Sprintf("%d follow already", maxFollowers), http.StatusServiceUnavailable)
		return
	}
	defer d.watched.leave(from)
	w.Header().Set("Content-Type", "application/x-ndjson")
	flush := http.NewResponseController(w)
	for err := flush.Flush(); err == nil; err = flush.Flush() {
		select {
		case one := <-from:
			if json.NewEncoder(w).Encode(one) != nil {
				return // the reader is gone
			}
		case <-r.Context().Done():
			return
		}
	}
}

func (w *watched) follow() (from chan enforcer.Denial, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.followers) >= maxFollowers {
		return nil, false
	}
	if w.followers == nil {
		w.followers = map[chan enforcer.Denial]bool{}
	}
	from = make(chan enforcer.Denial, backlog)
	w.followers[from] = true
	return from, true
}

func (w *watched) leave(from chan enforcer.Denial) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.followers, from)
}

// listHits answers /hits: how much each rule was used when the daemon looked last.
func (d *daemon) listHits(w http.ResponseWriter, _ *http.Request) {
	st := d.state.now()
	if st.Hits.At.IsZero() {
		http.Error(w, "it has not looked yet: "+st.Hits.Error, http.StatusServiceUnavailable)
		return
	}
	d.watched.mu.Lock()
	hits := d.watched.latest
	d.watched.mu.Unlock()
	answer(w, struct {
		At    time.Time      `json:"at"`
		Rules []enforcer.Hit `json:"rules"`
	}{st.Hits.At, hits})
}
