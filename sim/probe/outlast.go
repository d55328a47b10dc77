package probe

import (
	"context"
	"fmt"
	"slices"

	"golang.org/x/sync/errgroup"
)

// Outlast waits until every client whose connection was dropped has tried again by itself, which its kernel does after a second
// (RFC 6298 section 2.1), and looks anew: an enforcer that drops only the first SYN, or that closes what it opens for the
// first moments, lets the second one in. Clients that were rejected are sent once more. It returns those that got further, and
// ErrFence where nothing can be said. What was denied stays watched. It looks at the given enforcement points, or at all if none is
// given.
func (p *Prober) Outlast(ctx context.Context, points ...string) ([]Late, error) {
	p.mu.Lock()
	watched := slices.DeleteFunc(slices.Clone(p.watched), func(w *watch) bool { return !w.at(points) })
	p.mu.Unlock()
	if p.waits > 0 {
		return p.outlastPatiently(ctx, watched)
	}
	late := make([]*Late, len(watched))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(len(watched) + 1) // nearly all of it is waiting
	for i, w := range watched {
		group.Go(func() (err error) {
			switch w.observation.Verdict {
			case Dropped:
				late[i], err = p.outlast(ctx, w)
			case Rejected:
				late[i], err = p.again(ctx, w)
			case TLSRefused:
				if w.repeats() {
					late[i], err = p.outlast(ctx, w)
				} else {
					late[i], err = p.again(ctx, w)
				}
			}
			return err
		})
	}
	err := group.Wait()
	var out []Late
	for _, l := range late {
		if l != nil {
			out = append(out, *l)
		}
	}
	return out, err
}

// repeats reports whether a client whose first bytes did not pass sends them again (after 200 ms or more, RFC 6298 section 2.4
// as Linux has it). One that was answered, or by somebody in the database's place, does not.
func (w *watch) repeats() bool {
	return w.observation.By == ByEnforcer && w.observation.Evidence.reached() && w.observation.Evidence.ClientError == ""
}

// outlast follows one dropped connection until its SYN came a second time, or its first bytes did, and a fence after that got
// through.
func (p *Prober) outlast(ctx context.Context, w *watch) (*Late, error) {
	ctx, cancel := context.WithTimeout(ctx, p.patience())
	defer cancel()
	t := w.track
	for {
		e := p.look(t)
		if w.gotFurther(e) {
			return &Late{Observation: w.observation, Evidence: e}, nil
		}
		if e.SYNs > w.observation.Evidence.SYNs || e.PayloadEntered > w.observation.Evidence.PayloadEntered {
			break
		}
		if e.ClientError != "" { // it was told no meanwhile, and has nothing to repeat
			return nil, nil
		}
		select {
		case <-t.changed:
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %s: the client's packet did not come again", ErrFence, t.spec)
		}
	}
	source := w.observation.Local.Addr()
	select {
	case err := <-p.fences.pass(ctx, route{from: t.spec.From, source: source, point: t.point.Name, is4: source.Is4()}):
		if err != nil {
			return nil, err
		}
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %s: %w", ErrFence, t.spec, ctx.Err())
	}
	if e := p.look(t); w.gotFurther(e) {
		return &Late{Observation: w.observation, Evidence: e}, nil
	}
	return nil, nil
}

// again sends a client that was told so once more.
func (p *Prober) again(ctx context.Context, w *watch) (*Late, error) {
	o, err := p.Probe(ctx, w.track.spec)
	switch {
	case err != nil:
		return nil, err
	case o.Verdict == Dropped, o.Verdict == Rejected, o.Verdict == TLSRefused && w.observation.Verdict == TLSRefused:
		return nil, nil
	case o.Verdict == Inconclusive:
		return nil, fmt.Errorf("%w: %s: %s", ErrFence, o.Spec, o.Reason)
	}
	return &Late{Observation: w.observation, Evidence: o.Evidence}, nil
}
