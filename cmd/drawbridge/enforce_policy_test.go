package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"drawbridge/sim/netns"
	"drawbridge/sim/netns/netnstest"
)

// fed is asked with something on standard input.
func fed(t *testing.T, ns *netns.Handle, in string, args ...string) (code int, out, errs string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	require.NoError(t, ns.Do(func() error {
		code = run(context.Background(), args, streams{in: strings.NewReader(in), out: &stdout, err: &stderr}, func(string) (string, bool) { return "", false })
		return nil
	}))
	return code, stdout.String(), stderr.String()
}

// inParts writes the policy understood as a directory of parts, with what other programs leave in one, and returns its path.
func inParts(t *testing.T) string {
	t.Helper()
	head, databases, ok := strings.Cut(understood, `"databases": `)
	require.True(t, ok)
	dir := t.TempDir()
	for name, text := range map[string]string{
		"10-point.json": strings.TrimRight(head, ", \n") + "}", "20-orders.json": `{"databases": ` + databases, ".30-new.json": "{", "notes.txt": "none",
	} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	return dir
}

// TestVerbsTakeAPolicyAsTheDaemonDoes: a directory of parts, and - for standard input.
func TestVerbsTakeAPolicyAsTheDaemonDoes(t *testing.T) {
	ns := netnstest.New(t)
	dir := inParts(t)
	for _, tt := range []struct{ args, says string }{
		{"boot --state " + t.TempDir() + " --policy", ""},
		{"apply --policy", "in_force_at"},
		{"plan --policy", "nothing would change"},
		{"verify --policy", "PROVEN"},
		{"hits --policy", "rule 1, custom range 198.51.100.0/28 (office)"},
		{"rules --policy", "office"},
		{"explain --from 198.51.100.3 --to orders --policy", "ALLOWED"},
		{"export --policy", "table inet drawbridge"},
	} {
		t.Run(tt.args, func(t *testing.T) {
			for _, from := range []string{dir, "-"} {
				args := append([]string{"enforce"}, strings.Fields(tt.args)...)
				code, out, errs := fed(t, ns, understood, append(args, from)...)
				require.Equal(t, exitOK, code, "%s: %s%s", from, out, errs)
				require.Contains(t, out, tt.says, from)
			}
		})
	}
}

// TestBootFromParts: both units have one setting, which may name a directory.
func TestBootFromParts(t *testing.T) {
	ns := netnstest.New(t)
	code, out, errs := fed(t, ns, "", "enforce", "boot", "--state", filepath.Join(t.TempDir(), "none"), "--policy", inParts(t))
	require.Equal(t, exitOK, code, "%s%s", out, errs)
	code, out, errs = fed(t, ns, understood, "enforce", "verify")
	require.Equal(t, exitOK, code, "%s%s", out, errs)
}

// TestPartsAreNamed: what is wrong with a part is said of its file, and refused as any policy is.
func TestPartsAreNamed(t *testing.T) {
	ns := netnstest.New(t)
	dir := inParts(t)
	part := filepath.Join(dir, "20-orders.json")
	text, err := os.ReadFile(part)
	require.NoError(t, err)
	for _, tt := range []struct{ name, text, says string }{
		{"cut off", string(text[:len(text)/2]), part + ":"},
		{"an unknown word", strings.Replace(string(text), "custom_range", "custom", 1), part + ": databases[0].firewall_rules[0].type"},
		{"another version", `{"version": 2, ` + strings.TrimPrefix(string(text), "{"), "10-point.json"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			require.NoError(t, os.WriteFile(part, []byte(tt.text), 0o600))
			code, out, errs := fed(t, ns, "", "enforce", "plan", "--policy", dir)
			require.Equal(t, exitUsage, code, "%s%s", out, errs)
			require.Contains(t, errs, tt.says)
		})
	}
	code, _, errs := fed(t, ns, "", "enforce", "plan", "--policy", t.TempDir())
	require.Equal(t, exitUsage, code)
	require.Contains(t, errs, "holds no *.json file")
}

// TestAPipeIsAPolicy: shells hand one over for <(command).
func TestAPipeIsAPolicy(t *testing.T) {
	ns := netnstest.New(t)
	read, write, err := os.Pipe()
	require.NoError(t, err)
	defer read.Close()
	_, err = write.WriteString(understood)
	require.NoError(t, err)
	require.NoError(t, write.Close())
	code, out, errs := fed(t, ns, "", "enforce", "export", "--policy", fmt.Sprintf("/proc/self/fd/%d", read.Fd()))
	require.Equal(t, exitOK, code, errs)
	require.Contains(t, out, "table inet drawbridge")
}

// TestRunDoesNotFollowStandardInput: it is read once, and never changes.
func TestRunDoesNotFollowStandardInput(t *testing.T) {
	code, _, errs := fed(t, netnstest.New(t), understood, "enforce", "run", "--policy", "-")
	require.Equal(t, exitUsage, code)
	require.Contains(t, errs, "drawbridge enforce apply")
}

// TestTheLastDatabaseGoes: a policy without databases is one, and all verbs say the same of it.
func TestTheLastDatabaseGoes(t *testing.T) {
	ns := netnstest.New(t)
	const none = `{"version": 1, "point": {"name": "gw", "model": "dedicated"}, "databases": []}`
	code, out, errs := fed(t, ns, none, "enforce", "verify")
	require.Equal(t, exitNotConformant, code, out, errs)
	require.Contains(t, out, "missing")
	code, out, errs = fed(t, ns, understood, "enforce", "apply")
	require.Equal(t, exitOK, code, out, errs)
	require.Empty(t, errs)
	code, out, errs = fed(t, ns, none, "enforce", "verify")
	require.Equal(t, exitNotConformant, code, out, errs)
	for _, verb := range []string{"plan", "apply"} {
		code, out, errs = fed(t, ns, none, "enforce", verb)
		require.Equal(t, exitOK, code, out, errs)
		require.Contains(t, errs, "warning: the policy protects no database", verb)
	}
	code, out, errs = fed(t, ns, none, "enforce", "verify")
	require.Equal(t, exitOK, code, out, errs)
	require.Contains(t, out, "PROVEN")
}
