package daemon_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"drawbridge/enforcer/daemon"
)

func (s *scene) send(t *testing.T, method, where, body string) (code int, text string) {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(s.dir, "socket"))
	}}}
	request, err := http.NewRequestWithContext(t.Context(), method, "http://drawbridge"+where, strings.NewReader(body))
	require.NoError(t, err)
	r, err := client.Do(request)
	require.NoError(t, err)
	defer r.Body.Close()
	var b bytes.Buffer
	_, err = io.Copy(&b, r.Body)
	require.NoError(t, err)
	return r.StatusCode, b.String()
}

func request(t *testing.T, database string, span time.Duration, reason string) string {
	t.Helper()
	text, err := json.Marshal(daemon.BreakGlassRequest{Database: database, For: span, Reason: reason})
	require.NoError(t, err)
	return string(text)
}

// glass opens the site's database.
func (h *site) glass(t *testing.T, span time.Duration) (open daemon.BreakGlassAnswer) {
	t.Helper()
	code, text := h.send(t, http.MethodPost, "/break-glass", request(t, "orders", span, "ticket 7"))
	require.Equal(t, http.StatusOK, code, text)
	require.NoError(t, json.Unmarshal([]byte(text), &open))
	return open
}

// reaches tells whether a new connection gets through its handshake.
func (h *site) reaches(t *testing.T) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	c, err := h.client.Dial(ctx, netip.AddrPortFrom(clientAddr, 0), endpoint)
	if err != nil {
		return false
	}
	<-h.accepted
	require.NoError(t, c.Close())
	return true
}

// restart ends the daemon and starts it anew.
func (h *site) restart(t *testing.T) {
	t.Helper()
	h.running.stop()
	h.again(t)
}

// again starts the daemon that was stopped.
func (h *site) again(t *testing.T) {
	t.Helper()
	h.running = start(t, h.ns, h.options)
	t.Cleanup(h.running.stop)
}

// glassSite is a site whose clock can be set.
func glassSite(t *testing.T, ahead *atomic.Int64) *site {
	t.Helper()
	h := newSite(t, orders(false, elsewhere), func(_ *scene, o *daemon.Options) {
		o.Enforcer.Clock = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	})
	require.False(t, h.reaches(t))
	return h
}

// TestBreakGlass: loud, for a stated time, over changes and restarts, and ended at once when asked.
func TestBreakGlass(t *testing.T) {
	var ahead atomic.Int64
	h := glassSite(t, &ahead)
	open := h.glass(t, 15*time.Minute)
	require.Empty(t, open.Warning)
	require.Equal(t, 15*time.Minute, open.Until.Sub(open.Begun))
	require.Equal(t, []any{uint32(os.Getuid()), int32(os.Getpid())}, []any{open.UserID, open.ProcessID}, "as the kernel says")
	client, server := h.dial(t)
	require.NoError(t, say(client))
	require.Len(t, h.status(t).BreakGlass, 1)
	_, metrics := h.get(t, "/metrics")
	require.Contains(t, metrics, "drawbridge_break_glass_open 1\n")
	require.Contains(t, metrics, "drawbridge_break_glass_total 1\n")
	require.Contains(t, h.audit(t), `"what":"break-glass","why":"asked for"`)
	require.Contains(t, h.audit(t), `"reason":"ticket 7"`)
	require.Contains(t, h.log.String(), `level=WARN msg=break-glass database=orders`)

	before := h.status(t).Read
	h.put([]byte(orders(false, "")))
	h.until(t, func(s daemon.Status) bool { return s.Read > before && s.Refused == "" })
	require.NoError(t, say(client), "a change of the policy leaves it open")
	h.restart(t)
	require.NoError(t, say(client), "so does a start of the daemon")
	require.True(t, h.reaches(t))
	require.Equal(t, open.Until.Unix(), h.status(t).BreakGlass[0].Until.Unix(), "with the end that it had")

	code, text := h.send(t, http.MethodDelete, "/break-glass/orders", "")
	require.Equal(t, http.StatusOK, code, text)
	ends(t, client, 10*time.Second)
	ends(t, server, 10*time.Second)
	require.False(t, h.reaches(t))
	require.Empty(t, h.status(t).BreakGlass)
	code, _ = h.send(t, http.MethodDelete, "/break-glass/orders", "")
	require.Equal(t, http.StatusNotFound, code)
	h.restart(t)
	require.False(t, h.reaches(t), "it does not come back")
	require.Contains(t, h.audit(t), `"what":"break-glass ended","why":"asked for"`)
}

// TestBreakGlassEnds when its time is over, and no clock that is set back makes it last longer.
func TestBreakGlassEnds(t *testing.T) {
	var ahead atomic.Int64
	h := glassSite(t, &ahead)
	h.glass(t, 15*time.Minute)
	client, _ := h.dial(t)
	require.NoError(t, say(client))
	ahead.Store(int64(16 * time.Minute))
	ends(t, client, 20*time.Second)
	require.False(t, h.reaches(t))
	h.until(t, func(s daemon.Status) bool { return len(s.BreakGlass) == 0 })
	require.Contains(t, h.audit(t), `"what":"break-glass ended","why":"its time is over"`)

	h.glass(t, 15*time.Minute)
	ahead.Store(int64(-time.Hour))
	st := h.until(t, func(s daemon.Status) bool {
		return len(s.BreakGlass) == 1 && s.BreakGlass[0].Until.Before(time.Now().Add(-40*time.Minute))
	})
	require.WithinDuration(t, time.Now().Add(-45*time.Minute), st.BreakGlass[0].Until, time.Minute)
	require.True(t, h.reaches(t))

	h.running.stop()
	ahead.Store(int64(-3 * time.Hour))
	h.again(t)
	require.False(t, h.reaches(t), "the clock is behind its beginning: nobody knows how much is left")
	require.Contains(t, h.audit(t), `"why":"it was over when the daemon started"`)
}

// TestADamagedBreakGlassIsNone: what cannot be read opens nothing.
func TestADamagedBreakGlassIsNone(t *testing.T) {
	var ahead atomic.Int64
	h := glassSite(t, &ahead)
	h.glass(t, 15*time.Minute)
	h.running.stop()
	file := filepath.Join(h.dir, "state", "break-glass.json")
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(file, bytes.Replace(text, []byte("orders"), []byte("0rders"), 1), 0o600))
	h.again(t)
	require.False(t, h.reaches(t))
	require.Contains(t, h.audit(t), "break-glass lost")
}

// TestWhatBreakGlassRefuses, and nothing is opened.
func TestWhatBreakGlassRefuses(t *testing.T) {
	s := newScene(t, nil) // a shared host whose databases have Force TLS off
	for name, tt := range map[string]struct {
		body string
		code int
		says string
	}{
		"too short":    {request(t, "db27017", time.Minute-1, "why"), http.StatusBadRequest, "at least 1m0s"},
		"too long":     {request(t, "db27017", 24*time.Hour+1, "why"), http.StatusBadRequest, "at most 24h0m0s"},
		"no reason":    {request(t, "db27017", time.Hour, " "), http.StatusBadRequest, "a reason is required"},
		"two lines":    {request(t, "db27017", time.Hour, "a\nb"), http.StatusBadRequest, "one line"},
		"no database":  {request(t, "", time.Hour, "why"), http.StatusBadRequest, "name a database"},
		"unknown":      {request(t, "other", time.Hour, "why"), http.StatusNotFound, "no such database: other"},
		"no Force TLS": {request(t, "db27017", time.Hour, "why"), http.StatusConflict, "needs Force TLS (S-09)"},
		"no JSON":      {"{", http.StatusBadRequest, "EOF"},
		"too much":     {`{"reason": "` + strings.Repeat("x", 1<<16) + `"}`, http.StatusBadRequest, "too large"},
	} {
		code, text := s.send(t, http.MethodPost, "/break-glass", tt.body)
		require.Equal(t, tt.code, code, name)
		require.Contains(t, text, tt.says, name)
	}
	require.Empty(t, s.status(t).BreakGlass)
	require.NotContains(t, s.nft(t, "list", "ruleset"), "break-glass")
}

// TestWhoMayBreakGlass: root and the daemon's own user; whoever else may read the status.
func TestWhoMayBreakGlass(t *testing.T) {
	for _, tt := range []struct {
		name string
		peer *unix.Ucred
		may  bool
	}{
		{"root", &unix.Ucred{Uid: 0}, true},
		{"the daemon's user", &unix.Ucred{Uid: uint32(os.Geteuid())}, true},
		{"another user", &unix.Ucred{Uid: 4321}, false},
		{"another user with the daemon's group", &unix.Ucred{Uid: 4321, Gid: uint32(os.Getegid())}, false},
		{"nobody that the kernel names", nil, false},
	} {
		err := daemon.MayBreakGlass(tt.peer)
		require.Equal(t, tt.may, err == nil, "%s: %v", tt.name, err)
	}
}

// TestBreakGlassIsLoud: the log is reminded once in a minute.
func TestBreakGlassIsLoud(t *testing.T) {
	var log bytes.Buffer
	now := time.Now()
	open := daemon.BreakGlass{Database: "orders", Reason: "ticket 7", Begun: now, Until: now.Add(time.Hour)}
	for _, tt := range []struct {
		ago  time.Duration
		says bool
	}{{time.Second, false}, {50 * time.Second, false}, {time.Minute, true}, {time.Hour, true}} {
		log.Reset()
		last := now.Add(-tt.ago)
		reminded := daemon.Reminded(slog.New(slog.NewTextHandler(&log, nil)), open, last)
		require.Equal(t, tt.says, strings.Contains(log.String(), "level=WARN") && strings.Contains(log.String(), `reason="ticket 7"`), "%v: %s", tt.ago, log.String())
		require.Equal(t, tt.says, reminded.After(last))
	}
}
