package enforcer_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"drawbridge/enforcer"
	"drawbridge/enforcer/ruleset"
	"drawbridge/sim/netns"
	"drawbridge/sim/netns/netnstest"
)

// until gives the first rule of the planted policy an end, inside of a network that has none.
func until(end time.Time) string {
	rule := `{"type": "custom_range", "cidr": "198.51.100.0/28"}`
	temporary := `{"type": "custom_range", "cidr": "198.51.100.32/28"}, {"type": "custom_range", "cidr": "198.51.100.0/24", "expires": "` + end.Format(time.RFC3339Nano) + `"}`
	return strings.Replace(planted, rule, rule+", "+temporary, 1)
}

// TestARuleEndsByItself, with nobody there who would end it.
func TestARuleEndsByItself(t *testing.T) {
	ns := netnstest.New(t)
	end := time.Now().Add(3 * time.Second)
	document := until(end)
	mustApply(t, ns, []byte(document))
	v := verify(t, ns, document)
	require.True(t, v.Proven, "%+v", v)
	path := netnstest.Tool(t, "nft")
	require.NotEqual(t, planted, document)
	runNFT(t, ns, path, "list ruleset")
	require.Eventually(t, func() bool { return time.Now().After(end) && verify(t, ns, document).Proven }, 20*time.Second, 50*time.Millisecond,
		"its end is what the policy says")
	require.False(t, verify(t, ns, until(time.Now().Add(time.Hour))).Proven)
	receipt := mustApply(t, ns, []byte(document))
	require.Zero(t, receipt.Changed)
	require.Len(t, receipt.Warnings, 2, "a rule open to everybody, and this: %q", receipt.Warnings)
	require.Contains(t, receipt.Warnings[1], "not in force, because it has expired: rule 3, custom range 198.51.100.0/24")
}

// TestTheClockJumps: a lifetime is counted from the clock at the time of the change, and mended when the clock was set.
func TestTheClockJumps(t *testing.T) {
	for _, owned := range []bool{false, true} {
		ns := netnstest.New(t)
		now := time.Now()
		document := []byte(until(now.Add(10 * time.Hour)))
		var s *enforcer.Session
		inside(t, ns, func() (err error) {
			s, err = enforcer.Open(enforcer.Options{Clock: func() time.Time { return now }})
			return err
		})
		if owned {
			require.NoError(t, s.Own(t.Context()))
		}
		_, err := s.Apply(t.Context(), document)
		require.NoError(t, err)
		require.WithinDuration(t, now.Add(10*time.Hour), s.NextExpiry(), 0)
		again, err := s.Repair(t.Context())
		require.NoError(t, err)
		require.Zero(t, again.Changed, "time alone changes nothing")

		now = now.Add(9 * time.Hour)
		mended, err := s.Repair(t.Context())
		require.NoError(t, err)
		require.NotZero(t, mended.Changed.ElementsAdded)
		require.Zero(t, mended.Changed.Chains+mended.Changed.Sets)
		again, err = s.Apply(t.Context(), document)
		require.NoError(t, err)
		require.Zero(t, again.Changed)

		now = now.Add(2 * time.Hour)
		gone, err := s.Repair(t.Context())
		require.NoError(t, err)
		require.NotZero(t, gone.Changed.ElementsDeleted)
		require.Contains(t, gone.Warnings[len(gone.Warnings)-1], "has expired")
		require.True(t, s.NextExpiry().IsZero())
		require.NoError(t, s.Close())
	}
}

func inside(t *testing.T, ns *netns.Handle, do func() error) {
	t.Helper()
	require.NoError(t, ns.Do(do))
}

// TestAnotherLifetimeIsFound: verify names an element that somebody gave more time.
func TestAnotherLifetimeIsFound(t *testing.T) {
	ns := netnstest.New(t)
	document := until(time.Now().Add(time.Hour))
	mustApply(t, ns, []byte(document))
	path := netnstest.Tool(t, "nft")
	runNFT(t, ns, path, "delete element inet drawbridge custom4_orders { 198.51.100.48-198.51.100.255 }; add element inet drawbridge custom4_orders { 198.51.100.48-198.51.100.255 timeout 2h }")
	v := verify(t, ns, document)
	require.False(t, v.Proven)
	require.Len(t, v.Objects, 1)
	require.Equal(t, ruleset.Difference{Object: "element of set custom4_orders of table inet drawbridge", What: v.Objects[0].What}, v.Objects[0])
	require.Contains(t, v.Objects[0].What, "timeout 2h must be 198.51.100.48-198.51.100.255 timeout 59m")
}

// TestARuleThatOutlivesTheKernelsCount is in force like one without an end: neither the kernel's lifetimes nor Go's get as far as dates do.
func TestARuleThatOutlivesTheKernelsCount(t *testing.T) {
	for _, end := range []string{"2319-06-01T00:00:00Z", "9999-12-31T23:59:59Z"} {
		at, err := time.Parse(time.RFC3339, end)
		require.NoError(t, err)
		ns := netnstest.New(t)
		mustApply(t, ns, []byte(until(at)))
		require.True(t, verify(t, ns, until(at)).Proven)
		again := mustApply(t, ns, []byte(until(at)))
		require.Zero(t, again.Changed)
		require.NotContains(t, strings.Join(again.Warnings, "\n"), "expired")
	}
}
