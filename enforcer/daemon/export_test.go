package daemon

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"golang.org/x/sys/unix"
)

// Deaf makes a daemon miss what the kernel says of other programs' changes.
func (o *Options) Deaf() { o.deaf = true }

// Unmindful makes a daemon read its policy on events alone.
func (o *Options) Unmindful() { o.unmindful = true }

// ListenEvery is how often a daemon tries to listen for denied packets while somebody else does.
func (o *Options) ListenEvery(d time.Duration) { o.listenEvery = d }

// MayBreakGlass says why a request is not obeyed whose sender the kernel names so; nil: it does not name any.
func MayBreakGlass(peer *unix.Ucred) error {
	ctx := context.Background()
	if peer != nil {
		ctx = context.WithValue(ctx, peerKey{}, *peer)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "/break-glass", nil)
	if err != nil {
		return err
	}
	_, err = asker(r)
	return err
}

// Reminded is when a daemon reminds the log of what is open, that did it last at some time.
func Reminded(log *slog.Logger, open BreakGlass, last time.Time) time.Time {
	open.deadline = open.Until
	d := &daemon{Options: Options{Log: log}, clock: newWallClock(time.Now), glass: []BreakGlass{open}, reminded: last}
	d.lookAtGlass(context.Background())
	return d.reminded
}
