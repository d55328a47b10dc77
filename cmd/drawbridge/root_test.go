package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
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

// refusal is a command line that is refused.
type refusal struct {
	args string
	want string // the beginning of stderr, behind the program's name
}

// refusesAll runs the program with each of these.
func refusesAll(t *testing.T, all []refusal) {
	t.Helper()
	for _, c := range all {
		t.Run(c.args, func(t *testing.T) {
			got := invoke(t, map[string]string{"PATH": os.Getenv("PATH")}, strings.Fields(c.args)...)
			require.Equal(t, exitUsage, got.code, got.err)
			require.True(t, strings.HasPrefix(got.err, "drawbridge: "+c.want), got.err)
			require.Empty(t, got.out)
		})
	}
}

// brokenFile holds what is neither a world nor a policy.
func brokenFile(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "broken.yaml")
	require.NoError(t, os.WriteFile(path, []byte("name: x\nsurprise: 1\n"), 0o600))
	return path
}

func TestWrongUse(t *testing.T) {
	broken, dir := brokenFile(t), t.TempDir()
	refusesAll(t, []refusal{
		{"--nope", "unknown flag: --nope (see drawbridge --help)"},
		{"version --nope", "version: unknown flag: --nope (see drawbridge version --help)"},
		{"version now", `version: unexpected argument "now" (see drawbridge version --help)`},
		{"enforce", "enforce: which verb? one of apply, boot, break-glass, denied, describe, doctor, explain, export, hits, plan, reset, resident, rules, run, schema, status, verify (see drawbridge enforce --help)"},
		{"enforce aply", `enforce: unknown verb "aply", did you mean "apply"? (see drawbridge enforce --help)`},
		{"enforce apply now", `enforce apply: unexpected argument "now"`},
		{"enforce apply", "enforce apply: policy refused: standard input"},
		{"enforce apply --policy /nowhere", "enforce apply: stat /nowhere: no such file or directory"},
		{"enforce apply --policy " + dir, "enforce apply: the parts of the policy do not fit together: " + dir + " holds no *.json file"},
		{"enforce apply --policy " + broken, "enforce apply: policy refused: " + broken + ":1:2: "},
		{"enforce hits --over -1s", "enforce hits: --over: -1s: must be positive"},
		{"enforce denied --over 0s", "enforce denied: --over: 0s: must be positive"},
		{"enforce apply --mark-mask many", `enforce apply: --mark-mask: strconv.ParseUint: parsing "many": invalid syntax`},
		{"enforce apply --mark-mask 5", "enforce apply: --mark-mask: mark mask 0x00000005: want four adjacent bits"},
	})
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

// helps runs the program with each of these, which ask for nothing but words.
func helps(t *testing.T, all ...string) {
	t.Helper()
	for _, args := range all {
		t.Run(args, func(t *testing.T) {
			got := invoke(t, nil, strings.Fields(args)...)
			require.Equal(t, exitOK, got.code)
			require.NotEmpty(t, got.out)
			require.Empty(t, got.err)
		})
	}
}

func TestHelpAndCompletion(t *testing.T) {
	helps(t, "--help", "version --help", "enforce apply --help", "completion bash", "completion zsh", "completion fish")
}

func TestExitCodeOfAnUnknownErrorIsNoVerdict(t *testing.T) {
	require.Equal(t, exitUnjudged, exitCode(context.DeadlineExceeded))
}

func TestColourNeedsATerminal(t *testing.T) {
	p := &program{env: func(string) (string, bool) { return "", false }}
	require.False(t, p.colour(&bytes.Buffer{}))
}
