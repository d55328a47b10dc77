package nat_test

import (
	"net/netip"
	"os/exec"
	"syscall"
	"testing"

	"drawbridge/sim/fabric"
	"drawbridge/sim/nat"
	"drawbridge/sim/netns"
	"drawbridge/sim/netns/netnstest"

	"github.com/google/nftables"
	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

var (
	addr = netip.MustParseAddr
	port = netip.MustParseAddrPort
)

// everything uses each part of a filter, in both families.
var everything = fabric.Filter{
	Guarded: []string{"port0", "port1"},
	Destination: []fabric.DestinationNAT{
		{From: port("203.0.113.1:5432"), To: port("10.0.0.1:5432")},
		{From: port("[2001:db8::1]:5432"), To: port("[fd00::1]:5432")},
	},
	Uplink: "inet0",
	Source: []fabric.SourceNAT{
		{Inside: addr("10.0.0.1"), Outside: addr("203.0.113.1")},
		{Inside: addr("10.0.0.2"), Outside: addr("203.0.113.2")},
		{Inside: addr("fd00::1"), Outside: addr("2001:db8::1")},
	},
	Hairpin:    []netip.Addr{addr("10.0.0.1"), addr("fd00::1")},
	HairpinVia: []netip.Addr{addr("203.0.113.9"), addr("2001:db8::9")},
}

func install(t *testing.T) (*netns.Handle, *nat.Table) {
	t.Helper()
	h := netnstest.New(t)
	table, err := nat.Install(h, everything)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, table.Close()) })
	return h, table
}

// stranger is another program's connection to the same namespace.
func stranger(t *testing.T, h *netns.Handle) *nftables.Conn {
	t.Helper()
	var c *nftables.Conn
	require.NoError(t, h.Do(func() (err error) { c, err = nftables.New(nftables.AsLasting()); return err }))
	t.Cleanup(func() { require.NoError(t, c.CloseLasting()) })
	return c
}

func tables(t *testing.T, c *nftables.Conn) []string {
	t.Helper()
	list, err := c.ListTables()
	require.NoError(t, err)
	var names []string
	for _, table := range list {
		names = append(names, table.Name)
	}
	return names
}

func TestOthersCanNeitherFlushNorChangeTheTable(t *testing.T) {
	h, _ := install(t)
	other := stranger(t, h)
	other.AddTable(&nftables.Table{Name: "enforcer", Family: nftables.TableFamilyINet})
	require.NoError(t, other.Flush())
	require.ElementsMatch(t, []string{nat.TableName, "enforcer"}, tables(t, other))

	other.FlushRuleset()
	require.NoError(t, other.Flush(), "a flush must succeed and skip the table")
	require.Equal(t, []string{nat.TableName}, tables(t, other))
	chains, err := other.ListChains()
	require.NoError(t, err)
	require.Len(t, chains, 3)

	table := &nftables.Table{Name: nat.TableName, Family: nftables.TableFamilyINet}
	other.DelTable(table)
	require.ErrorIs(t, other.Flush(), syscall.EPERM)
	other.AddChain(&nftables.Chain{Name: "intruder", Table: table})
	require.ErrorIs(t, other.Flush(), syscall.EPERM)
	require.Equal(t, []string{nat.TableName}, tables(t, other))
}

func TestCloseTakesTheTableAway(t *testing.T) {
	h := netnstest.New(t)
	table, err := nat.Install(h, everything)
	require.NoError(t, err)
	other := stranger(t, h)
	require.Equal(t, []string{nat.TableName}, tables(t, other))
	require.NoError(t, table.Close())
	require.Empty(t, tables(t, other))
	require.NoError(t, table.Close(), "twice")
}

func elements(t *testing.T, h *netns.Handle, set string) map[string]string {
	t.Helper()
	c := stranger(t, h)
	table := &nftables.Table{Name: nat.TableName, Family: nftables.TableFamilyINet}
	s, err := c.GetSetByName(table, set)
	require.NoError(t, err)
	list, err := c.GetSetElements(s)
	require.NoError(t, err)
	out := make(map[string]string)
	for _, e := range list {
		out[string(e.Key)] = string(e.Val)
	}
	return out
}

func TestChangesAreInTheKernel(t *testing.T) {
	h, table := install(t)
	key4, value4 := "\xcb\x00\x71\x01\x15\x38\x00\x00", "\x0a\x00\x00\x01\x15\x38\x00\x00"
	require.Equal(t, map[string]string{key4: value4}, elements(t, h, "destination4"))
	require.NoError(t, table.Redirect([]fabric.DestinationNAT{
		{From: port("203.0.113.1:5432"), To: port("10.0.0.2:6000")},
		{From: port("[2001:db8::1]:5432"), To: port("[fd00::2]:5432")},
	}))
	require.Equal(t, map[string]string{key4: "\x0a\x00\x00\x02\x17\x70\x00\x00"}, elements(t, h, "destination4"))
	require.Equal(t, port("[fd00::2]:5432"), table.Filter().Destination[1].To)

	require.NoError(t, table.MoveSource(addr("203.0.113.1"), addr("203.0.113.3")))
	require.Equal(t, map[string]string{"\x0a\x00\x00\x01": "\xcb\x00\x71\x03", "\x0a\x00\x00\x02": "\xcb\x00\x71\x02"}, elements(t, h, "source4"))
	require.Equal(t, addr("203.0.113.3"), table.Filter().Source[0].Outside)

	require.NoError(t, table.Guard("port0", false))
	require.Len(t, elements(t, h, "guarded"), 1)
	require.NoError(t, table.Guard("port0", true))
	require.NoError(t, table.Guard("port0", true))
	require.Len(t, elements(t, h, "guarded"), 2)
}

func TestWhatIsNotThereCannotBeChanged(t *testing.T) {
	h, table := install(t)
	before := table.Filter()
	require.ErrorIs(t, table.Guard("port9", true), nat.ErrUnknown)
	require.ErrorIs(t, table.MoveSource(addr("192.0.2.1"), addr("203.0.113.3")), nat.ErrUnknown)
	require.ErrorIs(t, table.MoveSource(addr("203.0.113.1"), addr("2001:db8::3")), nat.ErrUnknown)
	require.ErrorIs(t, table.Redirect([]fabric.DestinationNAT{{From: port("203.0.113.1:1"), To: port("10.0.0.2:1")}}), nat.ErrUnknown)
	require.ErrorIs(t, table.Redirect([]fabric.DestinationNAT{{From: port("203.0.113.1:5432"), To: port("[fd00::2]:1")}}), nat.ErrUnknown)
	require.Equal(t, before, table.Filter())
	require.Len(t, elements(t, h, "destination4"), 1)
}

// An operator can read the table with the ordinary tool, and flush everything else with it.
func TestTheTableIsListable(t *testing.T) {
	nft := netnstest.Tool(t, "nft")
	h, _ := install(t)
	run := func(args ...string) string {
		var out output
		cmd := exec.Command(nft, args...)
		cmd.Stdout, cmd.Stderr = &out, &out
		require.NoError(t, h.Start(cmd))
		require.NoError(t, cmd.Wait(), string(out))
		return string(out)
	}
	run("add", "table", "inet", "enforcer")
	run("flush", "ruleset")
	list := run("list", "ruleset")
	require.NotContains(t, list, "enforcer")
	for _, want := range []string{
		"fib saddr . iif oif",
		"dnat ip to ip daddr . tcp dport map @destination4", "dnat ip6 to ip6 daddr . tcp dport map @destination6",
		"203.0.113.1 . 5432 : 10.0.0.1 . 5432",
		`oifname "inet0" snat ip to ip saddr map @source4`, `oifname "inet0" snat ip6 to ip6 saddr map @source6`,
		"ip saddr . ip daddr @hairpin4 snat ip to 203.0.113.9", "ip6 saddr . ip6 daddr @hairpin6 snat ip6 to 2001:db8::9",
	} {
		require.Contains(t, list, want)
	}
}

type output []byte

func (o *output) Write(b []byte) (int, error) { *o = append(*o, b...); return len(b), nil }
