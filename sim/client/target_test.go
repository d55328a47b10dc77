package client

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestConnectionIsHandedOutOnce(t *testing.T) {
	var o only
	_, err := o.take()
	require.NoError(t, err)
	_, err = o.take()
	require.ErrorIs(t, err, errDialedTwice)
}

func TestNobodyIsTrustedByDefault(t *testing.T) {
	cfg := Target{Addr: netip.MustParseAddrPort("192.0.2.1:5432")}.tlsConfig()
	require.NotNil(t, cfg.RootCAs, "nil stands for the machine's own authorities")
	require.Equal(t, "192.0.2.1", cfg.ServerName)
	require.False(t, cfg.InsecureSkipVerify)
}
