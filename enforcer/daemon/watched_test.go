package daemon_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"drawbridge/enforcer"
	"drawbridge/enforcer/daemon"
	"drawbridge/enforcer/denied"
	"drawbridge/sim/netns/netnstest"
)

const elsewhere = `{"type": "custom_range", "cidr": "192.0.2.0/24", "label": "old"}`

// TestWhoIsDeniedIsHeard: the daemon listens, remembers who was denied, and counts it by reason.
func TestWhoIsDeniedIsHeard(t *testing.T) {
	h := newSite(t, orders(true, elsewhere), nil)
	if st := h.status(t); st.Denied.Error != "" && !strings.Contains(st.Denied.Error, "somebody else") {
		netnstest.Missing(t, "nflog in a user namespace: "+st.Denied.Error)
	}
	require.ErrorIs(t, h.ns.Do(func() error { _, err := enforcer.ListenDenied(t.Context()); return err }), denied.ErrTaken)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err := h.client.Dial(ctx, netip.AddrPortFrom(clientAddr, 0), endpoint)
	require.Error(t, err)
	st := h.until(t, func(st daemon.Status) bool { return st.Denied.Sources > 0 })
	require.NotZero(t, st.Denied.Heard)
	require.WithinDuration(t, time.Now(), st.Denied.Since, time.Minute)
	var all struct{ Sources []denied.Sighting }
	_, text := h.get(t, "/denied")
	require.NoError(t, json.Unmarshal([]byte(text), &all))
	require.Len(t, all.Sources, 1)
	require.Equal(t, []any{"orders", clientAddr, endpoint, "no rule"}, []any{all.Sources[0].Database, all.Sources[0].Source, all.Sources[0].To, all.Sources[0].Why})
	_, metrics := h.get(t, "/metrics")
	require.Contains(t, metrics, `drawbridge_denied_heard_total{why="no rule"} `)
}

// TestAnotherListenerIsOutlived: who is denied is not known while another program listens, and is known when that has ended.
func TestAnotherListenerIsOutlived(t *testing.T) {
	var other *enforcer.Denials
	h := newSite(t, orders(true, elsewhere), func(s *scene, o *daemon.Options) {
		o.ListenEvery(time.Millisecond)
		err := s.ns.Do(func() (err error) { other, err = enforcer.ListenDenied(t.Context()); return err })
		if err != nil {
			netnstest.Missing(t, "nflog in a user namespace: "+err.Error())
		}
	})
	require.Contains(t, h.status(t).Denied.Error, "somebody else")
	code, _ := h.get(t, "/denied")
	require.Equal(t, http.StatusServiceUnavailable, code)
	require.NoError(t, other.Close())
	h.until(t, func(st daemon.Status) bool { return st.Denied.Error == "" })
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err := h.client.Dial(ctx, netip.AddrPortFrom(clientAddr, 0), endpoint)
	require.Error(t, err)
	h.until(t, func(st daemon.Status) bool { return st.Denied.Sources > 0 })
}

// TestHitsAreSampled, from the start on.
func TestHitsAreSampled(t *testing.T) {
	h := newSite(t, orders(false, elsewhere), nil)
	st := h.until(t, func(st daemon.Status) bool { return !st.Hits.At.IsZero() })
	require.Equal(t, daemon.HitsStatus{At: st.Hits.At, Rules: 1, Unused: 1}, st.Hits)
	var all struct{ Rules []enforcer.Hit }
	_, text := h.get(t, "/hits")
	require.NoError(t, json.Unmarshal([]byte(text), &all))
	require.Equal(t, []enforcer.Hit{{Database: "orders", Rule: 1, Words: "rule 1, custom range 192.0.2.0/24 (old)"}}, all.Rules)
	_, metrics := h.get(t, "/metrics")
	require.Contains(t, metrics, `drawbridge_rules{used="false"} 1`)
	require.False(t, st.Found)
	require.WithinDuration(t, time.Now(), st.InForceSince, time.Minute)
}
