//go:build !operator

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"drawbridge/features/suite"
	"drawbridge/sim/endpoint"
	"drawbridge/sim/netns/netnstest"

	"github.com/stretchr/testify/require"
)

func TestLabByHand(t *testing.T) {
	netnstest.Require(t)
	t.Setenv(asProgram, "1") // programs that the lab is asked to run may be this binary
	lab := fmt.Sprintf("test-%d", os.Getpid())
	up := start(t, "is ready", "sim", "up", "--lab", lab)
	sim := func(verb string, args ...string) result {
		return invoke(t, nil, append([]string{"sim", verb, "--lab", lab}, args...)...)
	}
	t.Run("taken", func(t *testing.T) {
		got := sim("up")
		require.Equal(t, result{code: exitUsage, err: "drawbridge: sim up: lab " + lab + ": a lab of that name is up already: give this one another name with --lab, or end that one: drawbridge sim down --lab " + lab + "\n"}, got)
	})
	t.Run("exec", func(t *testing.T) {
		got := sim("exec", "office", "--", "sh", "-c", "cat /proc/net/dev; pwd; echo complaint >&2; exit 7")
		require.Equal(t, 7, got.code)
		require.Contains(t, got.out, "eth0:")
		dir, err := os.Getwd()
		require.NoError(t, err)
		require.Contains(t, got.out, dir+"\n")
		require.Equal(t, "complaint\n", got.err)
		require.Equal(t, result{code: 128 + 9}, sim("exec", "office", "--", "sh", "-c", "kill -9 $$"))
		got = sim("exec", "nowhere", "--", "true")
		require.Equal(t, exitUsage, got.code)
		require.Contains(t, got.err, `sim exec: "nowhere": no such node in this lab`)
		t.Run("programs that cannot be run", func(t *testing.T) { cannotBeRun(t, sim) })
	})
	t.Run("probe", func(t *testing.T) {
		got := sim("probe", "office", "pg-dedicated", "--json")
		require.Equal(t, exitOK, got.code, got.err)
		var all []seen
		require.NoError(t, json.Unmarshal([]byte(got.out), &all))
		require.NotEmpty(t, all)
		for _, s := range all {
			require.Equal(t, "served", s.Verdict, "no enforcer is in force: %+v", s)
		}
		for _, wrong := range []struct{ from, to, want string }{
			{"nobody", "pg-dedicated", `FROM: "nobody" is no vantage of this world, nor the address of one; there are office, `},
			{"office", "nothing", `TO: "nothing" is neither a database of this world nor address:port`},
			{"office", "203.0.113.129:1", "TO: no database of this world listens at 203.0.113.129:1"},
			{"office", "[2001:db8:9a::1]:27017 --source 198.51.100.1", "no such probe"},
		} {
			got := sim("probe", append([]string{wrong.from}, strings.Fields(wrong.to)...)...)
			require.Equal(t, exitUsage, got.code, wrong)
			require.Contains(t, got.err, wrong.want)
		}
	})
	t.Run("enforce", func(t *testing.T) {
		self, err := os.Executable()
		require.NoError(t, err)
		// A gateway that protects nothing: the canary is not in the policy, and stays open.
		policy := filepath.Join(t.TempDir(), "policy.json")
		require.NoError(t, os.WriteFile(policy, []byte(gatewayPolicy), 0o600))
		got := sim("exec", "gw-fr1", "--", self, "enforce", "apply", "--policy", policy)
		require.Equal(t, exitOK, got.code, got.err)
		require.Contains(t, got.out, `"generation":`)
		require.Regexp(t, `(?m)^warning: .*pg-dedicated`, got.err)
		got = sim("probe", "office", "203.0.113.129:5432", "--plain")
		require.Contains(t, got.out, "tls-refused", got.err)
		got = sim("probe", "office", "203.0.113.129:5432", "--tls")
		require.Contains(t, got.out, "served", got.err)
		t.Run("others agree", func(t *testing.T) { othersAgree(t, sim) })
		got = sim("exec", "gw-fr1", "--", self, "enforce", "reset")
		require.Equal(t, result{}, got)
		got = sim("probe", "office", "203.0.113.129:5432", "--plain")
		require.Contains(t, got.out, "served", got.err)
	})
	require.Equal(t, result{}, sim("down"))
	require.NoError(t, up.Wait(), up.complaints)
	require.Equal(t, exitUsage, sim("down").code)
}

// cannotBeRun: what is not there, and what is there and cannot be run, end with what env(1) ends with.
func cannotBeRun(t *testing.T, sim func(verb string, args ...string) result) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"data": "no program", "garbled": "\x7fELF", "orphan": "#!/nonexistent/interpreter\n"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o700))
	}
	require.NoError(t, os.Chmod(filepath.Join(dir, "data"), 0o600))
	t.Setenv("PATH", os.Getenv("PATH")+":"+dir)
	for program, want := range map[string]int{
		"no-such-program": exitNotFound, "/no/such/program": exitNotFound, filepath.Join(dir, "orphan"): exitNotFound,
		"data": exitNotExecutable, filepath.Join(dir, "data"): exitNotExecutable, dir: exitNotExecutable,
	} {
		reference := exec.Command(netnstest.Tool(t, "env"), program)
		require.Error(t, reference.Run())
		require.Equal(t, want, reference.ProcessState.ExitCode(), "env %s", program)
		got := sim("exec", "office", "--", program)
		require.Equal(t, want, got.code, "%s: %s", program, got.err)
		require.Regexp(t, "^drawbridge: sim exec: .*"+regexp.QuoteMeta(filepath.Base(program))+".*\n$", got.err)
	}
	require.Equal(t, exitNotExecutable, sim("exec", "office", "--", "garbled").code, "which env(1) would hand to sh(1)")
}

// othersAgree has programs that know nothing of this project look at a database that is open to everybody, over TLS only.
func othersAgree(t *testing.T, sim func(verb string, args ...string) result) {
	t.Helper()
	t.Setenv("PGPASSWORD", endpoint.Password)
	psql := func(sslmode string) result {
		return sim("exec", "office", "--", netnstest.Tool(t, "psql"), "-w", "-At", "-c", "SELECT 'hello'",
			"host=203.0.113.129 user="+endpoint.User+" dbname="+endpoint.Schema+" sslmode="+sslmode)
	}
	got := psql("require")
	require.Equal(t, result{out: "hello\n"}, got)
	got = psql("disable")
	require.Equal(t, 2, got.code, "psql(1): the connection went bad: %s", got.err)
	require.Empty(t, got.out)

	got = sim("exec", "office", "--", netnstest.Tool(t, "nmap"), "-n", "-Pn", "--max-retries", "1", "-p", "22,5432,8008", "203.0.113.129")
	require.Equal(t, exitOK, got.code, got.err)
	require.Regexp(t, `22/tcp +filtered`, got.out, "nothing else lives at that address (X-02)")
	require.Regexp(t, `5432/tcp +open`, got.out)
	require.Regexp(t, `8008/tcp +filtered`, got.out, "a port of the cluster (C-04)")
}

const gatewayPolicy = `{
  "version": 1,
  "point": {"name": "gw-fr1", "model": "dedicated"},
  "interfaces": [{"name": "inet0", "zone": "internet"}, {"name": "vpc0", "zone": "cluster"}],
  "region": {"name": "osc-fr1", "networks": ["10.10.0.0/16"]},
  "managed_ranges": {},
  "databases": [{
    "name": "pg-dedicated", "model": "dedicated", "engine": "postgresql",
    "endpoints": [{"kind": "public-rw", "address": "203.0.113.129", "port": 5432, "family": "ipv4", "tls": "in-band",
                   "dnat": {"address": "10.64.1.11", "port": 5432}}],
    "nodes": [{"name": "pg-dedicated-1", "here": true, "addresses": ["10.64.1.11"], "ports": [{"port": 5432, "tls": "in-band"}]}],
    "firewall_rules": [{"type": "custom_range", "cidr": "0.0.0.0/0", "label": "everybody"}]
  }]
}`

// driverScript writes a driver that answers as the given lines of shell do.
func driverScript(t *testing.T, describe, apply string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "driver")
	text := "#!/bin/sh\ncase $1 in\ndescribe) " + describe + ";;\napply) " + apply + ";;\nesac\n"
	require.NoError(t, os.WriteFile(path, []byte(text), 0o700))
	return path
}

const (
	describesItself = `echo '{"protocol":1,"name":"open","version":"1","profiles":["core"],"features":{"force_tls":"database"}}'`
	acceptsAll      = `cat >/dev/null; n=$(($(cat n 2>/dev/null || echo 0)+1)); echo $n >n; echo "{\"generation\":$n}"`
)

func TestConform(t *testing.T) {
	netnstest.Require(t)
	t.Setenv(asProgram, "1") // the reference enforcer is this binary
	for _, c := range []struct {
		name, driver string
		args         string
		code         int
		out, err     string // parts
	}{
		{"the reference enforcer", "", "--tags @S-12", exitOK, "CONFORMANT\n", ""},
		{"summary where it disturbs no program", "", "--tags @S-12 --format junit", exitOK, "<testsuites", "CONFORMANT\n"},
		{"accepts all", driverScript(t, describesItself, acceptsAll), "--tags @D-01", exitNotConformant, "NOT CONFORMANT\n", ""},
		{"refuses all", driverScript(t, describesItself, "echo no >&2; exit 2"), "--tags @D-01", exitNotConformant, "NOT CONFORMANT\n", ""},
		{"is no driver", driverScript(t, "exit 9", ""), "--tags @D-01", exitUnjudged, "COULD NOT BE JUDGED\n", ""},
		{"does not declare it", driverScript(t, describesItself, acceptsAll), "--profile extended", exitUsage, "",
			"drawbridge: conform: profile \"extended\": the enforcer declares [core] only\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "report")
			args := append([]string{"conform", "--report", dir}, strings.Fields(c.args)...)
			if c.driver != "" {
				args = append(args, "--driver", c.driver)
			}
			got := invoke(t, nil, args...)
			require.Equal(t, c.code, got.code, "%s%s", got.out, got.err)
			require.Contains(t, got.out, c.out)
			require.Contains(t, got.err, c.err)
			if c.code != exitUsage {
				require.FileExists(t, filepath.Join(dir, "report.json"))
			}
		})
	}
}

func TestConformJSONIsAllOfStandardOutput(t *testing.T) {
	netnstest.Require(t)
	t.Setenv(asProgram, "1")
	got := invoke(t, nil, "conform", "--json", "--report=", "--tags", "@S-12")
	require.Equal(t, exitOK, got.code, got.err)
	var report struct {
		Result string
		Counts suite.Counts
	}
	require.NoError(t, json.Unmarshal([]byte(got.out), &report))
	require.Equal(t, "passed", report.Result)
	require.Positive(t, report.Counts.Executed)
	require.Empty(t, got.err)
}

func TestConformWithoutALab(t *testing.T) {
	got := invoke(t, nil, "conform", "--schema")
	require.Equal(t, exitOK, got.code)
	require.True(t, json.Valid([]byte(got.out)))

	got = invoke(t, nil, "conform", "--list", "--json")
	require.Equal(t, exitOK, got.code)
	var all []suite.Selected
	require.NoError(t, json.Unmarshal([]byte(got.out), &all))
	require.NotEmpty(t, all)

	got = invoke(t, nil, "conform", "--list", "--profile", "extended", "--tags", "@X-02")
	require.Equal(t, exitOK, got.code)
	require.Regexp(t, `^(extended +.*X-02.*\n)+$`, got.out)
}

func TestDescribe(t *testing.T) {
	got := invoke(t, nil, "enforce", "describe")
	require.Equal(t, exitOK, got.code)
	require.Contains(t, got.out, `"protocol":1`)
	require.Contains(t, got.out, `"force_tls":"first-bytes"`)
}
