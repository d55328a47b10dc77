//go:build !operator

package main

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"drawbridge/sim/probe"
	"drawbridge/topology"

	"github.com/stretchr/testify/require"
)

func TestOnlyWhatIsNamedIsTried(t *testing.T) {
	w := topology.Default()
	all, err := matrixOrder{}.specs(w)
	require.NoError(t, err)
	office, _ := w.Vantage("office")
	for _, c := range []struct {
		order matrixOrder
		keep  func(probe.Spec) bool
	}{
		{matrixOrder{From: []string{"office", "osc-fr1/web", "office"}}, func(s probe.Spec) bool { return s.From == "office" || s.From == "osc-fr1/web" }},
		{matrixOrder{To: []string{"pg-dedicated"}}, func(s probe.Spec) bool { return s.To.Database == "pg-dedicated" }},
		{matrixOrder{To: []string{"198.51.100.129:5432", "pg-shared"}}, func(s probe.Spec) bool { return s.To.Database == "pg-shared" }},
		{matrixOrder{From: []string{"office"}, To: []string{"198.51.100.129:3306"}}, func(s probe.Spec) bool {
			return s.From == "office" && s.To.Addr == netip.MustParseAddrPort("198.51.100.129:3306")
		}},
	} {
		var want []probe.Spec
		for _, s := range all {
			if c.keep(s) {
				want = append(want, s)
			}
		}
		got, err := c.order.specs(w)
		require.NoError(t, err)
		require.NotEmpty(t, got)
		require.ElementsMatch(t, want, got, c.order)
	}
	got, err := matrixOrder{From: []string{office.Addresses[0].String()}}.specs(w)
	require.NoError(t, err)
	for _, s := range got {
		require.Equal(t, "office", s.From)
		require.Equal(t, office.Addresses[0], s.Source)
		require.True(t, s.To.Addr.Addr().Is4(), "of the address's family")
	}
	plain, err := matrixOrder{To: []string{"pg-dedicated"}}.specs(w)
	require.NoError(t, err)
	round, err := matrixOrder{To: []string{"pg-dedicated"}, Bypasses: true}.specs(w)
	require.NoError(t, err)
	require.Greater(t, len(round), len(plain), "the ways round that database as well")
	for _, s := range round {
		require.Equal(t, "pg-dedicated", s.To.Database)
	}
}

func TestUnknownNamesAreRefusedWithTheNearest(t *testing.T) {
	text, err := topology.NewFleet(topology.Fleet{Name: "many", Shared: 100})
	require.NoError(t, err)
	many, err := topology.Parse("many.yaml", text)
	require.NoError(t, err)
	for _, c := range []struct {
		world *topology.World
		order matrixOrder
		want  string
	}{
		{topology.Default(), matrixOrder{To: []string{"pg"}}, `--to: "pg" is neither a database of this world nor address:port; there are pg-shared, my-shared, `},
		{topology.Default(), matrixOrder{To: []string{"203.0.113.129:1"}}, `--to: no database of this world listens at 203.0.113.129:1`},
		{topology.Default(), matrixOrder{From: []string{"10.255.255.1"}}, `--from: 10.255.255.1 is no address of a vantage of this world`},
		{many, matrixOrder{From: []string{"offise"}}, `--from: "offise" is no vantage of this world, nor the address of one; did you mean office? drawbridge sim graph shows all `},
		{many, matrixOrder{To: []string{"shard-77"}}, `did you mean shared-77, shared-`},
		{many, matrixOrder{To: []string{"entirely different"}}, `nor address:port; drawbridge sim graph shows all `},
		{many, matrixOrder{From: []string{"shared-1-1"}, To: []string{"shared-1"}}, `there is nothing to try`},
	} {
		_, err := c.order.specs(c.world)
		require.ErrorContains(t, err, c.want, c.order)
	}
}

func TestEditsBetweenNames(t *testing.T) {
	for pair, want := range map[[2]string]int{
		{"", ""}: 0, {"", "abc"}: 3, {"abc", ""}: 3, {"kitten", "sitting"}: 3, {"app-1", "app-1"}: 0, {"flaw", "lawn"}: 2,
	} {
		require.Equal(t, want, edits(pair[0], pair[1]), pair)
	}
}

// crowd is what so many clients saw of so many endpoints; verdict decides.
func crowd(clients, endpoints int, verdict func(client, endpoint int) string) (all []seen) {
	for c := range clients {
		for e := range endpoints {
			to := netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(e)}), 1)
			if v := verdict(c, e); v != "" {
				all = append(all, seen{From: fmt.Sprintf("app-%d", c), Database: fmt.Sprintf("db-%d", e), To: to, Kind: "public-rw", Mode: "tls", Verdict: v})
			}
		}
	}
	return all
}

func TestManyThatAreAlikeShareColumnsAndLines(t *testing.T) {
	verdict := func(client, endpoint int) string {
		switch {
		case client == endpoint:
			return "" // itself
		case client == 50:
			return "dropped"
		case client == 60 && endpoint >= 70:
			return notTried
		}
		return "served"
	}
	var out strings.Builder
	require.NoError(t, writeMatrix(&out, crowd(1000, 80, verdict), false))
	text := out.String()
	require.Contains(t, text, "1 = app-0, app-1, app-2 and 995 more\n2 = app-50\n3 = app-60\n\n")
	require.Regexp(t, `(?m)^db-1 and 69 more +192\.0\.2\.1:1 +public-rw +S +d +S$`, text, "what itself has nothing to try hides no difference")
	require.Regexp(t, `(?m)^db-70 and 9 more +192\.0\.2\.70:1 +public-rw +S +d +-$`, text)
	require.Contains(t, text, "79920 connections, vantages: 1000, endpoints: 80: 79831 served, 79 dropped, 10 not tried; those alike are shown together (--all: each)\n")

	out.Reset()
	require.NoError(t, writeMatrix(&out, crowd(1000, 80, verdict), true))
	require.Contains(t, out.String(), "\n1000 = app-999\n")
	require.Contains(t, out.String(), "\ndb-79 ")
	require.NotContains(t, out.String(), "more")

	out.Reset()
	require.NoError(t, writeMatrix(&out, crowd(3, 2, verdict), false))
	require.Contains(t, out.String(), "1 = app-0\n2 = app-1\n3 = app-2\n", "few have a column each")
	require.Regexp(t, `(?m)^db-0 .* \.  S  S$`, out.String())
}

func TestASourceHasAColumnOfItsOwn(t *testing.T) {
	all := crowd(1, 1, func(int, int) string { return "served" })
	all = append(all, all[0])
	all[1] = seen{From: "app-0", Database: "db-0", To: all[0].To, Kind: "public-rw", Mode: "tls", Verdict: "dropped", Source: "192.0.2.9"}
	var out strings.Builder
	require.NoError(t, writeMatrix(&out, all, false))
	require.Contains(t, out.String(), "1 = app-0\n2 = app-0 (192.0.2.9)\n")
	require.Empty(t, changed(all[:1], all[1:], time.Unix(1, 0)), "nor is it compared with another's")
}
