//go:build operator

package main

import "testing"

// TestTheOperatorsProgramKnowsTheEnforcerAlone: the verbs that judge are unknown to it, and it offers none of them.
func TestTheOperatorsProgramKnowsTheEnforcerAlone(t *testing.T) {
	refusesAll(t, []refusal{
		{"", "which verb? one of enforce, version (see drawbridge --help)"},
		{"enfroce", `unknown verb "enfroce", did you mean "enforce"? (see drawbridge --help)`},
		{"conform", `unknown verb "conform" (see drawbridge --help)`},
		{"sim down", `unknown verb "sim" (see drawbridge --help)`},
		{"bench", `unknown verb "bench" (see drawbridge --help)`},
		{"topology", `unknown verb "topology" (see drawbridge --help)`},
	})
}
