package daemon

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

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
	// RefusedSHA256 is that policy's checksum; empty if it could not be read.
	RefusedSHA256 string `json:"refused_sha256,omitempty"`
	// Snapshot is why the policy in force could not be kept for the next start; empty if it could.
	Snapshot string `json:"snapshot_error,omitempty"`
	// Tampered counts the times that somebody else changed the tables.
	Tampered uint64 `json:"tampered"`
	// LastTampering is who changed them last; nil: nobody did.
	LastTampering *Tampering `json:"last_tampering,omitempty"`
	// InForceSince is since when this daemon knows the document to be in force, whatever was mended or read again since.
	InForceSince time.Time `json:"in_force_since,omitzero"`
	// Found: it was in force already when this daemon started, so that it may be so for longer.
	Found bool `json:"found_in_force,omitempty"`
	// Denied and Hits are about what the daemon watches beside.
	Denied DeniedStatus `json:"denied"`
	Hits   HitsStatus   `json:"hits"`
	// BreakGlass are the databases that are open to everybody because somebody said so.
	BreakGlass []BreakGlass `json:"break_glass,omitempty"`
	// Namespace is the network namespace in which it works, as /proc names it.
	Namespace string `json:"network_namespace,omitempty"`
	// Read counts the documents that were brought into force or refused: whoever waits for one counts, since clocks jump.
	Read uint64 `json:"read"`
}

// Tampering is a change of somebody else to the tables, which was undone.
type Tampering struct {
	At time.Time `json:"at"`
	// ProcessID and Program are the culprit's, as the kernel named it; zero if the kernel's word got lost.
	ProcessID uint32 `json:"pid,omitempty"`
	Program   string `json:"program,omitempty"`
	// Took is how long it took from the kernel's word until everything was in force again, and Closed until nothing was open any more
	// that the policy denies: the same, but where a large table was gone, which is denied as a whole until it is back.
	Took   time.Duration `json:"took_ns"`
	Closed time.Duration `json:"closed_ns"`
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
	current  prometheus.Gauge // whether what is in force is kept
	failed   [steps]string    // why it is not, by step; empty: it is
	seconds  prometheus.Histogram
	ready    prometheus.Gauge
	broken   prometheus.Counter
	open     prometheus.Gauge       // databases open by break-glass
	denied   *prometheus.CounterVec // by reason
	rules    *prometheus.GaugeVec   // by whether they are used
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
	s.current = prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "drawbridge", Name: "snapshot_current",
		Help: "0 while the policy in force could not be kept for the next start, 1 otherwise."})
	s.current.Set(1)
	s.denied = prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "drawbridge", Name: "denied_heard_total",
		Help: "Denied packets that the kernel told of, by reason: a sample of some a second."}, []string{"why"})
	s.rules = prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: "drawbridge", Name: "rules",
		Help: "Firewall rules of the policy, by whether the kernel has counted packets of theirs."}, []string{"used"})
	s.broken = counter("break_glass_total", "Times that a database was opened by break-glass.")
	s.open = prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "drawbridge", Name: "break_glass_open", Help: "Databases that are open to everybody by break-glass."})
	s.registry.MustRegister(s.open, s.current, s.denied, s.rules, s.seconds, s.ready, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
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
	current := 1.0
	if s.status.Snapshot != "" {
		current = 0
	}
	s.current.Set(current)
}

func (s *state) applied(r enforcer.Receipt, checksum string, took time.Duration) {
	s.change(func(st *Status) {
		if st.PolicySHA256 != checksum {
			st.InForceSince, st.Found = r.InForceAt, st.PolicySHA256 == "" && r.Changed == (enforcer.Changed{}) && r.Repaired == ""
		}
		st.Ready, st.Refused, st.PolicySHA256, st.AppliedAt, st.Took, st.Receipt = true, "", checksum, r.ReadAt, took, &r
		st.Read++
	})
	s.changes.Inc()
	s.ended.Add(float64(r.Cut.Cut()))
	s.seconds.Observe(took.Seconds())
}

// refused notes why a document is not in force; nil if not even that could be read.
func (s *state) refused(document []byte, err error) {
	sum := ""
	if document != nil {
		sum = withSum(document).sum
	}
	s.change(func(st *Status) {
		st.Refused, st.RefusedSHA256 = err.Error(), sum
		st.Read++
	})
	s.refusals.Inc()
}

// step is one of those that keep a policy for the next start.
type step int

const (
	stepWrite step = iota // into a file, which outlives the process
	stepDisk              // that file, and its copy, to disk
	steps
)

// snapshot notes whether a step could be made. changed: what is in force was kept before and is not now, or the other way round, which is
// so when it is on disk. again: it was tried before for the same policy.
func (s *state) snapshot(at step, err error, again bool) (changed bool) {
	text := ""
	if err != nil {
		text = err.Error()
		if !again {
			s.unkept.Inc()
		}
	}
	s.change(func(st *Status) {
		if at == stepWrite && err == nil {
			s.failed[stepDisk] = cmp.Or(s.failed[stepWrite], s.failed[stepDisk])
		}
		before := st.Snapshot
		s.failed[at] = text
		st.Snapshot = cmp.Or(s.failed[:]...)
		changed = (before == "") != (st.Snapshot == "")
	})
	return changed
}

func (s *state) refusal() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status.Refused
}

func (s *state) tampered(r enforcer.Receipt, by Tampering) {
	s.change(func(st *Status) {
		st.Tampered++
		st.LastTampering = &by
		if r.Generation != "" { // else it could not be proven
			st.Receipt = &r
		}
	})
	s.repairs.Inc()
	s.ended.Add(float64(r.Cut.Cut()))
}

// opened notes what is open by break-glass, and how many more than before.
func (s *state) opened(open []BreakGlass, more int) {
	s.change(func(st *Status) { st.BreakGlass = slices.Clone(open) })
	s.open.Set(float64(len(open)))
	s.broken.Add(float64(more))
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

// applies waits until a document is in force that was read after some others, or refused, and returns the status then. That another one
// was refused meanwhile, or that there was none for a moment, says nothing about it.
func (s *state) applies(ctx context.Context, sum string, after uint64) (Status, error) {
	for {
		s.mu.Lock()
		st, changed := s.status, s.changed
		s.mu.Unlock()
		if st.Read > after && (st.RefusedSHA256 == sum || st.Refused == "" && st.PolicySHA256 == sum) {
			return st, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return Status{}, ctx.Err()
		}
	}
}
