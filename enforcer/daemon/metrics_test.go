package daemon_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"

	"drawbridge/enforcer/daemon"
)

// ask asks at an address of the scene's namespace.
func (s *scene) ask(t *testing.T, method, url string) (code int, text string) {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(_ context.Context, network, address string) (c net.Conn, err error) {
		err = s.ns.Do(func() error { c, err = net.Dial(network, address); return err })
		return c, err
	}}}
	r, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	require.NoError(t, err)
	answer, err := client.Do(r)
	require.NoError(t, err)
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	require.NoError(t, err)
	return answer.StatusCode, string(body)
}

// TestMetricsOfAllAddressesOfAFamily are served to no other family.
func TestMetricsOfAllAddressesOfAFamily(t *testing.T) {
	for _, at := range []string{"0.0.0.0:9469", "[::]:9469"} {
		s := newScene(t, func(_ *scene, o *daemon.Options) { o.Listen = netip.MustParseAddrPort(at) })
		require.Contains(t, s.log.String(), "listen="+at)
	}
}

// TestMetricsAreServed at an address, also one that comes later, and nothing else is: who asks there may be anybody.
func TestMetricsAreServed(t *testing.T) {
	for _, tt := range []struct {
		at     string
		warned bool
	}{{"127.0.0.1:9469", false}, {"[::1]:9469", false}, {"192.0.2.7:9469", true}} {
		t.Run(tt.at, func(t *testing.T) {
			at := netip.MustParseAddrPort(tt.at)
			s := newScene(t, func(_ *scene, o *daemon.Options) { o.Listen = at })
			require.Equal(t, tt.warned, strings.Contains(s.log.String(), "whoever reaches this address"))
			require.NoError(t, s.ns.Do(func() error {
				lo, err := netlink.LinkByName("lo")
				if err != nil {
					return err
				}
				if tt.warned {
					if err := netlink.AddrAdd(lo, &netlink.Addr{IPNet: &net.IPNet{IP: at.Addr().AsSlice(), Mask: net.CIDRMask(32, 32)}}); err != nil {
						return err
					}
				}
				return netlink.LinkSetUp(lo)
			}))
			url := "http://" + tt.at
			code, text := s.ask(t, http.MethodGet, url+"/metrics")
			require.Equal(t, http.StatusOK, code)
			require.Contains(t, text, "drawbridge_ready 1")
			for _, path := range []string{"/healthz", "/readyz"} {
				code, text = s.ask(t, http.MethodGet, url+path)
				require.Equal(t, http.StatusOK, code)
				require.Equal(t, "ok\n", text)
			}
			s.put([]byte(strings.Replace(host("10.10.0.0/16"), `"version": 1`, `"version": 1, "secret": 1`, 1)))
			s.until(t, func(st daemon.Status) bool { return strings.Contains(st.Refused, "secret") })
			code, text = s.ask(t, http.MethodGet, url+"/readyz")
			require.Equal(t, http.StatusServiceUnavailable, code)
			require.NotContains(t, text, "secret")
			for _, path := range []string{"/", "/status", "/status/0?after=0", "/denied", "/denied/follow", "/hits", "/break-glass", "/debug/pprof/"} {
				code, _ = s.ask(t, http.MethodGet, url+path)
				require.Equal(t, http.StatusNotFound, code, path)
			}
			code, _ = s.ask(t, http.MethodPost, url+"/break-glass")
			require.Equal(t, http.StatusNotFound, code)
			code, _ = s.ask(t, http.MethodDelete, url+"/break-glass/db27017")
			require.Equal(t, http.StatusNotFound, code)
			code, _ = s.ask(t, http.MethodPost, url+"/metrics")
			require.Equal(t, http.StatusMethodNotAllowed, code)
		})
	}
}
