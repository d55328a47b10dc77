package probe_test

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"drawbridge/sim"
	"drawbridge/sim/impair"
	"drawbridge/sim/netns"
	"drawbridge/sim/netns/netnstest"
	"drawbridge/sim/probe"
	"drawbridge/topology"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// impairedLab is the default world with bad links, and a prober in it.
func impairedLab(t *testing.T, i impair.Impairment) (*sim.Lab, *probe.Prober) {
	t.Helper()
	netnstest.NoLeaks(t)
	return labOf(t, topology.Default(), sim.Options{Impairment: i})
}

// deny makes a node drop what is for an IPv4 address and port.
func deny(t *testing.T, node *netns.Handle, to netip.AddrPort) {
	t.Helper()
	c, err := nftables.New(nftables.WithNetNSFd(node.Fd()))
	require.NoError(t, err)
	table := c.AddTable(&nftables.Table{Name: "deny", Family: nftables.TableFamilyINet})
	chain := c.AddChain(&nftables.Chain{
		Name: "deny", Table: table, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityRaw,
	})
	c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 16, Len: 4},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: to.Addr().AsSlice()},
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_TCP}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(to.Port())},
		&expr.Verdict{Kind: expr.VerdictDrop},
	}})
	require.NoError(t, c.Flush())
}

var impairments = map[string]impair.Impairment{
	"delay": {Delay: 20 * time.Millisecond}, "loss": {Loss: 0.05, Seed: 11}, "both": {Delay: 20 * time.Millisecond, Loss: 0.02, Seed: 12},
}

// specs are connections of the office to an endpoint of a database, one of each mode, n times.
func specs(l *sim.Lab, database string, n int) (all []probe.Spec) {
	for _, e := range l.World().Endpoints() {
		if e.Database == database && e.Addr.Addr().Is4() {
			for range n {
				for _, m := range probe.Modes(e) {
					all = append(all, probe.Spec{From: "office", To: e, Mode: m})
				}
			}
			return all
		}
	}
	return nil
}

// TestVerdictsAreTheSameOverBadLinks denies one database to everybody and no other: the wires must not pass for the one, nor hide the other.
func TestVerdictsAreTheSameOverBadLinks(t *testing.T) {
	for name, i := range impairments {
		t.Run(name, func(t *testing.T) {
			l, p := impairedLab(t, i)
			require.NoError(t, p.Baseline(context.Background()))
			denied := specs(l, "pg-dedicated", 1)[0].To
			gateway, ok := l.Node(denied.Point)
			require.True(t, ok)
			deny(t, gateway, denied.Addr)
			const n = 30
			judge := func(database string, want probe.Verdict) {
				t.Helper()
				all, err := p.ProbeAll(context.Background(), specs(l, database, n))
				require.NoError(t, err)
				for _, o := range all {
					require.Equal(t, want, o.Verdict, "%s: %s\n%+v", o.Spec, o.Reason, o.Evidence)
				}
			}
			judge("my-shared", probe.Served)
			judge("pg-dedicated", probe.Dropped)
			require.NoError(t, p.Err())
			require.Empty(t, p.Settle())
		})
	}
}

// TestALinkThatIsTooBadMakesNoLeaks: without any enforcer, a conversation that takes longer than somebody waits has not leaked.
func TestALinkThatIsTooBadMakesNoLeaks(t *testing.T) {
	netnstest.Require(t)
	for delay, want := range map[time.Duration]probe.Verdict{
		400 * time.Millisecond: probe.Served, 600 * time.Millisecond: probe.Inconclusive, 3 * time.Second: probe.Inconclusive,
	} {
		t.Run(delay.String(), func(t *testing.T) {
			t.Parallel()
			l, p := labOf(t, topology.Default(), sim.Options{})
			require.NoError(t, l.Impair("office", "eth0", impair.Impairment{Delay: delay}))
			all, err := p.ProbeAll(t.Context(), specs(l, "pg-dedicated", 1))
			require.NoError(t, err)
			for _, o := range all {
				require.Equal(t, want, o.Verdict, "%s: %s", o.Spec, o.Reason)
				if want == probe.Inconclusive {
					require.Contains(t, o.Reason, "no more can be concluded while the link internet:")
					require.Contains(t, o.Reason, "has delay "+delay.String())
				}
			}
		})
	}
}
