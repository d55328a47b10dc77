package probe_test

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"drawbridge/sim/netns/netnstest"
	"drawbridge/sim/probe"
	"drawbridge/topology"
)

// denyAll denies what it does not know: the canary too.
const denyAll = `
table inet theirs {
	chain forward {
		type filter hook forward priority filter; policy drop;
		ct state established accept
	}
	chain input { type filter hook input priority filter; policy drop; }
}`

// TestUnfenced: without a fence, what arrives and does not leave is no denial to a judge, and is one to people who wait for it.
func TestUnfenced(t *testing.T) {
	l, p := lab(t)
	var to topology.Endpoint
	for _, e := range topology.Default().Endpoints() {
		if d, _ := topology.Default().Database(e.Database); d.Model == topology.Dedicated && e.Addr.Addr().Is4() && e.Kind == topology.PublicRW {
			to = e
		}
	}
	node, ok := l.Node(to.Point)
	require.True(t, ok)
	cmd := exec.Command(netnstest.Tool(t, "nft"), "-f", "-")
	cmd.Stdin = strings.NewReader(denyAll)
	require.NoError(t, node.Start(cmd))
	require.NoError(t, cmd.Wait())
	spec := probe.Spec{From: topology.Default().Internet()[0].Name, To: to, Mode: probe.TLS}
	judged, err := p.Probe(t.Context(), spec)
	require.NoError(t, err)
	require.Equal(t, probe.Inconclusive, judged.Verdict, judged.Reason)
	p.JudgeUnfencedByPatience()
	all, err := p.ProbeAll(t.Context(), []probe.Spec{spec})
	require.NoError(t, err)
	require.Equal(t, probe.Dropped, all[0].Verdict, all[0].Reason)
	require.Equal(t, probe.ByPatience, all[0].Way)
	require.GreaterOrEqual(t, all[0].Evidence.SYNs, 2)
	require.False(t, all[0].Evidence.Controlled)
}
