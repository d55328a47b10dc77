package probe_test

import (
	"os/exec"
	"strings"
	"testing"

	"drawbridge/sim/netns/netnstest"
	"drawbridge/sim/probe"
	"drawbridge/topology"

	"github.com/stretchr/testify/require"
)

// publicOf returns a database's public endpoint of IPv4.
func publicOf(t *testing.T, database string) topology.Endpoint {
	t.Helper()
	for _, e := range topology.Default().Endpoints() {
		if e.Database == database && e.Addr.Addr().Is4() && e.Kind == topology.PublicRW {
			return e
		}
	}
	require.FailNow(t, "no such endpoint", database)
	return topology.Endpoint{}
}

// TestAServerThatIsDown: neither did an enforcer refuse it, nor did anything leak past one, whoever concludes and however.
func TestAServerThatIsDown(t *testing.T) {
	l, p := lab(t)
	for _, c := range []struct{ database, node, behind string }{
		{"pg-dedicated", "pg-dedicated-1", "the database's host refused the connection: nothing listens there"},
		{"pg-shared", "pg-shared-1", "refused at the database's host, and nothing listens there: whether the enforcer would have rejected it cannot be told"},
	} {
		spec := probe.Spec{From: "office", To: publicOf(t, c.database), Mode: probe.TLS}
		require.NoError(t, l.StopServer(c.node))
		all, err := p.ProbeAll(t.Context(), []probe.Spec{spec})
		require.NoError(t, err)
		require.Equal(t, probe.Inconclusive, all[0].Verdict, all[0].Reason)
		require.Equal(t, probe.ByNobody, all[0].By)
		require.Contains(t, all[0].Reason, c.behind)
		require.Empty(t, p.Settle(), "and nothing of it counts later")
		require.NoError(t, l.RestartServer(t.Context(), c.node))
		all, err = p.ProbeAll(t.Context(), []probe.Spec{spec})
		require.NoError(t, err)
		require.Equal(t, probe.Served, all[0].Verdict, all[0].Reason)
	}
	require.NoError(t, p.JudgeByPatience(2*probe.LeastPatience))
	for _, c := range []struct{ database, node string }{{"pg-dedicated", "pg-dedicated-1"}, {"pg-shared", "pg-shared-1"}} {
		require.NoError(t, l.StopServer(c.node))
		all, err := p.ProbeAll(t.Context(), []probe.Spec{{From: "office", To: publicOf(t, c.database), Mode: probe.TLS}})
		require.NoError(t, err)
		require.Equal(t, probe.Inconclusive, all[0].Verdict, all[0].Reason)
	}
}

// rejects is an enforcer that answers with a reset or an ICMP error at once, wherever it is.
const rejects = `
table inet theirs {
	chain either {
		tcp dport 5432 ct original ip daddr ADDRESS reject with HOW
	}
	chain forward {
		type filter hook forward priority -10
		jump either
	}
	chain input {
		type filter hook input priority -10
		jump either
	}
}`

// TestRejectionsStayTheEnforcers: a database that is up does not refuse, and a host that has no such port says so by no ICMP error.
func TestRejectionsStayTheEnforcers(t *testing.T) {
	l, p := lab(t)
	for _, c := range []struct {
		database, down, how string
		by                  probe.By
	}{
		{"pg-dedicated", "", "tcp reset", probe.ByEnforcer}, {"pg-shared", "", "tcp reset", probe.ByEnforcer},
		{"pg-dedicated", "pg-dedicated-1", "tcp reset", probe.ByEnforcer},
		{"pg-shared", "pg-shared-1", "icmp port-unreachable", probe.ByEnforcer},
		{"pg-shared", "pg-shared-1", "tcp reset", probe.ByNobody},
	} {
		to := publicOf(t, c.database)
		node, ok := l.Node(to.Point)
		require.True(t, ok)
		nft := func(script string) {
			cmd := exec.Command(netnstest.Tool(t, "nft"), "-f", "-")
			cmd.Stdin = strings.NewReader(script)
			out := &strings.Builder{}
			cmd.Stderr = out
			require.NoError(t, node.Start(cmd))
			require.NoError(t, cmd.Wait(), out)
		}
		nft(strings.NewReplacer("ADDRESS", to.Addr.Addr().String(), "HOW", c.how).Replace(rejects))
		if c.down != "" {
			require.NoError(t, l.StopServer(c.down))
		}
		all, err := p.ProbeAll(t.Context(), []probe.Spec{{From: "office", To: to, Mode: probe.TLS}})
		require.NoError(t, err)
		require.Equal(t, c.by, all[0].By, "%+v: %s", c, all[0].Reason)
		p.Settle()
		nft("delete table inet theirs")
		if c.down != "" {
			require.NoError(t, l.RestartServer(t.Context(), c.down))
		}
	}
}

// TestEveryEndpointOfAHostHasAListener: what Listens says decides of rejections at hosts.
func TestEveryEndpointOfAHostHasAListener(t *testing.T) {
	l, _ := lab(t)
	w := topology.Default()
	looked := 0
	for _, e := range append(w.Endpoints(), w.Bypasses()...) {
		if pt, _ := w.Point(e.Point); pt.Model == topology.Dedicated {
			continue
		}
		listens, err := l.Listens(e.Point, e.Addr)
		require.NoError(t, err)
		require.True(t, listens, e)
		looked++
	}
	require.Greater(t, looked, 8)
	listens, err := l.Listens("shared-a", publicOf(t, "pg-shared").Addr)
	require.NoError(t, err)
	require.True(t, listens)
	require.NoError(t, l.StopServer("pg-shared-1"))
	listens, err = l.Listens("shared-a", publicOf(t, "pg-shared").Addr)
	require.NoError(t, err)
	require.False(t, listens)
	_, err = l.Listens("nowhere", publicOf(t, "pg-shared").Addr)
	require.Error(t, err)
}
