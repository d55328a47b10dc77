package suite

import (
	"net/netip"
	"slices"

	"drawbridge/features/oracle"
	"drawbridge/features/platform"
	"drawbridge/topology"
)

// plan is everything that the lattice puts together: which rules there are, what each database can be set to, and who tries to
// connect to what.
type plan struct {
	world     *topology.World
	databases []topology.Database // without the canaries, which nobody may change
	cells     []oracle.Connection // of every database, canaries included
}

func newPlan(w *topology.World) *plan {
	p := &plan{world: w}
	for _, d := range w.Databases() {
		if !d.Canary {
			p.databases = append(p.databases, d)
		}
	}
	p.cells = p.everyCell()
	return p
}

// Sizes of the rules' networks, relative to the first Internet host's own.
const (
	rangeBits = 2   // the range is the second quarter of its network: there is a neighbour at both ends
	range6    = 124 // length of the IPv6 range
)

// rules are those that the product is made of, besides none: a single address, a range, everybody, the managed ranges of the
// own region and of another, an IPv6 range; and where there is a peering, a part of the peer's network.
func (p *plan) rules(d topology.Database) []platform.Rule {
	var all []platform.Rule
	for _, n := range p.customRanges() {
		all = append(all, platform.Rule{CIDR: n})
	}
	for _, r := range p.world.Regions() {
		all = append(all, platform.Managed(r.Name))
	}
	if d.Peering == nil {
		return all
	}
	for _, v := range p.world.Vantages() {
		if name, ok := stands(p.world, v); ok && v.Kind == topology.VantagePeer && name == d.Gateway {
			half := netip.PrefixFrom(v.Addresses[0], v.Addresses[0].BitLen()-4).Masked() // one of the peer's hosts, not the other
			return append(all, platform.Rule{CIDR: half})
		}
	}
	return all
}

// customRanges are the networks of the custom rules: one address, a range, all of IPv4, and a range of IPv6.
func (p *plan) customRanges() []netip.Prefix {
	any4 := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	all := []netip.Prefix{any4}
	for _, n := range p.world.Internet()[0].Networks {
		if !n.Addr().Is4() {
			inside := n.Addr().As16()
			inside[15] |= 1 << (128 - range6)
			all = append(all, netip.PrefixFrom(netip.AddrFrom16(inside), range6))
			continue
		}
		quarter := plus(n.Addr(), 1<<(32-n.Bits()-rangeBits))
		single := plus(n.Addr(), 3<<(32-n.Bits()-rangeBits))
		all = append(all, netip.PrefixFrom(quarter, n.Bits()+rangeBits), netip.PrefixFrom(single, 32))
	}
	return all
}

// plus returns the IPv4 address n after a.
func plus(a netip.Addr, n uint32) netip.Addr {
	b := a.As4()
	sum := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
	sum += n
	return netip.AddrFrom4([4]byte{byte(sum >> 24), byte(sum >> 16), byte(sum >> 8), byte(sum)})
}

// last returns the last address of a network.
func last(n netip.Prefix) netip.Addr {
	b := n.Masked().Addr().AsSlice()
	for bit := n.Bits(); bit < len(b)*8; bit++ {
		b[bit/8] |= 0x80 >> (bit % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// edges are the first and the last address of a network and their neighbours outside.
func edges(n netip.Prefix) []netip.Addr {
	if n.Bits() == 0 {
		return nil // it has no outside, and its first and last are nobody's
	}
	first, last := n.Masked().Addr(), last(n)
	return slices.Compact([]netip.Addr{first.Prev(), first, last, last.Next()})
}

// product lists everything that a database can be set to: Force TLS, Internet accessibility and one rule or none, each
// combination of them. Those that must be refused come apart.
func (p *plan) product(d topology.Database) (legal, refused []platform.Settings) {
	toggles := []platform.Toggle{platform.Untouched, platform.On, platform.Off}
	rules := [][]platform.Rule{nil}
	for _, r := range p.rules(d) {
		rules = append(rules, []platform.Rule{r})
	}
	for _, force := range toggles {
		for _, internet := range toggles {
			for _, r := range rules {
				s := platform.Settings{ForceTLS: force, InternetAccessibility: internet, Rules: r}
				if oracle.Refusal(d.Model, s) != "" {
					refused = append(refused, s)
				} else {
					legal = append(legal, s)
				}
			}
		}
	}
	return legal, refused
}

// everyCell lists all connections that count: from every vantage and from the edges of every rule's network to every endpoint, and
// from every vantage to every way round, each in every way that the port speaks.
func (p *plan) everyCell() []oracle.Connection {
	var all []oracle.Connection
	for _, to := range append(p.world.Endpoints(), p.world.Bypasses()...) {
		seen := map[place]bool{}
		for _, o := range p.origins(to) {
			if _, through := transit(p.world, o.vantage, to); through || seen[o.place(to)] || !o.reaches(p.world, to, true) {
				continue
			}
			seen[o.place(to)] = true
			for _, tls := range []bool{true, false} {
				if speaks(to.TLS, tls) {
					all = append(all, oracle.Connection{From: o.vantage, Source: o.source, To: to, TLS: tls})
				}
			}
		}
	}
	return all
}

// place is where a connection comes from, as far as the network can tell.
type place struct {
	namespace string
	source    netip.Addr
}

func (o origin) place(to topology.Endpoint) place {
	if o.source.IsValid() {
		return place{o.vantage.Namespace, o.source}
	}
	for _, a := range o.vantage.Addresses {
		if a.Is4() == to.Addr.Addr().Is4() {
			return place{o.vantage.Namespace, a}
		}
	}
	return place{namespace: o.vantage.Namespace}
}

// origins are where connections to an endpoint come from. One vantage of every kind is enough for the canaries, which nobody changes:
// every batch of probes with a denial makes them its control.
func (p *plan) origins(to topology.Endpoint) []origin {
	d, _ := p.world.Database(to.Database)
	seen := map[topology.VantageKind]bool{}
	var all []origin
	for _, v := range p.world.Vantages() {
		if d.Canary && seen[v.Kind] {
			continue
		}
		seen[v.Kind] = true
		all = append(all, origin{vantage: v})
		if to.Kind == topology.WayRound || d.Canary {
			continue
		}
		for _, n := range p.customRanges() {
			for _, a := range edges(n) {
				if slices.ContainsFunc(v.Networks, func(own netip.Prefix) bool { return own.Contains(a) }) {
					all = append(all, origin{v, a})
				}
			}
		}
	}
	return all
}

// at are the cells at some points that a statement speaks of, with what must become of each; skipped counts the others.
func (p *plan) at(state *platform.State, points []string) (cells []oracle.Connection, must []oracle.Verdict, skipped int, err error) {
	for _, c := range p.cells {
		if !slices.Contains(points, c.To.Point) {
			continue
		}
		v, err := oracle.Expect(state, c)
		switch {
		case err != nil:
			return nil, nil, 0, wrongFeature("lattice: %v", err)
		case v.Class == oracle.Unspecified:
			skipped++
		default:
			cells, must = append(cells, c), append(must, v)
		}
	}
	return cells, must, skipped, nil
}
