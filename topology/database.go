package topology

import (
	"net/netip"
	"slices"
	"strings"
)

// DefaultPorts returns the ports an engine listens on if a document does not say: the port of Node.Port, and the
// plaintext port of an engine that needs one of its own, otherwise 0. Both are 0 for an unknown engine.
func (e Engine) DefaultPorts() (port, plain uint16) {
	switch e {
	case PostgreSQL:
		return 5432, 0
	case MySQL:
		return 3306, 0
	case Redis:
		return 6380, 6379
	case MongoDB:
		return 27017, 0
	case OpenSearch:
		return 9200, 9201
	case InfluxDB:
		return 8086, 8087
	}
	return 0, 0
}

func (b *builder) addDatabases(list vals[rawDatabase]) {
	b.w.databases = make([]Database, len(list.items))
	for i, item := range list.items {
		raw, d := item.v, &b.w.databases[i]
		*d = Database{Name: raw.name.v, Model: Model(raw.model.v), Engine: Engine(raw.engine.v)}
		b.name(raw.name)
		if d.Engine.Negotiation() == NegotiationUnknown {
			b.add(raw.engine.place, "known: "+engineWords(), "unknown engine %.40q", raw.engine.v)
		}
		if len(raw.nodes.items) == 0 {
			b.add(raw.nodes.place, "", "a database needs at least one node")
		}
		d.Nodes = make([]Node, len(raw.nodes.items))
		for j, n := range raw.nodes.items {
			d.Nodes[j].Name = b.addNodeName(d.Name, j, n)
		}
		switch d.Model {
		case Shared:
			b.addShared(d, raw)
		case Dedicated:
			b.addDedicated(d, item)
		default:
			b.add(raw.model.place, "known: shared, dedicated", "unknown model %.40q", raw.model.v)
		}
		b.addClusterPorts(d, raw)
	}
}

func engineWords() string {
	var words []string
	for _, e := range Engines() {
		words = append(words, string(e))
	}
	return strings.Join(words, ", ")
}

func (b *builder) addNodeName(database string, i int, n val[rawNode]) string {
	name := n.v.name
	if name.set() {
		b.name(name)
		return name.v
	}
	b.qualified(val[string]{n.place, nodeName(database, i)})
	return nodeName(database, i)
}

// absent reports fields that belong to the other architecture model.
func (b *builder) absent(model Model, places ...place) {
	for _, p := range places {
		if p.set() {
			b.add(p, "leave it out", "is not for a %s database", model)
		}
	}
}

// present reports fields that the architecture model needs.
func (b *builder) present(model Model, owner place, name string, p place) bool {
	if !p.set() {
		owner.field += "." + name
		b.add(owner, "", "is missing: a %s database needs it", model)
	}
	return p.set()
}

func (b *builder) addShared(d *Database, raw rawDatabase) {
	b.absent(Shared, raw.gateway.place, raw.addresses.place, raw.port.place, raw.plainPort.place, raw.peering.place)
	for i, item := range raw.nodes.items {
		n := &d.Nodes[i]
		b.absent(Shared, item.v.addresses.place, item.v.machine.place)
		if !b.present(Shared, item.place, "host", item.v.host.place) {
			continue
		}
		at, ok := b.hosts[item.v.host.v]
		if !ok {
			b.add(item.v.host.place, known(b.hosts), "unknown host %s", item.v.host.v)
			continue
		}
		h := b.w.hosts[at]
		if d.Region == "" {
			d.Region = h.Region
		} else if h.Region != d.Region {
			b.add(item.v.host.place, "", "host %s is in region %s, the nodes before it in %s", h.Name, h.Region, d.Region)
		}
		n.Host, n.Addresses, n.Published = h.Name, slices.Clone(h.Addresses), b.published(item.v.published, h)
		b.addNodePorts(d, n, h.Name, item, d.Engine.DefaultPorts)
	}
}

func (b *builder) published(list vals[netip.Addr], h SharedHost) []netip.Addr {
	if !list.set() {
		return slices.Clone(h.Addresses)
	}
	if len(list.items) == 0 {
		b.add(list.place, "leave it out to publish every address of the host", "a node needs at least one published address")
	}
	seen := map[netip.Addr]bool{}
	for _, a := range list.items {
		if !slices.Contains(h.Addresses, a.v) {
			b.add(a.place, "", "%s is not an address of host %s", a.v, h.Name)
		} else if seen[a.v] {
			b.add(a.place, "keep one of the two", "the address %s is given twice", a.v)
		}
		seen[a.v] = true
	}
	return familyOrder(list.values())
}

// addNodePorts claims or plans a node's client ports. owner is what must not have a port twice: the shared host or the
// dedicated node.
func (b *builder) addNodePorts(d *Database, n *Node, owner string, item val[rawNode], defaults func() (uint16, uint16)) {
	port := func() uint16 { p, _ := defaults(); return p }
	plain := func() uint16 { _, p := defaults(); return p }
	b.planPort(owner, item.place, item.v.port, port, &n.Port)
	b.planPlainPort(d.Engine, owner, item.place, item.v.plainPort, plain, &n.PlainPort)
}

func (b *builder) planPlainPort(e Engine, owner string, at place, given val[uint16], start func() uint16, to *uint16) {
	switch {
	case e.Negotiation() == SeparatePorts:
		b.planPort(owner, at, given, start, to)
	case given.set() && e.Negotiation() != NegotiationUnknown:
		b.add(given.place, "leave it out", "%s serves TLS and plaintext on one port", e)
	}
}

func (b *builder) addDedicated(d *Database, item val[rawDatabase]) {
	raw := item.v
	at, ok := b.gateways[raw.gateway.v]
	if b.present(Dedicated, item.place, "gateway", raw.gateway.place) && !ok {
		b.add(raw.gateway.place, known(b.gateways), "unknown gateway %s", raw.gateway.v)
	}
	if b.present(Dedicated, item.place, "addresses", raw.addresses.place) {
		b.families(raw.addresses.place, families(raw.addresses), bounds{1, 1}, bounds{0, 1})
		b.routed(raw.addresses)
	}
	d.Gateway, d.Addresses = raw.gateway.v, familyOrder(raw.addresses.values())
	endpoint := "the endpoint of " + d.Name
	b.planPort(endpoint, item.place, raw.port, func() uint16 { p, _ := d.Engine.DefaultPorts(); return p }, &d.Port)
	b.planPlainPort(d.Engine, endpoint, item.place, raw.plainPort,
		func() uint16 { _, p := d.Engine.DefaultPorts(); return p }, &d.PlainPort)
	var vpc []netip.Prefix
	if ok {
		d.Region, vpc = b.w.gateways[at].Region, b.w.gateways[at].Networks
	}
	for i, node := range raw.nodes.items {
		b.addDedicatedNode(d, &d.Nodes[i], node, vpc)
	}
	if raw.peering.set() {
		b.addPeering(d, raw.peering)
	}
}

func (b *builder) addDedicatedNode(d *Database, n *Node, item val[rawNode], vpc []netip.Prefix) {
	b.absent(Dedicated, item.v.host.place, item.v.published.place)
	if item.v.addresses.set() {
		b.families(item.v.addresses.place, families(item.v.addresses), bounds{0, 1}, bounds{0, 1})
		if vpc != nil {
			b.within(item.v.addresses, vpc)
		}
	}
	b.addMachine(d, n, item.v.machine)
	n.Addresses = item.v.addresses.values()
	b.plans = append(b.plans, func() { n.Addresses = b.fill(item.place, n.Addresses, vpc) })
	b.addNodePorts(d, n, n.Name, item, func() (uint16, uint16) { return d.Port, d.PlainPort })
}

// addMachine puts a node on a machine with others. What the nodes of one database say to each other must pass the gateway, and so
// must they stand apart.
func (b *builder) addMachine(d *Database, n *Node, machine val[string]) {
	if !machine.set() {
		return
	}
	switch gateway, known := b.machines[machine.v]; {
	case !known:
		b.name(machine)
		b.machines[machine.v] = d.Gateway
	case gateway != d.Gateway:
		b.add(machine.place, "name another one", "the machine %s is behind gateway %s", machine.v, gateway)
	case slices.ContainsFunc(d.Nodes, func(other Node) bool { return other.Machine == machine.v }):
		b.add(machine.place, "name another one", "another node of %s is on the machine %s", d.Name, machine.v)
	}
	n.Machine = machine.v
}

func (b *builder) addPeering(d *Database, raw val[rawPeering]) {
	network, addresses := raw.v.network, raw.v.addresses
	b.families(addresses.place, families(addresses), bounds{1, 1}, bounds{0, 1})
	b.routed(addresses)
	d.Peering = &Peering{Network: network.v, Address: familyOrder(addresses.values())}
	at, ok := b.peers[network.v]
	if !ok {
		b.add(network.place, known(b.peers), "unknown peer network %s", network.v)
		return
	}
	for _, a := range addresses.items {
		sameFamily := func(p netip.Prefix) bool { return FamilyOf(p.Addr()) == FamilyOf(a.v) }
		if !slices.ContainsFunc(b.w.peers[at].Networks, sameFamily) {
			b.add(a.place, "", "peer network %s has no network of family %s", network.v, FamilyOf(a.v))
		}
	}
	// One interface of a gateway leads to a peer network, and a peer network has one uplink.
	for _, end := range []string{network.v, d.Gateway} {
		if first := b.peered[end]; first.set() {
			b.add(raw.place, "", "%s is peered already by %s", end, first)
		} else {
			b.peered[end] = raw.place
		}
	}
}

// addClusterPorts checks the ports between the nodes: those that clients use too must be client ports of a node, the
// others must be free on each.
func (b *builder) addClusterPorts(d *Database, raw rawDatabase) {
	list := raw.clusterPorts
	if len(d.Nodes) < 2 {
		if len(list.items) > 0 {
			b.add(list.place, "leave them out", "a single node has no cluster ports")
		}
		return
	}
	if len(list.items) == 0 {
		at := firstSet(list.place, raw.nodes.place)
		b.add(at, "give cluster_ports", "the nodes have no port to reach each other")
	}
	seen := map[uint16]bool{}
	for _, item := range list.items {
		port := ClusterPort{Port: item.v.port.v, Shared: item.v.shared.v}
		d.ClusterPorts = append(d.ClusterPorts, port)
		switch {
		case seen[port.Port]:
			b.add(item.v.port.place, "keep one of the two", "cluster port %d is given twice", port.Port)
		case port.Shared:
			b.plans = append(b.plans, func() { b.checkSharedPort(d, item.v.port) })
		default:
			for _, n := range d.Nodes {
				b.port(n.Listener(), item.v.port)
			}
		}
		seen[port.Port] = true
	}
}

func firstSet(first, second place) place {
	if first.set() {
		return first
	}
	return second
}

// checkSharedPort runs once the nodes' own ports are planned.
func (b *builder) checkSharedPort(d *Database, port val[uint16]) {
	if !slices.ContainsFunc(d.Nodes, func(n Node) bool { return n.Port == port.v }) {
		b.add(port.place, "a shared cluster port is some node's client port, and speaks TLS",
			"no node of %s serves clients on port %d", d.Name, port.v)
	}
}
