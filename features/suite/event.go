package suite

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"drawbridge/features/driver"
	"drawbridge/features/oracle"
	"drawbridge/features/platform"
	"drawbridge/topology"
)

func (s *scenario) failover(ctx context.Context, name, node string) error {
	next := s.state.Clone()
	if err := next.SetPrimary(name, node); err != nil {
		return wrongFeature("%v", err)
	}
	if err := s.settled(); err != nil {
		return err
	}
	s.state = s.state.Clone()
	if err := s.state.SetPrimary(name, node); err != nil { // so that finish fails back whatever happens next
		return wrongFeature("%v", err)
	}
	if err := s.lab.Failover(ctx, name, node); err != nil {
		return err
	}
	return s.accepted(s.change(ctx, next, name))
}

// accepted turns the refusal of something that nobody may refuse into a finding.
func (s *scenario) accepted(err error) error {
	if errors.Is(err, driver.ErrRefused) {
		return notConformant("refused a change of the platform: %v", err)
	}
	return err
}

func (s *scenario) moveEgress(ctx context.Context, region, from, to string) error {
	start, err := netip.ParseAddr(from)
	if err != nil {
		return wrongFeature("%v", err)
	}
	now := start
	if to != "" {
		if now, err = netip.ParseAddr(to); err != nil {
			return wrongFeature("%v", err)
		}
	}
	was := start
	if m, ok := s.state.Moves()[start]; ok {
		was = m
	}
	if err := s.settled(); err != nil {
		return err
	}
	if err := s.lab.MoveEgress(ctx, region, was, now); err != nil {
		return err
	}
	next := s.state.Clone()
	next.Move(start, now)
	s.state = next
	return nil
}

// publish updates a managed range in the policies of all points with a rule for it. Elsewhere it makes no difference.
func (s *scenario) publish(ctx context.Context, region string) error {
	next := s.state.Clone()
	next.Publish(region)
	var users []string
	for _, d := range s.world.Databases() {
		if slices.ContainsFunc(next.Of(d.Name).Rules, isManaged(region)) {
			users = append(users, d.Name)
		}
	}
	return s.accepted(s.change(ctx, next, users...))
}

// What must become of a node's attempts to replicate.
var (
	mustNot = oracle.Verdict{Class: oracle.Denied, Because: []string{"C-03"}}
	must    = oracle.Verdict{Class: oracle.Served, Because: []string{"C-01", "C-02"}}
)

func (s *scenario) replicate(ctx context.Context, from, to string) error {
	v, ok := s.world.Vantage(from)
	if !ok {
		return wrongFeature("there is no node %q in world %s", from, s.world.Name())
	}
	plain, tls, err := replicationPorts(s.about, to)
	if err != nil {
		return err
	}
	for _, c := range []struct {
		to   topology.Endpoint
		tls  bool
		want oracle.Class
	}{{plain, false, oracle.Denied}, {tls, true, oracle.Served}} {
		if _, err := s.expect(oracle.Connection{From: v, To: c.to, TLS: c.tls}, c.want); err != nil {
			return err
		}
	}
	if err := s.settled(); err != nil {
		return err
	}
	r, err := s.lab.Replicate(ctx, v, plain, tls)
	if err != nil {
		return err
	}
	s.traffic = append(s.traffic, r)
	s.record.note(oracle.Connection{From: v, To: plain}, mustNot, r.Plain, judgeReplication(r))
	s.record.note(oracle.Connection{From: v, To: tls, TLS: true}, must, r.TLS, judgeReplication(r))
	return nil
}

// replicationPorts are the ports of a node at which another node tries: one without TLS, and the first over TLS.
func replicationPorts(d topology.Database, node string) (plain, tls topology.Endpoint, err error) {
	for _, e := range clusterTargets(d) {
		if e.Node != node || e.Addr.Addr().Is6() {
			continue
		}
		if speaks(e.TLS, false) && plain.Node == "" {
			plain = e
		}
		if speaks(e.TLS, true) && tls.Node == "" {
			tls = e
		}
	}
	if plain.Node == "" || tls.Node == "" {
		return plain, tls, wrongFeature("node %q of %s has no ports at which a node could replicate", node, d.Name)
	}
	return plain, tls, nil
}

func (s *scenario) captured() error {
	if len(s.traffic) == 0 {
		return wrongFeature("nothing was replicated")
	}
	var findings []error
	for _, r := range s.traffic {
		s.record.Notes = append(s.record.Notes, fmt.Sprintf("replication: without TLS %s, over TLS %s, %d packets captured, marker seen: %t",
			r.Plain.Verdict, r.TLS.Verdict, r.Packets, r.MarkerSeen))
		findings = append(findings, judgeReplication(r))
	}
	return worst(findings)
}

func judgeReplication(r Replication) error {
	switch {
	case r.MarkerSeen:
		return notConformant("the marker was read on the wire between the nodes (without TLS: %s, %s)", r.Plain.Verdict, r.Plain.Detail)
	case r.TLS.Finding == Inconclusive || r.Plain.Finding == Inconclusive:
		return fmt.Errorf("%w: without TLS: %s; over TLS: %s", errInconclusive, r.Plain.Detail, r.TLS.Detail)
	case r.TLS.Finding != Served:
		return notConformant("the node could not replicate over TLS: %s, %s", r.TLS.Verdict, r.TLS.Detail)
	case r.Plain.Finding != Denied:
		return notConformant("the node could replicate without TLS: %s, %s", r.Plain.Verdict, r.Plain.Detail)
	case r.Packets == 0:
		return fmt.Errorf("%w: the capture between the nodes holds nothing of it", errInconclusive)
	}
	return nil
}

func isManaged(name string) func(platform.Rule) bool {
	return func(r platform.Rule) bool { return r.Managed == name }
}
