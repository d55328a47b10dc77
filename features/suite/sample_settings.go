package suite

import (
	"fmt"
	"math/bits"
	"math/rand/v2"
	"net/netip"
	"slices"

	"drawbridge/features/oracle"
	"drawbridge/features/platform"
	"drawbridge/topology"
)

// owners decide at random, as users of many databases would: most rules are of nobody in this world, some are of those who try to connect.
type owners struct {
	*rand.Rand
	rules   int // of each dedicated database
	clients []netip.Addr
	regions []string
}

// newOwners returns owners whose decisions follow from a seed.
func newOwners(w *topology.World, p *population, seed uint64, rules int) *owners {
	o := &owners{Rand: rand.New(rand.NewPCG(seed, 1)), rules: rules}
	for _, from := range p.origins {
		switch {
		case from.source.IsValid():
			o.clients = append(o.clients, from.source)
		default: // of apps: rules with their own addresses let nobody in, as they arrive from the egress addresses
			o.clients = append(o.clients, from.vantage.Addresses...)
		}
	}
	for _, r := range w.Regions() {
		o.clients, o.regions = append(o.clients, r.Egress...), append(o.regions, r.Name)
	}
	return o
}

// mostTouching is how many of a database's rules at most are about clients of this world. With it, a good part of the connections must be
// served and a good part denied.
const mostTouching = 16

// decide returns settings for a database of a model.
func (o *owners) decide(m topology.Model) platform.Settings {
	if m == topology.Shared {
		all := sharedSettings()
		return all[o.IntN(len(all))]
	}
	s := platform.Settings{ForceTLS: o.toggle()}
	touching := min(o.IntN(mostTouching+1), o.rules)
	for len(s.Rules) < o.rules {
		r := o.elsewhere()
		if len(s.Rules) < touching {
			r = o.touching()
		}
		if !slices.Contains(s.Rules, r) {
			s.Rules = append(s.Rules, r)
		}
	}
	o.Shuffle(len(s.Rules), func(i, j int) { s.Rules[i], s.Rules[j] = s.Rules[j], s.Rules[i] })
	return s
}

func (o *owners) toggle() platform.Toggle {
	return []platform.Toggle{platform.Untouched, platform.On, platform.Off}[o.IntN(3)]
}

// sharedSettings are all that a shared database may have.
func sharedSettings() []platform.Settings {
	var all []platform.Settings
	toggles := []platform.Toggle{platform.Untouched, platform.On, platform.Off}
	for _, force := range toggles {
		for _, internet := range toggles {
			s := platform.Settings{ForceTLS: force, InternetAccessibility: internet}
			if oracle.Refusal(topology.Shared, s) == "" {
				all = append(all, s)
			}
		}
	}
	return all
}

// Lengths of random networks, by family: from the one to the other, both inclusive.
var (
	lengths4 = [2]int{20, 32}
	lengths6 = [2]int{48, 128}
)

func (o *owners) length(a netip.Addr) int {
	l := lengths6
	if a.Is4() {
		l = lengths4
	}
	return l[0] + o.IntN(l[1]-l[0]+1)
}

// touching is a rule about somebody who tries to connect: his address, a network around it, one that begins or ends with it, the network
// beside one around it, or a managed range.
func (o *owners) touching() platform.Rule {
	a := o.clients[o.IntN(len(o.clients))]
	switch o.IntN(5) {
	case 0:
		return platform.Managed(o.regions[o.IntN(len(o.regions))])
	case 1:
		return platform.Rule{CIDR: netip.PrefixFrom(a, a.BitLen())}
	case 2:
		return platform.Rule{CIDR: netip.PrefixFrom(a, o.length(a)).Masked()}
	case 3:
		return platform.Rule{CIDR: netip.PrefixFrom(a, a.BitLen()-1-o.IntN(atEdge(a))).Masked()}
	}
	return platform.Rule{CIDR: beside(netip.PrefixFrom(a, o.length(a)).Masked())}
}

// atEdge is how many networks of several addresses begin or end with an address: as many as it has equal bits at its end, but no more than
// in the last byte.
func atEdge(a netip.Addr) int {
	b := a.AsSlice()
	final := b[len(b)-1]
	return max(min(bits.TrailingZeros8(final), 7), min(bits.TrailingZeros8(^final), 7))
}

// beside is the network of the same length with which a network makes up the next greater one.
func beside(n netip.Prefix) netip.Prefix {
	b := n.Addr().AsSlice()
	b[(n.Bits()-1)/8] ^= 0x80 >> ((n.Bits() - 1) % 8)
	a, _ := netip.AddrFromSlice(b) // of the length of an address
	return netip.PrefixFrom(a, n.Bits())
}

// elsewhere is a network of ordinary addresses anywhere.
func (o *owners) elsewhere() platform.Rule {
	b := make([]byte, 4)
	if o.IntN(4) == 0 {
		b = make([]byte, 16)
	}
	for i := range b {
		b[i] = byte(o.Uint32())
	}
	b[0] = 1 + b[0]%126 // neither 0 nor 127, and no multicast
	if len(b) == 16 {
		b[0] = 0x20 | b[0]&0x0f // global unicast (RFC 4291 section 2.4)
	}
	a, _ := netip.AddrFromSlice(b) // of the length of an address
	return platform.Rule{CIDR: netip.PrefixFrom(a, o.length(a)).Masked()}
}

// change decides one thing anew: a rule of a dedicated database, or at times its Force TLS; one of the toggles of a shared one. It
// also says in words what.
func (o *owners) change(m topology.Model, was platform.Settings) (platform.Settings, string) {
	s := was.Clone()
	switch at := o.IntN(max(len(s.Rules), 1)); {
	case m == topology.Shared:
		others := slices.DeleteFunc(sharedSettings(), func(s platform.Settings) bool { return s.Equal(was) || !oneToggle(s, was) })
		s = others[o.IntN(len(others))]
		return s, fmt.Sprintf("Force TLS %s, Internet accessibility %s", s.ForceTLS, s.InternetAccessibility)
	case o.IntN(8) == 0:
		for s.ForceTLS == was.ForceTLS {
			s.ForceTLS = o.toggle()
		}
		return s, fmt.Sprintf("Force TLS %s", s.ForceTLS)
	case len(s.Rules) == 0 || len(s.Rules) < oracle.MaxRules && o.IntN(3) == 0:
		r := o.fresh(s.Rules)
		s.Rules = append(s.Rules, r)
		return s, fmt.Sprintf("rule %s added", r)
	case o.IntN(2) == 0:
		r := s.Rules[at]
		s.Rules = slices.Delete(s.Rules, at, at+1)
		return s, fmt.Sprintf("rule %s removed", r)
	default:
		r := o.fresh(s.Rules)
		old := s.Rules[at]
		s.Rules[at] = r
		return s, fmt.Sprintf("rule %s in the place of %s", r, old)
	}
}

func oneToggle(a, b platform.Settings) bool {
	return a.ForceTLS == b.ForceTLS || a.InternetAccessibility == b.InternetAccessibility
}

// fresh is a rule about somebody that is not there yet.
func (o *owners) fresh(rules []platform.Rule) platform.Rule {
	for {
		if r := o.touching(); !slices.Contains(rules, r) {
			return r
		}
	}
}
