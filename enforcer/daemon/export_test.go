package daemon

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"golang.org/x/sys/unix"

	"drawbridge/enforcer"
	"drawbridge/enforcer/nft"
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

// Mends is a daemon without a loop. What it returns has it hear commits, that come together, and says how often it has told of tampering by then,
// and of whom last.
func Mends(session *enforcer.Session) (hear func(...nft.Event) (told uint64, by *Tampering)) {
	d := &daemon{Options: Options{Log: slog.New(slog.DiscardHandler)}, session: session, state: newState(), foreign: make(chan written, backlog)}
	d.keeper = newKeeper(Snapshots{}, nil, nil, nil)
	return func(events ...nft.Event) (uint64, *Tampering) {
		var all []written
		for _, e := range events {
			all = append(all, written{Event: e, at: time.Now()})
		}
		d.mend(context.Background(), all...)
		return d.state.now().Tampered, d.state.now().LastTampering
	}
}
