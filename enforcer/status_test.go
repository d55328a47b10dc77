package enforcer_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"drawbridge/enforcer"
	"drawbridge/enforcer/compile"
	"drawbridge/enforcer/policy"
	"drawbridge/sim/netns"
	"drawbridge/sim/netns/netnstest"
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

// TestAStatusSaysWhatIsOpen: without a policy at hand, from the tables alone.
func TestAStatusSaysWhatIsOpen(t *testing.T) {
	path := netnstest.Tool(t, "nft")
	for _, tt := range []struct{ name, command, names string }{
		{"everything flushed", "flush table inet drawbridge", "rule of chain admission of table inet drawbridge"},
		{"accept in front", "insert rule inet drawbridge admission accept", "rule of chain admission of table inet drawbridge"},
		{"admission empty", "flush chain inet drawbridge admission4", "rule of chain admission4 of table inet drawbridge"},
		{"a database's chain empty", "flush chain inet drawbridge from4_orders", "rule of chain from4_orders of table inet drawbridge"},
		{"the gate empty", "flush chain inet drawbridge gate", "rule of chain gate of table inet drawbridge"},
		{"an endpoint that nobody judges", "delete element inet drawbridge inbound4 { 203.0.113.1 . 5432 }", "element of set inbound4 of table inet drawbridge"},
		{"an endpoint judged by another", "delete element inet drawbridge inbound4 { 203.0.113.1 . 5432 }; add element inet drawbridge inbound4 { 203.0.113.1 . 5432 : goto from4_docs }",
			"element of set inbound4 of table inet drawbridge"},
		{"an endpoint that everybody reaches", "delete element inet drawbridge inbound4 { 203.0.113.1 . 5432 }; add element inet drawbridge inbound4 { 203.0.113.1 . 5432 : accept }",
			"element of set inbound4 of table inet drawbridge"},
		{"a chain more", "add chain inet drawbridge theirs", "chain theirs of table inet drawbridge"},
		{"a counter more", "add counter inet drawbridge theirs", `counter "theirs"`},
		{"an ending table gone", "delete table ip drawbridge", "table ip drawbridge: missing"},
		{"an ending table empty", "flush chain ip6 drawbridge ending_output", "rule of chain ending_output of table ip6 drawbridge"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ns := netnstest.New(t)
			mustApply(t, ns, []byte(planted))
			require.True(t, statusIn(t, ns).InForce)
			runNFT(t, ns, path, tt.command)
			s := statusIn(t, ns)
			require.False(t, s.InForce)
			require.NotEmpty(t, s.Tampered)
			all := s.Tampered
			for _, o := range s.Objects {
				all += "\n" + o.Object + ": " + o.What
			}
			require.Contains(t, all, tt.names)
			mustApply(t, ns, []byte(planted))
			require.Empty(t, statusIn(t, ns).Tampered)
		})
	}
}

func statusIn(t *testing.T, ns *netns.Handle) (s enforcer.Status) {
	t.Helper()
	require.NoError(t, ns.Do(func() (err error) {
		s, err = enforcer.ReadStatus(t.Context(), enforcer.Options{})
		return err
	}))
	return s
}

// TestAStatusOfADenial: that, too, is what this enforcer writes, or not.
func TestAStatusOfADenial(t *testing.T) {
	ns := netnstest.New(t)
	target, err := enforcer.ParseTarget("203.0.113.1:5432")
	require.NoError(t, err)
	require.NoError(t, ns.Do(func() error { return enforcer.BootDenying(t.Context(), []enforcer.Target{target}, enforcer.Options{}) }))
	s := statusIn(t, ns)
	require.True(t, s.InForce)
	require.True(t, s.Denying)
	runNFT(t, ns, netnstest.Tool(t, "nft"), "insert rule inet drawbridge denied accept")
	s = statusIn(t, ns)
	require.False(t, s.InForce)
	require.NotEmpty(t, s.Objects)
}

// TestAStatusLooksForNoMoreThanIsThere: what is in force by other ways is not called tampered with.
func TestAStatusLooksForNoMoreThanIsThere(t *testing.T) {
	ns := netnstest.New(t)
	for _, d := range []string{planted, string(document(wholeRegion, "")), string(document(wholeRegion, `, "force_tls": true, "internet_accessibility": true`))} {
		mustApply(t, ns, []byte(d))
		s := statusIn(t, ns)
		require.True(t, s.InForce, "%+v", s.Objects)
	}
	require.NoError(t, ns.Do(func() error {
		_, err := enforcer.Apply(t.Context(), document(wholeRegion, `, "force_tls": true`), enforcer.Options{Openings: []policy.Opening{{Database: "docs", Until: time.Now().Add(time.Hour)}}})
		return err
	}))
	s := statusIn(t, ns)
	require.True(t, s.InForce, "%+v", s.Objects)
}

// TestAStatusReadsTheMarkMask from the rules: who asks need not know what the policy was applied with.
func TestAStatusReadsTheMarkMask(t *testing.T) {
	const mask = 0xf0
	h := newHost(t)
	require.NoError(t, h.host.Do(func() error {
		_, err := enforcer.Apply(t.Context(), document(wholeRegion, ""), enforcer.Options{Compile: compile.Options{MarkMask: mask}})
		return err
	}))
	plain, _ := h.dial(t, false)
	require.NoError(t, say(plain))
	s := h.status(t)
	require.Empty(t, s.Objects)
	require.True(t, s.InForce)
	require.EqualValues(t, mask, s.MarkMask)
	require.Equal(t, enforcer.Live{Plaintext: 1}, s.Databases[0].Live)

	undermining := func() (n int) {
		require.NoError(t, h.host.Do(func() error {
			found, err := enforcer.Examine(t.Context(), enforcer.Options{})
			for _, f := range found {
				if f.Severity == enforcer.Undermines {
					n++
				}
			}
			return err
		}))
		return n
	}
	before := undermining()
	h.nft(t, "add table ip a; add chain ip a others; add rule ip a others ct mark set ct mark or 0x00f00000")
	require.Equal(t, before, undermining(), "these bits are not the enforcer's here")
	h.nft(t, "add rule ip a others ct mark set ct mark or 0x10")
	require.Equal(t, before+1, undermining())

	require.NoError(t, h.host.Do(func() (err error) { // who says another one is told
		s, err = enforcer.ReadStatus(t.Context(), enforcer.Options{Compile: compile.Options{MarkMask: compile.DefaultMarkMask}})
		return err
	}))
	require.False(t, s.InForce)
	h.nft(t, "insert rule inet drawbridge gate ct mark set ct mark and 0xff0fffff or 0x00100000")
	s = h.status(t)
	require.EqualValues(t, mask, s.MarkMask, "a rule of somebody else's says nothing")
	require.False(t, s.InForce)
	require.Len(t, s.Objects, 1)
}
