package authority

import (
	"crypto/x509"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestIssuedCertificatesHoldForTheirNamesAndAddressesOnly(t *testing.T) {
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	a, err := New("lab", func() time.Time { return now })
	require.NoError(t, err)
	other, err := New("lab", func() time.Time { return now })
	require.NoError(t, err)
	cert, err := a.Issue([]string{"pg-1", "pg"}, []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")})
	require.NoError(t, err)
	verify := func(roots *x509.CertPool, name string, at time.Time) error {
		_, err := cert.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: name, CurrentTime: at})
		return err
	}
	for _, name := range []string{"pg-1", "pg", "192.0.2.1", "2001:db8::1"} {
		require.NoError(t, verify(a.Pool(), name, now), name)
	}
	require.Error(t, verify(a.Pool(), "192.0.2.2", now))
	require.Error(t, verify(a.Pool(), "other", now))
	require.Error(t, verify(other.Pool(), "pg", now))
	require.Error(t, verify(a.Pool(), "pg", now.Add(Lifetime+time.Second)))
	_, err = a.Issue(nil, nil)
	require.ErrorContains(t, err, "no name")
}
