package platform

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"drawbridge/topology"
)

// State is the platform at one moment. Make one with Start. It is not safe for concurrent use; Clone one for that.
type State struct {
	world    *topology.World
	settings map[string]Settings
	primary  map[string]string
	// moved maps an egress address to the spare one that took its place in the fabric.
	moved map[netip.Addr]netip.Addr
	// published are the egress addresses that a region's managed range stands for in policies; it lags behind the
	// fabric until Publish.
	published map[string][]netip.Addr
}

// Start returns a world's state before anybody decided anything: every setting untouched, the first node of every
// database primary. Canaries are open to everyone over TLS (docs/DRIVERS.md, section 4).
func Start(w *topology.World) *State {
	s := &State{
		world: w, settings: map[string]Settings{}, primary: map[string]string{},
		moved: map[netip.Addr]netip.Addr{}, published: map[string][]netip.Addr{},
	}
	for _, d := range w.Databases() {
		s.primary[d.Name] = d.Nodes[0].Name
		if d.Canary {
			s.settings[d.Name] = openToAll(d.Model)
		}
	}
	for _, r := range w.Regions() {
		s.published[r.Name] = slices.Clone(r.Egress)
	}
	return s
}

func openToAll(m topology.Model) Settings {
	if m == topology.Shared {
		return Settings{ForceTLS: On, InternetAccessibility: On}
	}
	any4, any6 := netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	return Settings{Rules: []Rule{{CIDR: any4}, {CIDR: any6}}}
}

// Clone returns a copy that can be changed independently.
func (s *State) Clone() *State {
	c := &State{
		world: s.world, settings: map[string]Settings{}, primary: maps.Clone(s.primary),
		moved: maps.Clone(s.moved), published: map[string][]netip.Addr{},
	}
	for name, v := range s.settings {
		c.settings[name] = v.Clone()
	}
	for name, v := range s.published {
		c.published[name] = slices.Clone(v)
	}
	return c
}

// World returns the world whose state this is.
func (s *State) World() *topology.World { return s.world }

// Of returns a database's settings; untouched for a database that nobody touched.
func (s *State) Of(database string) Settings { return s.settings[database].Clone() }

// Set replaces a database's settings.
func (s *State) Set(database string, v Settings) { s.settings[database] = v.Clone() }

// Primary returns the name of a database's primary node, or "" for an unknown database.
func (s *State) Primary(database string) string { return s.primary[database] }

// SetPrimary makes a node of the database its primary (SPEC D-17).
func (s *State) SetPrimary(database, node string) error {
	d, ok := s.world.Database(database)
	if !ok {
		return fmt.Errorf("database %q: not in the world", database)
	}
	if !slices.ContainsFunc(d.Nodes, func(n topology.Node) bool { return n.Name == node }) {
		return fmt.Errorf("database %q: no node %q", database, node)
	}
	s.primary[database] = node
	return nil
}

// Egress returns the addresses from which a region's Internet traffic leaves now.
func (s *State) Egress(region string) []netip.Addr {
	r, ok := s.world.Region(region)
	if !ok {
		return nil
	}
	out := make([]netip.Addr, len(r.Egress))
	for i, a := range r.Egress {
		out[i] = s.now(a)
	}
	return out
}

// AppEgress returns the address of the family of "like" from which an app's Internet traffic leaves now, and false
// if the app or such an address does not exist.
func (s *State) AppEgress(region, app string, like netip.Addr) (netip.Addr, bool) {
	for _, a := range s.world.EgressOf(region, app) {
		if a.Is4() == like.Is4() {
			return s.now(a), true
		}
	}
	return netip.Addr{}, false
}

func (s *State) now(start netip.Addr) netip.Addr {
	if to, ok := s.moved[start]; ok {
		return to
	}
	return start
}

// Move says that traffic which at start left from one egress address leaves from another now. Moving an address to
// itself takes the move back. Policies do not change before Publish.
func (s *State) Move(start, to netip.Addr) {
	if start == to {
		delete(s.moved, start)
		return
	}
	s.moved[start] = to
}

// Moves returns which egress addresses have been replaced by which.
func (s *State) Moves() map[netip.Addr]netip.Addr { return maps.Clone(s.moved) }

// Publish makes a region's managed range stand for the egress addresses it uses now (SPEC D-13).
func (s *State) Publish(region string) { s.published[region] = s.Egress(region) }

// ManagedRanges returns what every region's managed range stands for: one host prefix per published egress address.
func (s *State) ManagedRanges() map[string][]netip.Prefix {
	out := make(map[string][]netip.Prefix, len(s.published))
	for name := range s.published {
		out[name] = s.managedRange(name)
	}
	return out
}

func (s *State) managedRange(name string) []netip.Prefix {
	var out []netip.Prefix
	for _, a := range s.published[name] {
		out = append(out, netip.PrefixFrom(a, a.BitLen()))
	}
	return out
}

// Networks returns the networks that a rule stands for now.
func (s *State) Networks(r Rule) []netip.Prefix {
	if r.Managed != "" {
		return s.managedRange(r.Managed)
	}
	return []netip.Prefix{r.CIDR}
}
