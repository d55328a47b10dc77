package suite

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"drawbridge/features/oracle"
	"drawbridge/topology"
)

// phrase is a sentence of a feature about connections: who connects, how, and to what.
type phrase struct {
	who string // as written
	v6  bool
	how mode
	by  string // as written, without "by"
}

// mode says whether connections are made over TLS. The zero value is both ways.
type mode int

const (
	bothWays mode = iota
	overTLS
	withoutTLS
)

func (m mode) includes(tls bool) bool { return m == bothWays || (m == overTLS) == tls }

// origin is one place that connections come from.
type origin struct {
	vantage topology.Vantage
	source  netip.Addr // zero: the vantage's own
}

var (
	phraseRE = regexp.MustCompile(`^(.+?)(?: (over IPv6))?(?: (over TLS|with TLS|without TLS))?$`)
	usingRE  = regexp.MustCompile(`^"([^"]+)"(?: using ([0-9a-f.:]+))?$`)
	ofRE     = regexp.MustCompile(`^every (app|host|node) of "([^"]+)"$`)
	quotedRE = regexp.MustCompile(`^"([^"]+)"$`)
)

func parsePhrase(who, by string) (phrase, error) {
	m := phraseRE.FindStringSubmatch(strings.TrimSpace(who))
	if m == nil {
		return phrase{}, fmt.Errorf("%q: nobody is named", who)
	}
	p := phrase{who: m[1], v6: m[2] != "", by: strings.TrimSpace(by)}
	switch m[3] {
	case "over TLS", "with TLS":
		p.how = overTLS
	case "without TLS":
		p.how = withoutTLS
	}
	return p, nil
}

// attempts are the connections that a phrase speaks of, about one database unless the phrase says otherwise.
func (p phrase) attempts(w *topology.World, about topology.Database) ([]oracle.Connection, error) {
	origins, err := p.origins(w, about)
	if err != nil {
		return nil, err
	}
	targets, err := p.targets(w, about)
	if err != nil {
		return nil, err
	}
	var all []oracle.Connection
	for _, o := range origins {
		count := len(all)
		for _, to := range targets {
			if via, ok := transit(w, o.vantage, to); ok {
				return nil, fmt.Errorf("%s reaches %s by way of gateway %s: whatever is in force there could stop it", o.vantage.Name, to.Database, via)
			}
			if !o.reaches(w, to, p.anyFamily()) {
				continue
			}
			for _, tls := range []bool{true, false} {
				if p.how.includes(tls) && speaks(to.TLS, tls) {
					all = append(all, oracle.Connection{From: o.vantage, Source: o.source, To: to, TLS: tls})
				}
			}
		}
		if len(all) == count {
			return nil, fmt.Errorf("%s by %q: there is nothing that %s could connect to", p.who, p.by, o.vantage.Name)
		}
	}
	return all, nil
}

// transit names the enforcement point that a vantage's traffic passes on its way to an endpoint at another one. Such
// connections are no part of the specification: an enforcer may forward nothing but what is for the databases it protects.
func transit(w *topology.World, v topology.Vantage, to topology.Endpoint) (string, bool) {
	network, _, _ := strings.Cut(v.Name, "/")
	for _, d := range w.Databases() {
		behind := v.Kind == topology.VantageNode && d.Name == v.Database ||
			v.Kind == topology.VantagePeer && d.Peering != nil && d.Peering.Network == network
		if behind && d.Gateway != "" && d.Gateway != to.Point {
			return d.Gateway, true
		}
	}
	return "", false
}

// speaks reports whether a port can be asked over TLS, or without.
func speaks(t topology.PortTLS, tls bool) bool {
	switch t {
	case topology.TLSInBand, topology.TLSEither:
		return true
	case topology.TLSOnly:
		return tls
	case topology.TLSNone:
		return !tls
	}
	return false
}

// reaches reports whether a connection from here counts at all. A database's own host is left out (SPEC G-02), and where a
// phrase means both families, so is the one that the vantage does not have.
func (o origin) reaches(w *topology.World, to topology.Endpoint, anyFamily bool) bool {
	if d, ok := w.Database(to.Database); ok {
		for _, n := range d.Nodes {
			if n.Name == to.Node && n.Listener() == o.vantage.Namespace {
				return false
			}
		}
	}
	if !anyFamily {
		return true
	}
	if o.source.IsValid() {
		return o.source.Is4() == to.Addr.Addr().Is4()
	}
	return slices.ContainsFunc(o.vantage.Addresses, func(a netip.Addr) bool { return a.Is4() == to.Addr.Addr().Is4() })
}

func (p phrase) anyFamily() bool { return p.by == everyWayRound }

func (p phrase) origins(w *topology.World, about topology.Database) ([]origin, error) {
	if m := usingRE.FindStringSubmatch(p.who); m != nil {
		return single(w, m[1], m[2])
	}
	match, err := p.group(about)
	if err != nil {
		return nil, err
	}
	var all []origin
	for _, v := range w.Vantages() {
		if match(v) {
			all = append(all, origin{vantage: v})
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%q: there is no such vantage in world %s", p.who, w.Name())
	}
	return all, nil
}

func single(w *topology.World, name, source string) ([]origin, error) {
	v, ok := w.Vantage(name)
	if !ok {
		return nil, fmt.Errorf("%q: there is no such vantage in world %s", name, w.Name())
	}
	o := origin{vantage: v}
	if source != "" {
		a, err := netip.ParseAddr(source)
		if err != nil {
			return nil, fmt.Errorf("%q using %s: %w", name, source, err)
		}
		o.source = a
	}
	return []origin{o}, nil
}

func (p phrase) group(about topology.Database) (func(topology.Vantage) bool, error) {
	isApp := func(v topology.Vantage) bool { return v.Kind == topology.VantageApp }
	switch p.who {
	case "every Internet host":
		return func(v topology.Vantage) bool { return v.Kind == topology.VantageInternet }, nil
	case "every app":
		return isApp, nil
	case "every app of its region":
		return func(v topology.Vantage) bool { return isApp(v) && v.Region == about.Region }, nil
	case "every app of another region":
		return func(v topology.Vantage) bool { return isApp(v) && v.Region != about.Region }, nil
	}
	m := ofRE.FindStringSubmatch(p.who)
	if m == nil {
		return nil, fmt.Errorf("%q: not a vantage that features can name", p.who)
	}
	switch name := m[2]; m[1] {
	case "app":
		return func(v topology.Vantage) bool { return isApp(v) && v.Region == name }, nil
	case "host":
		return func(v topology.Vantage) bool {
			return v.Kind == topology.VantagePeer && strings.HasPrefix(v.Name, name+"/")
		}, nil
	default:
		return func(v topology.Vantage) bool { return v.Kind == topology.VantageNode && v.Database == name }, nil
	}
}

// What a phrase may name behind "by", besides a database.
const (
	everyDatabase  = "every database"
	everyWayRound  = "every way round"
	theOtherNodes  = "the other nodes"
	nodesOwnPorts  = "the nodes' own ports"
	privatePeering = "its private peering endpoint"
)

func (p phrase) targets(w *topology.World, about topology.Database) ([]topology.Endpoint, error) {
	var all []topology.Endpoint
	switch p.by {
	case "":
		all = p.endpoints(about, topology.PublicRW)
	case privatePeering:
		all = p.endpoints(about, topology.PrivatePeeringRW)
	case everyWayRound:
		all = about.Bypasses()
	case nodesOwnPorts:
		all = p.family(slices.DeleteFunc(about.Bypasses(), func(e topology.Endpoint) bool { return !ownPort(about, e) }))
	case theOtherNodes:
		all = p.family(clusterTargets(about))
	case everyDatabase:
		for _, d := range w.Databases() {
			if !d.Canary {
				all = append(all, p.endpoints(d, topology.PublicRW)...)
			}
		}
	default:
		m := quotedRE.FindStringSubmatch(p.by)
		if m == nil {
			return nil, fmt.Errorf("by %q: not a target that features can name", p.by)
		}
		d, ok := w.Database(m[1])
		if !ok {
			return nil, fmt.Errorf("by %q: there is no such database in world %s", m[1], w.Name())
		}
		all = p.endpoints(d, topology.PublicRW)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("by %q: database %s has no such thing", p.by, about.Name)
	}
	return all, nil
}

func (p phrase) endpoints(d topology.Database, kind topology.EndpointKind) []topology.Endpoint {
	return p.family(slices.DeleteFunc(d.Endpoints(), func(e topology.Endpoint) bool { return e.Kind != kind }))
}

func (p phrase) family(all []topology.Endpoint) []topology.Endpoint {
	return slices.DeleteFunc(all, func(e topology.Endpoint) bool { return e.Addr.Addr().Is6() != p.v6 })
}

// ownPort reports whether only the cluster's nodes use the port (SPEC C-04).
func ownPort(d topology.Database, e topology.Endpoint) bool {
	return slices.ContainsFunc(d.ClusterPorts, func(c topology.ClusterPort) bool { return c.Port == e.Addr.Port() && !c.Shared })
}

// clusterTargets are the ports at which the nodes of a cluster could try each other: those for the cluster, and those that
// speak without TLS.
func clusterTargets(d topology.Database) []topology.Endpoint {
	return slices.DeleteFunc(append(d.Endpoints(), d.Bypasses()...), func(e topology.Endpoint) bool {
		node := slices.ContainsFunc(d.Nodes, func(n topology.Node) bool { return slices.Contains(n.Addresses, e.Addr.Addr()) })
		cluster := slices.ContainsFunc(d.ClusterPorts, func(c topology.ClusterPort) bool { return c.Port == e.Addr.Port() })
		return !node || (!cluster && !speaks(e.TLS, false))
	})
}
