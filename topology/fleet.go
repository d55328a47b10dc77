package topology

import "fmt"

// Fleet says how many databases a world of a great number of them has.
type Fleet struct {
	Name      string
	Dedicated int // behind one gateway, each with addresses of its own; 0 to MostDedicated
	Shared    int // on one host, each with a port of its own; 0 to MostShared
}

// Bounds of a Fleet, both inclusive: of addresses that its documents have for dedicated databases, and of ports that a host has for shared ones.
const (
	MostDedicated = 20_000
	MostShared    = 5_000
)

// Sizes of a Fleet's surroundings.
const (
	// onMachine is how many dedicated databases share a machine. A namespace for each would take minutes to build.
	onMachine = 1000
	fleetApps = 2 // of each region
)

// fleetEngines are what the databases are, in turn: every way of arriving at TLS.
var fleetEngines = []Engine{PostgreSQL, MySQL, Redis, MongoDB}

// NewFleet returns the document of such a world: two regions with apps, three hosts on the Internet that own networks, and the databases
// in the first region. Its databases have addresses of RFC 2544's upper half; all others are for documentation or private.
func NewFleet(f Fleet) ([]byte, error) {
	switch {
	case f.Dedicated < 0 || f.Dedicated > MostDedicated:
		return nil, fmt.Errorf("%d dedicated databases: must be 0 to %d", f.Dedicated, MostDedicated)
	case f.Shared < 0 || f.Shared > MostShared:
		return nil, fmt.Errorf("%d shared databases: must be 0 to %d", f.Shared, MostShared)
	case f.Dedicated+f.Shared == 0:
		return nil, fmt.Errorf("no databases: a fleet needs at least one")
	}
	var w writer
	w.surroundings(f)
	if f.Shared > 0 {
		w.line("hosts:\n  - {name: host, region: here, addresses: [192.0.2.2, \"2001:db8:5a::1\"]}")
	}
	if f.Dedicated > 0 {
		w.line("gateways:\n  - name: gateway\n    region: here\n    networks: [10.64.0.0/16, \"fd00:64::/64\"]\n    canary: [192.0.2.3, \"2001:db8:5a::2\"]")
	}
	w.line("databases:")
	for i := range f.Dedicated {
		w.line("  - {name: dedicated-%d, model: dedicated, engine: %s, gateway: gateway, addresses: [198.19.%d.%d, \"2001:db8:9a::%x\"], nodes: [{machine: machine-%d}]}",
			i+1, fleetEngines[i%len(fleetEngines)], (i+1)>>8, (i+1)&0xff, i+1, i/onMachine+1)
	}
	for i := range f.Shared {
		w.line("  - {name: shared-%d, model: shared, engine: %s, nodes: [{host: host}]}", i+1, fleetEngines[i%len(fleetEngines)])
	}
	return []byte(w.String()), nil
}

// surroundings are the clients of a fleet.
func (w *writer) surroundings(f Fleet) {
	w.line("version: 1\nname: %s\nregions:", f.Name)
	for i, name := range []string{"here", "elsewhere"} {
		w.line("  - name: %s\n    networks: [10.%d.0.0/16, \"fd00:%d::/48\"]", name, 10+i, 10+i)
		w.line("    egress: [192.0.2.%d, 192.0.2.%d, \"2001:db8:f%d::1\", \"2001:db8:f%d::2\"]\n    apps:", 129+8*i, 130+8*i, i+1, i+1)
		for a := range fleetApps {
			w.line("      - name: app-%d", a+1)
		}
	}
	w.line("internet:")
	for i, name := range []string{"office", "home", "stranger"} {
		w.line("  - {name: %s, networks: [198.51.100.%d/27, \"2001:db8:a%d::/64\"]}", name, 32*i, i+1)
	}
}
