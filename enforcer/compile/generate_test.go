package compile_test

import (
	"net/netip"

	"pgregory.net/rapid"
)

var (
	rangesPool = []string{"192.0.2.128/30", "192.0.2.129/32", "2001:db8:f1::/126"}
	cidrPool   = []string{"198.51.100.0/28", "198.51.100.3/32", "198.51.100.8/29", "198.51.100.16/28", "0.0.0.0/0", "2001:db8:1::/126", "2001:db8:1::2/128", "::/0", "10.10.0.0/24"}
	sourcePool = []string{"198.51.100.0", "198.51.100.3", "198.51.100.15", "198.51.100.16", "198.51.100.31", "198.51.100.32", "198.51.99.255",
		"192.0.2.127", "192.0.2.128", "192.0.2.129", "192.0.2.131", "192.0.2.132", "10.10.0.1", "10.10.1.1", "10.11.0.1", "255.255.255.255", "0.0.0.1",
		"2001:db8:1::1", "2001:db8:1::2", "2001:db8:1::4", "2001:db8:f1::1", "2001:db8:f1::4", "fd00:10::1", "fd00:11::1",
		"10.64.1.1", "10.64.1.2", "10.64.2.1", "172.16.0.1", "172.16.0.2", "fd00:64:1::1", "fd00:64:1::2"}
)

func anySource(t *rapid.T) netip.Addr {
	return netip.MustParseAddr(rapid.SampledFrom(sourcePool).Draw(t, "src"))
}

func anyTarget(t *rapid.T, d document) netip.AddrPort {
	var all []netip.AddrPort
	add := func(a string, p uint16) {
		all = append(all, netip.AddrPortFrom(netip.MustParseAddr(a), p), netip.AddrPortFrom(netip.MustParseAddr(a), p+1))
	}
	for _, db := range d.Databases {
		for _, e := range db.Endpoints {
			add(e.Address, e.Port)
		}
		for _, n := range db.Nodes {
			for _, a := range n.Addresses {
				for _, p := range n.Ports {
					add(a, p.Port)
				}
			}
		}
	}
	return rapid.SampledFrom(all).Draw(t, "dst")
}

func anyDocument(t *rapid.T) document {
	d := document{
		Version: 1, Point: point{Name: "p", Model: rapid.SampledFrom([]string{"shared", "dedicated"}).Draw(t, "model")},
		Region: region{Name: "r", Networks: []string{"10.10.0.0/16", "fd00:10::/48"}},
		Ranges: map[string][]string{"fr1": rapid.SliceOfNDistinct(rapid.SampledFrom(rangesPool), 0, 3, rapid.ID).Draw(t, "fr1"), "empty": {}},
	}
	if rapid.Bool().Draw(t, "zones") {
		d.Interfaces = []iface{{"inet0", "internet"}, {"reg0", "regional"}, {"vpc0", "cluster"}, {"peer0", "peering"}}
	}
	for i := range rapid.IntRange(1, 3).Draw(t, "databases") {
		if d.Point.Model == "shared" {
			d.Databases = append(d.Databases, anyShared(t, i))
		} else {
			d.Databases = append(d.Databases, anyDedicated(t, i, len(d.Interfaces) > 0))
		}
	}
	return d
}

func toggle(t *rapid.T, name string) *bool {
	return rapid.SampledFrom([]*bool{nil, new(true), new(false)}).Draw(t, name)
}

// anyPort is a port's engine and way to TLS, such that Force TLS can be asked for.
func anyPort(t *rapid.T) (engine, tls string) {
	pick := rapid.SampledFrom([][2]string{{"postgresql", "in-band"}, {"mysql", "in-band"}, {"mongodb", "either"}, {"redis", "only"}, {"redis", "none"}}).Draw(t, "port")
	return pick[0], pick[1]
}

func anyShared(t *rapid.T, i int) database {
	port := uint16(5000 + 10*i)
	engine, tls := anyPort(t)
	db := database{Name: "db" + string(rune('a'+i)), Model: "shared", Engine: engine, ForceTLS: toggle(t, "force")}
	db.Nodes = []node{
		{Name: "one", Here: true, Addresses: []string{"203.0.113.1", "2001:db8:2::1"}, Ports: []nodePort{{port, tls}, {port + 5, "only"}}},
		{Name: "two", Here: rapid.Bool().Draw(t, "two here"), Addresses: []string{"172.16.0.1", "fd00:64:1::1"}, Ports: []nodePort{{port, tls}, {port + 5, "only"}}},
	}
	db.Endpoints = []endpoint{{"public-rw", "203.0.113.1", port, "ipv4", tls}}
	if rapid.Bool().Draw(t, "v6 endpoint") {
		db.Endpoints = append(db.Endpoints, endpoint{"public-rw", "2001:db8:2::1", port, "ipv6", tls})
	}
	if rapid.Bool().Draw(t, "cluster") {
		db.Cluster = []clusterPort{{port, true}, {port + 5, false}}
	}
	if db.ForceTLS != nil && *db.ForceTLS {
		db.Access = toggle(t, "access")
	}
	return db
}

func anyDedicated(t *rapid.T, i int, zones bool) database {
	port := uint16(5000)
	engine, tls := anyPort(t)
	base := string(rune('1' + i))
	db := database{Name: "db" + base, Model: "dedicated", Engine: engine, ForceTLS: toggle(t, "force")}
	db.Nodes = []node{
		{Name: "one", Here: true, Addresses: []string{"10.64." + base + ".1", "fd00:64:" + base + "::1"}, Ports: []nodePort{{port, tls}, {port + 5, "only"}}},
		{Name: "two", Here: true, Addresses: []string{"10.64." + base + ".2", "fd00:64:" + base + "::2"}, Ports: []nodePort{{port, tls}, {port + 5, "only"}}},
	}
	db.Endpoints = []endpoint{{"public-rw", "203.0.113." + base, port, "ipv4", tls}}
	if rapid.Bool().Draw(t, "v6 endpoint") {
		db.Endpoints = append(db.Endpoints, endpoint{"public-rw", "2001:db8:2::" + base, port, "ipv6", tls})
	}
	if zones && rapid.Bool().Draw(t, "peering") {
		db.Endpoints = append(db.Endpoints, endpoint{"private-peering-rw", "172.20.0." + base, port, "ipv4", tls})
	}
	if rapid.Bool().Draw(t, "cluster") {
		db.Cluster = []clusterPort{{port, true}, {port + 5, false}}
	}
	for _, c := range rapid.SliceOfNDistinct(rapid.SampledFrom(cidrPool), 0, 5, rapid.ID).Draw(t, "rules") {
		db.Rules = append(db.Rules, rule{Type: "custom_range", CIDR: c})
	}
	if rapid.Bool().Draw(t, "managed") {
		db.Rules = append(db.Rules, rule{Type: "managed_range", Name: "fr1"})
	}
	return db
}
