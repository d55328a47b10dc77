package enforcer_test

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"drawbridge/enforcer"
	"drawbridge/enforcer/policy"
)

// reaches tells whether a new connection gets through its handshake.
func (h *host) reaches(t *testing.T) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	c, err := h.client.Dial(ctx, netip.AddrPortFrom(clientAddr, 0), endpoint)
	if err != nil {
		return false
	}
	<-h.accepted
	require.NoError(t, c.Close())
	return true
}

// proven tells whether what is in force is a document with these openings.
func (h *host) proven(t *testing.T, document []byte, openings ...policy.Opening) (v enforcer.Verification) {
	t.Helper()
	inside(t, h.host, func() (err error) {
		v, err = enforcer.Verify(t.Context(), document, enforcer.Options{Openings: openings})
		return err
	})
	return v
}

// TestBreakGlass opens a database of each model to everybody, keeps Force TLS, and ends in the kernel with nobody there.
func TestBreakGlass(t *testing.T) {
	for name, text := range map[string][]byte{
		"shared":    document("192.0.2.0/24", `, "force_tls": true`),
		"dedicated": behind(`{"type": "custom_range", "cidr": "192.0.2.0/24"}`),
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			var s *enforcer.Session
			inside(t, h.host, func() (err error) { s, err = enforcer.Open(enforcer.Options{}); return err })
			open := func(openings ...policy.Opening) (r enforcer.Receipt) {
				inside(t, h.host, func() (err error) { r, err = s.SetOpenings(t.Context(), openings); return err })
				return r
			}
			_, err := s.SetOpenings(t.Context(), nil)
			require.ErrorIs(t, err, enforcer.ErrNothingApplied)
			inside(t, h.host, func() error { _, err := s.Apply(t.Context(), text); return err })
			require.False(t, h.reaches(t))

			glass := policy.Opening{Database: "docs", Until: time.Now().Add(time.Hour), Reason: "ticket 7"}
			receipt := open(glass)
			require.Contains(t, receipt.Warnings[len(receipt.Warnings)-1], "break-glass: database docs is open to everybody until")
			c, _ := h.dial(t, true)
			if name == "shared" {
				require.NoError(t, say(c))
				plain, _ := h.dial(t, false)
				require.Error(t, say(plain), "Force TLS is as it was")
			}
			v := h.proven(t, text, glass)
			require.True(t, v.Proven, "%+v", v)
			require.False(t, h.proven(t, text).Proven)
			inside(t, h.host, func() error { _, err := s.Apply(t.Context(), text); return err })
			require.True(t, h.reaches(t), "it survives a policy that is read again")

			require.NotZero(t, open().Cut.Cut(), "what it let in ends with it")
			require.False(t, h.reaches(t))
			require.True(t, h.proven(t, text).Proven)

			glass.Until = time.Now().Add(3 * time.Second)
			open(glass)
			require.True(t, h.reaches(t))
			require.NoError(t, s.Close())
			require.Eventually(t, func() bool { return time.Now().After(glass.Until) && !h.reaches(t) }, 20*time.Second, 20*time.Millisecond, "the kernel ends it")
		})
	}
}

// TestWhatCannotBeOpened: what is not there, and a shared database without Force TLS.
func TestWhatCannotBeOpened(t *testing.T) {
	plain, err := policy.Parse("policy", document(wholeRegion, `, "force_tls": false`))
	require.NoError(t, err)
	require.ErrorIs(t, plain.CanOpen("docs"), policy.ErrAccessibilityNeedsForceTLS)
	require.ErrorIs(t, plain.CanOpen("nobody"), policy.ErrUnknownDatabase)
	same, refused := plain.Open([]policy.Opening{{Database: "docs", Until: time.Now().Add(time.Hour)}})
	require.Same(t, plain, same)
	require.Len(t, refused, 1)
	open, err := policy.Parse("policy", document(wholeRegion, `, "force_tls": true, "internet_accessibility": true`))
	require.NoError(t, err)
	require.ErrorIs(t, open.CanOpen("docs"), policy.ErrOpenAlready)
}
