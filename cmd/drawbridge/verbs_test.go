//go:build !operator

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"drawbridge/sim/ability"
	"drawbridge/sim/netns/netnstest"

	"github.com/gopacket/gopacket/pcapgo"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// detached is a lab that a process in the background keeps up.
type detached struct {
	t    *testing.T
	name string
}

// detach brings a lab up in the background, and down when the test ends.
func detach(t *testing.T, args ...string) detached {
	t.Helper()
	netnstest.Require(t)
	t.Setenv(asProgram, "1")
	d := detached{t, fmt.Sprintf("detached-%d", os.Getpid())}
	// A process of its own: the lab would be a child of the test's otherwise, which nobody waits for.
	out, err := exec.Command("/proc/self/exe", append([]string{"sim", "up", "--lab", d.name, "--detach"}, args...)...).CombinedOutput()
	require.NoError(t, err, string(out))
	require.Contains(t, string(out), "lab "+d.name+" is ready")
	t.Cleanup(func() {
		var out, complaints strings.Builder // the test's context has ended
		code := run(context.Background(), []string{"sim", "down", "--lab", d.name}, streams{out: &out, err: &complaints}, os.LookupEnv)
		require.Equal(t, result{}, result{code, out.String(), complaints.String()})
	})
	return d
}

func (d detached) sim(verb string, args ...string) result {
	d.t.Helper()
	return invoke(d.t, nil, append([]string{"sim", verb, "--lab", d.name}, args...)...)
}

func TestLabInTheBackground(t *testing.T) {
	lab := detach(t)
	t.Run("ls", func(t *testing.T) {
		got := lab.sim("ls", "--json")
		require.Equal(t, exitOK, got.code, got.err)
		var labs []labInfo
		require.NoError(t, json.Unmarshal([]byte(got.out), &labs))
		require.Len(t, labs, 1, "the test has a network namespace of its own, and one lab")
		require.Equal(t, lab.name, labs[0].Name)
		require.Equal(t, "default", labs[0].World)
		require.Contains(t, labs[0].Nodes, "osc-fr1/web")
		require.FileExists(t, fmt.Sprintf("/proc/%d/exe", labs[0].PID))
		require.Regexp(t, `(?m)^`+lab.name+` +default +[0-9]+ `, lab.sim("ls").out)
	})
	t.Run("taken", func(t *testing.T) {
		got := lab.sim("up", "--detach")
		require.Equal(t, exitUsage, got.code)
		require.Equal(t, "drawbridge: sim up: lab "+lab.name+": a lab of that name is up already: give this one another name with --lab, or end that one: drawbridge sim down --lab "+lab.name+"\n", got.err)
	})
	t.Run("names", func(t *testing.T) { namesOfTheLab(t, lab) })
	t.Run("graph", func(t *testing.T) {
		for format, want := range map[string]string{"mermaid": "flowchart LR\n", "dot": "graph world {\n", "svg": "<svg xmlns"} {
			got := lab.sim("graph", "--format", format)
			require.Equal(t, exitOK, got.code, got.err)
			require.True(t, strings.HasPrefix(got.out, want), got.out)
			require.Contains(t, got.out, "pg-dedicated")
		}
		require.Equal(t, exitUsage, lab.sim("graph", "--format", "gif").code)
	})
	t.Run("matrix", func(t *testing.T) {
		got := lab.sim("matrix", "--html")
		require.Equal(t, exitOK, got.code, got.err)
		require.Contains(t, got.out, `<th scope="col"><span>osc-fr1/web</span></th>`)
		require.Regexp(t, `<th scope="row">pg-shared</th><th>198.51.100.129:5432</th><th>public-rw</th>\n<td class="served" title="plain: served, [^"]*; tls: served, `, got.out)
		require.Equal(t, exitUsage, lab.sim("matrix", "--html", "--json").code)
	})
	t.Run("another engine's client", func(t *testing.T) {
		got := lab.sim("probe", "office", "198.51.100.129:5432", "--plain", "--engine", "redis")
		require.NotContains(t, got.out, "  served", got.err)
		require.Equal(t, exitUsage, lab.sim("probe", "office", "pg-shared", "--engine", "oracle").code)
	})
	t.Run("enforce", func(t *testing.T) { policiesInForce(t, lab) })
	t.Run("capture", func(t *testing.T) { packetsAndKeys(t, lab) })
	t.Run("break", func(t *testing.T) { brokenAndMended(t, lab) })
	t.Run("interrupted", func(t *testing.T) { interruptedInTheMiddle(t, lab) })
	t.Run("terminal", func(t *testing.T) { terminalOfItsOwn(t, lab) })
}

// namesOfTheLab looks at them with programs that know nothing of this project.
func namesOfTheLab(t *testing.T, lab detached) {
	const name = "pg-dedicated.postgresql.osc-fr1.example"
	getent := netnstest.Tool(t, "getent")
	got := lab.sim("exec", "office", "--", getent, "ahosts", name)
	require.Contains(t, got.out, "203.0.113.129", got.err)
	require.Equal(t, 2, lab.sim("exec", "--machine-names", "office", "--", getent, "hosts", name).code, "getent(1): not found")
	require.Equal(t, 2, lab.sim("exec", "office", "--", getent, "hosts", "nowhere.example").code)

	got = lab.sim("exec", "office", "--", netnstest.Tool(t, "psql"), "-w", "-At", "-c", "SELECT 'hello'", "host="+name+" sslmode=verify-full")
	require.Equal(t, result{out: "hello\n"}, got, "with an account from the environment")
	t.Setenv("PGPASSWORD", "another")
	got = lab.sim("exec", "office", "--", netnstest.Tool(t, "psql"), "-w", "-c", "SELECT 'hello'", "host="+name)
	require.Equal(t, 2, got.code, "what was set stays")

	require.Equal(t, result{out: "web.osc-fr1\n"}, lab.sim("exec", "osc-fr1/web", "--", "uname", "-n"))
	t.Setenv("PATH", "/usr/bin:/bin")
	require.Equal(t, result{out: "/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin\n"}, lab.sim("exec", "office", "--", "sh", "-c", "echo $PATH"))
	require.Equal(t, exitOK, lab.sim("exec", "office", "--", "ldconfig", "--version").code, "which is only in /sbin or /usr/sbin")

	unseenDirectory(t, lab)

	got = lab.sim("exec", "office", "--", "ls", "/sys/class/net")
	require.Equal(t, "eth0\nlo\n", got.out, got.err)
	text, err := os.ReadFile("/etc/hosts")
	require.NoError(t, err)
	require.NotContains(t, string(text), name, "the machine's own file stays as it is")
}

// unseenDirectory runs a program in a directory of a file system that was mounted after the lab came up.
func unseenDirectory(t *testing.T, lab detached) {
	over := t.TempDir()
	require.NoError(t, unix.Mount("tmpfs", over, "tmpfs", 0, ""))
	defer func() { require.NoError(t, unix.Unmount(over, unix.MNT_DETACH)) }()
	within := filepath.Join(over, "within")
	require.NoError(t, os.Mkdir(within, 0o700))
	before, err := os.Getwd()
	require.NoError(t, err)
	require.NoError(t, os.Chdir(within))
	defer func() { require.NoError(t, os.Chdir(before)) }()
	got := lab.sim("exec", "office", "--", "true")
	require.Equal(t, exitUnjudged, got.code)
	require.Contains(t, got.err, "drawbridge: sim exec: working directory: stat "+within+": no such file or directory")
	require.NoError(t, os.Remove(within))
	require.Equal(t, result{code: exitUnjudged, err: "drawbridge: sim exec: working directory: it has been deleted; change to another one\n"}, lab.sim("exec", "office", "--", "true"))
}

// terminalOfItsOwn runs a shell with job control, and types.
func terminalOfItsOwn(t *testing.T, lab detached) {
	cmd := exec.Command("/proc/self/exe", "sim", "exec", "--lab", lab.name, "office", "--", "sh", "-c",
		`tty; trap 'echo interrupted; exit 7' INT; echo ready; while :; do read -r line; echo "got $line"; done`)
	term := onTerminal(t, cmd, (*exec.Cmd).Start)
	term.await(t, "ready")
	term.press(t, "hello\r")
	term.await(t, "got hello")
	term.press(t, ctrlC)
	require.Error(t, cmd.Wait())
	require.Equal(t, 7, cmd.ProcessState.ExitCode())
	said := <-term.said
	require.Regexp(t, `^/dev/pts/[0-9]+\r\n`, said)
	require.Contains(t, said, "interrupted\r\n")
}

// packetsAndKeys captures what a probe and a program of somebody else's say.
func packetsAndKeys(t *testing.T, lab detached) {
	dir := t.TempDir()
	file, keys := filepath.Join(dir, "office.pcapng"), filepath.Join(dir, "keys.txt")
	cmd := exec.Command("/proc/self/exe", "sim", "capture", "--lab", lab.name, "office:internet", "-w", file, "--keylog", keys)
	stderr, err := cmd.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	says := bufio.NewScanner(stderr)
	require.True(t, says.Scan())
	require.Equal(t, "capturing at office:internet", says.Text())

	require.Equal(t, exitOK, lab.sim("probe", "office", "203.0.113.129:5432", "--tls").code)
	require.NoError(t, cmd.Process.Signal(os.Interrupt))
	require.True(t, says.Scan())
	require.Regexp(t, `^[1-9][0-9]* packets$`, says.Text())
	require.False(t, says.Scan(), says.Text())
	require.NoError(t, cmd.Wait())

	f, err := os.Open(file)
	require.NoError(t, err)
	defer f.Close()
	reader, err := pcapgo.NewNgReader(f, pcapgo.DefaultNgReaderOptions)
	require.NoError(t, err)
	explained := 0
	for {
		_, _, options, err := reader.ReadPacketDataWithOptions()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		require.Len(t, options.Comments, 1)
		if strings.HasPrefix(options.Comments[0], "sim matrix, ") {
			continue // a connection of an earlier subtest that was denied, which its client still tries
		}
		require.Regexp(t, `^sim probe, probe [0-9]+: office .*to (pg-dedicated at 203.0.113.129|canary-gw-fr1 at 203.0.113.131):5432, tls$`, options.Comments[0])
		if strings.Contains(options.Comments[0], "pg-dedicated") {
			explained++ // the others are of a fence
		}
	}
	require.Greater(t, explained, 10)
	text, err := os.ReadFile(keys)
	require.NoError(t, err)
	for _, label := range []string{"CLIENT_HANDSHAKE_TRAFFIC_SECRET ", "SERVER_TRAFFIC_SECRET_0 "} {
		require.Contains(t, string(text), label)
	}
	raw, err := os.ReadFile(file)
	require.NoError(t, err)
	for line := range strings.Lines(string(text)) {
		require.Contains(t, string(raw), line, "the keys are in the capture too")
	}
	if tshark, err := exec.LookPath("tshark"); err == nil {
		out, err := exec.Command(tshark, "-r", file, "-d", "tcp.port==5432,pgsql", "-T", "fields", "-e", "pgsql.query").CombinedOutput()
		require.NoError(t, err, string(out))
		require.Contains(t, string(out), "drawbridge-marker-", "Wireshark reads the query that went over TLS")
	}
	captureAround(t, lab)
	refusedCaptures(t, lab)
	got := lab.sim("capture", "office:eth7")
	require.Equal(t, exitUsage, got.code)
	require.Contains(t, got.err, `office has no link "eth7"; there are eth0 (to internet)`)
}

// refusedCaptures leave files as they were, and none where there was none.
func refusedCaptures(t *testing.T, lab detached) {
	t.Helper()
	dir := t.TempDir()
	keep, link, none := filepath.Join(dir, "keep.pcapng"), filepath.Join(dir, "link"), filepath.Join(dir, "none")
	require.NoError(t, os.WriteFile(keep, []byte("kept, and longer than the head of a capture is"+strings.Repeat(".", 1<<12)), 0o600))
	require.NoError(t, os.Symlink(keep, link))
	before, err := os.ReadFile(keep)
	require.NoError(t, err)
	for args, want := range map[string]string{
		"nope -w " + keep:                              `"nope": no such node in this lab`,
		"nope -w " + none + " --keylog " + keep:        `"nope": no such node in this lab`,
		"office -w " + keep + " --for -1s":             "--for: -1s: must be more than nothing",
		"office -w " + keep + " --for 0s":              "--for: 0s: must be more than nothing",
		"office -w " + keep + " -c -5":                 "--count: -5: must be at least 1",
		"office -w " + keep + " -c 0":                  "--count: 0: must be at least 1",
		"office -w " + none + " --keylog " + none:      "--keylog: " + none + " is the file that the packets are written to",
		"office -w " + keep + " --keylog " + link:      "--keylog: " + link + " is the file that the packets are written to",
		"office -w " + none + " --keylog " + dir:       dir + ": is a directory",
		"office:eth7 -w " + none + " --keylog " + keep: `office has no link "eth7"`,
	} {
		got := lab.sim("capture", append(strings.Fields(args), "--", "true")...)
		require.Equal(t, exitUsage, got.code, "%s: %s", args, got.err)
		require.Contains(t, got.err, want, args)
		require.NoFileExists(t, none, args)
		after, err := os.ReadFile(keep)
		require.NoError(t, err)
		require.Equal(t, string(before), string(after), args)
	}
	got := invoke(t, nil, "sim", "capture", "--lab", "no-such-lab", "office", "-w", keep)
	require.Equal(t, exitUsage, got.code, got.err)
	require.Equal(t, exitOK, lab.sim("capture", "office", "-w", keep, "--keylog", none, "--", "true").code)
	after, err := os.ReadFile(keep)
	require.NoError(t, err)
	require.NotContains(t, string(after), "...", "what was there is gone, and not only written over")
	require.FileExists(t, none)
}

// captureAround captures what a program says, however soon it says it: nothing of it is missed.
func captureAround(t *testing.T, lab detached) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "around.pcapng")
	around := func(verb string, args ...string) result {
		return lab.sim("capture", append([]string{"office:internet", "-w", file, "--", "/proc/self/exe", "sim", verb, "--lab", lab.name}, args...)...)
	}
	got := around("probe", "office", "203.0.113.129:5432", "--tls")
	require.Equal(t, exitOK, got.code, got.err)
	require.Contains(t, got.out, "served")
	require.Regexp(t, `^capturing at office:internet\n[1-9][0-9]* packets\n$`, got.err)
	got = around("exec", "office", "--", "sh", "-c", "exit 7")
	require.Equal(t, []any{7, ""}, []any{got.code, got.out})
	require.Regexp(t, `^capturing at office:internet\n[0-9]+ packets\n$`, got.err) // its kernel may have said something by itself
	got = lab.sim("capture", "office", "-w", file, "--for", "1ms")
	require.Equal(t, exitOK, got.code, got.err)
	got = lab.sim("capture", "office", "-w", file, "--", "/nonexistent/program")
	require.Equal(t, exitNotFound, got.code, got.err)
}

// brokenAndMended breaks things, and has policies in force, while sim watch looks on. Its round is longer than the test: it has to be told.
func brokenAndMended(t *testing.T, lab detached) {
	ctx, cancel := context.WithTimeout(t.Context(), 4*patience) // a matrix with something broken takes seconds
	defer cancel()
	cmd := exec.CommandContext(ctx, "/proc/self/exe", "sim", "watch", "--lab", lab.name, "--every", "1ms", "--round", "1h")
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	lines := bufio.NewScanner(out)
	await := func(want string) {
		t.Helper()
		for lines.Scan() {
			if regexp.MustCompile(want).MatchString(lines.Text()) {
				return
			}
		}
		require.FailNow(t, "sim watch does not say so", want)
	}
	await("canary-gw-secnum")
	require.Equal(t, result{}, lab.sim("break", "server", "my-shared"))
	await("office to my-shared at 198.51.100.129:3306, plain: [^s].*, was served$")
	require.Equal(t, result{}, lab.sim("break", "server", "my-shared-1", "--mend"))
	await("office to my-shared at 198.51.100.129:3306, plain: served, was ")
	require.Equal(t, exitOK, lab.sim("enforce", "shared-a").code)
	await("office to my-shared at 198.51.100.129:3306, plain: dropped, was served$")
	require.Equal(t, exitOK, lab.sim("enforce", "shared-a", "--reset").code)
	await("office to my-shared at 198.51.100.129:3306, plain: served, was dropped$")
	tables := func() string {
		return lab.sim("exec", "shared-a", "--", netnstest.Tool(t, "nft"), "list", "tables").out
	}
	require.Equal(t, exitOK, lab.sim("enforce", "shared-a", "--driver", exampleDriver(t, "first-bytes.sh")).code)
	require.Contains(t, tables(), "first_bytes")
	require.Equal(t, exitOK, lab.sim("enforce", "--all", "--reset").code)
	require.NotContains(t, tables(), "first_bytes", "who brought it into force takes it out")

	nmap := func() string {
		return lab.sim("exec", "stranger", "--", netnstest.Tool(t, "nmap"), "-n", "-Pn", "-p", "3306", "--max-retries", "0", "198.51.100.129").out
	}
	require.Regexp(t, `3306/tcp +open`, nmap())
	require.Equal(t, result{}, lab.sim("break", "link", "shared-a:internet"))
	require.NotRegexp(t, `3306/tcp +open`, nmap())
	require.Equal(t, result{}, lab.sim("break", "link", "internet:shared-a", "--mend"))
	require.Regexp(t, `3306/tcp +open`, nmap())
	impairedAndMended(t, lab)
	for _, mend := range [][]string{nil, {"--mend"}} {
		require.Equal(t, result{}, lab.sim("break", append([]string{"forge", "stranger"}, mend...)...))
	}
	for args, want := range map[string]string{
		"link office": `office: a LINK is NODE:INTERFACE or NODE:NODE`, "link office:shared-a": `office has no link "shared-a"; there are eth0 (to internet)`,
		"server office": `"office" is neither a database of world default nor one of its nodes`, "forge nobody": `"nobody": no such node`,
		"link office:eth0 --loss 101%": `must be a share between 0% and 100%`, "link office:eth0 --loss 100%": `cut a link in the running lab instead`, "link office:eth0 --reorder 1%": `reordering without a delay`,
		"link office:eth0 --delay 20ms --mend": `exclude each other`,
	} {
		got := lab.sim("break", strings.Fields(args)...)
		require.Equal(t, exitUsage, got.code, args)
		require.Contains(t, got.err, want, args)
	}
	require.NoError(t, cmd.Process.Signal(unix.SIGINT))
	for lines.Scan() {
	}
	require.NoError(t, cmd.Wait(), "Ctrl-C is how a watch ends, and no failure")
}

// impairedAndMended has a link take its time, and more than that, while connections are made.
func impairedAndMended(t *testing.T, lab detached) {
	probed := func() (took time.Duration, verdict string) {
		var all []seen
		got := lab.sim("probe", "office", "my-shared", "--tls", "--json")
		require.NoError(t, json.Unmarshal([]byte(got.out), &all), got.err)
		for _, s := range all {
			took, verdict = max(took, time.Duration(s.Millis*float64(time.Millisecond))), s.Verdict
		}
		return took, verdict
	}
	const delay = 100 * time.Millisecond
	require.Equal(t, result{}, lab.sim("break", "link", "office:internet", "--delay", delay.String(), "--seed", "3"))
	took, verdict := probed()
	require.GreaterOrEqual(t, took, 4*delay, "a handshake and a query at least")
	require.Equal(t, "served", verdict)
	require.Equal(t, result{}, lab.sim("break", "link", "internet:office", "--delay", "2s"), "instead of the shorter one")
	_, verdict = probed()
	require.Equal(t, "inconclusive", verdict, "no leak, only because nothing is heard for seconds")
	require.Equal(t, result{}, lab.sim("break", "link", "office:internet", "--mend"))
	took, verdict = probed()
	require.Equal(t, "served", verdict)
	require.Less(t, took, 4*delay)
}

func TestDoctor(t *testing.T) {
	netnstest.Require(t)
	t.Setenv(asProgram, "1")
	got := invoke(t, nil, "sim", "doctor", "--json")
	require.Equal(t, exitOK, got.code, got.err)
	var found []ability.Finding
	require.NoError(t, json.Unmarshal([]byte(got.out), &found))
	require.Equal(t, labAbility, found[0].Name)
	require.Greater(t, len(found), 15)
	for _, f := range found {
		require.NotEmpty(t, f.Affects, f.Name)
		require.True(t, f.Has || f.Detail != "" || strings.HasPrefix(f.Name, "nftables: "), "%s: why?", f.Name)
	}
	require.Regexp(t, `(?m)^packet sockets +yes `, invoke(t, nil, "sim", "doctor").out)
}

// TestAWorldWithoutDatabases: there is nothing to see, and that is said in the form that was asked for.
func TestAWorldWithoutDatabases(t *testing.T) {
	text, err := os.ReadFile("../../topology/testdata/minimal.yaml")
	require.NoError(t, err)
	bare, _, ok := strings.Cut(string(text), "hosts:\n")
	require.True(t, ok)
	world := filepath.Join(t.TempDir(), "bare.yaml")
	require.NoError(t, os.WriteFile(world, []byte(bare), 0o600))
	lab := detach(t, world)
	got := lab.sim("policy", "gw-fr1")
	require.Equal(t, exitUsage, got.code, "that is a point of the embedded world, and none of this lab's")
	require.Contains(t, got.err, `"gw-fr1" is no enforcement point of world `)
	require.Contains(t, lab.sim("policy", "gw-fr1", "--world", world).err, "--lab and --world exclude each other")
	require.Equal(t, exitUsage, invoke(t, nil, "sim", "policy", "--lab", "no-such-lab", "gw-fr1").code)
	require.Equal(t, result{out: "[]\n"}, lab.sim("matrix", "--json"))
	require.Equal(t, result{out: "There is nothing to connect to: this world has no databases.\n"}, lab.sim("matrix"))
	require.Equal(t, result{}, lab.sim("enforce", "--all"))
}
