package sim

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"drawbridge/sim/fabric"
	"drawbridge/sim/impair"
	"drawbridge/sim/link"
	"drawbridge/sim/netns/netnstest"
	"drawbridge/topology"

	"github.com/stretchr/testify/require"
)

func TestErrorsNameNodeInterfaceAndOperation(t *testing.T) {
	h := netnstest.New(t)
	conn, err := link.Open(h)
	require.NoError(t, err)
	defer conn.Close()
	node := fabric.Node{Name: "office", Ends: []fabric.NodeEnd{{Index: 9, Name: "eth0", Peer: []byte{2, 0, 0, 0, 0, 1}}}}
	err = configure(site{node: node, handle: h, conn: conn})
	require.ErrorIs(t, err, syscall.ENODEV)
	require.ErrorContains(t, err, "node office: set address generation mode of interface eth0")
	require.ErrorContains(t, err, "bring up interface eth0")
}

func TestSettingsAreInForceInEachNode(t *testing.T) {
	netnstest.Require(t)
	for name, opts := range map[string]Options{"ordinary": {}, "lossy": {Impairment: impair.Impairment{Loss: 0.01}}} {
		t.Run(name, func(t *testing.T) { settingsAreInForce(t, opts) })
	}
}

func settingsAreInForce(t *testing.T, opts Options) {
	t.Helper()
	l, err := Up(t.Context(), topology.Default(), opts)
	require.NoError(t, err)
	defer func() { require.NoError(t, l.Close()) }()
	for _, n := range l.plan.Nodes {
		require.NoError(t, l.nodes[n.Name].Do(func() error {
			for _, s := range append(l.settingsFor(n), interfaceSettings(n)...) {
				got, err := os.ReadFile(filepath.Join("/proc/sys", strings.ReplaceAll(s.name, ".", "/")))
				if err != nil {
					return err
				}
				if want := strings.Fields(s.value); !slices.Equal(want, strings.Fields(string(got))) {
					t.Errorf("node %s: %s is %q, want %q", n.Name, s.name, got, s.value)
				}
			}
			return nil
		}))
	}
}

// interfaceSettings are what a node's interfaces must have got from the defaults.
func interfaceSettings(n fabric.Node) []setting {
	var out []setting
	for _, e := range n.Ends {
		out = append(out, setting{"net.ipv4.conf." + e.Name + ".rp_filter", "0"}, setting{"net.ipv6.conf." + e.Name + ".addr_gen_mode", "1"})
		if n.Router {
			out = append(out, setting{"net.ipv6.conf." + e.Name + ".forwarding", "1"}, setting{"net.ipv4.conf." + e.Name + ".forwarding", "1"})
		}
	}
	return out
}

func TestASettingThatDoesNotExistIsNamed(t *testing.T) {
	require.ErrorContains(t, apply([]setting{{"net.ipv4.no_such_thing", "1"}}), "sysctl net.ipv4.no_such_thing")
}
