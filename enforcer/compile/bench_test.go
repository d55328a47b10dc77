package compile_test

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"drawbridge/enforcer/compile"
	"drawbridge/enforcer/policy"
	"drawbridge/enforcer/ruleset"
)

// large is a gateway with n databases of 30 rules each.
func large(n int) document {
	d := document{Version: 1, Point: point{"p", "dedicated"}, Region: region{"r", []string{"10.10.0.0/16"}}, Ranges: map[string][]string{"fr1": {"192.0.2.1/32"}}}
	for i := range n {
		db := database{
			Name: fmt.Sprint("db", i), Model: "dedicated", Engine: "postgresql",
			Endpoints: []endpoint{{"public-rw", fmt.Sprintf("203.%d.%d.1", i/250, i%250), 5432, "ipv4", "in-band"}},
			Nodes:     []node{{"n", true, []string{fmt.Sprintf("10.%d.%d.1", 100+i/250, i%250)}, []nodePort{{5432, "in-band"}}}},
			Rules:     []rule{{Type: "managed_range", Name: "fr1"}},
		}
		for r := range 29 {
			db.Rules = append(db.Rules, rule{Type: "custom_range", CIDR: fmt.Sprintf("198.51.%d.%d/32", i%250, 2*r)})
		}
		d.Databases = append(d.Databases, db)
	}
	return d
}

// BenchmarkOneRule is the pure part of adding one rule (SPEC D-16): parse, compile and compare the whole policy.
func BenchmarkOneRule(b *testing.B) {
	for _, n := range []int{100, 1000, 10000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			d := large(n)
			before, err := json.Marshal(d)
			require.NoError(b, err)
			d.Databases[n/2].Rules[5].CIDR = "198.18.0.0/24"
			after, err := json.Marshal(d)
			require.NoError(b, err)
			have := compiled(b, "before", before)
			var parsed *policy.Policy
			var want ruleset.Table
			b.Run("parse", func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					parsed = parse(b, "after", after)
				}
			})
			b.Run("compile", func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					want, err = compile.Compile(parsed)
					require.NoError(b, err)
				}
			})
			b.Run("diff", func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					change := ruleset.Diff(have, want)
					require.Len(b, change.AddElements, 1)
				}
			})
		})
	}
}
