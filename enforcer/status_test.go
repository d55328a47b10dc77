package enforcer_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"drawbridge/enforcer"
)

func (h *host) status(t *testing.T) (s enforcer.Status) {
	t.Helper()
	require.NoError(t, h.host.Do(func() (err error) {
		s, err = enforcer.ReadStatus(t.Context(), enforcer.Options{})
		return err
	}))
	return s
}

func (h *host) plan(t *testing.T, document []byte) (p enforcer.Plan) {
	t.Helper()
	require.NoError(t, h.host.Do(func() (err error) {
		p, err = enforcer.MakePlan(t.Context(), document, enforcer.Options{})
		return err
	}))
	return p
}

// TestWhoWouldBeCutOff: connections are classified while Force TLS is off, a plan of turning it on names those that it
// would cut, and turning it on cuts exactly these (SPEC X-05).
func TestWhoWouldBeCutOff(t *testing.T) {
	h := newHost(t)
	require.Equal(t, enforcer.Status{}.InForce, h.status(t).InForce)
	before, _ := h.dial(t, false)
	require.NoError(t, say(before), "it began before anybody looked")
	mustApply(t, h.host, document(wholeRegion, ""))
	start := time.Now()
	for range 2 {
		plain, _ := h.dial(t, false)
		require.NoError(t, say(plain))
	}
	for range 3 {
		secure, _ := h.dial(t, true)
		require.NoError(t, say(secure))
	}

	s := h.status(t)
	require.True(t, s.InForce)
	require.Len(t, s.Databases, 1)
	d := s.Databases[0]
	require.Equal(t, "docs", d.Name)
	require.Equal(t, "off", d.ForceTLS)
	require.EqualValues(t, 3, d.TLS)
	require.EqualValues(t, 2, d.Plaintext)
	require.Zero(t, d.Refused)
	require.Equal(t, enforcer.Live{TLS: 3, Plaintext: 2, Unknown: 1}, d.Live)
	require.Equal(t, clientAddr, d.LastPlaintext.Source)
	require.EqualValues(t, 2, d.LastPlaintext.Connections)
	require.WithinRange(t, d.LastPlaintext.LastAt, start.Add(-time.Second), time.Now().Add(time.Second))

	on := document(wholeRegion, `, "force_tls": true`)
	p := h.plan(t, on)
	require.Equal(t, []enforcer.Doomed{
		{Database: "docs", Client: clientAddr, Connections: 2, Why: "plaintext"},
		{Database: "docs", Client: clientAddr, Connections: 1, Why: "unknown beginning"},
	}, p.Cut)
	require.Equal(t, 3, p.Kept)
	require.Equal(t, []string{"add element inet drawbridge force4 { 10.10.0.1 . 27017 }"}, p.Commands)
	require.Equal(t, "off", h.status(t).Databases[0].ForceTLS, "a plan changes nothing")

	receipt := mustApply(t, h.host, on)
	require.Equal(t, p.Connections(), receipt.Cut.Cut())
	late, _ := h.dial(t, false)
	require.Error(t, say(late))
	require.Error(t, say(late))
	d = h.status(t).Databases[0]
	require.Equal(t, "on", d.ForceTLS)
	require.EqualValues(t, 1, d.Refused, "a connection counts once")
	require.Equal(t, clientAddr, d.LastRefused.Source)
	require.EqualValues(t, 2, d.Plaintext, "what was counted stays counted")
	require.Equal(t, enforcer.Live{TLS: 3}, d.Live)

	empty := h.plan(t, on)
	require.Empty(t, empty.Commands)
	require.Empty(t, empty.Cut)
	away := h.plan(t, document("10.10.7.0/24", `, "force_tls": true`))
	require.Equal(t, []enforcer.Doomed{{Database: "docs", Client: clientAddr, Connections: 3, Why: "not admitted"}}, away.Cut)
}

func TestAStatusSaysThatTheTableWasTamperedWith(t *testing.T) {
	h := newHost(t)
	mustApply(t, h.host, document(wholeRegion, ""))
	h.nft(t, "add rule inet drawbridge admission ip daddr 1.2.3.4 tcp dport 5 meta mark set 7")
	s := h.status(t)
	require.False(t, s.InForce)
	require.NotEmpty(t, s.Tampered)
	require.NotEmpty(t, h.plan(t, document(wholeRegion, "")).Repair)
}

// TestWhoGainsAndWhoLoses: a plan says it in networks, of the rules that stand and of the policy.
func TestWhoGainsAndWhoLoses(t *testing.T) {
	h := newHost(t)
	words := func(p enforcer.Plan) (all []string) {
		all = append(all, p.Settings...)
		for _, a := range p.Access {
			all = append(all, a.Words())
		}
		return all
	}
	first := h.plan(t, document("10.10.0.0/24", ""))
	require.Contains(t, words(first), "database docs would be protected")
	require.Contains(t, words(first), "docs at 10.10.0.1:27017, by reg0 (regional): 0.0.0.0-10.9.255.255, 10.10.1.0-255.255.255.255 would lose access")
	mustApply(t, h.host, document("10.10.0.0/24", ""))
	require.Empty(t, words(h.plan(t, document("10.10.0.0/24", ""))))
	require.Equal(t, []string{
		"Force TLS of docs would be on, and is off",
		"docs at 10.10.0.1:27017, by reg0 (regional): 10.10.1.0-10.10.7.255 would gain access",
	}, words(h.plan(t, document("10.10.0.0/21", `, "force_tls": true`))))
}
