package compile

import (
	"encoding/binary"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"drawbridge/enforcer/ruleset"
)

// Inventory is what a table, read back from a kernel, says about the databases that it protects. The zero value knows none.
type Inventory struct {
	databases map[netip.AddrPort]string
	speaking  map[string]speaking // by database
	dedicated bool

	interfaces []string
}

// speaking counts a database's ports that can speak TLS: those that are held to it, and the others.
type speaking struct{ forced, free int }

// InventoryOf reads a table.
func InventoryOf(t ruleset.Table) Inventory {
	i := Inventory{databases: map[netip.AddrPort]string{}, speaking: map[string]speaking{}}
	gated, forced := map[netip.AddrPort]bool{}, map[netip.AddrPort]bool{}
	for _, s := range t.Sets {
		if len(s.Key) == 1 && s.Key[0] == ruleset.TypeIfname {
			for _, e := range s.Elements {
				i.interfaces = append(i.interfaces, strings.TrimRight(string(e.Key), "\x00"))
			}
		}
		for _, f := range families {
			name, ok := strings.CutSuffix(s.Name, f.suffix)
			if !ok {
				continue
			}
			for _, e := range s.Elements {
				switch {
				case name == setProtected:
					i.databases[endpointOf(e.Key)] = e.Comment
				case name == setForce:
					forced[endpointOf(e.Key)] = true
				case slices.Contains(negotiations, name):
					gated[endpointOf(e.Key)] = true
				}
			}
			i.dedicated = i.dedicated || name == setRules
		}
	}
	for at := range gated {
		ports := i.speaking[i.databases[at]]
		if forced[at] {
			ports.forced++
		} else {
			ports.free++
		}
		i.speaking[i.databases[at]] = ports
	}
	return i
}

// Database names the database that is protected at an address and port; empty if none is.
func (i Inventory) Database(at netip.AddrPort) string { return i.databases[at] }

// Ports lists every protected address and port with its database.
func (i Inventory) Ports() map[netip.AddrPort]string { return maps.Clone(i.databases) }

// Addresses are those of every protected port.
func (i Inventory) Addresses() map[netip.Addr]bool {
	out := map[netip.Addr]bool{}
	for at := range i.databases {
		out[at.Addr()] = true
	}
	return out
}

// Interfaces lists the interfaces that the table names, sorted.
func (i Inventory) Interfaces() []string {
	return slices.Compact(slices.Sorted(slices.Values(i.interfaces)))
}

// Dedicated tells whether the point is a gateway.
func (i Inventory) Dedicated() bool { return i.dedicated }

// Names lists the databases, sorted.
func (i Inventory) Names() []string {
	return slices.Compact(slices.Sorted(maps.Values(i.databases)))
}

// ForceTLS is "on" or "off" if that holds for every port of the database that can speak TLS, "partly" if the ports differ,
// and "never" if there is no such port.
func (i Inventory) ForceTLS(database string) string {
	switch ports := i.speaking[database]; {
	case ports == speaking{}:
		return "never"
	case ports.free == 0:
		return "on"
	case ports.forced == 0:
		return "off"
	}
	return "partly"
}

// Tally is one of the tally's sets.
type Tally struct {
	// Kind is TallyTLS, TallyPlaintext or TallyRefused.
	Kind string
}

// TallyOf tells whether a set is one of the tally's.
func TallyOf(s ruleset.Set) (Tally, bool) {
	for _, f := range families {
		if name, ok := strings.CutSuffix(s.Name, f.suffix); ok && slices.Contains([]string{TallyTLS, TallyPlaintext, TallyRefused}, name) {
			return Tally{Kind: name}, s.Dynamic
		}
	}
	return Tally{}, false
}

// Key reads an element's key; the source is not valid where the set does not tell it.
func (t Tally) Key(key ruleset.Key) (source netip.Addr, endpoint netip.AddrPort) {
	if t.Kind == TallyTLS {
		return netip.Addr{}, endpointOf(key)
	}
	half := (len(key) - portSize) / 2
	source, _ = netip.AddrFromSlice([]byte(key[:half]))
	return source, endpointOf(key[half:])
}

// portSize is the length of a port in a key.
const portSize = 2

// endpointOf is the inverse of endpointKey.
func endpointOf(key ruleset.Key) netip.AddrPort {
	at := len(key) - portSize
	if at < 0 {
		return netip.AddrPort{}
	}
	a, _ := netip.AddrFromSlice([]byte(key[:at]))
	return netip.AddrPortFrom(a, binary.BigEndian.Uint16([]byte(key[at:])))
}
