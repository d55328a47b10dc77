package driver_test

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"

	"drawbridge/features/driver"
	"drawbridge/features/platform"
	"drawbridge/topology"
)

func compiled(t *testing.T) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(driver.Schema()))
	require.NoError(t, err)
	c := jsonschema.NewCompiler()
	require.NoError(t, c.AddResource("policy.schema.json", doc))
	s, err := c.Compile("policy.schema.json")
	require.NoError(t, err)
	return s
}

func fits(t *testing.T, s *jsonschema.Schema, data []byte) error {
	t.Helper()
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	require.NoError(t, err)
	return s.Validate(v)
}

// states are a platform in every shape that scenarios give it.
func states(t *testing.T) map[string]*platform.State {
	t.Helper()
	w := topology.Default()
	out := map[string]*platform.State{"defaults": platform.Start(w)}
	with := func(name string, change func(*platform.State, topology.Database)) {
		p := platform.Start(w)
		for _, d := range w.Databases() {
			if !d.Canary {
				change(p, d)
			}
		}
		out[name] = p
	}
	everything := platform.Settings{
		ForceTLS: platform.On, InternetAccessibility: platform.On, Unknown: platform.KeepUnknown,
		Rules: []platform.Rule{platform.Managed("osc-fr1"), {CIDR: netip.MustParsePrefix("::/0")}},
	}
	with("toggles on, rules of both types", func(p *platform.State, d topology.Database) { p.Set(d.Name, everything) })
	with("toggles off", func(p *platform.State, d topology.Database) {
		p.Set(d.Name, platform.Settings{ForceTLS: platform.Off, InternetAccessibility: platform.Off, Unknown: platform.CutUnknown})
	})
	with("a rule too many", func(p *platform.State, d topology.Database) {
		var s platform.Settings
		for i := range 31 {
			s.Rules = append(s.Rules, platform.Rule{CIDR: netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(i)}), 32)})
		}
		p.Set(d.Name, s)
	})
	with("failed over", func(p *platform.State, d topology.Database) {
		require.NoError(t, p.SetPrimary(d.Name, d.Nodes[len(d.Nodes)-1].Name))
	})
	moved := platform.Start(w)
	for _, r := range w.Regions() {
		moved.Move(r.Egress[0], r.Spare[0])
		moved.Publish(r.Name)
	}
	out["managed ranges moved"] = moved
	return out
}

func TestEveryDocumentFitsTheSchema(t *testing.T) {
	s := compiled(t)
	for name, p := range states(t) {
		for _, point := range p.World().Points() {
			t.Run(name+"/"+point.Name, func(t *testing.T) {
				doc, err := driver.Build(p, point.Name)
				require.NoError(t, err)
				data, err := doc.Encode()
				require.NoError(t, err)
				require.NoError(t, fits(t, s, data), "%s", data)
			})
		}
	}
}

func TestSchemaRejects(t *testing.T) {
	s := compiled(t)
	p := platform.Start(topology.Default())
	custom, err := platform.Custom("198.51.100.0/28")
	require.NoError(t, err)
	p.Set("pg-dedicated", platform.Settings{Rules: []platform.Rule{custom, platform.Managed("osc-fr1")}})
	encode := func(point string) string {
		doc, err := driver.Build(p, point)
		require.NoError(t, err)
		data, err := doc.Encode()
		require.NoError(t, err)
		return string(data)
	}
	gateway, host := encode("gw-fr1"), encode("shared-a")
	for _, c := range []struct{ name, doc, old, new string }{
		{"unknown member at the top", gateway, `{"version":1`, `{"surprise":0,"version":1`},
		{"unknown member of a database", gateway, `"engine":"mongodb"`, `"engine":"mongodb","open":true`},
		{"other version", gateway, `"version":1`, `"version":2`},
		{"unknown engine", gateway, `"mongodb"`, `"cobol"`},
		{"unknown model", gateway, `"model":"dedicated"`, `"model":"leased"`},
		{"model that is not the point's", gateway, `"name":"gw-fr1","model":"dedicated"`, `"name":"gw-fr1","model":"shared"`},
		{"unknown zone", gateway, `"zone":"cluster"`, `"zone":"moon"`},
		{"port 0", gateway, `"port":8008`, `"port":0`},
		{"port too high", gateway, `"port":8008`, `"port":65536`},
		{"no dnat at a gateway", gateway, `,"dnat":{"address":"10.64.1.2","port":5432}`, ``},
		{"family that is not the address's", gateway, `"family":"ipv4"`, `"family":"ipv6"`},
		{"not an address", gateway, `"address":"203.0.113.129"`, `"address":"203.0.113.300"`},
		{"not a network", gateway, `"cidr":"198.51.100.0/28"`, `"cidr":"198.51.100.0/33"`},
		{"a rule of no type", gateway, `"type":"custom_range",`, ``},
		{"a managed range with a CIDR", gateway, `"type":"custom_range"`, `"type":"managed_range"`},
		{"a rule twice", gateway, `{"type":"managed_range","name":"osc-fr1"}`, `{"type":"managed_range","name":"osc-fr1"},{"type":"managed_range","name":"osc-fr1"}`},
		{"a toggle that is no boolean", host, `"force_tls":true`, `"force_tls":"on"`},
		{"a toggle that is null", host, `"force_tls":true`, `"force_tls":null`},
		{"dnat at a shared host", host, `"tls":"in-band"}],"nodes"`, `"tls":"in-band","dnat":{"address":"10.0.0.1","port":1}}],"nodes"`},
		{"nothing", host, host, `{}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			require.Contains(t, c.doc, c.old)
			wrong := strings.Replace(c.doc, c.old, c.new, 1)
			require.True(t, json.Valid([]byte(wrong)))
			require.Error(t, fits(t, s, []byte(wrong)))
		})
	}
}

func TestBuild(t *testing.T) {
	p := platform.Start(topology.Default())
	require.NoError(t, p.SetPrimary("pg-dedicated", "pg-dedicated-2"))
	doc, err := driver.Build(p, "gw-fr1")
	require.NoError(t, err)
	pg := doc.Databases[0]
	require.Equal(t, "pg-dedicated", pg.Name)
	require.Nil(t, pg.ForceTLS, "an untouched toggle is absent")
	require.Empty(t, pg.FirewallRules)
	require.Len(t, pg.Endpoints, 2)
	require.Equal(t, pg.Nodes[1].Addresses[0], pg.Endpoints[0].DNAT.Address, "the endpoint follows the primary")
	canary := doc.Databases[len(doc.Databases)-1]
	require.True(t, strings.HasPrefix(canary.Name, driver.CanaryPrefix))
	require.Len(t, canary.FirewallRules, 2)

	doc, err = driver.Build(p, "redis-b")
	require.NoError(t, err)
	redis := doc.Databases[0]
	require.Len(t, redis.Nodes, 3)
	require.False(t, redis.Nodes[0].Here)
	require.True(t, redis.Nodes[1].Here)
	for _, e := range redis.Endpoints {
		require.Contains(t, redis.Nodes[1].Addresses, e.Address, "only endpoints at this point")
		require.Nil(t, e.DNAT)
	}

	_, err = driver.Build(p, "nowhere")
	require.ErrorContains(t, err, `no enforcement point "nowhere"`)
}
