package topology

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// mark stands in a case's replacement right before the token at which the error must point.
const mark = "§"

// refusals replace one passage of the default world by one with one mistake.
var refusals = []struct {
	name, old, new string
	field, reason  string
}{
	// Form
	{"syntax", "name: default\n", "name: default\n\tx: [\n", "", "not YAML"},
	{"control character", "name: office", "name: §\x00office", "", "not YAML: control characters are not allowed"},
	{"not UTF-8", "name: office", "name: o§\xe9ffice", "", "not YAML: "},
	{"not a mapping", string(defaultWorld), "§- 1\n", "", "is a list, not a mapping"},
	{"empty document", string(defaultWorld), "# nothing\n", "", "the document is empty"},
	{"second document", "    plain_port: 9201\n    nodes: [{}]\n", "    plain_port: 9201\n    nodes: [{}]\n§---\nname: other\n", "", "a second document begins here"},
	{"anchor", "name: default", "name: §&a default", "", "anchors and aliases"},
	{"alias", "engine: mysql", "engine: *e", "", "not YAML: unknown anchor"},
	{"unknown field", "    engine: mysql\n", "    engine: mysql\n    §colour: red\n", "databases[1].colour", "unknown field"},
	{"merge key", "    engine: mysql\n", "    engine: mysql\n    §<<: {port: 1}\n", "databases[1].<<", "unknown field"},
	{"key that is a list", "    engine: mysql\n", "    engine: mysql\n    ? §[a]\n    : b\n", "databases[1].", "unknown field"},
	{"rules, which are no part of a world", "internet:\n", "§rules: [{database: my-shared, region: nowhere}]\ninternet:\n", "rules", "unknown field"},
	{"unknown field at the top", "internet:\n", "§routers: []\ninternet:\n", "routers", "unknown field"},
	{"duplicate key", "    engine: mysql\n", "    engine: mysql\n    §engine: mysql\n", "databases[1].engine", "given twice, first in line"},
	{"missing field", "  - name: my-shared\n    model: shared\n", "  - §name: my-shared\n", "databases[1].model", "is missing"},
	{"missing version", "version: 1\nname", "§name", "version", "is missing"},
	{"other version", "version: 1", "version: §2", "version", "version 2 of the format is not known"},
	{"empty value", "engine: mysql", "engine:§", "databases[1].engine", "is empty, not a word"},
	{"list for a value", "engine: mysql", "engine: §[mysql]", "databases[1].engine", "is a list, not a word"},
	{"value for a list", "nodes: [{}, {}, {}]", "nodes: §3", "databases[4].nodes", "is a number, not a list"},
	{"boolean for a number", "port: 9200", "port: §true", "databases[6].port", "is a boolean, not a port number"},
	{"word for a boolean", "{port: 8008, shared: false}", "{port: 8008, shared: §no}", "databases[4].cluster_ports[1].shared", "not true or false"},
	{"own type", "engine: mysql", "engine: §!x mysql", "databases[1].engine", "is of type !x"},
	{"name that is no label", "name: office", "name: §Office_1", "internet[0].name", `"Office_1" is not a name`},
	{"name that is a number", "name: office", "name: §123", "internet[0].name", "is a number, not a name"},
	{"name that ends with a hyphen", "name: office", "name: §office-", "internet[0].name", "is not a name"},
	{"name too long", "name: office", "name: §" + strings.Repeat("o", maxName+1), "internet[0].name", "is not a name"},
	// Addresses and networks by themselves
	{"no address", "172.16.0.10", "§172.16.0.256", "peers[0].hosts[0].addresses[0]", "is not an address"},
	{"zone", `"2001:db8:5a::1"`, `§"2001:db8:5a::1%eth0"`, "hosts[0].addresses[1]", "has a zone"},
	{"IPv4-mapped address", `"2001:db8:5a::1"`, `§"::ffff:198.51.100.140"`, "hosts[0].addresses[1]", "IPv4-mapped"},
	{"loopback address", "198.51.100.129, ", "§127.0.0.1, ", "hosts[0].addresses[0]", "special range 127.0.0.0/8"},
	{"multicast address", `"2001:db8:5a::1"`, `§"ff02::1"`, "hosts[0].addresses[1]", "special range ff00::/8"},
	{"no network", "10.10.0.0/16", "§10.10.0.0", "regions[0].networks[0]", "is not a network"},
	{"host bits set", "10.10.0.0/16", "§10.10.0.1/16", "regions[0].networks[0]", "has host bits set"},
	{"host bits set, IPv6", `"fd00:10::/48"`, `§"fd00:10::1/48"`, "regions[0].networks[1]", "has host bits set"},
	{"IPv4-mapped network", `"fd00:10::/48"`, `§"::ffff:10.0.0.0/104"`, "regions[0].networks[1]", "IPv4-mapped"},
	{"special network", "10.10.0.0/16", "§0.0.0.0/0", "regions[0].networks[0]", "overlaps the special range"},
	// Ports
	{"port 0", "port: 9200", "port: §0", "databases[6].port", "0 is not a port"},
	{"port too great", "port: 9200", "port: §65536", "databases[6].port", "65536 is not a port"},
	{"negative port", "port: 9200", "port: §-1", "databases[6].port", "-1 is not a port"},
	{"octal port", "port: 9200", "port: §0o17", "databases[6].port", "0o17 is not a port"},
	{"duplicate port on a host", "      - host: shared-a\n  - name: redis",
		"      - host: shared-a\n        port: 5555\n      - host: shared-a\n        port: §5555\n    cluster_ports: [{port: 5555, shared: true}]\n  - name: redis",
		"databases[1].nodes[1].port", "port 5555 of shared-a is taken by databases[1].nodes[0].port"},
	{"port of the canary", "      - host: shared-a\n  - name: redis", "      - host: shared-a\n        port: §700\n  - name: redis",
		"databases[1].nodes[0].port", "port 700 of shared-a is taken by hosts[0].canary_port"},
	{"the same port for TLS and plaintext", "plain_port: 9201", "plain_port: §9200", "databases[6].plain_port", "port 9200 of the endpoint"},
	{"plaintext port of an in-band engine", "    nodes: [{}, {}, {}]", "    plain_port: §5433\n    nodes: [{}, {}, {}]",
		"databases[4].plain_port", "on one port"},
	{"cluster port twice", "{port: 8008, shared: false}", "{port: §5432, shared: false}", "databases[4].cluster_ports[1].port", "given twice"},
	{"cluster port of a single node", "    nodes: [{}]\n  - name: search", "    nodes: [{}]\n    cluster_ports: §[{port: 1, shared: false}]\n  - name: search",
		"databases[5].cluster_ports", "a single node has no cluster ports"},
	{"nodes without cluster port", "    nodes: [{}]\n  - name: search", "    nodes: §[{}, {}]\n  - name: search",
		"databases[5].nodes", "no port to reach each other"},
	{"shared cluster port that no client uses", "{port: 5432, shared: true}", "{port: §5433, shared: true}",
		"databases[4].cluster_ports[0].port", "no node of pg-dedicated serves clients on port 5433"},
	{"cluster port that a client uses", "{port: 16380, shared: false}", "{port: §700, shared: false}",
		"databases[2].cluster_ports[1].port", "port 700 of redis-a is taken by hosts[1].canary_port"},
	// Names and references
	{"duplicate name", "name: home", "name: §office", "internet[1].name", "the name office is taken by internet[0].name"},
	{"duplicate name across kinds", "name: my-shared", "name: §redis-a", "databases[1].name", "taken by hosts[1].name"},
	{"duplicate region", "name: osc-secnum-fr1\n    n", "name: §osc-fr1\n    n", "regions[1].name", "taken by regions[0].name"},
	{"duplicate app", "name: worker", "name: §web", "regions[0].apps[1].name", "the name osc-fr1/web is taken"},
	{"name of a planned node", "name: my-shared", "name: §pg-shared-1", "databases[1].name", "taken by databases[0].nodes[0]"},
	{"name of the core", "name: home", "name: §internet", "internet[1].name", "is reserved"},
	{"name of a canary", "name: home", "name: §canary-x", "internet[1].name", "is reserved"},
	{"name of an edge", "name: home", "name: §edge-osc-fr1", "internet[1].name", "is reserved"},
	{"unknown region of a host", "    region: osc-fr1\n    addresses: [198.51.100.129", "    region: §osc-fr2\n    addresses: [198.51.100.129",
		"hosts[0].region", "unknown region osc-fr2"},
	{"unknown region of a gateway", "    region: osc-fr1\n    networks", "    region: §osc-fr2\n    networks", "gateways[0].region", "unknown region osc-fr2"},
	{"unknown host", "host: redis-b", "host: §redis-x", "databases[2].nodes[1].host", "unknown host redis-x"},
	{"unknown gateway", "gateway: gw-secnum", "gateway: §gw", "databases[6].gateway", "unknown gateway gw"},
	{"unknown peer network", "network: corp", "network: §corps", "databases[4].peering.network", "unknown peer network corps"},
	{"unknown engine", "engine: mysql", "engine: §oracle", "databases[1].engine", `unknown engine "oracle"`},
	{"unknown model", "  - name: my-shared\n    model: shared", "  - name: my-shared\n    model: §private", "databases[1].model", `unknown model "private"`},
	{"nodes in two regions", "host: redis-b", "host: §shared-s", "databases[2].nodes[1].host", "in region osc-secnum-fr1"},
	{"peer network without peering", "peers:\n", "peers:\n  - §name: lost\n    networks: [172.17.0.0/24]\n    hosts: [{name: a}, {name: b}]\n", "peers[0]", "no database is peered with lost"},
	{"gateway peered twice", "    nodes: [{}]\n  - name: search", "    nodes: [{}]\n    peering: §{network: corp, addresses: [172.31.0.6]}\n  - name: search",
		"databases[5].peering", "is peered already by databases[4].peering"},
	{"machine of a node's name", "    nodes: [{}]\n  - name: search", "    nodes: [{machine: §pg-dedicated-1}]\n  - name: search",
		"databases[5].nodes[0].machine", "the name pg-dedicated-1 is taken by databases[4].nodes[0]"},
	{"machine behind two gateways", "    nodes: [{}]\n  - name: search-dedicated\n    model: dedicated\n    engine: opensearch\n    gateway: gw-secnum\n    addresses: [203.0.113.161]\n" +
		"    port: 9200\n    plain_port: 9201\n    nodes: [{}]",
		"    nodes: [{machine: rack}]\n  - name: search-dedicated\n    model: dedicated\n    engine: opensearch\n    gateway: gw-secnum\n    addresses: [203.0.113.161]\n" +
			"    port: 9200\n    plain_port: 9201\n    nodes: [{machine: §rack}]",
		"databases[6].nodes[0].machine", "the machine rack is behind gateway gw-fr1"},
	{"two nodes of a database on a machine", "    nodes: [{}, {}, {}]", "    nodes: [{machine: rack}, {machine: §rack}, {}]",
		"databases[4].nodes[1].machine", "another node of pg-dedicated is on the machine rack"},
	{"machine of a shared node", "      - host: shared-a\n  - name: redis", "      - host: shared-a\n        machine: §rack\n  - name: redis",
		"databases[1].nodes[0].machine", "is not for a shared database"},
	// Fields of the other model
	{"gateway of a shared database", "    engine: mysql\n", "    engine: mysql\n    gateway: §gw-fr1\n", "databases[1].gateway", "is not for a shared database"},
	{"address of a shared database", "    engine: mysql\n", "    engine: mysql\n    addresses: §[203.0.113.200]\n", "databases[1].addresses", "is not for a shared"},
	{"port of a shared database", "    engine: mysql\n", "    engine: mysql\n    port: §3306\n", "databases[1].port", "is not for a shared database"},
	{"address of a shared node", "      - host: shared-a\n        published", "      - host: shared-a\n        addresses: §[198.51.100.129]\n        published",
		"databases[0].nodes[0].addresses", "is not for a shared database"},
	{"shared node without host", "      - host: shared-a\n  - name: redis", "      - §{}\n  - name: redis", "databases[1].nodes[0].host", "is missing"},
	{"host of a dedicated node", "nodes: [{}, {}, {}]", "nodes: [{host: §shared-a}, {}, {}]", "databases[4].nodes[0].host", "is not for a dedicated"},
	{"published at a dedicated node", "nodes: [{}, {}, {}]", "nodes: [{published: §[10.64.1.2]}, {}, {}]", "databases[4].nodes[0].published", "is not for a dedicated"},
	{"dedicated without gateway", "  - name: search-dedicated\n    model: dedicated\n    engine: opensearch\n    gateway: gw-secnum\n",
		"  - §name: search-dedicated\n    model: dedicated\n    engine: opensearch\n", "databases[6].gateway", "is missing"},
	{"dedicated without address", "    addresses: [203.0.113.161]\n    port", "    port", "databases[6].addresses", "is missing: a dedicated database needs it"},
	// Families and numbers
	{"region without IPv6", `networks: [10.10.0.0/16, "fd00:10::/48"]`, "networks: §[10.10.0.0/16]", "regions[0].networks", "0 of family ipv6, at least 1"},
	{"region with two IPv4 networks", `networks: [10.10.0.0/16, "fd00:10::/48"]`, `networks: §[10.10.0.0/16, 10.11.0.0/16, "fd00:10::/48"]`, "regions[0].networks", "2 of family ipv4, at most 1"},
	{"one egress address", "egress: [192.0.2.129, 192.0.2.130, ", "egress: §[192.0.2.129, ", "regions[0].egress", "1 of family ipv4, at least 2"},
	{"Internet host without IPv6", `networks: [203.0.113.0/25, "2001:db8:b::/64"]`, "networks: §[203.0.113.0/25]", "internet[1].networks", "0 of family ipv6"},
	{"host with two IPv4 addresses", `addresses: [198.51.100.129, "2001:db8:5a::1"]`, "addresses: §[198.51.100.129, 198.51.100.130]", "hosts[0].addresses", "2 of family ipv4, at most 1"},
	{"two addresses of an app", "      - name: worker\n", "      - name: worker\n        addresses: §[10.10.0.9, 10.10.0.8]\n", "regions[0].apps[1].addresses", "2 of family ipv4"},
	{"dedicated database with IPv6 only", "addresses: [203.0.113.161]", `addresses: §["2001:db8:9b::1"]`, "databases[6].addresses", "0 of family ipv4"},
	{"peering in a family that the peer lacks", "addresses: [172.31.0.5]", `addresses: [172.31.0.5, §"fd00:31::5"]`, "databases[4].peering.addresses[1]", "has no network of family ipv6"},
	{"no region", string(defaultWorld[bytes.Index(defaultWorld, []byte("regions:")):]), "regions: §[]\ninternet: [{name: a, networks: [192.0.2.0/25, \"3fff:c::/64\"]}]\n", "regions", "at least one region"},
	{"no app", "    apps:\n      - name: web\n      - name: worker\n", "    apps: §[]\n", "regions[0].apps", "at least one app"},
	{"no Internet host", string(defaultWorld[bytes.Index(defaultWorld, []byte("internet:")):]), "internet: §[]\n", "internet", "at least one Internet host"},
	{"no node", "nodes: [{}, {}, {}]", "nodes: §[]", "databases[4].nodes", "at least one node"},
	{"one peer host", "      - name: printer\n        addresses: [172.16.0.200]\n", "", "peers[0].hosts", "at least 2 hosts, not 1"},
	{"nothing published", "published: [198.51.100.129]", "published: §[]", "databases[0].nodes[0].published", "at least one published address"},
	{"published twice", "published: [198.51.100.129]", "published: [198.51.100.129, §198.51.100.129]", "databases[0].nodes[0].published[1]", "given twice"},
	{"published elsewhere", "published: [198.51.100.129]", "published: [§198.51.100.131]", "databases[0].nodes[0].published[0]", "not an address of host shared-a"},
	// Addresses and networks among each other
	{"duplicate address", "spare: [192.0.2.131,", "spare: [§192.0.2.129,", "regions[0].spare[0]", "the address 192.0.2.129 is taken by regions[0].egress[0]"},
	{"duplicate address across kinds", "[203.0.113.161]", "[§198.51.100.129]", "databases[6].addresses[0]", "taken by hosts[0].addresses[0]"},
	{"duplicate address of two nodes", "nodes: [{}, {}, {}]", "nodes: [{addresses: [10.64.1.9]}, {addresses: [§10.64.1.9]}, {}]", "databases[4].nodes[1].addresses[0]", "taken by databases[4].nodes[0].addresses[0]"},
	{"regions overlap", "10.20.0.0/16", "§10.10.128.0/17", "regions[1].networks[0]", "overlaps 10.10.0.0/16 of regions[0].networks[0]"},
	{"a later network holds an earlier one", "10.20.0.0/16", "§10.0.0.0/12", "regions[1].networks[0]", "overlaps 10.10.0.0/16 of regions[0].networks[0]"},
	{"Internet hosts overlap", "3fff:c::/64", "2001:db8:a::/64", "internet[2].networks[1]", "overlaps 2001:db8:a::/64 of internet[0].networks[1]"},
	{"an Internet host's own networks overlap", "[203.0.113.0/25,", "[203.0.113.0/25, §203.0.113.64/26,", "internet[1].networks[1]", "overlaps"},
	{"peer overlaps a region", "[172.16.0.0/24]", "[§10.20.7.0/24]", "peers[0].networks[0]", "overlaps 10.20.0.0/16"},
	{"VPC overlaps a VPC", "10.64.2.0/24", "§10.64.1.128/25", "gateways[1].networks[0]", "overlaps 10.64.1.0/24 of gateways[0].networks[0]"},
	{"routed address inside a network", "addresses: [172.31.0.5]", "addresses: [§10.20.0.5]", "databases[4].peering.addresses[0]", "inside 10.20.0.0/16 of regions[1].networks[0]"},
	{"canary inside an Internet host's network", "canary: [203.0.113.131", "canary: [§198.51.100.7", "gateways[0].canary[0]", "inside 198.51.100.0/25 of internet[0].networks[0]"},
	{"endpoint inside another region's network", "[203.0.113.161]", "[§10.10.0.77]", "databases[6].addresses[0]", "inside 10.10.0.0/16 of regions[0].networks[0]"},
	{"endpoint at another region's egress address", "[203.0.113.161]", "[§192.0.2.129]", "databases[6].addresses[0]", "taken by regions[0].egress[0]"},
	{"network's address as a routed one", "addresses: [172.31.0.5]", "addresses: [§10.20.0.0]", "databases[4].peering.addresses[0]", "inside 10.20.0.0/16"},
	{"app outside its network", "      - name: worker\n", "      - name: worker\n        addresses: [§10.20.0.9]\n", "regions[0].apps[1].addresses[0]", "is outside 10.10.0.0/16, fd00:10::/48"},
	{"Internet host outside its networks", "  - name: home\n", "  - name: home\n    addresses: [§203.0.113.200]\n", "internet[1].addresses[0]", "is outside 203.0.113.0/25"},
	{"node outside its VPC", "nodes: [{}, {}, {}]", "nodes: [{addresses: [§10.64.2.9]}, {}, {}]", "databases[4].nodes[0].addresses[0]", "is outside 10.64.1.0/24"},
	{"the router's address", "      - name: worker\n", "      - name: worker\n        addresses: [§10.10.0.1]\n", "regions[0].apps[1].addresses[0]", "is not a host's address"},
	{"the broadcast address", "      - name: worker\n", "      - name: worker\n        addresses: [§10.10.255.255]\n", "regions[0].apps[1].addresses[0]", "is not a host's address"},
	{"a network too small", "10.10.0.0/16", "10.10.0.0/30", "regions[0].apps[1]", "no free address is left in 10.10.0.0/30"},
	{"a VPC too small for the canary", "10.64.2.0/24", "10.64.2.0/30", "gateways[1]", "no free address is left in 10.64.2.0/30"},
}

// mistaken is the default world with one mistake, marked.
func mistaken(t *testing.T, passage, mistake string) string {
	t.Helper()
	// Canary ports of their own, so that cases can collide with them.
	from := strings.Replace(string(defaultWorld), "  - name: shared-a\n", "  - name: shared-a\n    canary_port: 700\n", 1)
	from = strings.Replace(from, "  - name: redis-a\n", "  - name: redis-a\n    canary_port: 700\n", 1)
	if !strings.Contains(from, passage) {
		from = string(defaultWorld)
	}
	require.Equal(t, 1, strings.Count(from, passage), "the passage to replace stands there once")
	return strings.Replace(from, passage, mistake, 1)
}

func TestParseRefusesWithPlaceAndReason(t *testing.T) {
	for _, c := range refusals {
		t.Run(c.name, func(t *testing.T) {
			doc := mistaken(t, c.old, c.new)
			head, _, marked := strings.Cut(doc, mark)
			_, err := Parse("w.yaml", []byte(strings.Replace(doc, mark, "", 1)))
			require.Error(t, err)
			all := Problems(err)
			at := slices.IndexFunc(all, func(e *Error) bool { return e.Field == c.field })
			require.GreaterOrEqual(t, at, 0, "no error at %s: %v", c.field, err)
			first := all[at]
			require.Contains(t, first.Reason, c.reason)
			require.Equal(t, "w.yaml", first.File)
			if marked {
				require.Equal(t, 1+strings.Count(head, "\n"), first.Line, "line of %v", first)
			}
			if marked && first.Column > 0 {
				require.Equal(t, len(head)-strings.LastIndex(head, "\n"), first.Column, "column of %v", first)
			}
		})
	}
}

func TestParseReportsAllErrorsInOrder(t *testing.T) {
	doc := strings.NewReplacer("engine: mysql", "engine: oracle", "10.20.0.0/16", "10.10.0.0/17",
		"host: redis-b", "host: redis-x", "gateway: gw-secnum", "gateway: gw").Replace(string(defaultWorld))
	_, err := Parse("w.yaml", []byte(doc))
	var where []string
	for _, e := range Problems(err) {
		where = append(where, e.Field)
	}
	require.Equal(t, []string{
		"regions[1].networks[0]", "databases[1].engine", "databases[2].nodes[1].host", "databases[6].gateway",
	}, where)
}

func TestErrorPrintsPlaceFieldReasonAndWayOut(t *testing.T) {
	doc := strings.Replace(string(defaultWorld), "10.10.0.0/16", "10.10.0.1/16", 1)
	_, err := Parse("w.yaml", []byte(doc))
	require.EqualError(t, err, `w.yaml:8:16: regions[0].networks[0]: "10.10.0.1/16" has host bits set; write 10.10.0.0/16`)
}

func TestParseAnswersAHostileDocumentBriefly(t *testing.T) {
	_, err := Parse("w.yaml", []byte("version: 1\n"+strings.Repeat("x: 1\n", 10_000)))
	require.Len(t, Problems(err), maxProblems)
	require.ErrorContains(t, err, "more errors")
	require.Less(t, len(err.Error()), 64<<10)
}

func TestParseBoundsTheDocument(t *testing.T) {
	padded := append(bytes.Clone(defaultWorld), bytes.Repeat([]byte("#"), MaxDocument-len(defaultWorld))...)
	_, err := Parse("w.yaml", padded)
	require.NoError(t, err, "a document of just the greatest size is read")
	_, err = Parse("w.yaml", append(padded, '#'))
	require.Equal(t, fmt.Sprintf("the document has %d bytes, at most %d are read", MaxDocument+1, MaxDocument), Problems(err)[0].Reason)
}

func FuzzParse(f *testing.F) {
	f.Add(defaultWorld)
	for _, c := range refusals {
		f.Add([]byte(strings.Replace(string(defaultWorld), c.old, strings.Replace(c.new, mark, "", 1), 1)))
	}
	f.Add([]byte("a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		w, err := Parse("fuzz.yaml", data)
		if err == nil {
			sound(t, w)
			return
		}
		require.Nil(t, w)
		require.NotEmpty(t, Problems(err))
		for _, e := range Problems(err) {
			require.GreaterOrEqual(t, e.Line, 0)
			require.NotEmpty(t, e.Reason)
		}
	})
}
