package platform_test

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"drawbridge/features/platform"
	"drawbridge/topology"
)

func TestStartIsUntouchedButForTheCanaries(t *testing.T) {
	w := topology.Default()
	p := platform.Start(w)
	for _, d := range w.Databases() {
		require.Equal(t, d.Canary, !p.Of(d.Name).Equal(platform.Settings{}), d.Name)
		require.Equal(t, d.Nodes[0].Name, p.Primary(d.Name))
	}
}

func TestClonesShareNothing(t *testing.T) {
	p := platform.Start(topology.Default())
	p.Set("pg-dedicated", platform.Settings{Rules: []platform.Rule{platform.Managed("osc-fr1")}})
	c := p.Clone()
	got := c.Of("pg-dedicated")
	got.Rules[0] = platform.Managed("osc-secnum-fr1")
	c.Set("pg-shared", platform.Settings{ForceTLS: platform.On})
	require.NoError(t, c.SetPrimary("pg-dedicated", "pg-dedicated-3"))
	c.Move(netip.MustParseAddr("192.0.2.129"), netip.MustParseAddr("192.0.2.131"))
	c.Publish("osc-fr1")

	require.Equal(t, platform.Managed("osc-fr1"), p.Of("pg-dedicated").Rules[0])
	require.True(t, p.Of("pg-shared").Equal(platform.Settings{}))
	require.Equal(t, "pg-dedicated-1", p.Primary("pg-dedicated"))
	require.Equal(t, platform.Start(topology.Default()).ManagedRanges(), p.ManagedRanges())
}

func TestManagedRangesLagBehindTheFabricUntilPublished(t *testing.T) {
	p := platform.Start(topology.Default())
	from, to := netip.MustParseAddr("192.0.2.129"), netip.MustParseAddr("192.0.2.131")
	has := func(a netip.Addr) bool {
		for _, n := range p.Networks(platform.Managed("osc-fr1")) {
			if n.Contains(a) {
				return true
			}
		}
		return false
	}
	p.Move(from, to)
	a, ok := p.AppEgress("osc-fr1", "web", from)
	require.True(t, ok)
	require.Equal(t, to, a)
	require.True(t, has(from))
	require.False(t, has(to))
	p.Publish("osc-fr1")
	require.True(t, has(to))
	require.False(t, has(from))
	p.Move(from, from)
	require.Empty(t, p.Moves())
}

func TestSetPrimaryNeedsANodeOfTheDatabase(t *testing.T) {
	p := platform.Start(topology.Default())
	require.ErrorContains(t, p.SetPrimary("pg-dedicated", "pg-shared-1"), "no node")
	require.ErrorContains(t, p.SetPrimary("nothing", "pg-shared-1"), "not in the world")
}

func TestCustom(t *testing.T) {
	r, err := platform.Custom("198.51.100.0/25")
	require.NoError(t, err)
	require.Equal(t, "198.51.100.0/25", r.String())
	_, err = platform.Custom("198.51.100.1/25")
	require.ErrorContains(t, err, "the network is 198.51.100.0/25")
	_, err = platform.Custom("office")
	require.Error(t, err)
}

func TestParseToggle(t *testing.T) {
	for _, s := range []string{"on", "off"} {
		got, err := platform.ParseToggle(s)
		require.NoError(t, err)
		require.Equal(t, s, got.String())
	}
	_, err := platform.ParseToggle("On")
	require.Error(t, err)
	require.Equal(t, "untouched", platform.Toggle(0).String())
}
