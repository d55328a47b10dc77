package compile_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"drawbridge/enforcer/compile"
	"drawbridge/enforcer/policy"
	"drawbridge/enforcer/ruleset"
)

var noon = time.Date(2027, 1, 31, 12, 0, 0, 0, time.UTC)

// expiring is the policy of a gateway with one database; a rule is a network, and behind "until" when it ends.
func expiring(t *testing.T, rules ...string) *policy.Policy {
	t.Helper()
	var all []string
	for _, r := range rules {
		cidr, until, ok := strings.Cut(r, " until ")
		member := fmt.Sprintf(`"type": "custom_range", "cidr": %q`, cidr)
		if cidr == "fr1" {
			member = `"type": "managed_range", "name": "fr1"`
		}
		if ok {
			member += fmt.Sprintf(`, "expires": %q`, until)
		}
		all = append(all, "{"+member+"}")
	}
	p, err := policy.Parse("expiring", []byte(`{"version": 1, "point": {"name": "gw", "model": "dedicated"}, "region": {"name": "r", "networks": []},
		"managed_ranges": {"fr1": ["192.0.2.128/30"]}, "databases": [{"name": "orders", "model": "dedicated", "engine": "postgresql",
		"endpoints": [{"kind": "public-rw", "address": "203.0.113.1", "port": 5432, "family": "ipv4", "tls": "in-band"}],
		"nodes": [{"name": "one", "here": true, "addresses": ["10.64.1.1"], "ports": [{"port": 5432, "tls": "in-band"}]}],
		"firewall_rules": [`+strings.Join(all, ", ")+`]}]}`))
	require.NoError(t, err)
	return p
}

func elementsOf(table ruleset.Table, set string) (words []string) {
	for _, s := range table.Sets {
		if s.Name == set {
			for _, e := range s.Elements {
				words = append(words, ruleset.PrintElement(s, e))
			}
		}
	}
	return words
}

// TestRulesThatExpire: what several rules cover lives as long as the longest, and for ever if one of them does.
func TestRulesThatExpire(t *testing.T) {
	for _, tt := range []struct {
		name  string
		rules []string
		want  []string
	}{
		{"one", []string{"198.51.100.0/24 until 2027-01-31T13:00:00Z"}, []string{"198.51.100.0/24 timeout 1h"}},
		{"in another zone of time", []string{"198.51.100.0/24 until 2027-01-31T13:00:00+01:00"}, nil},
		{"half a second is not lent", []string{"198.51.100.0/24 until 2027-01-31T12:00:01.5Z"}, []string{"198.51.100.0/24 timeout 1s"}},
		{"over", []string{"198.51.100.0/24 until 2027-01-31T12:00:00Z", "192.0.2.0/24"}, []string{"192.0.2.0/24"}},
		{"permanent around", []string{"198.51.100.0/24", "198.51.100.7/32 until 2027-01-31T13:00:00Z"},
			[]string{"198.51.100.0-198.51.100.6", "198.51.100.7", "198.51.100.8-198.51.100.255"}},
		{"permanent inside", []string{"198.51.100.0/30 until 2027-01-31T13:00:00Z", "198.51.100.1/32"},
			[]string{"198.51.100.0 timeout 1h", "198.51.100.1", "198.51.100.2/31 timeout 1h"}},
		{"the later one", []string{"198.51.100.0/31 until 2027-01-31T13:00:00Z", "198.51.100.1/32 until 2027-01-31T14:00:00Z"},
			[]string{"198.51.100.0 timeout 1h", "198.51.100.1 timeout 2h"}},
		{"up to the last address", []string{"255.255.255.254/31", "255.255.255.255/32 until 2027-01-31T13:00:00Z", "0.0.0.0/31"},
			[]string{"0.0.0.0/31", "255.255.255.254", "255.255.255.255"}},
		{"everything", []string{"0.0.0.0/0 until 2027-01-31T13:00:00Z"}, []string{"0.0.0.0/0 timeout 1h"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			table, err := compile.Options{Now: noon}.Compile(expiring(t, tt.rules...))
			require.NoError(t, err)
			require.Equal(t, tt.want, elementsOf(table, "custom4_orders"))
		})
	}
	table, err := compile.Options{Now: noon}.Compile(expiring(t, "fr1 until 2027-01-31T12:30:00Z"))
	require.NoError(t, err)
	require.Equal(t, []string{"203.0.113.1 . 5432 timeout 30m"}, elementsOf(table, "users4_fr1"))
	_, err = compile.Compile(expiring(t, "fr1 until 2027-01-31T12:30:00Z"))
	require.ErrorIs(t, err, compile.ErrNeedsTime)
}

// TestWhatIsLeft: a change of what is left of a lifetime, as time goes by, is none; one of the lifetime is.
func TestWhatIsLeft(t *testing.T) {
	at := func(now time.Time, until string) ruleset.Table {
		table, err := compile.Options{Now: now}.Compile(expiring(t, "198.51.100.0/24 until "+until))
		require.NoError(t, err)
		return table
	}
	before := at(noon, "2027-01-31T13:00:00Z")
	later := at(noon.Add(10*time.Minute), "2027-01-31T13:00:00Z")
	require.True(t, ruleset.Diff(before.Aged(10*time.Minute), later).IsEmpty())
	require.False(t, ruleset.Diff(before, later).IsEmpty(), "as after a jump of the clock")
	require.True(t, ruleset.Diff(before.Aged(10*time.Minute), later).IsEmpty())
	require.False(t, ruleset.Diff(before, at(noon, "2027-01-31T13:00:05Z")).IsEmpty())
	require.Empty(t, elementsOf(before.Aged(2*time.Hour), "custom4_orders"))
	require.NotEmpty(t, elementsOf(before, "custom4_orders"), "the older table is as it was")
	require.True(t, slices.ContainsFunc(before.Sets, func(s ruleset.Set) bool { return s.HasTimeout }))
}
