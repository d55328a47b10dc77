package suite

import (
	"os"
	"regexp"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"drawbridge/features/driver"
	"drawbridge/features/oracle"
	"drawbridge/features/platform"
	"drawbridge/topology"
)

func TestDecide(t *testing.T) {
	var s platform.Settings
	for _, step := range []struct {
		action string
		want   string
	}{
		{"changes nothing", "Force TLS untouched, Internet accessibility untouched, rules []"},
		{"turns Force TLS on", "Force TLS on, Internet accessibility untouched, rules []"},
		{"turns Internet accessibility off", "Force TLS on, Internet accessibility off, rules []"},
		{`adds the firewall rule "192.0.2.0/25"`, "Force TLS on, Internet accessibility off, rules [192.0.2.0/25]"},
		{`adds the managed range of "osc-fr1"`, "Force TLS on, Internet accessibility off, rules [192.0.2.0/25, managed range osc-fr1]"},
		{`removes the firewall rule "192.0.2.0/25"`, "Force TLS on, Internet accessibility off, rules [managed range osc-fr1]"},
		{`adds 2 firewall rules from "192.0.2.255/32" on`, "Force TLS on, Internet accessibility off, rules [managed range osc-fr1, 192.0.2.255/32, 192.0.3.0/32]"},
	} {
		require.NoError(t, decide(&s, step.action))
		require.Equal(t, step.want, s.String(), step.action)
	}
	for _, wrong := range []string{
		"", "turns Force TLS up", `adds the firewall rule "192.0.2.1/25"`, `adds the managed range of "osc-fr1"`,
		`removes the firewall rule "203.0.113.0/24"`, `adds 2 firewall rules from "192.0.2.0/24" on`, `adds 2 firewall rules from "192.0.3.0/32" on`,
	} {
		require.Error(t, decide(&s, wrong), wrong)
	}
}

func TestChanges(t *testing.T) {
	require.Equal(t, [][]string{{"a", "b"}, {"c"}}, changes("a and b, then c"))
}

// TestPhrases checks how many connections a phrase stands for in the default world.
func TestPhrases(t *testing.T) {
	w := topology.Default()
	for _, c := range []struct {
		about, who, by string
		want           int
	}{
		{"my-shared", `"office"`, "", 2},
		{"my-shared", `"office" over TLS`, "", 1},
		{"my-shared", `"office" over IPv6 with TLS`, "", 1},
		{"my-shared", `every Internet host`, "", 6},
		{"my-shared", `every app of its region without TLS`, "", 2},
		{"my-shared", `every app of another region without TLS`, "", 2},
		{"my-shared", `every app`, "", 8},
		{"pg-dedicated", `every host of "corp" over TLS`, "", 2},
		{"redis-shared", `"office"`, "", 6},            // three nodes, a pair of ports each
		{"redis-shared", `"office"`, nodesOwnPorts, 3}, // TLS only
		{"redis-shared", `every node of "redis-shared" over TLS`, theOtherNodes, 12},
		{"redis-shared", `every node of "redis-shared" without TLS`, theOtherNodes, 6},
		{"pg-dedicated", `every node of "pg-dedicated" without TLS`, theOtherNodes, 6},
		{"pg-dedicated", `"office" without TLS`, everyWayRound, 6}, // three nodes, both families
		{"pg-dedicated", `"corp/desk" without TLS`, everyWayRound, 3},
		{"pg-dedicated", `"office" using 198.51.100.9 without TLS`, everyWayRound, 3},
		{"pg-dedicated", `"office"`, privatePeering, 2},
		{"pg-dedicated", `"office"`, `"search-dedicated"`, 2},
	} {
		t.Run(c.who+" by "+c.by, func(t *testing.T) {
			d, ok := w.Database(c.about)
			require.True(t, ok)
			p, err := parsePhrase(c.who, c.by)
			require.NoError(t, err)
			got, err := p.attempts(w, d)
			require.NoError(t, err)
			require.Len(t, got, c.want)
		})
	}
	for _, c := range []struct{ about, who, by, want string }{
		{"my-shared", `"office"`, everyWayRound, "has no such thing"},
		{"my-shared", `"office"`, privatePeering, "has no such thing"},
		{"my-shared", `"nobody"`, "", "no such vantage"},
		{"my-shared", `every app of "mars"`, "", "no such vantage"},
		{"my-shared", `some app`, "", "not a vantage"},
		{"my-shared", `"office"`, `the moon`, "not a target"},
		{"my-shared", `"office"`, `"moon-db"`, "no such database"},
		{"pg-shared", `"office" using 198.51.100.9`, everyWayRound, "nothing that office could connect to"},
		{"my-shared", `"corp/desk"`, "", "by way of gateway gw-fr1"},
		{"search-dedicated", `"pg-dedicated-1"`, "", "by way of gateway gw-fr1"},
		{"pg-shared", `"office" using 1.2.3.4.5`, "", "ParseAddr"},
	} {
		d, _ := w.Database(c.about)
		p, err := parsePhrase(c.who, c.by)
		require.NoError(t, err)
		_, err = p.attempts(w, d)
		require.ErrorContains(t, err, c.want, c.who)
	}
}

func TestJudge(t *testing.T) {
	denied := oracle.Verdict{Class: oracle.Denied}
	talk := oracle.Verdict{Class: oracle.Denied, Talk: true}
	served := oracle.Verdict{Class: oracle.Served}
	for _, c := range []struct {
		name    string
		want    oracle.Verdict
		got     Outcome
		finding bool
		fine    bool
	}{
		{"served as it must", served, Outcome{Finding: Served, Passed: true}, false, true},
		{"denied as it must", denied, Outcome{Finding: Denied}, false, true},
		{"denied after its first packet passed", denied, Outcome{Finding: Denied, Passed: true}, true, false},
		{"denied at what it said", talk, Outcome{Finding: Denied, Passed: true}, false, true},
		{"served and must not", denied, Outcome{Finding: Served, Passed: true}, true, false},
		{"denied and must not", served, Outcome{Finding: Denied}, true, false},
		{"leaked is not denied", talk, Outcome{Finding: Leaked, Passed: true}, true, false},
		{"leaked is not served", served, Outcome{Finding: Leaked, Passed: true}, true, false},
		{"inconclusive is not denied", denied, Outcome{}, false, false},
		{"inconclusive is not served", served, Outcome{}, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := judge(oracle.Connection{}, c.want, c.got)
			require.Equal(t, c.fine, err == nil)
			require.Equal(t, c.finding, isFinding(err))
		})
	}
}

func TestJudgeHeld(t *testing.T) {
	cut, goesOn := oracle.Verdict{Class: oracle.Denied}, oracle.Verdict{Class: oracle.Served}
	require.NoError(t, judgeHeld(oracle.Connection{}, goesOn, Exchange{Answered: true}))
	require.NoError(t, judgeHeld(oracle.Connection{}, cut, Exchange{Told: true, DatabaseClosed: true}))
	for _, x := range []Exchange{{}, {Told: true}, {DatabaseClosed: true}, {Answered: true}, {Told: true, DatabaseClosed: true, BytesThrough: 1}} {
		require.ErrorIs(t, judgeHeld(oracle.Connection{}, cut, x), ErrNotConformant, "%+v", x)
	}
	require.ErrorIs(t, judgeHeld(oracle.Connection{}, goesOn, Exchange{Told: true, DatabaseClosed: true}), ErrNotConformant)
}

func TestJudgeReplication(t *testing.T) {
	good := Replication{Plain: Outcome{Finding: Denied}, TLS: Outcome{Finding: Served}, Packets: 3}
	require.NoError(t, judgeReplication(good))
	seen, plain, silent, blind := good, good, good, good
	seen.MarkerSeen = true
	plain.Plain.Finding = Served
	silent.TLS.Finding = Denied
	blind.Packets = 0
	for _, r := range []Replication{seen, plain, silent} {
		require.ErrorIs(t, judgeReplication(r), ErrNotConformant)
	}
	require.ErrorIs(t, judgeReplication(blind), errInconclusive)
	require.ErrorIs(t, judgeReplication(Replication{}), errInconclusive)
}

func TestPercentiles(t *testing.T) {
	var all []time.Duration
	for i := 100; i > 0; i-- {
		all = append(all, time.Duration(i)*time.Millisecond)
	}
	require.Equal(t, Durations{100, 50, 99, 100}, percentiles(all))
	require.Equal(t, Durations{1, 7, 7, 7}, percentiles([]time.Duration{7 * time.Millisecond}))
	require.Equal(t, Durations{}, percentiles(nil))
}

func TestExitCodes(t *testing.T) {
	require.Equal(t, 0, Passed.ExitCode())
	require.Equal(t, 1, Failed.ExitCode())
	require.Equal(t, 3, Unjudged.ExitCode())
	require.Equal(t, 3, Result(0).ExitCode())
}

func TestWarningsNameTheWholeDatabase(t *testing.T) {
	require.True(t, names("pg-dedicated")("rule 3 of pg-dedicated: 0.0.0.0/0"))
	require.True(t, names("pg")(`database "pg" is open`))
	require.False(t, names("pg")("canary-pg is open"))
	require.False(t, names("pg")("pg-dedicated is open"))
}

// FuzzPhrase: whatever a feature says, it either stands for connections between things that exist, or it is an error.
func FuzzPhrase(f *testing.F) {
	f.Add(`"office" using 198.51.100.9 over TLS`, "")
	f.Add(`every app of "osc-fr1" over IPv6 without TLS`, `"my-shared"`)
	f.Add(`every node of "redis-shared"`, theOtherNodes)
	w := topology.Default()
	about, _ := w.Database("redis-shared")
	f.Fuzz(func(t *testing.T, who, by string) {
		p, err := parsePhrase(who, by)
		if err != nil {
			return
		}
		attempts, err := p.attempts(w, about)
		require.Equal(t, err == nil, len(attempts) > 0)
		for _, a := range attempts {
			require.True(t, speaks(a.To.TLS, a.TLS))
			_, known := w.Vantage(a.From.Name)
			require.True(t, known)
		}
	})
}

// TestTheManualNamesEveryStatement: docs/DRIVERS.md has a line for each statement of profile core, and for no other.
func TestTheManualNamesEveryStatement(t *testing.T) {
	manual, err := os.ReadFile("../../docs/DRIVERS.md")
	require.NoError(t, err)
	var named []string
	for _, m := range regexp.MustCompile(`(?m)^\| ([A-Z]-[0-9]{2}) \| \S`).FindAllStringSubmatch(string(manual), -1) {
		named = append(named, m[1])
	}
	require.Equal(t, statements(driver.Core), named)
}
