package suite_test

import (
	"context"
	"time"

	"drawbridge/features/suite"
)

// modelStream tries everything once whenever somebody looks, and while policies change, if that goes wrong.
type modelStream struct {
	m      *model
	trials []suite.Trial
	shots  []suite.Shot
}

func (m *model) Stream(ctx context.Context, trials []suite.Trial) (suite.Stream, error) {
	s := &modelStream{m: m, trials: trials}
	m.mu.Lock()
	m.streams = append(m.streams, s)
	m.mu.Unlock()
	return s, s.Rounds(ctx, 1)
}

func (s *modelStream) add(trial int, served bool) {
	now := time.Now()
	s.shots = append(s.shots, suite.Shot{Trial: trial, Began: now, Ended: now, Passed: served, Served: served})
}

func (s *modelStream) all(served bool) {
	for i := range s.trials {
		s.add(i, served)
	}
}

func (s *modelStream) Rounds(context.Context, int64) error {
	for i, t := range s.trials {
		a, err := s.m.decide(t.Connection)
		if err != nil {
			return err
		}
		s.m.mu.Lock()
		s.add(i, a.allowed)
		s.m.mu.Unlock()
	}
	return nil
}

func (s *modelStream) Stop(ctx context.Context) ([]suite.Shot, error) {
	err := s.Rounds(ctx, 1)
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	s.m.streams = nil
	return s.shots, err
}
