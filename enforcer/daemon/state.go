package daemon

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"drawbridge/enforcer"
)

// Status is what a daemon says of itself.
type Status struct {
	// Ready: a policy is in force.
	Ready bool `json:"ready"`
	// PolicySHA256 is the checksum of the document in force.
	PolicySHA256 string `json:"policy_sha256,omitempty"`
	// AppliedAt and Took are of the change that brought it into force.
	AppliedAt time.Time     `json:"applied_at,omitzero"`
	Took      time.Duration `json:"took_ns,omitempty"`
	// Receipt of that change.
	Receipt *enforcer.Receipt `json:"receipt,omitempty"`
	// Refused is why the policy that was read last is not in force; empty if it is.
	Refused string `json:"refused,omitempty"`
	// Snapshot is why the policy in force could not be kept for the next start; empty if it could.
	Snapshot string `json:"snapshot_error,omitempty"`
	// Tampered counts the times that somebody else changed the tables.
	Tampered uint64 `json:"tampered"`
	// LastTampering is who changed them last; nil: nobody did.
	LastTampering *Tampering `json:"last_tampering,omitempty"`
	// Read counts the documents that were brought into force or refused: whoever waits for one counts, since clocks jump.
	Read uint64 `json:"read"`
}

// Tampering is a change of somebody else to the tables, which was undone.
type Tampering struct {
	At time.Time `json:"at"`
	// ProcessID and Program are the culprit's, as the kernel named it; zero if the kernel's word got lost.
	ProcessID uint32 `json:"pid,omitempty"`
	Program   string `json:"program,omitempty"`
	// Took is how long it took from the kernel's word until everything was in force again.
	Took time.Duration `json:"took_ns"`
}

// state is a Status that the loop writes and others read, with the metrics of the same facts.
type state struct {
	beat     atomic.Pointer[time.Time] // when the loop turned last
	mu       sync.Mutex
	status   Status
	changed  chan struct{} // closed and replaced when the status changes
	registry *prometheus.Registry
	changes  prometheus.Counter
	refusals prometheus.Counter
	repairs  prometheus.Counter
	ended    prometheus.Counter
	unkept   prometheus.Counter
	seconds  prometheus.Histogram
	ready    prometheus.Gauge
}

func newState() *state {
	s := &state{registry: prometheus.NewRegistry(), changed: make(chan struct{})}
	s.alive()
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Namespace: "drawbridge", Name: name, Help: help})
		s.registry.MustRegister(c)
		return c
	}
	s.changes = counter("policies_applied_total", "Policies that came into force.")
	s.refusals = counter("policies_refused_total", "Policies that were refused; what was in force stayed.")
	s.repairs = counter("tampering_repaired_total", "Times that somebody else's change to the tables was undone.")
	s.ended = counter("connections_ended_total", "Connections that a change ended.")
	s.unkept = counter("snapshots_failed_total", "Policies in force that could not be kept for the next start.")
	s.seconds = prometheus.NewHistogram(prometheus.HistogramOpts{
		Namespace: "drawbridge", Name: "apply_seconds", Help: "From reading a policy to its being in force, read back.",
		Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14),
	})
	s.ready = prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "drawbridge", Name: "ready", Help: "1 while a policy is in force and the last one read is it."})
	s.registry.MustRegister(s.seconds, s.ready, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return s
}

// stuck is from when on a loop that does not turn is no longer called healthy: installing 10,000 databases takes it some seconds.
const stuck = 20 * time.Second

// alive is called by the loop.
func (s *state) alive() {
	at := time.Now()
	s.beat.Store(&at)
}

func (s *state) change(fn func(*Status)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fn(&s.status)
	close(s.changed)
	s.changed = make(chan struct{})
	ready := 0.0
	if s.status.Ready && s.status.Refused == "" {
		ready = 1
	}
	s.ready.Set(ready)
}

func (s *state) applied(r enforcer.Receipt, document []byte, took time.Duration) {
	sum := sha256.Sum256(document)
	s.change(func(st *Status) {
		*st = Status{Ready: true, PolicySHA256: hex.EncodeToString(sum[:]), AppliedAt: r.ReadAt, Took: took, Receipt: &r,
			Tampered: st.Tampered, LastTampering: st.LastTampering, Snapshot: st.Snapshot, Read: st.Read + 1}
	})
	s.changes.Inc()
	s.ended.Add(float64(r.Cut.Cut()))
	s.seconds.Observe(took.Seconds())
}

func (s *state) refused(err error) {
	s.change(func(st *Status) {
		st.Refused = err.Error()
		st.Read++
	})
	s.refusals.Inc()
}

// snapshot notes whether a policy could be kept.
func (s *state) snapshot(err error) {
	text := ""
	if err != nil {
		text = err.Error()
		s.unkept.Inc()
	}
	s.change(func(st *Status) { st.Snapshot = text })
}

func (s *state) refusal() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status.Refused
}

func (s *state) tampered(r enforcer.Receipt, by Tampering) {
	s.change(func(st *Status) {
		st.Tampered++
		st.Receipt, st.LastTampering = &r, &by
	})
	s.repairs.Inc()
	s.ended.Add(float64(r.Cut.Cut()))
}

// caughtUp notes that time, or a clock that was set, changed what is in force.
func (s *state) caughtUp(r enforcer.Receipt) {
	s.change(func(st *Status) { st.Receipt = &r })
	s.ended.Add(float64(r.Cut.Cut()))
}

func (s *state) now() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status
}

// applies waits until a document is in force that was read after some others, or any was refused since, and returns the status then.
func (s *state) applies(ctx context.Context, sum string, after uint64) (Status, error) {
	for {
		s.mu.Lock()
		st, changed := s.status, s.changed
		s.mu.Unlock()
		if st.Read > after && (st.Refused != "" || st.PolicySHA256 == sum) {
			return st, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return Status{}, ctx.Err()
		}
	}
}

// awaits answers /status/SHA256?after=READ once that document is in force.
func (s *state) awaits(w http.ResponseWriter, r *http.Request) {
	after, err := strconv.ParseUint(r.URL.Query().Get("after"), 10, 64)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	st, err := s.applies(r.Context(), r.PathValue("sum"), after)
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(st) // the reader may be gone
}

// listen opens the local socket; nil for none.
func listen(ctx context.Context, path string) (net.Listener, error) {
	if path == "" {
		return nil, nil
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) { // of a daemon that was killed
		return nil, fmt.Errorf("socket: %w", err)
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	return l, nil
}

// serve answers on a local socket until ctx ends: /status, /healthz, /readyz and /metrics.
func (s *state) serve(ctx context.Context, l net.Listener) error {
	if l == nil {
		return nil
	}
	server := &http.Server{Handler: s.handler(), ReadHeaderTimeout: 5 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("socket: %w", err)
	}
	return nil
}

func (s *state) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		if since := time.Since(*s.beat.Load()); since > stuck {
			http.Error(w, fmt.Sprintf("the loop that acts on changes has not turned for %v", since.Round(time.Second)), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if st := s.now(); !st.Ready || st.Refused != "" {
			http.Error(w, st.Refused, http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(s.now()) // the reader may be gone
	})
	mux.HandleFunc("GET /status/{sum}", s.awaits)
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.registry, promhttp.HandlerOpts{}))
	return mux
}
