package sim_test

import (
	"context"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"testing"
	"time"

	"drawbridge/sim"
	"drawbridge/sim/impair"
	"drawbridge/sim/netns/netnstest"

	"github.com/stretchr/testify/require"
)

// connects tells whether a vantage's first address of the family reaches an endpoint.
func connects(t *testing.T, l *sim.Lab, from string, to string) error {
	t.Helper()
	v, ok := l.World().Vantage(from)
	require.True(t, ok)
	h, ok := l.Node(v.Namespace)
	require.True(t, ok)
	ctx, cancel := context.WithTimeout(t.Context(), 900*time.Millisecond) // the first repetition comes after a second
	defer cancel()
	c, err := h.Dial(ctx, netip.AddrPort{}, netip.MustParseAddrPort(to))
	if err != nil {
		return err
	}
	return c.Close()
}

// addressesAt lists the global addresses of nodes as their kernels do.
func addressesAt(t *testing.T, l *sim.Lab, nodes ...string) (all []string) {
	t.Helper()
	for _, node := range nodes {
		h, ok := l.Node(node)
		require.True(t, ok)
		require.NoError(t, h.Do(func() error {
			ifaces, err := net.Interfaces()
			require.NoError(t, err)
			for _, i := range ifaces {
				addrs, err := i.Addrs()
				require.NoError(t, err)
				for _, a := range addrs {
					if p := netip.MustParsePrefix(a.String()); !p.Addr().IsLinkLocalUnicast() {
						all = append(all, node+" "+i.Name+" "+p.String())
					}
				}
			}
			return nil
		}))
	}
	slices.Sort(all)
	return all
}

func TestALinkIsCutAndMended(t *testing.T) {
	l := up(t, sim.Options{})
	require.NoError(t, l.StartServers(t.Context()))
	before, err := l.Inventory()
	require.NoError(t, err)
	targets := []string{"198.51.100.129:5432", "[2001:db8:5a::1]:3306"}
	for _, cut := range [][2]string{{"office", "eth0"}, {"shared-a", "inet0"}, {"internet", "port0"}} { // port0 is the office's, from the other end
		for _, to := range targets {
			require.NoError(t, connects(t, l, "office", to))
		}
		shown := addressesAt(t, l, "office", "shared-a")
		require.NoError(t, l.CutLink(cut[0], cut[1]))
		require.Equal(t, shown, addressesAt(t, l, "office", "shared-a"), "a pulled cable takes no address")
		for _, to := range targets {
			require.Error(t, connects(t, l, "office", to), "%v", cut)
		}
		require.NoError(t, connects(t, l, "osc-fr1/web", targets[0]), "others are not concerned")
		for range 2 {
			require.NoError(t, l.MendLink(t.Context(), cut[0], cut[1]))
		}
	}
	for _, to := range targets {
		require.NoError(t, connects(t, l, "office", to))
	}
	after, err := l.Inventory()
	require.NoError(t, err)
	require.Empty(t, before.Missing(after))
	require.ErrorIs(t, l.CutLink("office", "eth7"), sim.ErrUnknown)
}

func TestAServerIsStoppedAndStartedAgain(t *testing.T) {
	l := up(t, sim.Options{})
	require.ErrorIs(t, l.StopServer("pg-shared-1"), sim.ErrUnknown, "no server was started yet")
	require.NoError(t, l.StartServers(t.Context()))
	for range 2 {
		require.NoError(t, l.StopServer("pg-shared-1"))
	}
	require.Nil(t, l.Server("pg-shared-1", 5432))
	require.ErrorContains(t, connects(t, l, "office", "198.51.100.129:5432"), "refused")
	require.NoError(t, connects(t, l, "office", "198.51.100.129:3306"), "its neighbour on the host")
	for range 2 {
		require.NoError(t, l.RestartServer(t.Context(), "pg-shared-1"))
	}
	require.NoError(t, connects(t, l, "office", "198.51.100.129:5432"))
	require.ErrorIs(t, l.StopServer("office"), sim.ErrUnknown)
}

// TestALinkThatSomebodyDeletedIsNamed: one error for it, whatever is to be done with it, and also when another one has its name.
func TestALinkThatSomebodyDeletedIsNamed(t *testing.T) {
	l := up(t, sim.Options{})
	office, ok := l.Node("office")
	require.True(t, ok)
	require.NoError(t, l.Impair("office", "eth0", impair.Impairment{Delay: time.Millisecond}))
	ip := netnstest.Tool(t, "ip")
	for _, again := range [][]string{{"link", "del", "eth0"}, {"link", "add", "eth0", "type", "veth", "peer", "name", "other"}} {
		cmd := exec.Command(ip, again...)
		require.NoError(t, office.Start(cmd))
		require.NoError(t, cmd.Wait())
	}
	for what, err := range map[string]error{
		"cut": l.CutLink("office", "eth0"), "mend": l.MendLink(t.Context(), "office", "eth0"), "impair": l.Impair("office", "eth0", impair.Impairment{}),
	} {
		require.ErrorIs(t, err, sim.ErrDeleted)
		require.EqualError(t, err, what+": eth0 of office: "+sim.ErrDeleted.Error())
	}
}
