package enforcer_test

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"drawbridge/enforcer"
	"drawbridge/enforcer/denied"
	"drawbridge/enforcer/nft"
	"drawbridge/sim/netns/netnstest"
)

// TestWhoIsDenied: the kernel tells a listener who was denied, where and why; there is one listener.
func TestWhoIsDenied(t *testing.T) {
	h := newHost(t)
	mustApply(t, h.host, document(wholeRegion, `, "force_tls": true`))
	var d *enforcer.Denials
	err := h.host.Do(func() (err error) { d, err = enforcer.ListenDenied(t.Context()); return err })
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL) {
		netnstest.Missing(t, "nflog in a user namespace: "+err.Error())
	}
	require.NoError(t, err)
	defer func() { require.NoError(t, d.Close()) }()
	require.ErrorIs(t, h.host.Do(func() error { _, err := enforcer.ListenDenied(t.Context()); return err }), denied.ErrTaken)

	plain, _ := h.dial(t, false)
	require.Error(t, say(plain))
	first := next(t, d)
	require.Equal(t, []any{"docs", clientAddr, endpoint, "plaintext"}, []any{first.Database, first.Source, first.To, first.Why})

	mustApply(t, h.host, document("192.0.2.0/24", ""))
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err = h.client.Dial(ctx, netip.AddrPortFrom(clientAddr, 0), endpoint)
	require.Error(t, err)
	second := next(t, d)
	require.Equal(t, []any{"docs", clientAddr, endpoint, "no rule"}, []any{second.Database, second.Source, second.To, second.Why})

	recent := d.Recent()
	require.Len(t, recent, 2)
	require.Equal(t, "no rule", recent[0].Why, "latest first")
	require.WithinDuration(t, time.Now(), recent[0].LastAt, time.Minute)
	ended, stop := context.WithCancel(t.Context())
	stop()
	_, err = d.Next(ended)
	require.ErrorIs(t, err, context.Canceled)
}

func next(t *testing.T, d *enforcer.Denials) enforcer.Denial {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	all, err := d.Next(ctx)
	require.NoError(t, err)
	require.NotEmpty(t, all)
	return all[0]
}

// TestAKernelWithoutNflog enforces the policy all the same, and says what it cannot tell.
func TestAKernelWithoutNflog(t *testing.T) {
	ns := netnstest.New(t)
	var r enforcer.Receipt
	require.NoError(t, ns.Do(func() (err error) {
		r, err = enforcer.Apply(t.Context(), []byte(planted), enforcer.Lacking(nft.LogGroup))
		return err
	}))
	require.Contains(t, r.Warnings[len(r.Warnings)-1], "CONFIG_NETFILTER_NETLINK_LOG")
	v := verify(t, ns, planted)
	require.False(t, v.Proven, "this kernel could")
	require.Empty(t, v.Access, "but who gets in is the same")
}
