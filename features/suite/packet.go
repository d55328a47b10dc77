package suite

import (
	"context"
	"fmt"
	"strconv"

	"github.com/cucumber/godog"

	"drawbridge/topology"
	"drawbridge/topology/flow"
)

// packets checks that single packets to a database's public address get nowhere.
func (s *scenario) packets(ctx context.Context, from string, v6 bool, table *godog.Table) error {
	v, ok := s.world.Vantage(from)
	if !ok {
		return wrongFeature("there is no vantage %q in world %s", from, s.world.Name())
	}
	to := (phrase{v6: v6}).endpoints(s.about, topology.PublicRW)
	if len(to) == 0 {
		return wrongFeature("%s has no such address", s.about.Name)
	}
	rows, err := records(table, []string{"protocol", "port"}, nil)
	if err != nil {
		return err
	}
	var all []Packet
	for _, r := range rows {
		p, err := packet(r["protocol"], r["port"], v6)
		if err != nil {
			return err
		}
		p.From, p.To = v, to[0]
		all = append(all, p)
	}
	outcomes, err := s.lab.Send(ctx, all)
	if err != nil {
		return err
	}
	var findings []error
	for i, o := range outcomes {
		err := judgePacket(all[i], o)
		s.record.notePacket(all[i], o, err)
		findings = append(findings, err)
	}
	return worst(findings)
}

func packet(protocol, port string, v6 bool) (Packet, error) {
	var p Packet
	switch protocol {
	case "tcp":
		p.Proto = flow.TCP
	case "udp":
		p.Proto = flow.UDP
	case "sctp":
		p.Proto = flow.SCTP
	case "icmp echo":
		p.Proto = flow.ICMP
		if v6 {
			p.Proto = flow.ICMPv6
		}
		return p, nil
	default:
		return p, wrongFeature("protocol %q: not one that features can name", protocol)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return p, wrongFeature("port %q: not a port", port)
	}
	p.Port = uint16(n)
	return p, nil
}

func judgePacket(p Packet, o Outcome) error {
	as := fmt.Sprintf("%s from %s to %s port %d: must be denied (X-02); was %s: %s", p.Proto, p.From.Name, p.To.Addr.Addr(), p.Port, o.Verdict, o.Detail)
	switch o.Finding {
	case Denied:
		return nil
	case Inconclusive:
		return fmt.Errorf("%w: %s", errInconclusive, as)
	}
	return notConformant("%s", as)
}
