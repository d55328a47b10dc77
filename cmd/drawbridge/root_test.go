package main

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// result is what one run of the program left behind.
type result struct {
	code     int
	out, err string
}

// invoke runs the program in this process, without standard input and with only the given variables.
func invoke(t *testing.T, vars map[string]string, args ...string) result {
	t.Helper()
	var out, stderr bytes.Buffer
	env := func(name string) (string, bool) { v, ok := vars[name]; return v, ok }
	code := run(t.Context(), args, streams{in: strings.NewReader(""), out: &out, err: &stderr}, env)
	return result{code, out.String(), stderr.String()}
}

func TestWrongUse(t *testing.T) {
	for _, c := range []struct {
		args string
		want string // the whole of stderr
	}{
		{"", "drawbridge: which verb? one of version (see drawbridge --help)\n"},
		{"confrom", "drawbridge: unknown verb \"confrom\" (see drawbridge --help)\n"},
		{"versio", "drawbridge: unknown verb \"versio\", did you mean \"version\"? (see drawbridge --help)\n"},
		{"--nope", "drawbridge: unknown flag: --nope (see drawbridge --help)\n"},
		{"version --nope", "drawbridge: version: unknown flag: --nope (see drawbridge version --help)\n"},
		{"version now", "drawbridge: version: unexpected argument \"now\" (see drawbridge version --help)\n"},
	} {
		t.Run(c.args, func(t *testing.T) {
			got := invoke(t, nil, strings.Fields(c.args)...)
			require.Equal(t, result{code: exitUsage, err: c.want}, got)
		})
	}
}

func TestVersion(t *testing.T) {
	got := invoke(t, nil, "version")
	require.Equal(t, exitOK, got.code)
	require.Regexp(t, `^drawbridge \S+ \(go1\.\S+\)\n$`, got.out)
	require.Empty(t, got.err)

	got = invoke(t, nil, "version", "--json")
	var parsed map[string]string
	require.NoError(t, json.Unmarshal([]byte(got.out), &parsed))
	require.NotEmpty(t, parsed["version"])
	require.NotEmpty(t, parsed["go"])
}

func TestHelpAndCompletion(t *testing.T) {
	for _, args := range []string{"--help", "version --help", "completion bash", "completion zsh", "completion fish"} {
		t.Run(args, func(t *testing.T) {
			got := invoke(t, nil, strings.Fields(args)...)
			require.Equal(t, exitOK, got.code)
			require.NotEmpty(t, got.out)
			require.Empty(t, got.err)
		})
	}
}

func TestExitCodeOfAnUnknownErrorIsNoVerdict(t *testing.T) {
	require.Equal(t, exitUnjudged, exitCode(context.DeadlineExceeded))
}

func TestColourNeedsATerminal(t *testing.T) {
	p := &program{env: func(string) (string, bool) { return "", false }}
	require.False(t, p.colour(&bytes.Buffer{}))
}
