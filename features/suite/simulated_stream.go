package suite

import (
	"context"

	"drawbridge/sim/probe"
)

func (l *simulated) Stream(ctx context.Context, trials []Trial) (Stream, error) {
	specs := make([]probe.StreamSpec, len(trials))
	for i, t := range trials {
		specs[i] = probe.StreamSpec{Spec: spec(t.Connection), Says: t.Says}
	}
	s, err := l.prober.Stream(ctx, specs)
	if err != nil {
		return nil, err
	}
	return stream{s}, nil
}

type stream struct{ *probe.Stream }

func (s stream) Stop(ctx context.Context) ([]Shot, error) {
	shots, err := s.Stream.Stop(ctx)
	out := make([]Shot, len(shots))
	for i, x := range shots {
		out[i] = Shot{Trial: x.Spec, Began: x.Began, Ended: x.Ended, Passed: x.Passed, Served: x.Served, Lost: x.Lost}
	}
	return out, err
}
