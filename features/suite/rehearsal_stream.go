package suite

import (
	"context"
	"time"

	"drawbridge/features/oracle"
)

// paperStream tries everything once whenever somebody looks.
type paperStream struct {
	p      *paper
	trials []Trial
	shots  []Shot
}

func (p *paper) Stream(_ context.Context, trials []Trial) (Stream, error) {
	s := &paperStream{p: p, trials: trials}
	return s, s.try()
}

func (s *paperStream) try() error {
	for i, t := range s.trials {
		v, err := s.p.expect(t.Connection)
		if err != nil {
			return err
		}
		now, served := time.Now(), v.Class == oracle.Served
		s.shots = append(s.shots, Shot{Trial: i, Began: now, Ended: now, Passed: served, Served: served})
	}
	return nil
}

func (s *paperStream) Rounds(context.Context, int64) error { return s.try() }

func (s *paperStream) Stop(context.Context) ([]Shot, error) {
	err := s.try()
	return s.shots, err
}
