package suite

import (
	"context"

	"drawbridge/features/oracle"
	"drawbridge/topology"
)

// bounded is the lab as a scenario may use it: connections to points that are not its own, or from behind points that others may be
// changing, would be judged by what somebody else is doing there.
type bounded struct {
	Lab
	world  *topology.World
	ground ground
}

func (b *bounded) allows(c oracle.Connection) error {
	if !b.ground.own[c.To.Point] {
		return wrongFeature("%s: %s is at a point that the scenario does not name", describe(c), c.To.Database)
	}
	at, ok := stands(b.world, c.From)
	if ok && !b.ground.own[at] && !b.ground.calm[at] {
		return wrongFeature("%s: %s stands at a point that the scenario does not name", describe(c), c.From.Name)
	}
	return nil
}

func (b *bounded) Connect(ctx context.Context, attempts []oracle.Connection) ([]Outcome, error) {
	for _, c := range attempts {
		if err := b.allows(c); err != nil {
			return nil, err
		}
	}
	return b.Lab.Connect(ctx, attempts)
}

func (b *bounded) Hold(ctx context.Context, c oracle.Connection) (Session, Outcome, error) {
	if err := b.allows(c); err != nil {
		return nil, Outcome{}, err
	}
	return b.Lab.Hold(ctx, c)
}

func (b *bounded) Replicate(ctx context.Context, from topology.Vantage, plain, tls topology.Endpoint) (Replication, error) {
	for _, to := range []topology.Endpoint{plain, tls} {
		if err := b.allows(oracle.Connection{From: from, To: to}); err != nil {
			return Replication{}, err
		}
	}
	return b.Lab.Replicate(ctx, from, plain, tls)
}

func (b *bounded) Send(ctx context.Context, packets []Packet) ([]Outcome, error) {
	for _, p := range packets {
		if err := b.allows(oracle.Connection{From: p.From, To: p.To}); err != nil {
			return nil, err
		}
	}
	return b.Lab.Send(ctx, packets)
}

func (b *bounded) Stream(ctx context.Context, trials []Trial) (Stream, error) {
	for _, t := range trials {
		if err := b.allows(t.Connection); err != nil {
			return nil, err
		}
	}
	return b.Lab.Stream(ctx, trials)
}

func (b *bounded) Evade(ctx context.Context, from topology.Vantage, to topology.Endpoint, names []string) ([]Evasion, error) {
	if err := b.allows(oracle.Connection{From: from, To: to}); err != nil {
		return nil, err
	}
	return b.Lab.Evade(ctx, from, to, names)
}

func (b *bounded) Endure(ctx context.Context, from topology.Vantage, to []topology.Endpoint, slow bool) ([]Endured, error) {
	for _, e := range to {
		if err := b.allows(oracle.Connection{From: from, To: e, TLS: true}); err != nil {
			return nil, err
		}
	}
	return b.Lab.Endure(ctx, from, to, slow)
}
