package enforcer_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	"drawbridge/enforcer"
	"drawbridge/enforcer/policy"
)

// A policy is brought into force as a whole, or not at all. This changes the rules of the network namespace that it runs in.
func ExampleApply() {
	document := []byte(`{"version": 1}`)
	receipt, err := enforcer.Apply(context.Background(), document, enforcer.Options{Name: "policy.json"})
	switch {
	case errors.Is(err, enforcer.ErrRefused):
		log.Printf("nothing has changed: %v", err)
	case errors.Is(err, enforcer.ErrUnsupported):
		log.Printf("nothing has changed, the kernel cannot do it: %v", err)
	case errors.Is(err, enforcer.ErrNotCut), errors.Is(err, enforcer.ErrBlind):
		log.Printf("in force, but not all is done: %v", err)
	case err != nil:
		log.Fatal(err)
	}
	log.Printf("every packet since %v met the policy", receipt.InForceAt)
}

// A session is for programs that bring one policy after the other into force: a change costs what it changes. It belongs to the
// goroutine that opened it.
func ExampleSession() {
	ctx := context.Background()
	session, err := enforcer.Open(enforcer.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer session.Close() // what is in force stays
	if err := session.Own(ctx); err != nil && !errors.Is(err, enforcer.ErrUnsupported) {
		log.Fatal(err)
	}
	for _, document := range [][]byte{ /* one version after the other */ } {
		if _, err := session.Apply(ctx, document); err != nil {
			log.Print(err)
		}
	}
}

// What a policy protects is what a machine that starts without any denies.
func ExampleProtected() {
	p, err := policy.Parse("policy.json", []byte(`{
		"version": 1, "point": {"name": "host-1", "model": "shared"}, "region": {"name": "fr1", "networks": ["10.10.0.0/16"]},
		"databases": [{"name": "blog", "model": "shared", "engine": "mysql",
			"endpoints": [{"kind": "public-rw", "address": "192.0.2.10", "port": 3306, "family": "ipv4", "tls": "in-band"}],
			"nodes": [{"name": "blog-1", "here": true, "addresses": ["192.0.2.10"], "ports": [{"port": 3306, "tls": "in-band"}]}]}]}`))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(enforcer.Protected(p))
	// Output: [192.0.2.10:3306]
}
