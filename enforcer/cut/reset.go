package cut

import (
	"context"
	"errors"
	"time"
)

// resendAfter is when a SYN that nobody answered is sent again: much longer than a round trip behind a gateway, often
// enough to survive a lost packet within the time that a cut may take.
const resendAfter = 50 * time.Millisecond

// reset is one connection that is being ended by segments.
type reset struct {
	entry  *entry
	server tuple // from the client, as the server sees it, to the server
	client tuple // from the endpoint to the client
	done   bool
}

func newReset(e *entry) *reset {
	return &reset{
		entry:  e,
		server: tuple{src: e.clientAsServerSees(), dst: e.Server},
		client: tuple{src: e.Endpoint, dst: e.Client},
	}
}

// transmitter sends and receives segments; wire is the real one.
type transmitter interface {
	send(segment) error
	receive(deadline time.Time) (segment, bool, error)
}

// resets ends connections whose servers are behind this host.
type resets struct {
	on       transmitter
	byAnswer map[tuple]*reset // by the direction in which an answer travels
	open     int
}

// resetAll ends connections until all are done or the deadline has come; those whose server did not answer have done
// unset. Only trouble with the packet socket itself is an error.
func resetAll(ctx context.Context, on transmitter, entries []*entry, deadline time.Time) ([]*reset, error) {
	r := resets{on: on, byAnswer: make(map[tuple]*reset, 2*len(entries))}
	all := make([]*reset, 0, len(entries))
	for _, e := range entries {
		one := newReset(e)
		all = append(all, one)
		r.byAnswer[reverse(one.server)] = one
		r.byAnswer[reverse(one.client)] = one
		r.open++
	}
	for r.open > 0 && ctx.Err() == nil && time.Now().Before(deadline) {
		if err := r.challenge(all); err != nil {
			return all, err
		}
		if err := r.listen(earlier(deadline, time.Now().Add(resendAfter))); err != nil {
			return all, err
		}
	}
	return all, ctx.Err()
}

func reverse(t tuple) tuple { return tuple{src: t.dst, dst: t.src} }

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// challenge asks every server that has not answered where its connection stands. A SYN is out of place in an
// established connection: it changes nothing there, and the answer to it is an acknowledgement that carries the
// sequence numbers of both directions (RFC 5961 section 4.2).
func (r *resets) challenge(all []*reset) error {
	for _, one := range all {
		if one.done {
			continue
		}
		err := r.on.send(segment{tuple: one.server, flags: flagSYN})
		if errors.Is(err, errUnreachable) || errors.Is(err, errCongested) {
			continue
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// errCongested: the segment was lost on its way out. It is sent again like any that is lost.
var errCongested = errors.New("a queue on the way is full")

// listen handles answers until all servers have answered or it is time to ask again.
func (r *resets) listen(until time.Time) error {
	for r.open > 0 {
		s, ok, err := r.on.receive(until)
		if err != nil || !ok {
			return err
		}
		if err := r.answer(s); err != nil && !errors.Is(err, errUnreachable) {
			return err
		}
	}
	return nil
}

// answer ends the half that a segment tells about. What the segment acknowledges is the only sequence number at which
// its sender takes a RST (RFC 5961 section 3.2).
func (r *resets) answer(s segment) error {
	one, ok := r.byAnswer[s.tuple]
	if !ok {
		return nil
	}
	fromServer := s.tuple == reverse(one.server)
	if !fromServer { // the client stood elsewhere than the server thought, and says where
		return passing(r.on.send(segment{tuple: one.client, flags: flagRST, seq: s.ack}))
	}
	if one.done {
		return nil
	}
	toServer := r.on.send(segment{tuple: one.server, flags: flagRST | flagACK, seq: s.ack, ack: s.seq + s.length})
	if errors.Is(toServer, errCongested) {
		return nil // the server is challenged again
	}
	one.done = true
	r.open--
	toClient := r.on.send(segment{tuple: one.client, flags: flagRST | flagACK, seq: s.seq + s.length, ack: s.ack})
	return errors.Join(toServer, passing(toClient))
}

// passing leaves out that a segment to a client was lost: what the client says next is answered by the rules.
func passing(err error) error {
	if errors.Is(err, errCongested) {
		return nil
	}
	return err
}
