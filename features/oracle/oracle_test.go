package oracle_test

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"drawbridge/features/oracle"
	"drawbridge/features/platform"
	"drawbridge/topology"
)

type settings = platform.Settings

var (
	untouched = settings{}
	forced    = settings{ForceTLS: platform.On}
	open      = settings{ForceTLS: platform.On, InternetAccessibility: platform.On}
	unforced  = settings{ForceTLS: platform.Off}
)

func rules(t *testing.T, force platform.Toggle, rules ...string) settings {
	t.Helper()
	s := settings{ForceTLS: force}
	for _, r := range rules {
		if r, err := platform.Custom(r); err == nil {
			s.Rules = append(s.Rules, r)
			continue
		}
		s.Rules = append(s.Rules, platform.Managed(r))
	}
	return s
}

// endpoint finds a database's endpoint or way round by kind, family, and whether it speaks TLS or plaintext.
func endpoint(t *testing.T, d topology.Database, kind topology.EndpointKind, v6, tls bool) topology.Endpoint {
	t.Helper()
	for _, e := range append(d.Endpoints(), d.Bypasses()...) {
		speaks := e.TLS == topology.TLSInBand || e.TLS == topology.TLSEither || (e.TLS == topology.TLSOnly) == tls
		if e.Kind == kind && e.Addr.Addr().Is6() == v6 && speaks {
			return e
		}
	}
	require.FailNowf(t, "no such endpoint", "%s %s v6=%t tls=%t", d.Name, kind, v6, tls)
	return topology.Endpoint{}
}

func TestExpect(t *testing.T) {
	const tls, plain = true, false
	cases := []struct {
		name, from, source, to string
		kind                   topology.EndpointKind
		v6, tls                bool
		set                    settings
		want                   oracle.Class
		because                string
	}{
		// At a glance, Shared Resources
		{"from the regional network", "osc-fr1/web", "", "pg-shared", "", false, tls, untouched, oracle.Served, "S-04"},
		{"Force TLS is off by default", "osc-fr1/web", "", "pg-shared", "", false, plain, untouched, oracle.Served, "S-05"},
		{"on a pair of ports", "osc-fr1/web", "", "redis-shared", "", false, plain, untouched, oracle.Served, "S-05"},
		{"not from the Internet", "office", "", "pg-shared", "", false, tls, untouched, oracle.Denied, "S-02"},
		{"another region comes from the Internet", "osc-secnum-fr1/api", "", "pg-shared", "", false, tls, untouched, oracle.Denied, "S-03"},
		{"a peer is no app", "corp/desk", "", "pg-shared", "", false, tls, untouched, oracle.Denied, "S-02"},
		{"a node of another database is no app", "redis-shared-2", "", "pg-shared", "", false, tls, untouched, oracle.Denied, "S-02"},
		{"Force TLS, plain", "osc-fr1/web", "", "my-shared", "", false, plain, forced, oracle.Denied, "S-06"},
		{"Force TLS, TLS", "osc-fr1/web", "", "my-shared", "", false, tls, forced, oracle.Served, "S-01"},
		{"Internet accessibility", "office", "", "my-shared", "", false, tls, open, oracle.Served, "S-08"},
		{"... but not without TLS", "office", "", "my-shared", "", false, plain, open, oracle.Denied, "S-07"},
		{"... another region too", "osc-secnum-fr1/api", "", "my-shared", "", false, tls, open, oracle.Served, "S-08"},
		{"... over IPv6", "office", "", "my-shared", "", true, tls, open, oracle.Served, "S-08"},
		{"the other family is a way round", "office", "", "pg-shared", topology.WayRound, true, tls, open, oracle.Denied, "G-03"},
		{"for the own region too", "osc-fr1/web", "", "pg-shared", topology.WayRound, true, tls, open, oracle.Denied, "G-03"},
		// Clusters
		{"node to node over TLS", "redis-shared-2", "", "redis-shared", "", false, tls, untouched, oracle.Served, "C-03"},
		{"node to node without", "redis-shared-2", "", "redis-shared", "", false, plain, untouched, oracle.Denied, "C-03"},
		{"... with Force TLS off", "pg-dedicated-2", "", "pg-dedicated", topology.WayRound, false, plain, unforced, oracle.Denied, "C-03"},
		{"... TLS behind a gateway", "pg-dedicated-2", "", "pg-dedicated", topology.WayRound, false, tls, unforced, oracle.Served, "C-03"},
		{"a client on the cluster's port", "osc-fr1/web", "", "redis-shared", topology.WayRound, false, tls, open, oracle.Denied, "C-04"},
		{"a stranger in the VPC", "mongo-dedicated-1", "", "pg-dedicated", topology.WayRound, false, tls, rules(t, 0, "0.0.0.0/0"), oracle.Denied, "G-03"},
		// At a glance, Dedicated Resources
		{"not from the own region", "osc-fr1/web", "", "pg-dedicated", "", false, tls, untouched, oracle.Denied, "D-01"},
		{"not from the Internet", "office", "", "pg-dedicated", "", false, tls, untouched, oracle.Denied, "D-01"},
		{"Force TLS is on by default", "office", "", "pg-dedicated", "", false, plain, rules(t, 0, "198.51.100.0/25"), oracle.Denied, "D-04"},
		{"... can be turned off", "office", "", "pg-dedicated", "", false, plain, rules(t, platform.Off, "198.51.100.0/25"), oracle.Served, "D-09"},
		{"... on a pair of ports", "office", "", "search-dedicated", "", false, plain, rules(t, 0, "198.51.100.0/25"), oracle.Denied, "D-04"},
		{"first address", "office", "198.51.100.64", "pg-dedicated", "", false, tls, rules(t, 0, "198.51.100.64/26"), oracle.Served, "D-09"},
		{"last address", "office", "198.51.100.127", "pg-dedicated", "", false, tls, rules(t, 0, "198.51.100.64/26"), oracle.Served, "D-09"},
		{"just outside", "office", "198.51.100.63", "pg-dedicated", "", false, tls, rules(t, 0, "198.51.100.64/26"), oracle.Denied, "D-05"},
		{"outside all rules", "home", "", "pg-dedicated", "", false, tls, rules(t, 0, "198.51.100.64/26", "osc-fr1"), oracle.Denied, "D-05"},
		{"everybody", "home", "", "pg-dedicated", "", false, tls, rules(t, 0, "0.0.0.0/0"), oracle.Served, "D-09"},
		{"... without TLS", "home", "", "pg-dedicated", "", false, plain, rules(t, 0, "0.0.0.0/0"), oracle.Denied, "D-04"},
		{"... of the one family", "home", "", "mongo-dedicated", "", true, tls, rules(t, 0, "0.0.0.0/0"), oracle.Denied, "D-05"},
		{"managed range", "osc-fr1/worker", "", "pg-dedicated", "", false, tls, rules(t, 0, "osc-fr1"), oracle.Served, "D-06"},
		{"managed range, IPv6", "osc-fr1/worker", "", "mongo-dedicated", "", true, tls, rules(t, 0, "osc-fr1"), oracle.Served, "D-06"},
		{"of another region", "osc-fr1/web", "", "pg-dedicated", "", false, tls, rules(t, 0, "osc-secnum-fr1"), oracle.Denied, "D-05"},
		{"region B's app", "osc-secnum-fr1/api", "", "pg-dedicated", "", false, tls, rules(t, 0, "osc-secnum-fr1"), oracle.Served, "D-06"},
		{"a private address is not what arrives", "osc-fr1/web", "", "pg-dedicated", "", false, tls, rules(t, 0, "10.10.0.0/16"), oracle.Denied, "D-05"},
		// Private peering
		{"no rule", "corp/desk", "", "pg-dedicated", topology.PrivatePeeringRW, false, tls, untouched, oracle.Denied, "D-01"},
		{"an allowed peer", "corp/desk", "", "pg-dedicated", topology.PrivatePeeringRW, false, tls, rules(t, 0, "172.16.0.0/28"), oracle.Served, "D-14"},
		{"... without TLS", "corp/desk", "", "pg-dedicated", topology.PrivatePeeringRW, false, plain, rules(t, 0, "172.16.0.0/28"), oracle.Denied, "D-04"},
		{"another peer", "corp/printer", "", "pg-dedicated", topology.PrivatePeeringRW, false, tls, rules(t, 0, "172.16.0.0/28"), oracle.Denied, "D-05"},
		{"not over the Internet", "office", "", "pg-dedicated", topology.PrivatePeeringRW, false, tls, rules(t, 0, "0.0.0.0/0"), oracle.Denied, "D-14"},
		{"nor from the region", "osc-fr1/web", "", "pg-dedicated", topology.PrivatePeeringRW, false, tls, rules(t, 0, "osc-fr1"), oracle.Denied, "D-14"},
	}
	for _, c := range cases {
		t.Run(c.from+" to "+c.to+" "+c.name, func(t *testing.T) {
			w := topology.Default()
			p := platform.Start(w)
			p.Set(c.to, c.set)
			from, ok := w.Vantage(c.from)
			require.True(t, ok)
			d, ok := w.Database(c.to)
			require.True(t, ok)
			if c.kind == "" {
				c.kind = topology.PublicRW
			}
			conn := oracle.Connection{From: from, To: endpoint(t, d, c.kind, c.v6, c.tls), TLS: c.tls}
			if c.source != "" {
				conn.Source = netip.MustParseAddr(c.source)
			}
			got, err := oracle.Expect(p, conn)
			require.NoError(t, err)
			require.Equal(t, c.want.String(), got.Class.String(), got.String())
			require.Contains(t, got.Because, c.because, got.String())
		})
	}
}

func TestCanariesAreServedToEveryoneOverTLS(t *testing.T) {
	w := topology.Default()
	p := platform.Start(w)
	tried := 0
	for _, d := range w.Databases() {
		if !d.Canary {
			continue
		}
		for _, from := range w.Vantages() {
			for _, e := range d.Endpoints() {
				if len(topology.OfFamily(from.Addresses, topology.FamilyOf(e.Addr.Addr()))) == 0 {
					continue
				}
				if e.TLS == topology.TLSNone {
					continue
				}
				v, err := oracle.Expect(p, oracle.Connection{From: from, To: e, TLS: true})
				require.NoError(t, err)
				require.Equal(t, oracle.Served, v.Class, "%s to %s: %s", from.Name, d.Name, v)
				tried++
			}
		}
	}
	require.Greater(t, tried, 50)
}

func TestReachabilityFollowsTheManagedRange(t *testing.T) {
	w := topology.Default()
	p := platform.Start(w)
	p.Set("pg-dedicated", rules(t, 0, "osc-fr1"))
	d, _ := w.Database("pg-dedicated")
	web, _ := w.Vantage("osc-fr1/web")
	worker, _ := w.Vantage("osc-fr1/worker")
	expect := func(from topology.Vantage) string {
		v, err := oracle.Expect(p, oracle.Connection{From: from, To: d.Endpoints()[0], TLS: true})
		require.NoError(t, err)
		return v.Class.String()
	}
	region, _ := w.Region("osc-fr1")
	require.Equal(t, "served", expect(web))
	p.Move(region.Egress[0], region.Spare[0])
	require.Equal(t, "denied", expect(web), "the range does not have the new address yet")
	require.Equal(t, "served", expect(worker), "it leaves from another address")
	p.Publish("osc-fr1")
	require.Equal(t, "served", expect(web))
	p.Move(region.Egress[0], region.Egress[0])
	require.Equal(t, "denied", expect(web), "the range has lost the old address")
}

func TestUnspecified(t *testing.T) {
	w := topology.Default()
	p := platform.Start(w)
	redis, _ := w.Database("redis-shared")
	web, _ := w.Vantage("osc-fr1/web")
	e := endpoint(t, redis, topology.PublicRW, false, true)
	v, err := oracle.Expect(p, oracle.Connection{From: web, To: e, TLS: false})
	require.NoError(t, err)
	require.Equal(t, oracle.Unspecified, v.Class, "a TLS port has no plaintext to serve or deny")
	require.Equal(t, oracle.Unspecified, oracle.Verdict{}.Class)
}

func TestErrors(t *testing.T) {
	w := topology.Default()
	p := platform.Start(w)
	d, _ := w.Database("mongo-dedicated")
	desk, _ := w.Vantage("corp/desk")
	_, err := oracle.Expect(p, oracle.Connection{From: desk, To: endpoint(t, d, topology.PublicRW, true, true), TLS: true})
	require.ErrorContains(t, err, "no address of the family")
	e := d.Endpoints()[0]
	e.Database = "nobody"
	_, err = oracle.Decide(p, oracle.Arrival{}, e, true)
	require.ErrorContains(t, err, "no database")
}

func TestRefusal(t *testing.T) {
	many := settings{}
	for i := range 30 {
		many.Rules = append(many.Rules, platform.Rule{CIDR: netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(i)}), 32)})
	}
	tooMany := many.Clone()
	tooMany.Rules = append(tooMany.Rules, platform.Managed("osc-fr1"))
	for _, c := range []struct {
		name string
		m    topology.Model
		s    settings
		want string
	}{
		{"nothing touched", topology.Shared, untouched, ""},
		{"nothing touched", topology.Dedicated, untouched, ""},
		{"Force TLS first", topology.Shared, settings{InternetAccessibility: platform.On}, "S-09"},
		{"Force TLS off again", topology.Shared, settings{InternetAccessibility: platform.On, ForceTLS: platform.Off}, "S-09"},
		{"both", topology.Shared, open, ""},
		{"off needs nothing", topology.Shared, settings{InternetAccessibility: platform.Off}, ""},
		{"a rule on shared", topology.Shared, rules(t, 0, "192.0.2.0/24"), "S-10"},
		{"accessibility on dedicated", topology.Dedicated, open, "S-10"},
		{"thirty", topology.Dedicated, many, ""},
		{"thirty-one", topology.Dedicated, tooMany, "D-12"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := oracle.Refusal(c.m, c.s)
			require.Equal(t, c.want != "", got != "", got)
			require.Contains(t, got, c.want)
		})
	}
}

func TestWarned(t *testing.T) {
	require.True(t, oracle.Warned(rules(t, 0, "0.0.0.0/0")))
	require.True(t, oracle.Warned(rules(t, 0, "osc-fr1", "::/0")))
	require.False(t, oracle.Warned(rules(t, 0, "0.0.0.0/1", "osc-fr1")))
}

func TestForcesTLS(t *testing.T) {
	require.False(t, oracle.ForcesTLS(topology.Shared, untouched))
	require.True(t, oracle.ForcesTLS(topology.Shared, forced))
	require.True(t, oracle.ForcesTLS(topology.Dedicated, untouched))
	require.False(t, oracle.ForcesTLS(topology.Dedicated, unforced))
}
