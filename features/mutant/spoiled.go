package mutant

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"

	"drawbridge/features/driver"
)

// spoiled are mutants that take something out of the reference enforcer's tables once a policy is in force. Rules are found by their
// comments, wherever they stand: one that is not there any more makes the mutant fail as a driver does, and not as an enforcer.
func spoiled() []Mutant {
	return []Mutant{
		{
			Name: "no sequence lock", Breaks: "a client's bytes pass wherever they belong", Statement: "X-08", Tags: "@X-08",
			table: true, also: withoutRules("out of place"),
		},
		{
			Name: "data in the SYN passes", Breaks: "what comes before anybody could look", Statement: "X-08", Tags: "@X-08",
			table: true, also: withoutRules("bytes before"),
		},
	}
}

// referenceTable is the name of the reference enforcer's table, in whatever families it has one.
const referenceTable = "drawbridge"

// listed is what nft(8) lists of a ruleset, as far as it matters here.
type listed struct {
	Nftables []struct {
		Rule *struct {
			Family, Table, Chain, Comment string
			Handle                        int
		}
	}
}

func list() (*listed, error) {
	ctx, cancel := context.WithTimeout(context.Background(), nftLimit)
	defer cancel()
	var out, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, "nft", "-j", "-a", "list", "ruleset")
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("nft list: %w: %s", err, stderr.String())
	}
	var all listed
	if err := json.Unmarshal(out.Bytes(), &all); err != nil {
		return nil, fmt.Errorf("nft list: %w", err)
	}
	return &all, nil
}

// withoutRules deletes the reference's rules whose comment begins so.
func withoutRules(comment string) func(Door, *driver.Document, Answer) error {
	return func(_ Door, _ *driver.Document, a Answer) error {
		if a.Status != 0 {
			return nil
		}
		all, err := list()
		if err != nil {
			return err
		}
		var script strings.Builder
		for _, e := range all.Nftables {
			if r := e.Rule; r != nil && r.Table == referenceTable && strings.HasPrefix(r.Comment, comment) {
				fmt.Fprintf(&script, "delete rule %s %s %s handle %d\n", r.Family, r.Table, r.Chain, r.Handle)
			}
		}
		if script.Len() == 0 {
			return fmt.Errorf("no rule of the reference enforcer is about %q any more", comment)
		}
		return nft(script.String())
	}
}
