package compile_test

import (
	"fmt"
	"log"

	"drawbridge/enforcer/compile"
	"drawbridge/enforcer/policy"
	"drawbridge/enforcer/ruleset"
)

// Two policies of one point differ in elements of sets alone: no rule is touched where a user changes something.
func ExampleCompile() {
	table := func(region string) ruleset.Table {
		p, err := policy.Parse("policy.json", []byte(`{
			"version": 1, "point": {"name": "host-1", "model": "shared"}, "region": {"name": "fr1", "networks": ["`+region+`"]},
			"databases": [{"name": "blog", "model": "shared", "engine": "mysql",
				"endpoints": [{"kind": "public-rw", "address": "192.0.2.10", "port": 3306, "family": "ipv4", "tls": "in-band"}],
				"nodes": [{"name": "blog-1", "here": true, "addresses": ["192.0.2.10"], "ports": [{"port": 3306, "tls": "in-band"}]}]}]}`))
		if err != nil {
			log.Fatal(err)
		}
		t, err := compile.Compile(p)
		if err != nil {
			log.Fatal(err)
		}
		return t
	}
	change := ruleset.Diff(table("10.10.0.0/16"), table("10.20.0.0/16"))
	fmt.Println("elements only:", change.OnlyElements())
	for _, e := range change.AddElements {
		fmt.Println("added to", e.Set.Name)
	}
	// Output:
	// elements only: true
	// added to region4
}
