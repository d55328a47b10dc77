package page

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"drawbridge/features/suite"
	"drawbridge/sim/netns/netnstest"
	"drawbridge/topology"

	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

var update = flag.Bool("update", false, "write testdata/report.html anew")

// example is a small run: one statement holds, one does not, one is open.
func example(t *testing.T) *suite.Report {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "report.json"))
	require.NoError(t, err)
	var r suite.Report
	require.NoError(t, json.Unmarshal(text, &r))
	require.Equal(t, time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), r.Started)
	return &r
}

func written(t *testing.T, r *suite.Report) string {
	t.Helper()
	var b bytes.Buffer
	require.NoError(t, Write(&b, topology.Default(), r))
	return b.String()
}

func TestPageIsTheCommittedOne(t *testing.T) {
	got := written(t, example(t))
	golden := filepath.Join("testdata", "report.html")
	if *update {
		require.NoError(t, os.WriteFile(golden, []byte(got), 0o644))
	}
	want, err := os.ReadFile(golden)
	require.NoError(t, err)
	require.Equal(t, string(want), got, "look at the difference, then: go test ./features/page -update")
}

// TestPageNeedsNothingElse: what is referred to is in the page, or a policy beside it.
func TestPageNeedsNothingElse(t *testing.T) {
	for _, m := range regexp.MustCompile(`(?:src|href|url)\s*[=(]\s*["']?([^"' )>]+)`).FindAllStringSubmatch(written(t, example(t)), -1) {
		require.Regexp(t, `^(data:|policies/)`, m[1])
	}
}

// TestPageTakesNothingForMarkup: what enforcers say of themselves stays text.
func TestPageTakesNothingForMarkup(t *testing.T) {
	r := example(t)
	r.Implementation.Name = `<script>document.title="x"</script>`
	r.Scenarios[1].Error = `</pre><img src=x onerror=alert(1)>`
	got := written(t, r)
	require.NotContains(t, got, `<script>document`)
	require.NotContains(t, got, `<img`)
	require.Equal(t, 1, strings.Count(got, "<script>"))
}

func TestPageOfARunThatJudgedNothing(t *testing.T) {
	got := written(t, &suite.Report{Error: "the driver hangs"})
	require.Contains(t, got, `<h1 id="banner">Could not be judged</h1>`)
	require.Contains(t, got, `<pre id="error">the driver hangs</pre>`)
	require.NotContains(t, got, `id="matrix"`)
}

// TestPageInABrowser opens the page in Chromium, which has no network there, and looks at what has become of it.
func TestPageInABrowser(t *testing.T) {
	netnstest.Require(t)
	chromium := netnstest.Tool(t, "chromium")
	dir := t.TempDir()
	r := example(t)
	require.NoError(t, WriteFile(dir, topology.Default(), r))
	dom := opened(t, chromium, filepath.Join(dir, Name))
	count := func(pattern string) int { return len(regexp.MustCompile(pattern).FindAllString(dom, -1)) }
	require.Contains(t, dom, `data-script="done"`)
	require.Contains(t, dom, `<h1 id="banner">Not conformant</h1>`)
	require.Equal(t, len(r.Statements)+len(r.Mutants.Trials), count(`<tr class="(passed|failed|unjudged|open)">`))
	require.Contains(t, dom, `<p>1 of 2 wrong enforcers killed (50.0 %), 1 of 1 right ones passed, 0 unjudged; `)
	require.Equal(t, 1, count(`<details class="trouble failed"`))
	require.Equal(t, 4, count(`<td>(in inet0|out inet0)</td>`))
	require.Equal(t, len(topology.Default().Points()), count(`<rect class="point`))
	require.Equal(t, 1, count(`class="heat wrong"`))
	require.NotContains(t, dom, `<label hidden`) // the script has shown the filter

	broken := filepath.Join(dir, "broken.html") // the same with a script that fails: the test would see it
	text := strings.Replace(written(t, r), `const filter =`, `nowhere(); const filter =`, 1)
	require.NoError(t, os.WriteFile(broken, []byte(text), 0o644))
	require.Contains(t, opened(t, chromium, broken), `data-script="failed"`)
}

// opened returns the document as it stands once its script has run.
func opened(t *testing.T, chromium, file string) string {
	t.Helper()
	var out, stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
		"--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
		"--user-data-dir="+t.TempDir(), "--dump-dom", "file://"+file)
	cmd.Stdout, cmd.Stderr = &out, &stderr
	require.NoError(t, netnstest.New(t).Start(cmd))
	require.NoError(t, cmd.Wait(), stderr.String())
	return out.String()
}
