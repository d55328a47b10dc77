package probe_test

import (
	"context"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"drawbridge/sim/netns"
	"drawbridge/sim/probe"
)

// lose makes a node lose one in twenty of the packets that arrive there.
func lose(t *testing.T, node *netns.Handle) {
	t.Helper()
	c, err := nftables.New(nftables.WithNetNSFd(node.Fd()))
	require.NoError(t, err)
	table := c.AddTable(&nftables.Table{Name: "loss", Family: nftables.TableFamilyINet})
	chain := c.AddChain(&nftables.Chain{
		Name: "loss", Table: table, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityRaw,
	})
	c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
		&expr.Numgen{Register: 1, Modulus: 20, Type: unix.NFT_NG_INCREMENTAL},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{0, 0, 0, 0}},
		&expr.Verdict{Kind: expr.VerdictDrop},
	}})
	require.NoError(t, c.Flush())
}

// TestBaselineNoticesLoss: TCP repeats what is lost, so that everything reaches everything all the same.
func TestBaselineNoticesLoss(t *testing.T) {
	l, p := lab(t)
	node, ok := l.Node("shared-s")
	require.True(t, ok)
	lose(t, node)
	err := p.Baseline(context.Background())
	require.ErrorIs(t, err, probe.ErrBaseline)
	require.ErrorContains(t, err, "packets get lost")
}
