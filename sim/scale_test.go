package sim_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"drawbridge/sim"
	"drawbridge/sim/netns"
	"drawbridge/sim/netns/netnstest"
	"drawbridge/topology"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// crowd is a world of n apps in one region, a shared host with a database and an Internet host.
func crowd(t testing.TB, n int) *topology.World {
	t.Helper()
	var apps strings.Builder
	for i := range n {
		fmt.Fprintf(&apps, "      - name: app-%d\n", i)
	}
	w, err := topology.Parse("crowd.yaml", []byte(`
version: 1
name: crowd
regions:
  - name: here
    networks: [10.10.0.0/16, "fd00:10::/48"]
    egress: [192.0.2.129, 192.0.2.130, "2001:db8:f1::1"]
    apps:
`+apps.String()+`
internet:
  - name: somebody
    networks: [203.0.113.0/25, "2001:db8:a::/64"]
hosts:
  - name: host-a
    region: here
    addresses: [198.51.100.129, "2001:db8:5a::1"]
databases:
  - name: orders
    model: shared
    engine: postgresql
    nodes:
      - host: host-a
`))
	require.NoError(t, err)
	return w
}

// A thousand nodes take more descriptors than select(2) can watch, which a library used to stumble over.
func TestAThousandHosts(t *testing.T) {
	netnstest.Require(t)
	const n = 1000
	l, err := sim.Up(t.Context(), crowd(t, n), sim.Options{})
	require.NoError(t, err)
	defer func() { require.NoError(t, l.Close()) }()
	connections, err := l.Verify(t.Context())
	require.NoError(t, err)
	require.Equal(t, 2*(n+1), connections, "apps and the shared host, each in both families")
}

func TestVerifyFindsABrokenNode(t *testing.T) {
	netnstest.Require(t)
	l, err := sim.Up(t.Context(), crowd(t, 3), sim.Options{})
	require.NoError(t, err)
	defer func() { require.NoError(t, l.Close()) }()
	h, ok := l.Node("here/app-1")
	require.True(t, ok)
	takeDown(t, h, "eth0")
	_, err = l.Verify(t.Context())
	require.ErrorIs(t, err, sim.ErrUnverified)
	require.ErrorContains(t, err, "here/app-1")
}

func takeDown(t *testing.T, h *netns.Handle, iface string) {
	t.Helper()
	require.NoError(t, h.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		ifr, err := unix.NewIfreq(iface)
		if err != nil {
			return err
		}
		ifr.SetUint16(0)
		return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr)
	}))
}

func BenchmarkCrowd(b *testing.B) {
	netnstest.Require(b)
	for _, n := range []int{50, 200, 1000} {
		w := crowd(b, n)
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			var lab *sim.Lab
			var up, verify, down time.Duration
			for b.Loop() {
				up += timed(b, func() (err error) { lab, err = sim.Up(b.Context(), w, sim.Options{}); return err })
				verify += timed(b, func() (err error) { _, err = lab.Verify(b.Context()); return err })
				down += timed(b, func() error { return lab.Close() })
			}
			for name, d := range map[string]time.Duration{"up-ms": up, "verify-ms": verify, "close-ms": down} {
				b.ReportMetric(float64(d.Microseconds())/1000/float64(b.N), name)
			}
		})
	}
}

func timed(b *testing.B, f func() error) time.Duration {
	b.Helper()
	start := time.Now()
	require.NoError(b, f())
	return time.Since(start)
}
