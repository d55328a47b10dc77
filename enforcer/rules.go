package enforcer

import (
	"context"
	"fmt"
	"strings"

	"drawbridge/enforcer/compile"
	"drawbridge/enforcer/policy"
	"drawbridge/enforcer/ruleset"
)

// Rules returns this enforcer's tables as the kernel of the calling thread's network namespace holds them, in nft(8) syntax; empty if
// there is none. With a policy document, comments at the elements say what in the policy they are there for. The error is ErrRefused
// for a document that is no policy.
func Rules(ctx context.Context, document []byte, options Options) (string, error) {
	options = options.withDefaults()
	var p *policy.Policy
	if document != nil {
		var err error
		if p, err = policy.Parse(options.Name, document); err != nil {
			return "", fmt.Errorf("%w: %w", ErrRefused, err)
		}
	}
	var out strings.Builder
	for _, family := range managed {
		t, exists, err := readTable(ctx, family)
		if err != nil {
			return "", fmt.Errorf("table %s %s: %w", family, compile.TableName, err)
		}
		if exists && p != nil {
			t = compile.Explain(p, t)
		}
		if exists {
			out.WriteString(ruleset.Print(t))
		}
	}
	return out.String(), nil
}

func readTable(ctx context.Context, family ruleset.Family) (_ ruleset.Table, exists bool, err error) {
	state, err := readFamily(ctx, family)
	if err == nil {
		err = state.Foreign
	}
	return state.Table, state.Exists, err
}
