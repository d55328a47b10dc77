package topology

import (
	"fmt"
	"strings"
)

// Sketch says what a new document is to contain. Counts are at least 0, and small: each thing gets a documentation address of its own.
type Sketch struct {
	Name      string
	Regions   int // 1 to 8
	Apps      int // of each region, at least 1
	Internet  int // hosts, 1 to 8
	Shared    int // hosts of shared databases in the first region, each with a database; 0 to 40
	Dedicated int // dedicated databases behind one gateway in the first region; 0 to 40
	Nodes     int // of each dedicated database, 1 to 9
	Engine    Engine
	Peering   bool // of the first dedicated database
}

// Bounds of a Sketch.
const (
	mostRegions   = 8
	mostApps      = 1000
	mostInternet  = 8
	mostDatabases = 40
	mostNodes     = 9
)

// New returns a commented document of a world. It can be parsed, or the error says which number of the sketch it is that does not fit.
func New(s Sketch) ([]byte, error) {
	for _, b := range []struct {
		what           string
		n, least, most int
	}{
		{"regions", s.Regions, 1, mostRegions}, {"apps", s.Apps, 1, mostApps}, {"Internet hosts", s.Internet, 1, mostInternet},
		{"shared databases", s.Shared, 0, mostDatabases}, {"dedicated databases", s.Dedicated, 0, mostDatabases}, {"nodes", s.Nodes, 1, mostNodes},
	} {
		if b.n < b.least || b.n > b.most {
			return nil, fmt.Errorf("%d %s: must be %d to %d", b.n, b.what, b.least, b.most)
		}
	}
	if s.Peering && s.Dedicated == 0 {
		return nil, fmt.Errorf("a peering needs a dedicated database")
	}
	var w writer
	w.head(s)
	w.clients(s)
	w.points(s)
	w.databases(s)
	text := []byte(w.String())
	if _, err := Parse("new world", text); err != nil {
		return nil, err
	}
	return text, nil
}

type writer struct{ strings.Builder }

func (w *writer) line(format string, args ...any) { fmt.Fprintf(w, format+"\n", args...) }

func (w *writer) head(s Sketch) {
	w.line("# A world for drawbridge; every field is explained in docs/TOPOLOGY.md. Check it with: drawbridge topology lint FILE")
	w.line("# All addresses are for documentation or private (RFC 5737, RFC 3849, RFC 1918, RFC 4193). What is left out is planned.")
	w.line("version: 1\nname: %s\n", s.Name)
	w.line("# Regions: a private network with apps, whose Internet traffic leaves from the egress addresses, two or more IPv4, in turn.\nregions:")
	for r := range s.Regions {
		w.line("  - name: region-%d", r+1)
		w.line("    networks: [10.%d.0.0/16, \"fd00:%d::/48\"]", 10+r, 10+r)
		w.line("    egress: [192.0.2.%d, 192.0.2.%d, \"2001:db8:f%d::1\"]", 129+8*r, 130+8*r, r+1)
		w.line("    spare: [192.0.2.%d] # egress can move there (SPEC D-13)", 131+8*r)
		w.line("    apps:")
		for a := range s.Apps {
			w.line("      - name: app-%d", a+1)
		}
	}
}

func (w *writer) clients(s Sketch) {
	w.line("\n# Hosts on the Internet: every address of their networks is their own, so that a probe can come from any.\ninternet:")
	for i := range s.Internet {
		w.line("  - name: office-%d", i+1)
		w.line("    networks: [198.51.100.%d/28, \"2001:db8:a%d::/64\"]", 16*i, i+1)
	}
	if s.Peering {
		w.line("\n# Customers' private networks, each peered with one dedicated database.\npeers:")
		w.line("  - name: corp\n    networks: [172.16.0.0/24]\n    hosts:\n      - name: desk\n      - name: printer")
	}
}

func (w *writer) points(s Sketch) {
	if s.Shared > 0 {
		w.line("\n# Hosts that carry shared databases: enforcement points.\nhosts:")
	}
	for i := range s.Shared {
		w.line("  - {name: host-%d, region: region-1, addresses: [198.51.100.%d, \"2001:db8:5a::%x\"]}", i+1, 129+i, i+1)
	}
	if s.Dedicated > 0 {
		w.line("\n# Gateways in front of dedicated databases: enforcement points too. The canary is the lab's own instrument.\ngateways:")
		w.line("  - name: gateway-1\n    region: region-1\n    networks: [10.64.0.0/16, \"fd00:64::/64\"]\n    canary: [203.0.113.254, \"2001:db8:9a::ffff\"]")
	}
}

func (w *writer) databases(s Sketch) {
	if s.Shared+s.Dedicated > 0 {
		w.line("\ndatabases:")
	}
	for i := range s.Shared {
		w.line("  - name: shared-%d\n    model: shared\n    engine: %s\n    nodes:\n      - host: host-%d", i+1, s.Engine, i+1)
	}
	port, _ := s.Engine.DefaultPorts()
	for i := range s.Dedicated {
		w.line("  - name: dedicated-%d\n    model: dedicated\n    engine: %s\n    gateway: gateway-1", i+1, s.Engine)
		w.line("    addresses: [203.0.113.%d, \"2001:db8:9a::%x\"]", i+1, i+1)
		w.line("    nodes: [%s]", strings.TrimSuffix(strings.Repeat("{}, ", s.Nodes), ", "))
		if s.Nodes > 1 {
			w.line("    cluster_ports: # by which its nodes reach each other")
			w.line("      - {port: %d, shared: true} # clients use it too\n      - {port: 18008, shared: false}", port)
		}
		if s.Peering && i == 0 {
			w.line("    peering:\n      network: corp\n      addresses: [172.31.0.5]")
		}
	}
}
