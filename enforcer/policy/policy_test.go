package policy_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"drawbridge/enforcer/policy"
)

// sample is the document of docs/DRIVERS.md, section 4.
const sample = `{
  "version": 1,
  "point": {"name": "gw-orders", "model": "dedicated"},
  "interfaces": [
    {"name": "inet0", "zone": "internet"},
    {"name": "vpc0",  "zone": "cluster"},
    {"name": "peer0", "zone": "peering"}
  ],
  "region": {"name": "osc-fr1", "networks": ["10.10.0.0/16", "fd00:10::/48"]},
  "managed_ranges": {
    "osc-fr1":        ["192.0.2.129/32", "192.0.2.130/32", "2001:db8:f1::1/128"],
    "osc-secnum-fr1": ["192.0.2.161/32", "192.0.2.162/32", "2001:db8:f2::1/128"]
  },
  "databases": [
    {
      "name": "orders",
      "model": "dedicated",
      "engine": "postgresql",
      "endpoints": [
        {"kind": "public-rw", "address": "203.0.113.140", "port": 5432, "family": "ipv4", "tls": "in-band",
         "dnat": {"address": "10.64.1.11", "port": 5432}},
        {"kind": "private-peering-rw", "address": "172.20.0.5", "port": 5432, "family": "ipv4", "tls": "in-band",
         "dnat": {"address": "10.64.1.11", "port": 5432}}
      ],
      "nodes": [
        {"name": "orders-1", "here": true, "addresses": ["10.64.1.11"], "ports": [{"port": 5432, "tls": "in-band"}, {"port": 8008, "tls": "only"}]},
        {"name": "orders-2", "here": true, "addresses": ["10.64.1.12"], "ports": [{"port": 5432, "tls": "in-band"}, {"port": 8008, "tls": "only"}]}
      ],
      "cluster_ports": [{"port": 5432, "shared": true}, {"port": 8008, "shared": false}],
      "force_tls": false,
      "firewall_rules": [
        {"type": "custom_range", "cidr": "198.51.100.0/28", "label": "office"},
        {"type": "managed_range", "name": "osc-fr1"}
      ]
    }
  ]
}`

// sharedSample is the smallest document of a shared host.
const sharedSample = `{"version": 1, "point": {"name": "h", "model": "shared"}, "region": {"name": "r", "networks": ["10.10.0.0/16"]},
  "databases": [{"name": "blog", "model": "shared", "engine": "mysql",
    "endpoints": [{"kind": "public-rw", "address": "192.0.2.10", "port": 3306, "family": "ipv4", "tls": "in-band"}],
    "nodes": [{"name": "blog-1", "here": true, "addresses": ["192.0.2.10"], "ports": [{"port": 3306, "tls": "in-band"}]}]}]}`

func parse(t *testing.T, data string) *policy.Policy {
	t.Helper()
	p, err := policy.Parse("policy.json", []byte(data))
	require.NoError(t, err)
	return p
}

func TestParse(t *testing.T) {
	p := parse(t, sample)
	require.Equal(t, "gw-orders", p.Point())
	require.Equal(t, policy.Dedicated, p.Model())
	require.Equal(t, []policy.Interface{{Name: "inet0", Zone: policy.ZoneInternet}, {Name: "vpc0", Zone: policy.ZoneCluster}, {Name: "peer0", Zone: policy.ZonePeering}}, p.Interfaces())
	require.Equal(t, policy.Region{Name: "osc-fr1", Networks: []netip.Prefix{netip.MustParsePrefix("10.10.0.0/16"), netip.MustParsePrefix("fd00:10::/48")}}, p.Region())
	require.Len(t, p.ManagedRanges(), 2)
	require.Equal(t, "osc-fr1", p.ManagedRanges()[0].Name)
	require.Len(t, p.Databases(), 1)
	db := p.Databases()[0]
	require.Equal(t, "orders", db.Name())
	require.Equal(t, policy.PostgreSQL, db.Engine())
	require.False(t, db.ForceTLS())
	require.False(t, db.KeepUnknown())
	require.Equal(t, policy.Endpoint{Kind: policy.PeeringRW, Addr: netip.MustParseAddrPort("172.20.0.5:5432"), TLS: policy.TLSInBand, DNAT: netip.MustParseAddrPort("10.64.1.11:5432")}, db.Endpoints()[1])
	require.Equal(t, policy.Node{Name: "orders-2", Here: true, Addresses: []netip.Addr{netip.MustParseAddr("10.64.1.12")}, Ports: []policy.Port{{Number: 5432, TLS: policy.TLSInBand}, {Number: 8008, TLS: policy.TLSOnly}}}, db.Nodes()[1])
	require.Equal(t, []policy.ClusterPort{{Number: 5432, Shared: true}, {Number: 8008}}, db.ClusterPorts())
	require.Equal(t, []policy.Rule{{CIDR: netip.MustParsePrefix("198.51.100.0/28"), Label: "office"}, {Range: "osc-fr1"}}, db.Rules())
	require.Empty(t, p.Warnings())
}

func TestImmutable(t *testing.T) {
	p := parse(t, sample)
	p.Region().Networks[0] = netip.Prefix{}
	p.ManagedRanges()[0].Networks[0] = netip.Prefix{}
	p.Interfaces()[0].Zone = "x"
	db := p.Databases()[0]
	db.Rules()[0].CIDR = netip.Prefix{}
	db.Nodes()[0].Addresses[0] = netip.Addr{}
	db.Nodes()[0].Ports[0].Number = 1
	db.Endpoints()[0].TLS = "x"
	db.ClusterPorts()[0].Number = 1
	require.Equal(t, parse(t, sample), p)
}

// TestDefaults: what the user never touched (SPEC S-02, S-05, D-04).
func TestDefaults(t *testing.T) {
	shared := parse(t, sharedSample).Databases()[0]
	require.False(t, shared.ForceTLS())
	require.False(t, shared.InternetAccessible())
	dedicated := parse(t, strings.Replace(sample, `"force_tls": false,`, "", 1)).Databases()[0]
	require.True(t, dedicated.ForceTLS())
	require.False(t, dedicated.InternetAccessible())
	require.False(t, policy.Database{}.InternetAccessible(), "the zero value is the safe one")
}

func edit(t *testing.T, document, old, new string) string {
	t.Helper()
	require.Contains(t, document, old)
	return strings.Replace(document, old, new, 1)
}

func rules(n int) string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf(`{"type": "custom_range", "cidr": "198.51.100.%d/32"}`, i)
	}
	return "[" + strings.Join(out, ",") + "]"
}

const sampleRules = `[
        {"type": "custom_range", "cidr": "198.51.100.0/28", "label": "office"},
        {"type": "managed_range", "name": "osc-fr1"}
      ]`

// TestRefusals: well-formed documents that a rule of network exposure forbids.
func TestRefusals(t *testing.T) {
	for _, tt := range []struct {
		name, document, path string
		rule                 error
	}{
		{"S-09 accessibility without Force TLS", edit(t, sharedSample, `"engine"`, `"internet_accessibility": true, "engine"`), "databases[0].internet_accessibility", policy.ErrAccessibilityNeedsForceTLS},
		{"S-09 Force TLS off with accessibility", edit(t, sharedSample, `"engine"`, `"internet_accessibility": true, "force_tls": false, "engine"`), "databases[0].internet_accessibility", policy.ErrAccessibilityNeedsForceTLS},
		{"S-10 rule on shared", edit(t, sharedSample, `"engine"`, `"firewall_rules": [{"type": "custom_range", "cidr": "0.0.0.0/0"}], "engine"`), "databases[0].firewall_rules[0]", policy.ErrRulesOnShared},
		{"S-10 accessibility on dedicated", edit(t, sample, `"force_tls": false`, `"force_tls": true, "internet_accessibility": true`), "databases[0].internet_accessibility", policy.ErrAccessibilityOnDedicated},
		{"D-12 rule 31", edit(t, sample, sampleRules, rules(31)), "databases[0].firewall_rules[30]", policy.ErrTooManyRules},
		{"unknown engine, Force TLS", edit(t, sharedSample, `"engine": "mysql"`, `"force_tls": true, "engine": "oracle"`), "databases[0].engine", policy.ErrNegotiationUnknown},
		{"unknown engine, default", edit(t, edit(t, sample, `"force_tls": false,`, ""), "postgresql", "oracle"), "databases[0].engine", policy.ErrNegotiationUnknown},
		{"unknown engine, cluster", edit(t, sample, "postgresql", "oracle"), "databases[0].engine", policy.ErrNegotiationUnknown},
		{"in-band Redis", edit(t, sample, "postgresql", "redis"), "databases[0]", policy.ErrNegotiationUnknown},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, err := policy.Parse("policy.json", []byte(tt.document))
			require.Nil(t, p)
			require.ErrorIs(t, err, policy.ErrRefused)
			require.ErrorIs(t, err, tt.rule)
			var e *policy.Error
			require.ErrorAs(t, err, &e)
			require.Equal(t, tt.path, e.Path)
			require.NotEmpty(t, e.Hint)
			require.Positive(t, e.Line)
			if errors.Is(tt.rule, policy.ErrNegotiationUnknown) && strings.HasPrefix(tt.name, "unknown") {
				for _, engine := range policy.KnownEngines() {
					require.Contains(t, err.Error(), string(engine))
				}
			}
		})
	}
}

// TestAllowed: the neighbours of what is refused.
func TestAllowed(t *testing.T) {
	for name, document := range map[string]string{
		"D-12 thirty rules":                     edit(t, sample, sampleRules, rules(30)),
		"S-09 both toggles":                     edit(t, sharedSample, `"engine"`, `"internet_accessibility": true, "force_tls": true, "engine"`),
		"accessibility off says nothing":        edit(t, sample, `"force_tls": false`, `"internet_accessibility": false`),
		"no rules on shared":                    edit(t, sharedSample, `"engine"`, `"firewall_rules": [], "engine"`),
		"unknown engine without Force TLS":      edit(t, sharedSample, `"engine": "mysql"`, `"engine": "oracle"`),
		"no zones":                              sharedSample,
		"overlapping rules":                     edit(t, sample, `{"type": "managed_range"`, `{"type": "custom_range", "cidr": "198.51.100.1/32"}, {"type": "managed_range"`),
		"a cluster elsewhere on the same ports": edit(t, sharedSample, `"ports": [{"port": 3306, "tls": "in-band"}]}`, `"ports": [{"port": 3306, "tls": "in-band"}]}, {"name": "blog-2", "here": false, "addresses": ["192.0.2.11"], "ports": [{"port": 3306, "tls": "in-band"}]}`),
	} {
		t.Run(name, func(t *testing.T) { parse(t, document) })
	}
}

// TestMalformed: place and reason of everything that does not fit (SPEC X-11).
func TestMalformed(t *testing.T) {
	for _, tt := range []struct{ name, document, at, path, reason string }{
		{"empty", "", "1:1", "", "cut off"},
		{"cut off", sample[:400], "11:77", "", "cut off"},
		{"trailing data", sharedSample + "\n{}", "5:1", "", "after top-level value"},
		{"not an object", "[]", "1:1", "", "an array where an object belongs"},
		{"not JSON", "{\"version\": 1,}", "1:15", "", "invalid character"},
		{"NUL", strings.Replace(sample, "orders", "ord\x00ers", 1), "3:28", "", "NUL"},
		{"escaped NUL", strings.Replace(sample, `"office"`, `"off\u0000ice"`, 1), "32:70", "databases[0].firewall_rules[0].label", "NUL"},
		{"not UTF-8", strings.Replace(sample, "office", "off\xffice", 1), "32:74", "", "UTF-8"},
		{"too deep", strings.Repeat("[", 40) + strings.Repeat("]", 40), "1:33", strings.Repeat("[0]", 32), "nested more than 32 deep"},
		{"duplicate key", edit(t, sharedSample, `"version": 1,`, `"version": 1, "version": 1,`), "1:16", "version", "twice"},
		{"duplicate range name", edit(t, sample, "osc-secnum-fr1", "osc-fr1"), "12:5", "managed_ranges.osc-fr1", "twice"},
		{"unknown member", edit(t, sharedSample, `"engine"`, `"engin": 1, "engine"`), "2:53", "databases[0].engin", "unknown member"},
		{"member missing", edit(t, sharedSample, `"engine": "mysql",`, ""), "2:17", "databases[0]", `"engine" is missing`},
		{"version", edit(t, sharedSample, `"version": 1`, `"version": 2`), "1:13", "version", "version 2 is not known"},
		{"version as text", edit(t, sharedSample, `"version": 1`, `"version": "1"`), "1:13", "version", "a string where a number belongs"},
		{"null", edit(t, sample, `"force_tls": false`, `"force_tls": null`), "30:20", "databases[0].force_tls", "null where true or false belongs"},
		{"model of the point", edit(t, sample, `"name": "orders",
      "model": "dedicated"`, `"name": "orders",
      "model": "shared"`), "15:5", "databases[0]", "a shared database at a dedicated point"},
		{"no such model", edit(t, sample, `"model": "dedicated"}`, `"model": "Dedicated"}`), "3:43", "point.model", "unknown word"},
		{"region missing on shared", edit(t, sharedSample, `"region": {"name": "r", "networks": ["10.10.0.0/16"]},`, ""), "1:1", "", `"region" is missing`},
		{"empty interfaces", edit(t, sharedSample, `"region"`, `"interfaces": [], "region"`), "1:73", "interfaces", "no interface"},
		{"loopback in a zone", edit(t, sample, "vpc0", "lo"), "6:5", "interfaces[1]", "loopback"},
		{"interface twice", edit(t, sample, "vpc0", "inet0"), "6:5", "interfaces[1]", "twice"},
		{"interface name", edit(t, sample, "vpc0", "a-very-long-name"), "6:5", "interfaces[1]", "not the name of an interface"},
		{"host bits", edit(t, sample, "198.51.100.0/28", "198.51.100.1/28"), "32:42", "databases[0].firewall_rules[0].cidr", "host bits"},
		{"host bits in a range", edit(t, sample, "2001:db8:f1::1/128", "2001:db8:f1::1/64"), "11:60", "managed_ranges.osc-fr1[2]", "host bits"},
		{"not a CIDR", edit(t, sample, "198.51.100.0/28", "198.51.100.0"), "32:42", "databases[0].firewall_rules[0].cidr", "CIDR"},
		{"network twice", edit(t, sample, "192.0.2.130/32", "192.0.2.129/32"), "11:42", "managed_ranges.osc-fr1[1]", "twice"},
		{"mapped network", edit(t, sample, "198.51.100.0/28", "::ffff:198.51.100.0/124"), "32:42", "databases[0].firewall_rules[0].cidr", ""},
		{"wrong family", edit(t, sharedSample, `"ipv4"`, `"ipv6"`), "3:19", "databases[0].endpoints[0]", "not an ipv6 address"},
		{"translated across families", edit(t, sample, `"dnat": {"address": "10.64.1.11"`, `"dnat": {"address": "fd00::1"`), "21:18", "databases[0].endpoints[0].dnat", "other address family"},
		{"translated to nowhere", edit(t, sample, `"dnat": {"address": "10.64.1.11"`, `"dnat": {"address": "10.64.1.19"`), "15:5", "databases[0]", "no node of the database listens"},
		{"dnat on shared", edit(t, sharedSample, `"tls": "in-band"}],`, `"tls": "in-band", "dnat": {"address": "192.0.2.10", "port": 3306}}],`), "3:124", "databases[0].endpoints[0].dnat", "shared point"},
		{"peering on shared", edit(t, sharedSample, "public-rw", "private-peering-rw"), "3:19", "databases[0].endpoints[0]", "peering endpoint of a shared"},
		{"port 0", edit(t, sharedSample, `"port": 3306, "family"`, `"port": 0, "family"`), "3:74", "databases[0].endpoints[0].port", "not a port"},
		{"port 65536", edit(t, sharedSample, `"port": 3306, "family"`, `"port": 65536, "family"`), "3:74", "databases[0].endpoints[0].port", "not a port"},
		{"port 1e3", edit(t, sharedSample, `"port": 3306, "family"`, `"port": 1e3, "family"`), "3:74", "databases[0].endpoints[0].port", "not a port"},
		{"zone in an address", edit(t, sample, "203.0.113.140", "fe80::1%eth0"), "20:42", "databases[0].endpoints[0].address", "zone"},
		{"mapped address", edit(t, sample, "203.0.113.140", "::ffff:203.0.113.140"), "20:42", "databases[0].endpoints[0].address", "IPv4-mapped"},
		{"multicast", edit(t, sample, "203.0.113.140", "224.0.0.1"), "20:42", "databases[0].endpoints[0].address", "not the address of one host"},
		{"endpoint twice", edit(t, sample, "172.20.0.5", "203.0.113.140"), "22:9", "databases[0].endpoints[1]", "twice"},
		{"node's port twice", edit(t, sample, `"10.64.1.12"`, `"10.64.1.11"`), "27:83", "databases[0].nodes[1].ports[0]", "twice"},
		{"node twice", edit(t, sample, "orders-2", "orders-1"), "27:9", "databases[0].nodes[1]", "twice"},
		{"two ways to speak", edit(t, sharedSample, `"ports": [{"port": 3306, "tls": "in-band"}]`, `"ports": [{"port": 3306, "tls": "only"}]`), "4:87", "databases[0].nodes[0].ports[0]", "speaks"},
		{"rule twice", edit(t, sample, `{"type": "managed_range"`, `{"type": "custom_range", "cidr": "198.51.100.0/28", "label": "again"}, {"type": "managed_range"`), "33:9", "databases[0].firewall_rules[1]", "same rule"},
		{"unknown range", edit(t, sample, `"managed_range", "name": "osc-fr1"`, `"managed_range", "name": "osc-fr2"`), "33:9", "databases[0].firewall_rules[1]", "unknown managed range"},
		{"rule with both", edit(t, sample, `"managed_range", "name": "osc-fr1"`, `"managed_range", "cidr": "10.0.0.0/8", "name": "osc-fr1"`), "33:35", "databases[0].firewall_rules[1].cidr", "unknown member"},
		{"no node listens", edit(t, sample, `{"port": 8008, "shared"`, `{"port": 8009, "shared"`), "29:57", "databases[0].cluster_ports[1]", "no node listens"},
		{"cluster port twice", edit(t, sample, `{"port": 8008, "shared"`, `{"port": 5432, "shared"`), "29:57", "databases[0].cluster_ports[1]", "twice"},
		{"no nodes", edit(t, sharedSample, `[{"name": "blog-1", "here": true, "addresses": ["192.0.2.10"], "ports": [{"port": 3306, "tls": "in-band"}]}]`, "[]"), "2:17", "databases[0]", "without nodes"},
		{"name with a brace", edit(t, sharedSample, `"blog"`, `"bl}og"`), "2:26", "databases[0].name", "not a name"},
		{"unknown_connections", edit(t, sharedSample, `"engine"`, `"unknown_connections": "spare", "engine"`), "2:76", "databases[0].unknown_connections", "unknown word"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, err := policy.Parse("policy.json", []byte(tt.document))
			require.Nil(t, p)
			var e *policy.Error
			require.ErrorAs(t, err, &e)
			require.NotErrorIs(t, err, policy.ErrRefused)
			require.Contains(t, e.Reason, tt.reason)
			require.Equal(t, tt.path, e.Path)
			if tt.at != "" {
				require.Equal(t, tt.at, fmt.Sprintf("%d:%d", e.Line, e.Column))
				require.True(t, strings.HasPrefix(err.Error(), "policy.json:"+tt.at+": "), err.Error())
			}
		})
	}
}

func TestSharedAddressAndPortOfTwoDatabases(t *testing.T) {
	second := sharedSample[strings.Index(sharedSample, `{"name": "blog"`) : len(sharedSample)-2]
	other := strings.ReplaceAll(second, "blog", "shop")
	_, err := policy.Parse("p", []byte(strings.Replace(sharedSample, second, second+","+other, 1)))
	require.ErrorContains(t, err, "192.0.2.10:3306 is there twice")
	_, err = policy.Parse("p", []byte(strings.Replace(sharedSample, second, second+","+second, 1)))
	require.ErrorContains(t, err, "the database blog is there twice")
}

func TestTooLarge(t *testing.T) {
	_, err := policy.Parse("p", []byte(strings.Repeat(" ", policy.MaxSize+1)))
	require.ErrorContains(t, err, "more than 64 MiB")
}

// TestWarnings: SPEC D-11.
func TestWarnings(t *testing.T) {
	for _, tt := range []struct {
		rules string
		want  []string
	}{
		{`[{"type": "custom_range", "cidr": "0.0.0.0/0"}]`, []string{"the rule 0.0.0.0/0 of database orders lets in every IPv4 source"}},
		{`[{"type": "custom_range", "cidr": "::/0"}, {"type": "custom_range", "cidr": "0.0.0.0/1"}]`, []string{"the rule ::/0 of database orders lets in every IPv6 source"}},
		{`[{"type": "managed_range", "name": "osc-fr1"}]`, nil},
	} {
		p := parse(t, edit(t, sample, sampleRules, tt.rules))
		var got []string
		for _, w := range p.Warnings() {
			require.Equal(t, "orders", w.Database)
			got = append(got, w.Text)
		}
		require.Equal(t, tt.want, got)
	}
	p := parse(t, edit(t, sample, `"192.0.2.129/32"`, `"0.0.0.0/0"`))
	require.Equal(t, "the managed range osc-fr1 of database orders lets in every IPv4 source", p.Warnings()[0].Text)
}

// FuzzParse: no input crashes the parser, and what it lets through is consistent.
func FuzzParse(f *testing.F) {
	f.Add([]byte(sample))
	f.Add([]byte(sharedSample))
	f.Add([]byte(`{"version": 1`))
	f.Add([]byte(`{"a": "\ud800", "a": [[[]]]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := policy.Parse("fuzz", data)
		if err != nil {
			require.Nil(t, p)
			var e *policy.Error
			require.ErrorAs(t, err, &e)
			require.NotEmpty(t, e.Reason)
			return
		}
		require.True(t, json.Valid(data))
		ranges := map[string]bool{}
		for _, r := range p.ManagedRanges() {
			ranges[r.Name] = true
		}
		for _, db := range p.Databases() {
			require.LessOrEqual(t, len(db.Rules()), policy.MaxRules)
			require.NotEmpty(t, db.Nodes())
			require.False(t, db.InternetAccessible() && !db.ForceTLS())
			for _, r := range db.Rules() {
				require.NotEqual(t, ranges[r.Range], r.CIDR.IsValid())
				require.Equal(t, r.CIDR.Masked(), r.CIDR)
			}
			for _, e := range db.Endpoints() {
				require.True(t, e.Addr.IsValid() && e.Addr.Port() > 0)
			}
		}
	})
}

// TestPeeringNeedsItsZone: where nobody said where the peering arrives, its endpoint must not be open from everywhere (D-14).
func TestPeeringNeedsItsZone(t *testing.T) {
	p, err := policy.Parse("policy.json", []byte(edit(t, sample, `"zone": "peering"`, `"zone": "internet"`)))
	require.Nil(t, p)
	var e *policy.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, "databases[0].endpoints[1]", e.Path)
	require.NotEmpty(t, e.Hint)
}

// TestSchemaAgrees: what the parser takes fits the schema, and what does not fit the schema is refused by the parser.
func TestSchemaAgrees(t *testing.T) {
	schema := fitsSchema(t)
	fits := func(text string) bool { return schema(text) == nil }
	for name, text := range map[string]string{
		"dedicated": sample, "shared": sharedSample, "thirty rules": edit(t, sample, sampleRules, rules(30)),
		"a rule that expires": edit(t, sample, sampleRules, `[{"type": "custom_range", "cidr": "198.51.100.0/24", "label": "`+strings.Repeat("l", 256)+`", "expires": "2027-01-31T18:00:00.5+01:00"}]`),
		"both toggles":        edit(t, sharedSample, `"engine"`, `"internet_accessibility": true, "force_tls": true, "engine"`),
	} {
		parse(t, text)
		require.True(t, fits(text), name)
	}
	for name, text := range map[string]string{
		"unknown member":         edit(t, sharedSample, `"engine"`, `"engin": 1, "engine"`),
		"member missing":         edit(t, sharedSample, `"engine": "mysql",`, ""),
		"version":                edit(t, sharedSample, `"version": 1`, `"version": 2`),
		"port 0":                 edit(t, sharedSample, `"port": 3306, "family"`, `"port": 0, "family"`),
		"no such model":          edit(t, sample, `"model": "dedicated"}`, `"model": "Dedicated"}`),
		"null":                   edit(t, sample, `"force_tls": false`, `"force_tls": null`),
		"rule 31":                edit(t, sample, sampleRules, rules(31)),
		"no nodes":               edit(t, sharedSample, `[{"name": "blog-1", "here": true, "addresses": ["192.0.2.10"], "ports": [{"port": 3306, "tls": "in-band"}]}]`, "[]"),
		"an end that is no time": edit(t, sample, sampleRules, `[{"type": "custom_range", "cidr": "198.51.100.0/24", "expires": "tomorrow"}]`),
		"a long label":           edit(t, sample, sampleRules, `[{"type": "custom_range", "cidr": "198.51.100.0/24", "label": "`+strings.Repeat("l", 257)+`"}]`),
		"not an object":          "[]", "a brace in a name": edit(t, sharedSample, `"blog"`, `"bl}og"`),
	} {
		_, err := policy.Parse("p", []byte(text))
		require.Error(t, err, name)
		require.False(t, fits(text), name)
	}
}

// TestHugeAndTwisted: bad input of any size ends soon, with its place, and takes no more than a good document would.
func TestHugeAndTwisted(t *testing.T) {
	many := func(n int) string {
		out := make([]string, n)
		for i := range out {
			out[i] = strings.Replace(databaseOf(fmt.Sprint("d", i), 1, ""), "203.0.113.1", fmt.Sprintf("203.%d.%d.1", i/250, i%250), 1)
			out[i] = strings.Replace(out[i], "10.0.0.1", fmt.Sprintf("10.%d.%d.1", i/250, i%250), 1)
		}
		return pointOf(out...)
	}
	huge := many(10000)
	began := time.Now()
	p := parse(t, huge)
	require.Len(t, p.Databases(), 10000)
	good := time.Since(began)
	for name, tt := range map[string]struct{ text, at, reason string }{
		"100 MB":             {strings.Repeat(" ", 100<<20), "p:", "more than 64 MiB"},
		"deep":               {strings.Repeat("[", 1<<20), "p:1:", "exceeded max depth"},
		"deep objects":       {strings.Repeat(`{"a":`, 1000) + "1" + strings.Repeat("}", 1000), "p:1:", "nested more than 32 deep"},
		"half written":       {huge[:len(huge)/2], "p:", "cut off"},
		"a NUL far inside":   {huge[:len(huge)-100] + "\x00" + huge[len(huge)-99:], "p:", "NUL"},
		"a name twice, last": {strings.TrimSuffix(huge, "]}") + `], "version": 1}`, "p:", "twice"},
		"a database twice":   {strings.TrimSuffix(huge, "]}") + "," + databaseOf("d0", 1, "") + "]}", "p:", "is there twice"},
		"many names":         {`{"version": 1, ` + strings.Repeat(`"a": 1, "b": 1, `, 1<<18) + `"c": 1}`, "p:1:", "twice"},
		"a long string":      {`{"version": "` + strings.Repeat("x", 8<<20) + `"}`, "p:1:", "a string where a number belongs"},
	} {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			began := time.Now()
			p, err := policy.Parse("p", []byte(tt.text))
			took := time.Since(began)
			runtime.ReadMemStats(&after)
			require.Nil(t, p)
			require.ErrorContains(t, err, tt.reason)
			require.True(t, strings.HasPrefix(err.Error(), tt.at), err)
			require.Less(t, len(err.Error()), 1000)
			require.Less(t, took, 10*good+time.Second)
			require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(512<<20))
		})
	}
}
