package nft

import (
	"bytes"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"drawbridge/enforcer/ruleset"
	"drawbridge/sim/netns"
	"drawbridge/sim/netns/netnstest"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

func open(t *testing.T) (*Conn, *netns.Handle) {
	t.Helper()
	ns := netnstest.New(t)
	return openTable(t, ns, "drawbridge"), ns
}

func openTable(t *testing.T, ns *netns.Handle, table string) *Conn {
	t.Helper()
	var c *Conn
	require.NoError(t, ns.Do(func() (err error) { c, err = Open(table); return err }))
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c
}

func read(t *testing.T, c *Conn) State {
	t.Helper()
	s, err := c.Read(t.Context())
	require.NoError(t, err)
	return s
}

// install writes a table into an empty namespace and reads it back.
func install(t *testing.T, c *Conn, want ruleset.Table) State {
	t.Helper()
	before := read(t, c)
	require.False(t, before.Exists)
	require.NoError(t, c.Replace(t.Context(), want, false, before.Generation))
	return read(t, c)
}

func TestWhatWasWrittenReadsBack(t *testing.T) {
	c, _ := open(t)
	got := install(t, c, sampleTable())
	require.NoError(t, got.Foreign)
	require.True(t, got.Exists)
	require.Equal(t, canonical(sampleTable()), canonical(got.Table))
}

func TestThisKernelsFeatures(t *testing.T) {
	c, _ := open(t)
	before := read(t, c)
	missing, err := c.Missing(t.Context())
	require.NoError(t, err)
	t.Logf("missing: %q", missing)
	after := read(t, c)
	require.Equal(t, before, after, "a probe must leave nothing behind, not even a generation")
}

func TestARefusedBatchChangesNothing(t *testing.T) {
	c, _ := open(t)
	before := install(t, c, sampleTable())
	broken := sampleTable()
	broken.Chains[0].Rules = append(broken.Chains[0].Rules, rule("to nowhere", ruleset.Verdict{Kind: ruleset.Jump, Chain: "nowhere"}))

	err := c.Replace(t.Context(), broken, true, before.Generation)
	require.ErrorIs(t, err, ErrRejected)
	require.NotErrorIs(t, err, ErrUnknownOutcome)
	var refused *RefusedError
	require.ErrorAs(t, err, &refused)
	require.Contains(t, refused.Message, `add rule drawbridge admission "to nowhere"`)
	require.Equal(t, before, read(t, c))
}

func TestACommitOnAnOldGenerationIsRefused(t *testing.T) {
	c, ns := open(t)
	before := install(t, c, sampleTable())
	other := openTable(t, ns, "another")
	small := ruleset.Table{Family: ruleset.FamilyINET, Name: "another"}
	require.NoError(t, other.Replace(t.Context(), small, false, before.Generation))

	require.ErrorIs(t, c.Delete(t.Context(), before.Generation), ErrGeneration)
	now := read(t, c)
	require.Equal(t, before.Table, now.Table)
	require.NoError(t, c.Delete(t.Context(), now.Generation))
	require.False(t, read(t, c).Exists)
}

func TestManyElementsCrossMessages(t *testing.T) {
	c, _ := open(t)
	table := ruleset.Table{Family: ruleset.FamilyINET, Name: "drawbridge", Sets: []ruleset.Set{
		{Name: "ranges", Key: []ruleset.DataType{ruleset.TypeIPv4Addr}, Interval: true},
		{Name: "endpoints", Key: []ruleset.DataType{ruleset.TypeIPv4Addr, ruleset.TypeInetService}},
	}}
	for i := range 5000 {
		a := netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}).AsSlice()
		table.Sets[0].Elements = append(table.Sets[0].Elements, ruleset.Element{Key: ruleset.Key(a), End: ruleset.Key(a)})
		table.Sets[1].Elements = append(table.Sets[1].Elements, ruleset.Element{Key: ruleset.Key(a) + ruleset.Key(port(5432)), Comment: strings.Repeat("x", maxComment-1)})
	}
	messages, err := encodeReplace(table, false, 0, false)
	require.NoError(t, err)
	require.Greater(t, len(messages), 30, "the elements must be spread over messages")
	got := install(t, c, table)
	require.NoError(t, got.Foreign)
	require.Equal(t, canonical(table), canonical(got.Table))
}

// nft runs nft(8) in the namespace.
func nft(t *testing.T, ns *netns.Handle, args ...string) string {
	t.Helper()
	path := netnstest.Tool(t, "nft")
	cmd := exec.Command(path, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	require.NoError(t, ns.Start(cmd))
	require.NoError(t, cmd.Wait(), out.String())
	return out.String()
}

func TestOperatorsCanListTheTable(t *testing.T) {
	c, ns := open(t)
	install(t, c, sampleTable())
	listed := nft(t, ns, "list", "ruleset")
	for _, want := range []string{
		`comment "the locked byte"`, "198.51.100.0/28 timeout 1h", "255.255.255.0/24", "0.0.0.0/0", "ffff::/16", "10.0.0.0/24,", "10.0.1.0,",
		"203.0.113.140 . 5432 : goto db_orders", "tcp option mptcp exists", "reset tcp option fastopen", "reject with icmpx admin-prohibited",
		"@ih,0,64 0x804d2162f", "ct mark set ct mark & 0xff", "fib saddr . iif oif 0 notrack", `"inet0" . 203.0.113.140 . 5432`,
	} {
		require.Contains(t, listed, want)
	}
}

func TestTamperingShows(t *testing.T) {
	tampering := map[string]struct {
		command string
		foreign bool
	}{
		"a rule in front":       {"insert rule inet drawbridge admission accept", false},
		"a rule removed":        {"flush chain inet drawbridge db_orders", false},
		"an element":            {"add element inet drawbridge src_orders { 192.0.2.0/24 }", false},
		"an element removed":    {"delete element inet drawbridge databases { 203.0.113.141 . 5432 }", false},
		"the policy":            {"chain inet drawbridge admission { policy drop; }", false},
		"another chain":         {"add chain inet drawbridge extra { type filter hook prerouting priority -400; policy accept; }", false},
		"another set":           {"add set inet drawbridge extra { type ipv4_addr; }", false},
		"a dormant table":       {"add table inet drawbridge { flags dormant; }", true},
		"an unknown expression": {"insert rule inet drawbridge admission meta mark 7 accept", true},
		"a changed value":       {"insert rule inet drawbridge admission ip saddr & 255.0.0.0 == 10.0.0.0 meta mark set 1", true},
		"an unknown set":        {"add set inet drawbridge extra { type ether_addr; }", true},
		"a map with data":       {"add map inet drawbridge extra { type ipv4_addr : inet_service; }", true},
		"a NAT chain":           {"add chain inet drawbridge extra { type nat hook prerouting priority -100; }", true},
		"a chain at ingress":    {"add chain inet drawbridge extra { type filter hook ingress device lo priority 0; }", true},
		"a catch-all element":   {"add element inet drawbridge databases { * : accept }", true},
		"a limit over":          {"insert rule inet drawbridge admission limit rate over 3/minute drop", true},
	}
	for name, tt := range tampering {
		t.Run(name, func(t *testing.T) {
			c, ns := open(t)
			before := install(t, c, sampleTable())
			nft(t, ns, tt.command)
			after := read(t, c)
			require.True(t, after.Exists)
			if tt.foreign {
				require.ErrorIs(t, after.Foreign, ErrForeign)
				require.Empty(t, after.Table)
			} else {
				require.NoError(t, after.Foreign)
				require.NotEqual(t, canonical(before.Table), canonical(after.Table))
			}
			require.NoError(t, c.Replace(t.Context(), sampleTable(), true, after.Generation))
			require.Equal(t, before.Table, read(t, c).Table, "a replacement must repair it")
		})
	}
}

func TestInvalidTablesAreNotSent(t *testing.T) {
	broken := map[string]func(*ruleset.Table){
		"unknown field":   func(t *ruleset.Table) { add(t, ruleset.Match{Op: ruleset.Eq}) },
		"value too short": func(t *ruleset.Table) { add(t, match(ruleset.IPSaddr, []byte{1})) },
		"mask too long": func(t *ruleset.Table) {
			add(t, ruleset.Match{Field: ruleset.F(ruleset.TCPFlags), Mask: []byte{1, 2}, Op: ruleset.Eq, Value: []byte{1}})
		},
		"no comparison":         func(t *ruleset.Table) { add(t, ruleset.Match{Field: ruleset.F(ruleset.TCPFlags), Value: []byte{1}}) },
		"mark outside its mask": func(t *ruleset.Table) { add(t, ruleset.SetMark{Mask: 1, Value: 2}) },
		"jump to no chain":      func(t *ruleset.Table) { add(t, ruleset.Verdict{Kind: ruleset.Jump}) },
		"empty limit":           func(t *ruleset.Table) { add(t, ruleset.Limit{}) },
		"dynset of no operation": func(t *ruleset.Table) {
			add(t, ruleset.Dynset{Set: "seen", Key: []ruleset.Field{ruleset.F(ruleset.CTID)}})
		},
		"fraction of a second":       func(t *ruleset.Table) { t.Sets[7].Timeout = time.Second / 3 },
		"icmpv6 type without icmpv6": func(t *ruleset.Table) { add(t, match(ruleset.ICMPv6Type, []byte{1})) },
		"empty anonymous set":        func(t *ruleset.Table) { add(t, ruleset.InAnonymous{Field: ruleset.F(ruleset.IPSaddr)}) },
		"unbounded dynamic set":      func(t *ruleset.Table) { t.Sets[7].Size = 0 },
		"key of no type":             func(t *ruleset.Table) { t.Sets[0].Key = nil },
		"short key":                  func(t *ruleset.Table) { t.Sets[0].Elements[0].Key = "x" },
		"range backwards":            func(t *ruleset.Table) { t.Sets[4].Elements[1].End = ruleset.Key(addr("9.0.0.0")) },
		"range in a plain set":       func(t *ruleset.Table) { t.Sets[0].Elements[0].End = t.Sets[0].Elements[0].Key },
		"verdict in a plain set":     func(t *ruleset.Table) { t.Sets[0].Elements[0].Verdict = accept },
		"timeout without timeouts":   func(t *ruleset.Table) { t.Sets[0].Elements[0].Timeout = time.Hour },
		"comment too long":           func(t *ruleset.Table) { t.Chains[0].Rules[0].Comment = strings.Repeat("x", maxComment+1) },
		"policy of a jump":           func(t *ruleset.Table) { t.Chains[0].Policy = ruleset.Verdict{Kind: ruleset.Jump, Chain: "refuse"} },
		"policy without a hook":      func(t *ruleset.Table) { t.Chains[7].Policy = accept },
		"another family":             func(t *ruleset.Table) { t.Family = "bridge" },
	}
	_, err := encodeReplace(sampleTable(), false, 0, false)
	require.NoError(t, err)
	for name, breakIt := range broken {
		t.Run(name, func(t *testing.T) {
			table := sampleTable()
			breakIt(&table)
			_, err := encodeReplace(table, false, 0, false)
			require.ErrorIs(t, err, ErrInvalid)
		})
	}
}

func add(t *ruleset.Table, s ruleset.Statement) {
	t.Chains[0].Rules = append(t.Chains[0].Rules, ruleset.Rule{Statements: []ruleset.Statement{s}})
}
