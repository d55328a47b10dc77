package suite_test

import (
	"context"
	"net/netip"
	"time"

	"drawbridge/features/oracle"
	"drawbridge/features/suite"
	"drawbridge/topology"
)

// Forge fares as a client that has the address, but never hears an answer.
func (m *model) Forge(_ context.Context, from topology.Vantage, name netip.Addr, to topology.Endpoint) (suite.Forgery, error) {
	a, err := m.decide(oracle.Connection{From: from, Source: name, To: to, TLS: true})
	var f suite.Forgery
	if a.allowed || m.faults.forgedPass {
		f.Passed = 2
	}
	if m.policy(to.Point) == nil || m.faults.forgedOpen {
		f.Bytes = 8
	}
	return f, err
}

// Flood takes no time at all, but what it spoils is noticed by the streams under way.
func (m *model) Flood(ctx context.Context, from topology.Vantage, to topology.Endpoint, syns int) (suite.Flooded, error) {
	a, err := m.decide(oracle.Connection{From: from, To: to, TLS: true})
	f := suite.Flooded{Began: time.Now()}
	if a.allowed || m.faults.floodPasses {
		f.Passed = syns
	}
	if m.faults.floodTracked {
		f.Tracked = syns
	}
	m.mu.Lock()
	streams := m.streams
	m.mu.Unlock()
	for _, s := range streams {
		s.late = m.faults.floodDelays
		if err := s.Rounds(ctx, 1); err != nil {
			return f, err
		}
		s.late = false
	}
	f.Ended = time.Now()
	return f, err
}
