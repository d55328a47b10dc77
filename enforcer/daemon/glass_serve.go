package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
	"unicode"

	"golang.org/x/sys/unix"

	"drawbridge/enforcer"
	"drawbridge/enforcer/policy"
)

// BreakGlassRequest is what POST /break-glass takes.
type BreakGlassRequest struct {
	Database string `json:"database"`
	// For is how long, MinBreakGlass to MaxBreakGlass.
	For    time.Duration `json:"for_ns"`
	Reason string        `json:"reason"`
}

// BreakGlassAnswer is what it answers.
type BreakGlassAnswer struct {
	BreakGlass
	Warning string `json:"warning,omitempty"`
}

// check says what is wrong with a request.
func (r BreakGlassRequest) check() error {
	switch reason := strings.TrimSpace(r.Reason); {
	case r.Database == "":
		return errors.New("name a database")
	case r.For < MinBreakGlass || r.For > MaxBreakGlass:
		return fmt.Errorf("%v is too short or too long: at least %v, at most %v", r.For, MinBreakGlass, MaxBreakGlass)
	case reason == "":
		return errors.New("say why: a reason is required")
	case len(r.Reason) > MaxReason || strings.ContainsFunc(r.Reason, unicode.IsControl):
		return fmt.Errorf("the reason is one line of at most %d bytes", MaxReason)
	}
	return nil
}

// peerKey is the key of a request's context under which the credentials of its sender are.
type peerKey struct{}

// withPeer notes who is at the other end of a connection.
func withPeer(ctx context.Context, c net.Conn) context.Context {
	peer, err := peerOf(c)
	if err != nil {
		return ctx
	}
	return context.WithValue(ctx, peerKey{}, peer)
}

// peerOf is who is at the other end of a connection, as the kernel says.
func peerOf(c net.Conn) (unix.Ucred, error) {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return unix.Ucred{}, errors.New("not a local socket")
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return unix.Ucred{}, err
	}
	var peer *unix.Ucred
	failed := raw.Control(func(fd uintptr) { peer, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err = errors.Join(failed, err); err != nil {
		return unix.Ucred{}, err
	}
	return *peer, nil
}

// asker says who sent a request. Only root and the daemon's own user may open anything: whoever may read a status may be anybody.
func asker(r *http.Request) (b BreakGlass, err error) {
	peer, ok := r.Context().Value(peerKey{}).(unix.Ucred)
	if !ok {
		return b, errors.New("the kernel does not say who asks")
	}
	if peer.Uid != 0 && int(peer.Uid) != os.Geteuid() {
		return b, fmt.Errorf("user %d may not: root may, and the user that runs the daemon", peer.Uid)
	}
	return BreakGlass{UserID: peer.Uid, ProcessID: peer.Pid}, nil
}

// maxRequest bounds a request's body, in bytes.
const maxRequest = 4096

// postBreakGlass answers POST /break-glass.
func (d *daemon) postBreakGlass(w http.ResponseWriter, r *http.Request) {
	b, err := asker(r)
	if err != nil {
		d.Log.Warn("break-glass refused", "error", err)
		http.Error(w, err.Error(), http.StatusForbidden)
		return
	}
	var asked BreakGlassRequest
	body := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRequest))
	body.DisallowUnknownFields()
	if err = body.Decode(&asked); err == nil {
		err = asked.check()
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	b.Database, b.Reason = asked.Database, strings.TrimSpace(asked.Reason)
	var warning string
	var failed error
	err = d.inLoop(r.Context(), func(ctx context.Context) {
		b.Begun = d.clock.now()
		b.Until = b.Begun.Add(asked.For)
		warning, failed = d.breakGlass(ctx, b)
	})
	if err = errors.Join(err, failed); err != nil {
		http.Error(w, err.Error(), glassCode(err))
		return
	}
	answer(w, BreakGlassAnswer{b, warning})
}

// deleteBreakGlass answers DELETE /break-glass/DATABASE.
func (d *daemon) deleteBreakGlass(w http.ResponseWriter, r *http.Request) {
	by, err := asker(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusForbidden)
		return
	}
	var failed error
	err = d.inLoop(r.Context(), func(ctx context.Context) { failed = d.endGlass(ctx, r.PathValue("database"), by) })
	if err = errors.Join(err, failed); err != nil {
		http.Error(w, err.Error(), glassCode(err))
		return
	}
	answer(w, struct{}{})
}

// glassCode is the status of a refusal.
func glassCode(err error) int {
	switch {
	case errors.Is(err, policy.ErrUnknownDatabase), errors.Is(err, errNotOpen):
		return http.StatusNotFound
	case errors.Is(err, policy.ErrAccessibilityNeedsForceTLS), errors.Is(err, policy.ErrOpenAlready):
		return http.StatusConflict
	case errors.Is(err, enforcer.ErrNothingApplied):
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}
