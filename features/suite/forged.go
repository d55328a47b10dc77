package suite

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/cucumber/godog"

	"drawbridge/features/oracle"
	"drawbridge/topology"
)

// Forgery is what became of packets that claim an address which is not the sender's (SPEC X-03). The zero value is one that got nowhere.
type Forgery struct {
	// Passed is how many of its connections had a packet that got past the enforcement point.
	Passed int
	// Opened: the database's application took one of them for a connection.
	Opened bool
	// Bytes is how many of its bytes the database took.
	Bytes int
	// Careful: the database takes no data before the handshake is complete, whatever is in force.
	Careful bool
}

func (f Forgery) String() string {
	return fmt.Sprintf("packets of %d connections passed, opened %t, %d bytes taken", f.Passed, f.Opened, f.Bytes)
}

// claims are the names in which somebody was seen to get packets through where nothing is in force.
type claims struct {
	from  topology.Vantage
	names []netip.Addr
}

// What a table says of packets with a forged source: that of their own zone cannot be told from honest ones, others can.
const (
	mayPass    = "may pass"
	getNowhere = "get nowhere"
)

func registerForgeries(sc *godog.ScenarioContext, step stepFunc) {
	define(sc, `^from "([^"]+)" forged packets reach it, in the names of:$`, func(ctx context.Context, from string, table *godog.Table) error {
		return step(func(ctx context.Context, s *scenario) error { return s.provesForgeries(ctx, from, table) })(ctx)
	})
	define(sc, `^none of them opens a connection or delivers a byte, and the packets:$`, func(ctx context.Context, table *godog.Table) error {
		return step(func(ctx context.Context, s *scenario) error { return s.forges(ctx, table) })(ctx)
	})
}

// named reads a table's column of addresses.
func named(rows []map[string]string) ([]netip.Addr, error) {
	var all []netip.Addr
	for _, r := range rows {
		a, err := netip.ParseAddr(r["name"])
		if err != nil || !a.Is4() {
			return nil, wrongFeature("%q: forged sources are IPv4 addresses (%v)", r["name"], err)
		}
		all = append(all, a)
	}
	return all, nil
}

// forgeable is the first public IPv4 endpoint of a database that serves TLS.
func (s *scenario) forgeable(from topology.Vantage, d topology.Database) (topology.Endpoint, error) {
	for _, e := range d.Endpoints() {
		if e.Kind == topology.PublicRW && e.Addr.Addr().Is4() && speaks(e.TLS, true) && (origin{vantage: from}).reaches(s.world, e, true) {
			return e, nil
		}
	}
	return topology.Endpoint{}, wrongFeature("%s has no public IPv4 endpoint", d.Name)
}

// provesForgeries sends forged packets where nothing is in force: they must get through, or they would try nothing later.
func (s *scenario) provesForgeries(ctx context.Context, from string, table *godog.Table) error {
	rows, err := records(table, []string{"name"}, nil)
	if err != nil {
		return err
	}
	names, err := named(rows)
	if err != nil {
		return err
	}
	v, err := s.unforced(from)
	if err != nil {
		return err
	}
	e, err := s.forgeable(v, s.about)
	if err != nil {
		return err
	}
	s.claims = claims{v, names}
	var failures []error
	for _, a := range names {
		f, err := s.lab.Forge(ctx, v, a, e)
		switch {
		case err != nil:
			return err
		case f.Passed == 0 || f.Bytes == 0 && !f.Careful:
			failures = append(failures, fmt.Errorf("%w: without a policy, packets in the name of %s try nothing: %s", errInconclusive, a, f))
		}
	}
	return limited(failures)
}

// forges sends them again where something is in force.
func (s *scenario) forges(ctx context.Context, table *godog.Table) error {
	rows, err := records(table, []string{"name", "packets"}, nil)
	if err != nil {
		return err
	}
	names, err := named(rows)
	if err != nil {
		return err
	}
	e, err := s.forgeable(s.claims.from, s.about)
	if err != nil {
		return err
	}
	var findings []error
	for i, a := range names {
		if !slices.Contains(s.claims.names, a) {
			return wrongFeature("no packet in the name of %s was seen to pass without a policy", a)
		}
		literal, ok := map[string]oracle.Class{mayPass: oracle.Served, getNowhere: oracle.Denied}[rows[i]["packets"]]
		if !ok {
			return wrongFeature("%q: packets %s or %s", rows[i]["packets"], mayPass, getNowhere)
		}
		want, err := s.expect(oracle.Connection{From: s.claims.from, Source: a, To: e, TLS: true}, literal)
		if err != nil {
			return err
		}
		got, err := s.lab.Forge(ctx, s.claims.from, a, e)
		if err != nil {
			return err
		}
		err = judgeForgery(a, want, got)
		s.record.noteForgery(s.claims.from, a, e, want, got, err)
		findings = append(findings, err)
	}
	return worst(findings)
}

// judgeForgery: what is denied to whoever has the address is denied to the last packet; and nobody may speak in another's name.
func judgeForgery(name netip.Addr, want oracle.Verdict, got Forgery) error {
	switch {
	case got.Opened || got.Bytes > 0:
		return notConformant("in the name of %s, whose answers go to somebody else: %s", name, got)
	case want.Class != oracle.Served && got.Passed > 0:
		return notConformant("in the name of %s, from where it cannot come: %s", name, got)
	}
	return nil
}

func (r *ScenarioReport) noteForgery(from topology.Vantage, name netip.Addr, to topology.Endpoint, want oracle.Verdict, got Forgery, err error) {
	must := "opens nothing"
	if want.Class != oracle.Served {
		must = oracle.Denied.String()
	}
	line := AttemptLine{
		What: fmt.Sprintf("forged packets of %s in the name of %s to %s at %s", from.Name, name, to.Database, to.Addr), Must: must,
		Because: []string{"X-03"}, Was: got.String(), OK: err == nil,
	}
	if err != nil {
		line.Detail = err.Error()
	}
	r.Attempts = append(r.Attempts, line)
}
