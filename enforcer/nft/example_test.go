package nft_test

import (
	"context"
	"log"

	"drawbridge/enforcer/nft"
	"drawbridge/enforcer/ruleset"
)

// A change is written on condition of the generation that it was computed from, so that nobody else's change is overwritten, and is read
// back. This changes the rules of the network namespace that it runs in.
func Example() {
	ctx := context.Background()
	conn, err := nft.Open("mine")
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	have, err := conn.Read(ctx)
	if err != nil {
		log.Fatal(err)
	}
	want := ruleset.Table{Family: ruleset.FamilyINET, Name: "mine", Sets: []ruleset.Set{{
		Name: "friends", Key: []ruleset.DataType{ruleset.TypeIPv4Addr}, Elements: []ruleset.Element{{Key: "\xc0\x00\x02\x01"}},
	}}}
	change := ruleset.Diff(have.Table, want)
	if err := conn.Commit(ctx, change, have.Generation); err != nil {
		log.Fatal(err) // nft.ErrGeneration: somebody was faster, read again
	}
	after, err := conn.ReadAfter(ctx, have, change)
	if err != nil {
		log.Fatal(err)
	}
	log.Printf("in force at generation %d", after.Generation)
}
