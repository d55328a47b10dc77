package driver

import (
	"fmt"
	"slices"

	"drawbridge/features/platform"
	"drawbridge/topology"
)

// Build returns the policy of one enforcement point for a platform's state. It does not judge the settings: a document
// that must be refused is built like any other.
func Build(p *platform.State, point string) (Document, error) {
	w := p.World()
	pt, ok := w.Point(point)
	if !ok {
		return Document{}, fmt.Errorf("no enforcement point %q in world %s", point, w.Name())
	}
	region, ok := w.Region(pt.Region)
	if !ok {
		return Document{}, fmt.Errorf("point %s: no region %q in world %s", point, pt.Region, w.Name())
	}
	doc := Document{
		Version:       Version,
		Point:         Point{pt.Name, string(pt.Model)},
		Region:        Region{region.Name, region.Networks},
		ManagedRanges: p.ManagedRanges(),
	}
	for _, i := range pt.Interfaces {
		doc.Interfaces = append(doc.Interfaces, Interface{i.Name, string(i.Zone)})
	}
	for _, name := range pt.Databases {
		d, ok := w.Database(name)
		if !ok {
			return Document{}, fmt.Errorf("point %s: no database %q in world %s", point, name, w.Name())
		}
		db, err := database(p, pt, d)
		if err != nil {
			return Document{}, err
		}
		doc.Databases = append(doc.Databases, db)
	}
	return doc, nil
}

func database(p *platform.State, pt topology.Point, d topology.Database) (Database, error) {
	set := p.Of(d.Name)
	db := Database{
		Name: d.Name, Model: string(d.Model), Engine: string(d.Engine),
		ForceTLS: toggle(set.ForceTLS), InternetAccessibility: toggle(set.InternetAccessibility),
		UnknownConnections: string(set.Unknown),
	}
	for _, e := range d.Endpoints() {
		if e.Point != pt.Name {
			continue
		}
		published, err := endpoint(p, d, e)
		if err != nil {
			return Database{}, err
		}
		db.Endpoints = append(db.Endpoints, published)
	}
	for _, n := range d.Nodes {
		db.Nodes = append(db.Nodes, Node{n.Name, n.Host == "" || n.Host == pt.Name, n.Addresses, ports(d, n)})
	}
	for _, c := range d.ClusterPorts {
		db.ClusterPorts = append(db.ClusterPorts, ClusterPort(c))
	}
	for i, r := range set.Rules {
		db.FirewallRules = append(db.FirewallRules, rule(i, r))
	}
	return db, nil
}

func toggle(t platform.Toggle) *bool {
	if t == platform.Untouched {
		return nil
	}
	on := t == platform.On
	return &on
}

func rule(i int, r platform.Rule) Rule {
	if r.Managed != "" {
		return Rule{Type: ManagedRange, Name: r.Managed}
	}
	cidr := r.CIDR
	return Rule{Type: CustomRange, CIDR: &cidr, Label: fmt.Sprintf("rule %d", i+1)}
}

func endpoint(p *platform.State, d topology.Database, e topology.Endpoint) (Endpoint, error) {
	out := Endpoint{
		Kind: string(e.Kind), Address: e.Addr.Addr(), Port: e.Addr.Port(), Family: string(topology.FamilyOf(e.Addr.Addr())), TLS: string(e.TLS),
	}
	if d.Model != topology.Dedicated {
		return out, nil
	}
	i := slices.IndexFunc(d.Nodes, func(n topology.Node) bool { return n.Name == p.Primary(d.Name) })
	if i < 0 {
		return Endpoint{}, fmt.Errorf("database %s: its primary %q is not one of its nodes", d.Name, p.Primary(d.Name))
	}
	target := Target{Port: d.Nodes[i].Port}
	if e.TLS == topology.TLSNone {
		target.Port = d.Nodes[i].PlainPort
	}
	for _, a := range d.Nodes[i].Addresses {
		if a.Is4() == out.Address.Is4() {
			target.Address = a
		}
	}
	if !target.Address.IsValid() {
		return Endpoint{}, fmt.Errorf("database %s: node %s has no address of the family of %s", d.Name, d.Nodes[i].Name, out.Address)
	}
	out.DNAT = &target
	return out, nil
}

// ports lists everything a node listens on, client ports first.
func ports(d topology.Database, n topology.Node) []Port {
	var out []Port
	for _, l := range d.Listeners(n) {
		out = append(out, Port{l.Port, string(l.TLS)})
	}
	return out
}
