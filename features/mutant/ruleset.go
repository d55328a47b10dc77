package mutant

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"slices"
	"time"

	"drawbridge/features/driver"
)

// nftLimit bounds one call of nft(8).
const nftLimit = 10 * time.Second

// nft runs a script of nft(8), which it applies as a whole or not at all.
func nft(script string) error {
	ctx, cancel := context.WithTimeout(context.Background(), nftLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "nft", "-f", "-")
	cmd.Stdin = bytes.NewReader([]byte(script))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("nft: %w: %s", err, out)
	}
	return nil
}

// rulesets are mutants whose ruleset is wrong: written with nft(8), by the simplest enforcer that is right.
func rulesets() []Mutant {
	return []Mutant{
		byNFT(plain{established: true, profiles: both}, Mutant{
			Name: "established connections let through", Full: true, Breaks: "a stateful ruleset that does not cut what is revoked",
			Statement: "X-04", Tags: "@X-04",
		}),
		byNFT(plain{forceTLS: driver.FirstBytes}, Mutant{
			Name: "Force TLS off", Full: true, Breaks: "nothing ever looks at the first bytes", Statement: "S-06", Tags: "@S-06,@D-04",
		}),
		byNFT(plain{no6: true, established: true, profiles: both}, Mutant{
			Name: "no IPv6: open", Full: true, Breaks: "IPv6 is not guarded", Statement: "X-01", Tags: "@X-01",
		}),
		byNFT(plain{no6: true}, Mutant{
			Name: "no IPv6 in core: open", Breaks: "IPv6 is not guarded, and X is not declared", Statement: "G-03", Tags: "@G-03",
		}),
		byNFT(plain{oneRange: "198.51.100.0/25"}, Mutant{
			Name: "accessible from one range", Breaks: "Internet accessibility filters sources", Statement: "S-08", Tags: "@S-08",
		}),
		byNFT(plain{firstSYN: true}, Mutant{
			Name: "drops only the first SYN", Breaks: "whoever tries again a second later gets in", Statement: "D-10", Tags: "@D-10",
		}),
		byNFT(plain{openNodes: true}, Mutant{
			Name: "nodes' addresses open", Breaks: "endpoints can be got round", Statement: "G-03", Tags: "@G-03",
		}),
		byNFT(plain{established: true, openProtocols: true, profiles: both}, Mutant{
			Name: "other ports open", Breaks: "ports and protocols that are no endpoint are let through", Statement: "X-02", Tags: "@X-02",
		}),
	}
}

// equivalents are right: with the reason in Breaks.
func equivalents() []Mutant {
	return []Mutant{
		{
			Name: "unchanged", Breaks: "nothing: it hands everything on", Tags: "@D-05", Conforms: true,
		},
		{
			Name: "rules in another order", Breaks: "nothing: rules only ever let in, so their order means nothing", Tags: "@D-05,@D-10,@D-12", Conforms: true,
			change: each(func(_ *driver.Document, d *driver.Database) { slices.Reverse(d.FirewallRules) }),
		},
		{
			Name:   "fail-over ignored",
			Breaks: "nothing: the reference guards endpoints before the translation and every node behind it, so the target means nothing to it",
			Tags:   "@D-17", Conforms: true,
			change: remembering(func(was, now *driver.Database) { now.Endpoints = was.Endpoints }),
		},
		byNFT(plain{}, Mutant{
			Name: "another enforcer", Full: true, Breaks: "nothing: it rejects where others drop, and leaves Force TLS to the databases", Tags: "@D-05,@S-06", Conforms: true,
		}),
	}
}
