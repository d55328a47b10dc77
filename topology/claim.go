package topology

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// claims is what a world may contain only once, each with the place that took it first.
type claims struct {
	*problems
	names     map[string]place
	addresses map[netip.Addr]place
	ports     map[string]map[uint16]place // by the name of the node or host that listens
	networks  []val[netip.Prefix]
	// fabric are the Internet-routable and peering addresses: each is routed by itself and lies outside every network.
	fabric []val[netip.Addr]
	next   map[netip.Prefix]netip.Addr // where to look for the next free address
	ported map[portSearch]int          // where to look for the next free port
}

// portSearch is where a free port is looked for: from a port upwards.
type portSearch struct {
	owner string
	start uint16
}

func newClaims(p *problems) *claims {
	return &claims{
		problems: p, names: map[string]place{}, addresses: map[netip.Addr]place{},
		ports: map[string]map[uint16]place{}, next: map[netip.Prefix]netip.Addr{}, ported: map[portSearch]int{},
	}
}

// Names that the fabric gives to nodes of its own: the core router, the regions' edge routers, the canaries.
const (
	CoreName     = "internet"
	edgePrefix   = "edge-"
	canaryPrefix = "canary-"
)

// CanaryName returns the name of the canary database of an enforcement point.
func CanaryName(point string) string { return canaryPrefix + point }

func (c *claims) name(n val[string]) {
	if n.v == CoreName || strings.HasPrefix(n.v, edgePrefix) || strings.HasPrefix(n.v, canaryPrefix) {
		c.add(n.place, fmt.Sprintf("%s, %s… and %s… are the fabric's own", CoreName, edgePrefix, canaryPrefix),
			"the name %s is reserved", n.v)
		return
	}
	c.qualified(n)
}

// qualified claims a name that cannot be mistaken for one of the fabric's.
func (c *claims) qualified(n val[string]) {
	if first, taken := c.names[n.v]; taken {
		c.add(n.place, "nodes and networks of every kind share one name space", "the name %s is taken by %s", n.v, first)
		return
	}
	c.names[n.v] = n.place
}

func (c *claims) address(a val[netip.Addr]) {
	if first, taken := c.addresses[a.v]; taken {
		c.add(a.place, "", "the address %s is taken by %s", a.v, first)
		return
	}
	c.addresses[a.v] = a.place
}

// routed claims addresses that lie outside every network.
func (c *claims) routed(list vals[netip.Addr]) {
	for _, a := range list.items {
		c.address(a)
	}
	c.fabric = append(c.fabric, list.items...)
}

// within claims addresses for hosts of routed networks.
func (c *claims) within(list vals[netip.Addr], networks []netip.Prefix) {
	for _, a := range list.items {
		if !c.inside(a, networks) {
			continue
		}
		if !slices.ContainsFunc(networks, func(p netip.Prefix) bool { return usable(p, a.v) }) {
			c.add(a.place, "the network's own, its first and its IPv4 broadcast address are not for hosts",
				"%s is not a host's address", a.v)
			continue
		}
		c.address(a)
	}
}

func (c *claims) inside(a val[netip.Addr], networks []netip.Prefix) bool {
	if slices.ContainsFunc(networks, func(p netip.Prefix) bool { return p.Contains(a.v) }) {
		return true
	}
	c.add(a.place, "", "the address %s is outside %s", a.v, joined(networks))
	return false
}

func (c *claims) network(list vals[netip.Prefix]) { c.networks = append(c.networks, list.items...) }

func (c *claims) port(owner string, p val[uint16]) {
	if first, taken := c.ports[owner][p.v]; taken {
		c.add(p.place, "", "port %d of %s is taken by %s", p.v, owner, first)
		return
	}
	if c.ports[owner] == nil {
		c.ports[owner] = map[uint16]place{}
	}
	c.ports[owner][p.v] = p.place
}

// freePort claims the lowest free port from start upwards.
func (c *claims) freePort(owner string, start uint16, at place) uint16 {
	search := portSearch{owner, start}
	for p := max(int(start), c.ported[search]); p <= 65535; p++ {
		if _, taken := c.ports[owner][uint16(p)]; !taken {
			c.ported[search] = p + 1 // nothing that is claimed is given back
			c.port(owner, val[uint16]{at, uint16(p)})
			return uint16(p)
		}
	}
	c.add(at, "give the port", "no port from %d upwards is free on %s", start, owner)
	return 0
}

// fill adds the lowest free address of each network whose family is not there yet, IPv4 first.
func (c *claims) fill(at place, have []netip.Addr, networks []netip.Prefix) []netip.Addr {
	for _, p := range networks {
		if len(OfFamily(have, FamilyOf(p.Addr()))) > 0 {
			continue
		}
		a, ok := c.freeAddress(p)
		if !ok {
			c.add(at, "use a larger network", "no free address is left in %s", p)
			continue
		}
		c.address(val[netip.Addr]{at, a})
		have = append(have, a)
	}
	return familyOrder(have)
}

func (c *claims) freeAddress(p netip.Prefix) (netip.Addr, bool) {
	a, ok := c.next[p]
	if !ok {
		a = firstHost(p).Next()
	}
	for ; p.Contains(a); a = a.Next() {
		if _, taken := c.addresses[a]; !taken && usable(p, a) {
			c.next[p] = a.Next()
			return a, true
		}
	}
	c.next[p] = a
	return netip.Addr{}, false
}

// disjoint reports networks that overlap, at the later of the two in the document, and fabric addresses inside a network.
func (c *claims) disjoint() {
	nets := slices.Clone(c.networks)
	slices.SortFunc(nets, func(a, b val[netip.Prefix]) int {
		return cmp.Or(a.v.Addr().Compare(b.v.Addr()), cmp.Compare(a.v.Bits(), b.v.Bits()), before(a.place, b.place))
	})
	// Networks nest or are disjoint, so in this order an overlap is always with the last outermost one.
	var outer []val[netip.Prefix]
	for _, n := range nets {
		if last := len(outer) - 1; last >= 0 && outer[last].v.Overlaps(n.v) {
			earlier, later := outer[last], n
			if before(later.place, earlier.place) < 0 {
				earlier, later = later, earlier
			}
			c.add(later.place, "", "the network %s overlaps %s of %s", later.v, earlier.v, earlier.place)
			continue
		}
		outer = append(outer, n)
	}
	for _, a := range c.fabric {
		i, exact := slices.BinarySearchFunc(outer, a.v, func(p val[netip.Prefix], a netip.Addr) int { return p.v.Addr().Compare(a) })
		if !exact {
			i--
		}
		if i >= 0 && outer[i].v.Contains(a.v) {
			c.add(a.place, "routed addresses lie outside every network",
				"the address %s is inside %s of %s", a.v, outer[i].v, outer[i].place)
		}
	}
}

func before(a, b place) int {
	return cmp.Or(cmp.Compare(a.line, b.line), cmp.Compare(a.column, b.column))
}

func familyOrder(addrs []netip.Addr) []netip.Addr {
	slices.SortStableFunc(addrs, func(a, b netip.Addr) int { return cmp.Compare(a.BitLen(), b.BitLen()) })
	return addrs
}

func joined(networks []netip.Prefix) string {
	var words []string
	for _, p := range networks {
		words = append(words, p.String())
	}
	return strings.Join(words, ", ")
}

// known lists up to ten names for a hint.
func known[T any](m map[string]T) string {
	names := slices.Sorted(maps.Keys(m))
	switch {
	case len(names) == 0:
		return "there is none in this world"
	case len(names) > 10:
		return "known: " + strings.Join(names[:10], ", ") + ", …"
	}
	return "known: " + strings.Join(names, ", ")
}
