package suite

import (
	"context"
	"crypto/tls"
	"errors"

	"drawbridge/sim/evade"
	"drawbridge/sim/trouble"
	"drawbridge/topology"
)

func (l *simulated) Evade(ctx context.Context, from topology.Vantage, to topology.Endpoint, names []string) ([]Evasion, error) {
	if l.lab.Lossy() {
		return nil, errLossy
	}
	var chosen []evade.Attempt
	d, _ := l.lab.World().Database(to.Database)
	fitting := evade.For(to, d.Model)
	for _, name := range names {
		a, err := evade.Find(name)
		if err != nil {
			return nil, wrongFeature("%v", err)
		}
		for _, f := range fitting {
			if f.Name == a.Name {
				chosen = append(chosen, a)
			}
		}
	}
	recorder, real := evade.Embedded(l.lab.Journal()), l.lab.RealServer(to.Node)
	if real != nil {
		recorder = evade.Logged(l.lab.Journal())
	}
	field, err := evade.Open(l.lab, from.Name, recorder)
	if err != nil {
		return nil, err
	}
	all, err := field.PlayAll(ctx, chosen, to)
	if real != nil {
		err = errors.Join(err, real.Sync(ctx)) // what it has logged by now has been read then
	}
	out := make([]Evasion, len(all))
	for i, o := range all { // before the field is closed: their ports are somebody else's then
		o.Read = recorder.Read(o.Port)
		out[i] = Evasion{Name: o.Attempt, Plaintext: o.Plaintext(), OnWire: o.OnWire() != nil, ByLog: real != nil, Detail: o.String(), Took: o.Took}
	}
	if err = errors.Join(err, field.Close()); err != nil {
		return nil, err
	}
	return out, nil
}

// firstPackets is how many packets of a connection have their accidents.
const firstPackets = 6

// troubles are the handshakes that scenarios make at an endpoint. Their ClientHello is one segment, with the one group that every
// server of the distribution takes.
func troubles(to topology.Endpoint, slow bool) []trouble.Case {
	small := []tls.CurveID{tls.CurveP256}
	all := []trouble.Case{{To: to, Groups: small}}
	for _, way := range []trouble.Way{trouble.Up, trouble.Down} {
		for _, accident := range []trouble.Accident{trouble.Lost, trouble.Repeated, trouble.Swapped} {
			first := 1
			if !slow {
				first = 2
			}
			for n := first; n <= firstPackets; n++ {
				all = append(all, trouble.Case{To: to, Way: way, Packet: n, Accident: accident, Groups: small})
			}
		}
	}
	return all
}

func (l *simulated) Endure(ctx context.Context, from topology.Vantage, to []topology.Endpoint, slow bool) ([]Endured, error) {
	wire, err := trouble.Lay(ctx, l.lab, from.Name)
	if err != nil {
		return nil, err
	}
	var cases []trouble.Case
	for _, e := range to {
		cases = append(cases, troubles(e, slow)...)
	}
	all, err := wire.RunAll(ctx, cases)
	if err = errors.Join(err, wire.Close()); err != nil {
		return nil, err
	}
	out := make([]Endured, len(all))
	for i, r := range all {
		out[i] = Endured{Uncounted: l.lab.Lossy(), What: r.Case.String(), Served: r.Served, Costly: r.Happened && r.Case.Accident != trouble.Repeated,
			Retransmissions: r.Retransmissions, Detail: r.Error, Took: r.Took}
	}
	return out, nil
}
