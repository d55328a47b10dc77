package oracle

import (
	"fmt"
	"net/netip"
	"slices"

	"drawbridge/features/platform"
	"drawbridge/topology"
)

// MaxRules is the greatest number of firewall rules of one database (SPEC D-12).
const MaxRules = 30

// Expect says what must become of a connection on a platform whose policies are in force.
func Expect(p *platform.State, c Connection) (Verdict, error) {
	a, err := Arrive(p, c)
	if err != nil {
		return Verdict{}, err
	}
	return Decide(p, a, c.To, c.TLS)
}

// Decide says what must become of a connection that looks like a at the enforcement point and asks for an endpoint, or
// for a way round one.
func Decide(p *platform.State, a Arrival, to topology.Endpoint, tls bool) (Verdict, error) {
	d, ok := p.World().Database(to.Database)
	if !ok {
		return Verdict{}, fmt.Errorf("endpoint %s: no database %q in the world", to.Addr, to.Database)
	}
	if spoken := speaks(to.TLS, tls); !spoken {
		return unspecified("port %d never speaks %s", to.Addr.Port(), wording(tls)), nil
	}
	if toNode, peer := clusterTraffic(d, a.Source, to); peer {
		return betweenNodes(d, toNode, to, tls), nil
	}
	if to.Kind == topology.WayRound {
		return roundabout(d, to), nil
	}
	if d.Model == topology.Shared {
		return shared(p, d, a, tls), nil
	}
	v := dedicated(p, d, a, to, tls)
	if v.Class == Served && !tls && fromOwnNode(d, a) {
		return unspecified("a node of %s reaches another one by way of their endpoint: C-03 denies it, the rule serves it", d.Name), nil
	}
	return v, nil
}

// fromOwnNode reports whether a node of the database asks for the database's own endpoint at its gateway.
func fromOwnNode(d topology.Database, a Arrival) bool {
	return a.Zone == topology.ZoneCluster && slices.ContainsFunc(d.Nodes, func(n topology.Node) bool { return slices.Contains(n.Addresses, a.Source) })
}

// speaks reports whether a port has a language in which the client could ask at all.
func speaks(port topology.PortTLS, tls bool) bool {
	switch port {
	case topology.TLSInBand, topology.TLSEither:
		return true
	case topology.TLSOnly:
		return tls
	case topology.TLSNone:
		return !tls
	}
	return false
}

func wording(tls bool) string {
	if tls {
		return "TLS"
	}
	return "plaintext"
}

// clusterTraffic reports whether a node of the database asks another node of it, at the node's own address, and which.
func clusterTraffic(d topology.Database, src netip.Addr, to topology.Endpoint) (topology.Node, bool) {
	has := func(n topology.Node, a netip.Addr) bool { return slices.Contains(n.Addresses, a) }
	for _, n := range d.Nodes {
		if !has(n, to.Addr.Addr()) || has(n, src) {
			continue
		}
		return n, slices.ContainsFunc(d.Nodes, func(from topology.Node) bool { return has(from, src) })
	}
	return topology.Node{}, false
}

func betweenNodes(d topology.Database, n topology.Node, to topology.Endpoint, tls bool) Verdict {
	port := to.Addr.Port()
	switch {
	case !tls:
		return silenced("nodes talk to each other over TLS only", "C-03")
	case slices.ContainsFunc(d.ClusterPorts, func(c topology.ClusterPort) bool { return c.Port == port }):
		return served("a node reaches "+n.Name+" over TLS", "C-03", "C-01", "C-02")
	}
	return unspecified("port %d of %s is not a cluster port, and the client is a node", port, n.Name)
}

// roundabout: an address or port of a database that is not an endpoint.
func roundabout(d topology.Database, to topology.Endpoint) Verdict {
	for _, c := range d.ClusterPorts {
		if c.Port == to.Addr.Port() && !c.Shared {
			return denied("only the cluster's nodes use this port", "C-04", "G-03")
		}
	}
	return denied("not an endpoint of "+d.Name, "G-03")
}

func shared(p *platform.State, d topology.Database, a Arrival, tls bool) Verdict {
	set := p.Of(d.Name)
	forced := set.ForceTLS == platform.On // S-05: off by default
	internet := set.InternetAccessibility == platform.On
	regional := a.Zone == topology.ZoneRegional && inRegion(p.World(), d.Region, a.Source)
	switch {
	case !regional && !internet:
		return denied("not from the regional network, and Internet accessibility is off", "S-02", "S-03", "G-01")
	case forced && !tls && regional:
		return silenced("Force TLS is on", "S-06")
	case forced && !tls:
		return silenced("Force TLS is on", "S-07")
	case regional && tls:
		return served("TLS from the regional network", "S-01", "S-04")
	case regional:
		return served("from the regional network, Force TLS is off", "S-01", "S-05")
	}
	return served("Internet accessibility is on", "S-08", "S-07")
}

func inRegion(w *topology.World, region string, a netip.Addr) bool {
	r, ok := w.Region(region)
	return ok && slices.ContainsFunc(r.Networks, func(n netip.Prefix) bool { return n.Contains(a) })
}

func dedicated(p *platform.State, d topology.Database, a Arrival, to topology.Endpoint, tls bool) Verdict {
	set := p.Of(d.Name)
	rule, covered := covering(p, set.Rules, a.Source)
	switch {
	case to.Kind == topology.PrivatePeeringRW && a.Zone != topology.ZonePeering:
		return denied("the private endpoint exists over the peering only", "D-14")
	case !covered && len(set.Rules) == 0:
		return denied("there is no rule", "D-01", "D-02", "D-05", "G-01")
	case !covered:
		return denied(fmt.Sprintf("no rule covers %s", a.Source), "D-05")
	case set.ForceTLS != platform.Off && !tls: // D-04: on by default
		return silenced("Force TLS is on", "D-04")
	case rule.Managed != "":
		return served(fmt.Sprintf("%s covers %s", rule, a.Source), "D-06", "D-08", "D-05")
	case to.Kind == topology.PrivatePeeringRW:
		return served(fmt.Sprintf("%s covers %s over the peering", rule, a.Source), "D-14")
	}
	return served(fmt.Sprintf("%s covers %s", rule, a.Source), "D-09", "D-05")
}

// covering returns the first rule that covers an address.
func covering(p *platform.State, rules []platform.Rule, a netip.Addr) (platform.Rule, bool) {
	for _, r := range rules {
		if slices.ContainsFunc(p.Networks(r), func(n netip.Prefix) bool { return n.Contains(a) }) {
			return r, true
		}
	}
	return platform.Rule{}, false
}

// Continue says what must become of a connection that was served, now that the platform is as it is: "denied" means cut at
// both ends. unseen: it began while no policy was in force, so the enforcer cannot know what it speaks.
func Continue(p *platform.State, c Connection, unseen bool) (Verdict, error) {
	v, err := Expect(p, c)
	if err != nil || v.Class == Unspecified {
		return v, err
	}
	d, _ := p.World().Database(c.To.Database) // Expect found it
	set := p.Of(d.Name)
	switch {
	case v.Class == Denied && v.Talk:
		return denied("it speaks without TLS, and Force TLS is on", "X-05"), nil
	case v.Class == Denied:
		return denied("nothing lets it in any more", "X-04"), nil
	case unseen && ForcesTLS(d.Model, set) && set.Unknown != platform.KeepUnknown:
		return denied("nobody saw how it began, and Force TLS is on", "X-05"), nil
	}
	return served("still allowed", "X-04", "X-05"), nil
}

// Refusal says why a database of a model cannot have such settings, with the statement's ID first; "" if it can.
func Refusal(m topology.Model, s platform.Settings) string {
	switch {
	case m == topology.Shared && len(s.Rules) > 0:
		return "S-10: a shared database has no firewall rules"
	case m == topology.Dedicated && s.InternetAccessibility == platform.On:
		return "S-10: a dedicated database is opened by firewall rules only"
	case s.InternetAccessibility == platform.On && s.ForceTLS != platform.On:
		return "S-09: Internet accessibility requires Force TLS"
	case len(s.Rules) > MaxRules:
		return fmt.Sprintf("D-12: %d rules, at most %d are allowed", len(s.Rules), MaxRules)
	}
	return ""
}

// Warned reports whether the owner of such settings must be warned (SPEC D-11): a rule lets in a whole address family.
func Warned(s platform.Settings) bool {
	return slices.ContainsFunc(s.Rules, func(r platform.Rule) bool { return r.Managed == "" && r.CIDR.IsValid() && r.CIDR.Bits() == 0 })
}

// ForcesTLS reports whether Force TLS is in effect for the clients of a database, its model's default included (S-05, D-04).
func ForcesTLS(m topology.Model, s platform.Settings) bool {
	if m == topology.Shared {
		return s.ForceTLS == platform.On
	}
	return s.ForceTLS != platform.Off
}
