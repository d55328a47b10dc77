package suite

import (
	"context"
	"net/netip"
	"time"

	"drawbridge/features/oracle"
	"drawbridge/topology"
)

func (p *paper) Forge(_ context.Context, from topology.Vantage, name netip.Addr, to topology.Endpoint) (Forgery, error) {
	v, err := p.expect(oracle.Connection{From: from, Source: name, To: to, TLS: true})
	var f Forgery
	if v.Class == oracle.Served {
		f.Passed = 1
	}
	if p.conductor.free[to.Point] {
		f.Bytes = 1
	}
	return f, err
}

func (p *paper) Flood(_ context.Context, from topology.Vantage, to topology.Endpoint, syns int) (Flooded, error) {
	v, err := p.expect(oracle.Connection{From: from, To: to, TLS: true})
	// Its end is later than what is tried next on paper, so that there is something to compare.
	f := Flooded{Began: time.Now(), Ended: time.Now().Add(time.Minute)}
	if v.Class == oracle.Served {
		f.Passed = syns
	}
	return f, err
}
