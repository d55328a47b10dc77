package suite_test

import (
	"context"
	"time"

	"drawbridge/features/driver"
	"drawbridge/features/suite"
)

// modelStream tries everything once whenever somebody looks, and while policies change, if that goes wrong.
type modelStream struct {
	m      *model
	trials []suite.Trial
	shots  []suite.Shot
	late   bool // its answers are
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
	ended := now
	if s.late {
		ended = now.Add(time.Second)
	}
	s.shots = append(s.shots, suite.Shot{Trial: trial, Began: now, Ended: ended, Passed: served, Served: served})
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

// Interrupt is killed at once, with half of the policy in force if that goes wrong.
func (m *model) Interrupt(_ context.Context, doc driver.Document, _ time.Duration) (driver.Receipt, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if old := m.force[doc.Point.Name]; m.faults.leavesHalves && old != nil {
		for i := range doc.Databases {
			doc.Databases[i].FirewallRules = append(doc.Databases[i].FirewallRules, old.Databases[i].FirewallRules...)
		}
		m.force[doc.Point.Name] = &doc
	}
	if m.faults.killOpens {
		delete(m.force, doc.Point.Name)
	}
	return driver.Receipt{}, true, nil
}

func (m *model) Crash(_ context.Context, point string) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.faults.crashOpens {
		delete(m.force, point)
	}
	return m.about.Run, nil
}

func (m *model) Tamper(_ context.Context, point string, _ suite.Tampering) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.faults.tampered {
		delete(m.force, point)
	}
	return nil
}

// Submit gets mistakes only.
func (m *model) Submit(_ context.Context, point string, _ []byte) (driver.Receipt, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	refused := &driver.Refused{Point: point, Stderr: "frobnicate engine version endpoints port databases region rule cidr internet_accessibility"}
	switch {
	case m.faults.acceptsMistakes:
		return driver.Receipt{Point: point, Generation: "x"}, nil
	case m.faults.namesNoPlace:
		refused.Stderr = "refused"
	case m.faults.mistakesOpen:
		delete(m.force, point)
	}
	return driver.Receipt{}, refused
}
