package nft

import (
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"drawbridge/sim/netns"
	"drawbridge/sim/netns/netnstest"
)

// attempt runs nft(8) and returns whether it succeeded.
func attempt(t *testing.T, ns *netns.Handle, args ...string) bool {
	t.Helper()
	cmd := exec.Command(netnstest.Tool(t, "nft"), args...)
	require.NoError(t, ns.Start(cmd))
	return cmd.Wait() == nil
}

// TestAnOwnedTable: others can neither change nor flush it, it outlives its owner, and the next one adopts it as it is.
func TestAnOwnedTable(t *testing.T) {
	ns := netnstest.New(t)
	var c *Conn
	require.NoError(t, ns.Do(func() (err error) { c, err = Open("drawbridge"); return err }))
	missing, err := c.Missing(t.Context())
	require.NoError(t, err)
	for _, f := range missing {
		if f == OwnedTable {
			t.Skip("this kernel knows no owned tables that persist")
		}
	}
	require.NoError(t, c.Own(t.Context()))
	install(t, c, sampleTable())
	require.False(t, attempt(t, ns, "delete table inet drawbridge"))
	require.False(t, attempt(t, ns, "add chain inet drawbridge more"))
	require.True(t, attempt(t, ns, "flush ruleset"))
	require.Equal(t, canonical(sampleTable()), canonical(read(t, c).Table))

	second := openTable(t, ns, "drawbridge")
	require.ErrorIs(t, second.Own(t.Context()), ErrOwned)
	require.ErrorIs(t, second.Delete(t.Context(), 0), unix.EPERM)

	third := openTable(t, ns, "drawbridge")
	require.NoError(t, c.Close())
	require.NoError(t, third.Own(t.Context()))
	got := read(t, third)
	require.Equal(t, canonical(sampleTable()), canonical(got.Table))
	require.False(t, attempt(t, ns, "delete table inet drawbridge"))
}

// TestATableThatBelongsToNobody is replaced by one that is owned.
func TestATableThatBelongsToNobody(t *testing.T) {
	c, ns := open(t)
	install(t, c, sampleTable())
	owner := openTable(t, ns, "drawbridge")
	require.NoError(t, owner.Own(t.Context()))
	state := read(t, owner)
	require.ErrorIs(t, state.Foreign, ErrForeign)
	require.NoError(t, owner.Replace(t.Context(), sampleTable(), true, state.Generation))
	require.NoError(t, read(t, owner).Foreign)
	require.False(t, attempt(t, ns, "flush table inet drawbridge"))
}
