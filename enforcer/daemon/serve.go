package daemon

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// handleHealth answers /healthz, /readyz and /metrics. unready says why the policy that was read last is not in force.
func (s *state) handleHealth(mux *http.ServeMux, unready func(Status) string) {
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		if since := time.Since(*s.beat.Load()); since > stuck {
			http.Error(w, fmt.Sprintf("the loop that acts on changes has not turned for %v", since.Round(time.Second)), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if st := s.now(); !st.Ready || st.Refused != "" {
			http.Error(w, unready(st), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
}

// handler answers /status, /healthz, /readyz and /metrics.
func (s *state) handler() *http.ServeMux {
	mux := http.NewServeMux()
	s.handleHealth(mux, func(st Status) string { return st.Refused })
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, s.now())
	})
	mux.HandleFunc("GET /status/{sum}", s.awaits)
	return mux
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
	answer(w, st)
}

// answer writes JSON.
func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // the reader may be gone
}

// handler answers what state does, and what the daemon watches.
func (d *daemon) handler() http.Handler {
	mux := d.state.handler()
	mux.HandleFunc("GET /denied", d.listDenied)
	mux.HandleFunc("GET /denied/follow", d.followDenied)
	mux.HandleFunc("GET /hits", d.listHits)
	mux.HandleFunc("POST /break-glass", d.postBreakGlass)
	mux.HandleFunc("DELETE /break-glass/{database}", d.deleteBreakGlass)
	return mux
}

// inLoop has the loop do something, and waits until it has.
func (d *daemon) inLoop(ctx context.Context, do func(context.Context)) error {
	done := make(chan struct{})
	work := func(ctx context.Context) {
		defer close(done)
		do(ctx)
	}
	select {
	case d.work <- work:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// NetworkNamespace names the network namespace of the calling thread, as Status.Namespace does.
func NetworkNamespace() (string, error) { return os.Readlink("/proc/thread-self/ns/net") }
