package topology

import (
	"fmt"
	"net/netip"
	"slices"
)

// builder turns a well-formed document into a World. Every explicit value is claimed first; what is planned takes what
// is left over, in document order, so that the same document always gives the same world.
type builder struct {
	*claims
	w                               World
	regions, peers, hosts, gateways map[string]int
	peered                          map[string]place  // by name of the peer network or of the gateway
	machines                        map[string]string // gateway by machine
	plans                           []func()
}

// build returns nil if it found anything wrong; what that is is then in p.
func build(p *problems, d document) *World {
	b := &builder{claims: newClaims(p), w: World{name: d.name.v}, peered: map[string]place{}, machines: map[string]string{}}
	b.addRegions(d.regions)
	b.addInternet(d.internet)
	b.addPeers(d.peers)
	b.addHosts(d.hosts)
	b.addGateways(d.gateways)
	b.addDatabases(d.databases)
	b.unpeered(d.peers)
	b.disjoint()
	if len(p.list) > 0 {
		return nil
	}
	for _, plan := range b.plans {
		plan()
	}
	b.addCanaries(d.gateways)
	if len(p.list) > 0 {
		return nil
	}
	b.w.byName = make(map[string]int, len(b.w.databases))
	for i, d := range b.w.databases {
		b.w.byName[d.Name] = i
	}
	return &b.w
}

// bounds is how many of one family there may be, both inclusive.
type bounds struct{ least, most int }

const unbounded = 1 << 20 // more than a document of MaxDocument bytes can hold

// families checks how many of each family a list holds.
func (b *builder) families(at place, list []Family, v4, v6 bounds) {
	for _, want := range []struct {
		family Family
		bounds
	}{{IPv4, v4}, {IPv6, v6}} {
		n := 0
		for _, f := range list {
			if f == want.family {
				n++
			}
		}
		if n < want.least {
			b.add(at, "", "holds %d of family %s, at least %d needed", n, want.family, want.least)
		} else if n > want.most {
			b.add(at, "", "holds %d of family %s, at most %d allowed", n, want.family, want.most)
		}
	}
}

func families(addrs vals[netip.Addr]) []Family {
	var out []Family
	for _, a := range addrs.items {
		out = append(out, FamilyOf(a.v))
	}
	return out
}

func networkFamilies(networks vals[netip.Prefix]) []Family {
	var out []Family
	for _, p := range networks.items {
		out = append(out, FamilyOf(p.v.Addr()))
	}
	return out
}

func (b *builder) addRegions(list vals[rawRegion]) {
	b.regions, b.w.regions = map[string]int{}, make([]Region, len(list.items))
	if len(list.items) == 0 {
		b.add(list.place, "", "a world needs at least one region")
	}
	for i, item := range list.items {
		raw, r := item.v, &b.w.regions[i]
		b.regions[raw.name.v] = i
		b.name(raw.name)
		b.families(raw.networks.place, networkFamilies(raw.networks), bounds{1, 1}, bounds{1, 1})
		b.network(raw.networks)
		b.families(raw.egress.place, families(raw.egress), bounds{2, unbounded}, bounds{1, unbounded})
		b.routed(raw.egress)
		b.routed(raw.spare)
		if len(raw.apps.items) == 0 {
			b.add(raw.apps.place, "", "a region needs at least one app")
		}
		*r = Region{Name: raw.name.v, Networks: raw.networks.values(), Egress: raw.egress.values(), Spare: raw.spare.values()}
		r.Apps = b.addApps(raw.name.v, raw.apps, r.Networks)
	}
}

// addApps adds apps or peer hosts to a network.
func (b *builder) addApps(owner string, list vals[rawApp], networks []netip.Prefix) []App {
	apps := make([]App, len(list.items))
	for i, item := range list.items {
		raw, app := item.v, &apps[i]
		b.qualified(val[string]{raw.name.place, owner + "/" + raw.name.v})
		if raw.addresses.set() {
			b.families(raw.addresses.place, families(raw.addresses), bounds{0, 1}, bounds{0, 1})
			b.within(raw.addresses, networks)
		}
		*app = App{Name: raw.name.v, Addresses: raw.addresses.values()}
		b.plans = append(b.plans, func() { app.Addresses = b.fill(item.place, app.Addresses, networks) })
	}
	return apps
}

func (b *builder) addInternet(list vals[rawInternetHost]) {
	b.w.internet = make([]InternetHost, len(list.items))
	if len(list.items) == 0 {
		b.add(list.place, "", "a world needs at least one Internet host")
	}
	for i, item := range list.items {
		raw, h := item.v, &b.w.internet[i]
		b.name(raw.name)
		b.families(raw.networks.place, networkFamilies(raw.networks), bounds{1, unbounded}, bounds{1, unbounded})
		b.network(raw.networks)
		*h = InternetHost{Name: raw.name.v, Networks: raw.networks.values(), Addresses: raw.addresses.values()}
		if raw.addresses.set() {
			b.families(raw.addresses.place, families(raw.addresses), bounds{0, 1}, bounds{0, 1})
		}
		for _, a := range raw.addresses.items {
			if b.inside(a, h.Networks) {
				b.address(a)
			}
		}
		h.Addresses = primaries(h.Addresses, h.Networks)
	}
}

// primaries adds, for each family without an address, the first host address of the family's first network. They need no
// claim: the whole network is the host's.
func primaries(have []netip.Addr, networks []netip.Prefix) []netip.Addr {
	for _, p := range networks {
		if len(OfFamily(have, FamilyOf(p.Addr()))) == 0 {
			have = append(have, firstHost(p))
		}
	}
	return familyOrder(have)
}

func (b *builder) addPeers(list vals[rawPeer]) {
	b.peers, b.w.peers = map[string]int{}, make([]PeerNetwork, len(list.items))
	for i, item := range list.items {
		raw := item.v
		b.peers[raw.name.v] = i
		b.name(raw.name)
		b.families(raw.networks.place, networkFamilies(raw.networks), bounds{1, 1}, bounds{0, 1})
		b.network(raw.networks)
		if n := len(raw.hosts.items); n < 2 {
			b.add(raw.hosts.place, "two hosts can be told apart by a rule", "a peer network needs at least 2 hosts, not %d", n)
		}
		p := PeerNetwork{Name: raw.name.v, Networks: raw.networks.values()}
		p.Hosts = b.addApps(raw.name.v, raw.hosts, p.Networks)
		b.w.peers[i] = p
	}
}

// unpeered reports peer networks that nothing leads to.
func (b *builder) unpeered(list vals[rawPeer]) {
	for _, item := range list.items {
		if !b.peered[item.v.name.v].set() {
			b.add(item.place, "name it in a database's peering, or leave it out", "no database is peered with %s", item.v.name.v)
		}
	}
}

func (b *builder) knownRegion(name val[string]) {
	if _, ok := b.regions[name.v]; !ok {
		b.add(name.place, known(b.regions), "unknown region %s", name.v)
	}
}

// defaultCanaryPort is where a shared host's canary listens if the document does not say: apart from every engine's
// own port.
const defaultCanaryPort = 15432

func (b *builder) addHosts(list vals[rawHost]) {
	b.hosts, b.w.hosts = map[string]int{}, make([]SharedHost, len(list.items))
	for i, item := range list.items {
		raw, h := item.v, &b.w.hosts[i]
		b.hosts[raw.name.v] = i
		b.name(raw.name)
		b.knownRegion(raw.region)
		b.families(raw.addresses.place, families(raw.addresses), bounds{1, 1}, bounds{1, 1})
		b.routed(raw.addresses)
		*h = SharedHost{Name: raw.name.v, Region: raw.region.v, Addresses: familyOrder(raw.addresses.values())}
		b.planPort(h.Name, item.place, raw.canaryPort, func() uint16 { return defaultCanaryPort }, &h.CanaryPort)
	}
}

// planPort claims a given port now, or a free one near start later.
func (b *builder) planPort(owner string, at place, given val[uint16], start func() uint16, to *uint16) {
	if given.set() {
		b.port(owner, given)
		*to = given.v
		return
	}
	b.plans = append(b.plans, func() { *to = b.freePort(owner, start(), at) })
}

func (b *builder) addGateways(list vals[rawGateway]) {
	b.gateways, b.w.gateways = map[string]int{}, make([]Gateway, len(list.items))
	for i, item := range list.items {
		raw := item.v
		b.gateways[raw.name.v] = i
		b.name(raw.name)
		b.knownRegion(raw.region)
		b.families(raw.networks.place, networkFamilies(raw.networks), bounds{1, 1}, bounds{1, 1})
		b.network(raw.networks)
		b.families(raw.canary.place, families(raw.canary), bounds{1, 1}, bounds{1, 1})
		b.routed(raw.canary)
		b.w.gateways[i] = Gateway{
			Name: raw.name.v, Region: raw.region.v,
			Networks: raw.networks.values(), Canary: familyOrder(raw.canary.values()),
		}
	}
}

// addCanaries adds the canary of every enforcement point. Called last: it takes what addresses are left.
func (b *builder) addCanaries(gateways vals[rawGateway]) {
	for _, h := range b.w.hosts {
		b.w.databases = append(b.w.databases, Database{
			Name: CanaryName(h.Name), Model: Shared, Engine: PostgreSQL, Region: h.Region, Canary: true,
			Nodes: []Node{{
				Name: nodeName(CanaryName(h.Name), 0), Host: h.Name, Port: h.CanaryPort,
				Addresses: slices.Clone(h.Addresses), Published: slices.Clone(h.Addresses),
			}},
		})
	}
	for i, g := range b.w.gateways {
		port, _ := PostgreSQL.DefaultPorts()
		b.w.databases = append(b.w.databases, Database{
			Name: CanaryName(g.Name), Model: Dedicated, Engine: PostgreSQL, Region: g.Region, Canary: true,
			Gateway: g.Name, Addresses: slices.Clone(g.Canary), Port: port,
			Nodes: []Node{{
				Name: nodeName(CanaryName(g.Name), 0), Port: port,
				Addresses: b.fill(gateways.items[i].place, nil, g.Networks),
			}},
		})
	}
}

func nodeName(database string, i int) string { return fmt.Sprintf("%s-%d", database, i+1) }
